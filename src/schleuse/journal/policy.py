"""Policies: whose signatures make a checkpoint worth believing (C2SP tlog-policy, journal.md § 10).

log <vkey> [url]
witness <name> <vkey> [url]
group <name> all|any|<k> <member>…
quorum <name>|none
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import Checkpoint, open_checkpoint
from schleuse.journal.cosignature import CosignerKey, time_of
from schleuse.journal.note import LogKey, Note, NoteRefusedError, SignatureLine, open_note, parse_vkey
from schleuse.journal.text import decode_decimal

NONE = "none"  #: quorum of a policy that asks for no witness

MAX_POLICY = 1 << 20  #: bytes; ours, far above any policy with 2,000 members


class BadPolicyError(MalformedError):
    """A policy file that says something twice, too early or not at all; whoever wrote it can change it."""

    code = "journal.bad-policy"


class NoQuorumError(NoteRefusedError):
    """Validly signed by the log, but too few of the witnesses that the policy asks for."""

    code = "journal.no-quorum"


@dataclass(frozen=True, slots=True)
class Log:
    """A log whose checkpoints count. url: where it is read, if the file says so."""

    key: LogKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness under the name that the policy gives it (its key has a name of its own)."""

    name: str
    key: CosignerKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Satisfied when at least `threshold` of its members are; members are names of witnesses and groups."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """A checkpoint that satisfies a policy.

    times: by the policy's name of each witness that cosigned, its earliest time in seconds since 1970.
    since_s: smallest time at which the quorum was complete: what it covers existed by then. None without quorum.
    """

    checkpoint: Checkpoint
    times: dict[str, int]
    since_s: int | None


@dataclass(frozen=True, slots=True)
class Policy:
    """Parsed by `parse_policy`, which makes sure that names exist, and before their use. quorum: a name or NONE."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    @property
    def log_keys(self) -> tuple[LogKey, ...]:
        """The keys of all logs."""
        return tuple(log.key for log in self.logs)

    @property
    def witness_keys(self) -> tuple[CosignerKey, ...]:
        """The keys of all witnesses."""
        return tuple(witness.key for witness in self.witnesses)

    def is_satisfied(self, present: Collection[str]) -> bool:
        """Whether these witnesses (by the policy's names) make the quorum."""
        satisfied = set(present)
        for group in self.groups:  # members stand on earlier lines, so one pass is enough
            if sum(member in satisfied for member in group.members) >= group.threshold:
                satisfied.add(group.name)
        return self.quorum == NONE or self.quorum in satisfied

    def judge(self, note: Note) -> Judged:
        """The checkpoint of this note, believed under this policy.

        Raises MalformedError, NoteRefusedError (no line of a known log, or a false line of anybody known) and
        NoQuorumError.
        """
        checkpoint = open_checkpoint(note, self.log_keys)
        times = self.cosigned(note)
        if not self.is_satisfied(times):
            raise NoQuorumError(
                f"size {checkpoint.size} of {checkpoint.origin} has cosignatures of "
                f"{', '.join(sorted(times)) or 'nobody'}, the policy asks for {self.quorum}"
            )
        return Judged(checkpoint, times, self._since(times))

    def cosigned(self, note: Note) -> dict[str, int]:
        """Which witnesses have cosigned, each with its earliest time. Raises NoteRefusedError for a false line."""
        times: dict[str, int] = {}
        for witness, line in self.witness_lines(note):
            time_s = time_of(line.signature)
            times[witness.name] = min(time_s, times.get(witness.name, time_s))
        return times

    def signed_until(self, note: Note) -> int | None:
        """The latest time, in seconds since 1970, that a quorum has signed as past or present; None without quorum.

        A witness with a clock that is ahead moves it only where it makes a quorum alone. Raises NoteRefusedError.
        """
        times: dict[str, int] = {}
        for witness, line in self.witness_lines(note):
            times[witness.name] = max(time_of(line.signature), times.get(witness.name, 0))
        if self.quorum == NONE:
            return None
        down = sorted(times.values(), reverse=True)
        return next((t for t in down if self.is_satisfied([n for n, at in times.items() if at >= t])), None)

    def witness_lines(self, note: Note) -> list[tuple[Witness, SignatureLine]]:
        """The note's lines of this policy's witnesses, all true; others are left out. Raises NoteRefusedError."""
        by_key = {witness.key: witness for witness in self.witnesses}
        ids = {(key.key.name, key.key.id) for key in by_key}
        lines = tuple(line for line in note.lines if (line.name, line.key_id) in ids)
        if not lines:
            return []
        return [(by_key[key], line) for key, line in open_note(Note(note.text, lines), list(by_key))]

    def _since(self, times: dict[str, int]) -> int | None:
        if self.quorum == NONE:
            return None
        return next(t for t in sorted(times.values()) if self.is_satisfied([n for n, at in times.items() if at <= t]))


@dataclass(slots=True)
class _Reader:
    """What the lines of a policy file have defined so far."""

    logs: list[Log] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    names: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)
    keys: set[bytes] = field(default_factory=set)

    def log(self, words: list[str]) -> None:
        _expect(1 <= len(words) <= 2, "log <vkey> [url]")
        key = LogKey(parse_vkey(words[0]))
        self._claim_key(key.key.public_key)
        self.logs.append(Log(key, *words[1:]))

    def witness(self, words: list[str]) -> None:
        _expect(2 <= len(words) <= 3, "witness <name> <vkey> [url]")
        key = CosignerKey(parse_vkey(words[1]))
        self._claim_key(key.key.public_key)
        self.witnesses.append(Witness(self._claim_name(words[0]), key, *words[2:]))

    def group(self, words: list[str]) -> None:
        _expect(len(words) >= 3, "group <name> all|any|<k> <member>…")
        name, threshold, *members = words
        for member in members:
            if member not in self.names:
                raise BadPolicyError(f"{member} is not defined before the group {name}")
            if member in self.members:
                raise BadPolicyError(f"{member} is a member of two groups, or twice of one")
            self.members.add(member)
        self.groups.append(Group(self._claim_name(name), _threshold(threshold, len(members)), tuple(members)))

    def set_quorum(self, words: list[str]) -> None:
        _expect(len(words) == 1, "quorum <name>|none")
        if self.quorum is not None:
            raise BadPolicyError("a policy has exactly one quorum, found a second")
        if words[0] != NONE and words[0] not in self.names:
            raise BadPolicyError(f"the quorum {words[0]} is not defined before its line")
        self.quorum = words[0]

    def _claim_name(self, name: str) -> str:
        if name == NONE or name in self.names:
            raise BadPolicyError(f"the name {name} is taken")
        self.names.add(name)
        return name

    def _claim_key(self, public_key: bytes) -> None:
        # One key under two names would count twice for a quorum.
        if public_key in self.keys:
            raise BadPolicyError("the same key stands in two lines")
        self.keys.add(public_key)


def parse_policy(data: bytes) -> Policy:
    """The policy in a file. Raises MalformedError, naming the line."""
    reader = _Reader()
    verbs: dict[str, Callable[[list[str]], None]] = {
        "log": reader.log,
        "witness": reader.witness,
        "group": reader.group,
        "quorum": reader.set_quorum,
    }
    for number, line in enumerate(_lines(data), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in verbs:
            raise BadPolicyError(f"line {number}: found none of log, witness, group and quorum")
        try:
            verbs[words[0]](words[1:])
        except MalformedError as cause:
            raise BadPolicyError(f"line {number}: {cause}") from cause
    if reader.quorum is None or not reader.logs:
        raise BadPolicyError("a policy has a log and a quorum")
    return Policy(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)


def _lines(data: bytes) -> list[str]:
    try:
        if len(data) <= MAX_POLICY:
            return data.decode().split("\n")
    except UnicodeDecodeError as cause:
        raise BadPolicyError("a policy is UTF-8") from cause
    raise BadPolicyError(f"a policy has at most {MAX_POLICY} bytes")


def _threshold(word: str, members: int) -> int:
    if word in {"all", "any"}:
        return members if word == "all" else 1
    threshold = decode_decimal(word)
    if not 1 <= threshold <= members:
        raise BadPolicyError(f"found {threshold} of {members} members, expected 1 to {members}")
    return threshold


def _expect(right: bool, form: str) -> None:
    if not right:
        raise BadPolicyError(f"expected {form}")
