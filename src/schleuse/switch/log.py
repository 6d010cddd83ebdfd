"""The log of accepted commands: one file an epoch, each naming the digest of the one before.

    <home>/switch/log/0000000001.json, 0000000002.json, …

Whoever may write to the folder can append; what counts are the signatures, which every reader checks by itself
(SW-04). Appending is one `link` that fails if the epoch is taken: it needs no lock, no database, nothing that runs
(SW-05).
An epoch that nobody can read closes everything; one that is not authorised changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from schleuse.errors import ConflictError, Error, UnavailableError
from schleuse.journal.opening import canonical_json, parse_canonical_json
from schleuse.switch.documents import (
    MAX_DOCUMENT,
    BadCommandError,
    Rights,
    SignedCommand,
    parse_time,
    signed_from,
    time_text,
)
from schleuse.switch.standing import UNKNOWN_TIME, Rule

GENESIS = "0" * 64  #: what the first epoch names as the one before
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
    read; "" for a command that counts."""

    epoch: int
    data: bytes
    accepted_at: datetime
    signed: SignedCommand | None
    fault: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def rule(self) -> Rule | None:
        """What the fold gets; None for a command that was not authorised."""
        if self.signed is None:
            return Rule(self.epoch, self.accepted_at, None)
        return None if self.fault else Rule(self.epoch, self.accepted_at, self.signed.command)


class SwitchLog:
    """The folder. Thread-safe; any number of processes."""

    def __init__(self, folder: Path, rights: Rights) -> None:
        self.folder = folder
        self._rights = rights

    @property
    def exists(self) -> bool:
        """Whether the folder is there; `schleuse init` makes it, and no role ever does."""
        return self.folder.is_dir()

    def has(self, epoch: int) -> bool:
        """Whether this epoch was accepted; a microsecond, so that it can be asked for each unit of work."""
        return os.access(self._path(epoch), os.F_OK)

    def read(self, epoch: int, before: str, known: frozenset[str] = frozenset()) -> Accepted:
        """One epoch, judged. before: digest of the epoch before. known: ids of earlier commands.

        Raises SwitchLogError when the disk does not answer.
        """
        try:
            with self._path(epoch).open("rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        except OSError as cause:
            raise SwitchLogError(f"epoch {epoch} of the switch cannot be read ({cause.strerror})") from cause
        return self.judge(epoch, data, before, known)

    def judge(self, epoch: int, data: bytes, before: str, known: frozenset[str]) -> Accepted:
        """What these octets are as this epoch; never raises, because what cannot be read closes."""
        try:
            accepted_at, signed = _opened(epoch, data, before)
        except (Error, ValueError, TypeError, KeyError, OverflowError) as cause:
            return Accepted(epoch, data, UNKNOWN_TIME, None, f"unreadable: {cause}")
        return Accepted(epoch, data, accepted_at, signed, self._fault(signed, accepted_at, known))

    def read_all(self) -> list[Accepted]:
        """Every epoch, from 1 on. Raises SwitchLogError."""
        if not self.exists:
            raise SwitchLogError(f"{self.folder} is not there; `schleuse switch init` makes it")
        found: list[Accepted] = []
        known: set[str] = set()
        while self.has(len(found) + 1):
            before = found[-1].digest if found else GENESIS
            found.append(self.read(len(found) + 1, before, frozenset(known)))
            if found[-1].signed is not None:
                known.add(found[-1].signed.command.id)
        return found

    def append(self, signed: SignedCommand, now: datetime) -> Accepted:
        """Accept the command as the next epoch; the same command again returns the epoch that it has (SW-16).

        Raises NotAuthorisedError, RefusedCommandError, SwitchLogError.
        """
        self._rights.check(signed)
        if signed.command.requested_at > now + LATEST:
            raise RefusedCommandError("the command was requested in the future; compare the clocks")
        while True:
            epochs = self.read_all()
            for one in epochs:
                if one.signed is not None and one.signed.command.id == signed.command.id:
                    if one.signed.command != signed.command:
                        raise RefusedCommandError(f"the id of the command belongs to epoch {one.epoch} already")
                    return one
            fault = self._fault(signed, now, frozenset())
            if fault:
                raise RefusedCommandError(fault)
            before = epochs[-1].digest if epochs else GENESIS
            data = canonical_json(
                {
                    "epoch": len(epochs) + 1,
                    "accepted_at": time_text(now),
                    "previous": before,
                    "signed": signed.encode(),
                }
            )
            if len(data) > MAX_DOCUMENT:
                raise BadCommandError(f"a command has at most {MAX_DOCUMENT} octets, found {len(data)}")
            if self.restore(len(epochs) + 1, data):
                return self.read(len(epochs) + 1, before)

    def restore(self, epoch: int, data: bytes) -> bool:
        """Write the file of an epoch, durably, unless it is there. Returns whether we did. Raises SwitchLogError."""
        target = self._path(epoch)
        draft = self.folder / f".{target.stem}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            try:
                os.link(draft, target)
            except FileExistsError:
                return False
            finally:
                with suppress(OSError):
                    draft.unlink()
            _flush_folder(self.folder)
        except OSError as cause:
            raise SwitchLogError(f"the switch's log cannot be written ({cause.strerror})") from cause
        return True

    def _fault(self, signed: SignedCommand, accepted_at: datetime, known: frozenset[str]) -> str:
        command = signed.command
        if command.id in known:
            return "a command of this id was accepted before"
        if command.expires_at is not None and accepted_at > command.expires_at:
            return f"its approval ended at {time_text(command.expires_at)}"
        try:
            self._rights.check(signed)
        except Error as error:
            return str(error)
        return ""

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{epoch:010d}.json"


def create_log(folder: Path) -> None:
    """An empty log: everything is open. Only `schleuse init` and `schleuse switch init` do this."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=False)


def _opened(epoch: int, data: bytes, before: str) -> tuple[datetime, SignedCommand]:
    if len(data) > MAX_DOCUMENT:
        raise BadCommandError(f"an epoch has at most {MAX_DOCUMENT} octets")
    value = parse_canonical_json(data)
    if not isinstance(value, dict) or set(value) != {"epoch", "accepted_at", "previous", "signed"}:
        raise BadCommandError("an epoch has epoch, accepted_at, previous and signed")
    if value["epoch"] != epoch or value["previous"] != before:
        raise BadCommandError("it does not follow the epoch before it")
    return parse_time(str(value["accepted_at"])), signed_from(value["signed"])


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
