"""Whether the store reflects what the journal says of keys, or is an older copy of itself (decision 0020).

The store remembers how much of each log it reflects. What the log says of keys from there on is compared at the log's
start: little is missing after a crash, and much after somebody put an older backup back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from threading import Lock

#: A crash leaves keys unwritten whose entries are at most this much older than the vault's last (`ledger`), in
#: microseconds.
IN_FLIGHT_US = 130_000_000

Key = tuple[bytes, int]


@dataclass(slots=True)
class KeyChanges:
    """What a part of a log says of keys. created: time by (subject, version), in microseconds since 1970.

    released: keys that the vault had when it wrote a release. last_us: time of its newest entry about a key, 0 without.
    """

    created: dict[Key, int] = field(default_factory=dict)
    released: set[Key] = field(default_factory=set)
    destroyed: set[bytes] = field(default_factory=set)
    last_us: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Known:
    """What the store says of the same. versions: the last by subject, of those it has."""

    versions: Mapping[bytes, int]
    keys: Collection[Key]
    erased: Collection[bytes]


@dataclass(frozen=True, slots=True, repr=False)
class Difference:
    """What to do. destroy: persons whose erasure the store does not reflect. used_up: the last version of subjects.

    lost: keys that were kept once and are not here.
    """

    destroy: frozenset[bytes]
    used_up: Mapping[bytes, int]
    lost: frozenset[Key]


def compare(changes: KeyChanges, known: Known) -> Difference:
    """Tell what a crash leaves from what only an older store explains (journal.md § 14.1).

    A key is lost if its subject is not here (it is kept before any entry names it), if the vault released it, or if
    it is older than anything in flight at the end. A version that the store counts as given was never kept.
    """
    gone = changes.destroyed | set(known.erased)
    used_up: dict[bytes, int] = {}
    lost: set[Key] = {key for key in changes.released if key not in known.keys and key[0] not in gone}
    for (subject, version), at_us in changes.created.items():
        if subject in gone or (subject, version) in known.keys:
            continue
        last = known.versions.get(subject)
        if last is not None and version <= last:
            continue
        if last is None or at_us < changes.last_us - IN_FLIGHT_US:
            lost.add((subject, version))
        if last is not None:
            used_up[subject] = max(version, used_up.get(subject, 0))
    return Difference(frozenset(changes.destroyed - set(known.erased)), used_up, frozenset(lost))


@dataclass(eq=False, slots=True)
class Change:
    """A change of keys on its way: its entries stand at `floor` or above. subject: of an erasure."""

    floor: int
    subject: bytes | None = None


class Changes:
    """Those of one log that the store does not reflect yet. For any thread."""

    def __init__(self) -> None:
        self._open: frozenset[Change] = frozenset()
        self._changing = Lock()

    def begin(self, top: int, subject: bytes | None = None) -> Change:
        """top: a size of the log, so that an entry written later stands there or above."""
        change = Change(top, subject)
        with self._changing:
            self._open |= {change}
        return change

    def end(self, change: Change) -> None:
        """The store reflects it, or need not; with an erasure, earlier attempts at the same."""
        with self._changing:
            self._open = frozenset(one for one in self._open if one is not change and not _same(one, change))

    def reflected(self, top: int, ending: Change | None = None) -> int:
        """What the store may say of itself once `ending` is in it. top: read before this is called."""
        others = [one.floor for one in self._open if one is not ending and not _same(one, ending)]
        return min([top, *others])


def _same(one: Change, ending: Change | None) -> bool:
    return ending is not None and ending.subject is not None and one.subject == ending.subject
