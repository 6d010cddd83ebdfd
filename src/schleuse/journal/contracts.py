"""What a writer to the journal sees: levels, receipts, and the ways in which it says no (journal.md § 12, § 13)."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from schleuse.errors import ConflictError, CorruptError, MalformedError, RefusedError, UnavailableError
from schleuse.journal.hashing import leaf_hash


class Level(IntEnum):
    """How far an entry has come when its writer goes on (§ 12.5)."""

    DURABLE = 1  # its frame is flushed
    PUBLISHED = 2  # a checkpoint that we signed covers it, durably
    WITNESSED = 3  # a checkpoint that satisfies the policy covers it


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """One entry is durable. share: S_journal for the vault's key kinds (§ 14.1).

    Every append makes one: as a dataclass it would cost twice as much, frozen ten times.
    """

    origin: str
    index: int
    entry: bytes
    durable_size: int
    share: bytes | None = None

    @property
    def leaf_hash(self) -> bytes:
        """Of the entry; made when asked for, which most writers never do."""
        return leaf_hash(self.entry)

    def __repr__(self) -> str:  # the share is half of a key
        return f"Receipt({self.origin!r}, {self.index}, {self.leaf_hash.hex()})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # the library's own shows every field
        return [("origin", self.origin), ("index", self.index), ("leaf_hash", self.leaf_hash.hex())]


class JournalUnavailableError(UnavailableError):
    """The disk failed or the process is gone; nothing may be released (RP-01). The operator can help."""

    code = "journal.unavailable"


class JournalBusyError(UnavailableError):
    """More waits than may wait. Sending the same event again later helps."""

    code = "journal.busy"


class JournalFullError(UnavailableError):
    """No room for another segment; reads and proofs go on. The operator must give room."""

    code = "journal.full"


class LevelTimeoutError(UnavailableError):
    """The entry is durable, but the level that was asked for did not come in time."""

    code = "journal.level-timeout"


#: Header of an answer that refuses: the code of the error, for programs; the text is for people.
CODE = "Schleuse-Code"


class QuarantinedError(CorruptError):
    """What the disk holds contradicts itself or a witness. `findings` name the file and the place."""

    code = "journal.quarantined"

    def __init__(self, findings: tuple[str, ...]) -> None:
        super().__init__(
            "the journal is in QUARANTINE, takes no entry, signs nothing; the operator and a witness's copy decide:\n"
            + "\n".join(findings)
        )
        self.findings = findings


class EventReusedError(ConflictError):
    """The event's id is taken by an entry with other bytes. The writer must use a new UUIDv7."""

    code = "journal.event-reused"


class UnknownLogError(RefusedError):
    """No log has this origin or number. The configuration of the journal role names its logs."""

    code = "journal.unknown-log"


class ShardClosedError(RefusedError):
    """The log's year is over and its last entry written; the writer uses the log of the new year."""

    code = "journal.shard-closed"


class NotAllowedError(RefusedError):
    """This peer may not do this; the configuration of the journal role says who may."""

    code = "journal.not-allowed"


class BeyondSizeError(RefusedError):
    """The log is shorter than what was asked for, or the entry was deleted after its period."""

    code = "journal.beyond-size"


class BadRequestError(MalformedError):
    """Not a request of the socket protocol (§ 13); the client's program can change it."""

    code = "journal.bad-request"
