"""The log of accepted commands: one file an epoch, each naming the digest of the one before.

    <home>/switch/log/0000000001.json, 0000000002.json, …

Whoever may write to the folder can append; what counts are the signatures, which every reader checks by itself
(SW-04). Appending is one `link` that fails if the epoch is taken: it needs no lock, no database, nothing that runs
(SW-05).
An epoch that nobody can read closes everything; one that is not authorised changes nothing, but a closing whose signer
has left the configuration stays in force.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from schleuse.errors import ConflictError, Error, UnavailableError
from schleuse.journal.opening import canonical_json, parse_canonical_json
from schleuse.switch.disk import LinkingDisk, SwitchDisk, place
from schleuse.switch.documents import (
    MAX_DOCUMENT,
    BadCommandError,
    Command,
    Rights,
    SignedCommand,
    UnknownSignerError,
    parse_time,
    signed_from,
    time_text,
)
from schleuse.switch.standing import UNKNOWN_TIME, Rule

GENESIS = "0" * 64  #: what the first epoch names as the one before
UNKNOWN = "f" * 64  #: what a closing names when nobody can read the one before
_NAME = re.compile(r"[0-9]{10}\.json", re.ASCII)
LATEST = timedelta(minutes=5)  #: a command that was requested longer after its acceptance has a wrong clock


class SwitchLogError(UnavailableError):
    """The folder of the switch's log cannot be read or written; its operator looks at the disk and its rights."""

    code = "switch.log"


class RefusedCommandError(ConflictError):
    """The command contradicts what is accepted: it has expired, or its id was used for something else."""

    code = "switch.refused"


@dataclass(frozen=True, slots=True)
class Accepted:
    """One epoch. data: the file. signed: None if nobody can read it. fault: why it has no effect, or why it cannot be
    read; "" for a command that counts. remark: what is odd about a command that counts all the same.
    """

    epoch: int
    data: bytes
    accepted_at: datetime
    signed: SignedCommand | None
    fault: str = ""
    remark: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def command(self) -> Command | None:
        """What is in force; None for what nobody can read or nobody was allowed to order."""
        return self.signed.command if self.signed is not None and not self.fault else None

    @property
    def rule(self) -> Rule | None:
        """What the fold gets; None for a command that was not authorised."""
        if self.signed is None:
            return Rule(self.epoch, self.accepted_at, None)
        return None if self.command is None else Rule(self.epoch, self.accepted_at, self.command)

    @property
    def id(self) -> str | None:
        """Of the command, if it counts: a file that anybody may have written takes nobody's id away."""
        return self.command.id if self.command is not None else None


def rules_of(entries: Iterable[Accepted]) -> list[Rule]:
    """What the fold gets of these epochs."""
    return [rule for one in entries if (rule := one.rule) is not None]


#: The octets of an epoch as somebody else has kept them, or None: for who appends when the log's own file is damaged.
Spare = Callable[[int], bytes | None]


def no_spare(_epoch: int) -> bytes | None:
    """Nobody has kept any."""
    return None


#: What `SwitchLog.mark` returns: another value means that something in the folder is new, gone or replaced.
Mark = tuple[int, int]


class SwitchLog:
    """The folder. Thread-safe; any number of processes."""

    def __init__(self, folder: Path, rights: Rights, disk: SwitchDisk | None = None, spare: Spare = no_spare) -> None:
        self.folder = folder
        self._spare = spare
        self._prefix = f"{folder}{os.sep}"
        self._rights = rights
        self._disk = disk or LinkingDisk()

    @property
    def exists(self) -> bool:
        """Whether the folder is there; `schleuse init` makes it, and no role ever does."""
        return self.folder.is_dir()

    def has(self, epoch: int) -> bool:
        """Whether this epoch was accepted; a microsecond, so that it can be asked for each unit of work."""
        return os.access(f"{self._prefix}{epoch:010d}.json", os.F_OK)

    def mark(self) -> Mark | None:
        """Changes with every change of the folder; None while it cannot be seen. A microsecond."""
        try:
            found = os.stat(self.folder)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def inodes(self) -> dict[int, int]:
        """Epoch -> number of its file, of all epochs that are there. Raises SwitchLogError."""
        try:
            with os.scandir(self.folder) as found:
                return {int(one.name[:10]): one.inode() for one in found if _NAME.fullmatch(one.name)}
        except OSError as cause:
            raise SwitchLogError(f"the switch's log cannot be read ({cause.strerror})") from cause

    def read(self, epoch: int, before: str, known: Collection[str] = ()) -> Accepted:
        """One epoch, judged. before: digest of the epoch before. known: ids of earlier commands.

        Raises SwitchLogError when the disk does not answer.
        """
        return self.judge(epoch, self.raw(epoch), before, known)

    def raw(self, epoch: int) -> bytes:
        """The file, or as much of it as shows that it is too long. Raises SwitchLogError."""
        try:
            # Not blocking: whoever puts a pipe in this place must not stop every role.
            fd = os.open(self._path(epoch), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                return file.read(MAX_DOCUMENT + 1)
        except OSError as cause:
            raise SwitchLogError(f"epoch {epoch} of the switch cannot be read ({cause.strerror})") from cause

    def judge(self, epoch: int, data: bytes, before: str, known: Collection[str]) -> Accepted:
        """What these octets are as this epoch; never raises, because what cannot be read closes."""
        try:
            accepted_at, signed = _opened(epoch, data, before)
        except (Error, ValueError, TypeError, KeyError, OverflowError) as cause:
            return Accepted(epoch, data, UNKNOWN_TIME, None, f"unreadable: {cause}")
        return Accepted(epoch, data, accepted_at, signed, *self._fault(signed, accepted_at, known))

    def read_all(self) -> list[Accepted]:
        """Every epoch, from 1 on. Raises SwitchLogError."""
        if not self.exists:
            raise SwitchLogError(f"{self.folder} is not there; `schleuse switch init` makes it")
        found: list[Accepted] = []
        known: set[str] = set()
        while self.has(len(found) + 1):
            before = found[-1].digest if found else GENESIS
            found.append(self.read(len(found) + 1, before, known))
            if found[-1].id is not None:
                known.add(found[-1].id)
        return found

    def append(self, signed: SignedCommand, now: datetime) -> Accepted:
        """Accept the command as the next epoch; the same command again returns the epoch that it has (SW-16).

        A closing needs no epoch before it to be readable: where neither the log nor a copy says which it follows, it
        is one that nobody can judge, and so closes everything (SW-01, SW-02).
        Raises NotAuthorisedError, RefusedCommandError, SwitchLogError.
        """
        self._rights.check(signed, now)
        if signed.command.opening and signed.command.requested_at > now + LATEST:  # a closing is never refused for that
            raise RefusedCommandError("the command was requested in the future; compare the clocks")
        expired = _expired(signed.command, now)
        while True:
            last = self._last()
            same = self._find(signed.command, last)
            if same is not None and same.signed is not None:
                if same.signed.command.hash != signed.command.hash:
                    raise RefusedCommandError(f"the id of the command belongs to epoch {same.epoch} already")
                return same
            if expired:
                raise RefusedCommandError(expired)
            before = self._before(signed.command, last)
            if self.restore(last + 1, _epoch(last + 1, now, before, signed)):
                return self.read(last + 1, before)

    def _last(self) -> int:
        """The last epoch before a gap, 0 if there is none. Raises SwitchLogError."""
        if not self.exists:
            raise SwitchLogError(f"{self.folder} is not there; `schleuse switch init` makes it")
        there = self.inodes()
        return next(epoch for epoch in range(len(there) + 1) if epoch + 1 not in there)

    def _find(self, command: Command, last: int) -> Accepted | None:
        """The command of this id, if it was accepted. Verifies only where the id occurs: there may be thousands."""
        needle = canonical_json(command.id)
        for epoch in range(1, last + 1):
            try:
                data = self._kept(epoch)
                if needle not in data:
                    continue
                found = self.judge(epoch, data, self._digest(epoch - 1), ())
            except SwitchLogError:
                if command.opening:
                    raise
                continue  # closing twice is harmless
            if found.id == command.id:
                return found
        return None

    def _before(self, command: Command, last: int) -> str:
        try:
            return self._digest(last)
        except SwitchLogError:
            if command.opening:
                raise
            return UNKNOWN

    def _digest(self, epoch: int) -> str:
        return hashlib.sha256(self._kept(epoch)).hexdigest() if epoch else GENESIS

    def _kept(self, epoch: int) -> bytes:
        """For who appends: the file, or what a copy has of it. Raises SwitchLogError."""
        try:
            return self.raw(epoch)
        except SwitchLogError:
            spare = self._spare(epoch)
            if spare is None:
                raise
            return spare

    def restore(self, epoch: int, data: bytes) -> bool:
        """Write the file of an epoch, durably, unless it is there. Returns whether we did. Raises SwitchLogError."""
        try:
            return place(self._disk, self._path(epoch), data)
        except OSError as cause:
            raise SwitchLogError(f"the switch's log cannot be written ({cause.strerror})") from cause

    def _fault(self, signed: SignedCommand, accepted_at: datetime, known: Collection[str]) -> tuple[str, str]:
        """Why it has no effect, and what is odd if it has one."""
        if signed.command.id in known:
            return "a command of this id was accepted before", ""
        expired = _expired(signed.command, accepted_at)
        if expired:
            return expired, ""
        try:
            self._rights.check(signed, accepted_at)
        except UnknownSignerError as error:
            # Who takes an operator out of the configuration must not open what that operator has closed (SW-03).
            return (str(error), "") if signed.command.opening else ("", str(error))
        except Error as error:
            return str(error), ""
        return "", ""

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{epoch:010d}.json"


def create_log(folder: Path) -> None:
    """An empty log: everything is open. Only `schleuse init` and `schleuse switch init` do this."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=False)


def _expired(command: Command, accepted_at: datetime) -> str:
    if command.expires_at is not None and accepted_at > command.expires_at:
        return f"its approval ended at {time_text(command.expires_at)}"
    return ""


def _epoch(epoch: int, now: datetime, before: str, signed: SignedCommand) -> bytes:
    data = canonical_json(
        {"epoch": epoch, "accepted_at": time_text(now), "previous": before, "signed": signed.encode()}
    )
    if len(data) > MAX_DOCUMENT:
        raise BadCommandError(f"a command has at most {MAX_DOCUMENT} octets, found {len(data)}")
    return data


def _opened(epoch: int, data: bytes, before: str) -> tuple[datetime, SignedCommand]:
    if len(data) > MAX_DOCUMENT:
        raise BadCommandError(f"an epoch has at most {MAX_DOCUMENT} octets")
    value = parse_canonical_json(data)
    if not isinstance(value, dict) or set(value) != {"epoch", "accepted_at", "previous", "signed"}:
        raise BadCommandError("an epoch has epoch, accepted_at, previous and signed")
    if value["epoch"] != epoch or value["previous"] != before:
        raise BadCommandError("it does not follow the epoch before it")
    return parse_time(str(value["accepted_at"])), signed_from(value["signed"])
