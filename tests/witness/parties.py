"""A log that can lie, witnesses, and a network in memory that can fail before and after the effect."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.journal.samples import LOG, ORIGIN, T0, WA, leaves

from schleuse.journal.checkpoint import Checkpoint, parse_checkpoint
from schleuse.journal.cosignature import Cosigner
from schleuse.journal.note import LogKey, Note, parse_note
from schleuse.journal.proof import consistency_proof
from schleuse.journal.tiles import Bundle, bundle_bytes, parse_path, tile_bytes
from schleuse.journal.tree import MemoryTree, root_at
from schleuse.journal.witness_request import WitnessRequest
from schleuse.witness.alarm import Alarm, Finding
from schleuse.witness.remote import LogQuarantinedError, NotThereError, RemoteError
from schleuse.witness.service import Witness
from schleuse.witness.store import WitnessStore

URL = "https://journal.example/kasse-a/2027"


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.at = datetime.fromtimestamp(T0, UTC)

    def __call__(self) -> datetime:
        return self.at

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class FakeLog:
    """A log that signs whatever entries it is given, and a `Remote` that serves it.

    down: no answer. lost: it does what is asked, and the answer is lost. minimum: entries below it are deleted.
    """

    def __init__(self, entries: Sequence[bytes] = ()) -> None:
        self.down = self.lost = False
        self.minimum = 0
        self.quarantine = ""
        self.posted: list[Note] = []
        self.other: dict[str, bytes] = {}
        self.now_holds(entries)

    def now_holds(self, entries: Sequence[bytes]) -> None:
        """These are its entries from now on, whatever it said before."""
        self.entries = list(entries)
        self.tree = MemoryTree(self.entries)
        self.note = self.checkpoint(len(self.entries)).signed_by(LOG)

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(ORIGIN, size, root_at(size, self.tree))

    def request(self, old: int, size: int) -> WitnessRequest:
        """An honest one, as far as this log can."""
        checkpoint = self.checkpoint(size)
        proof = consistency_proof(old, size, self.tree)
        return WitnessRequest(old, tuple(proof), checkpoint, checkpoint.signed_by(LOG))

    def get(self, url: str, limit: int) -> bytes:
        if self.down:
            raise RemoteError(f"{url} is down")
        if url in self.other:
            return self.other[url]
        if self.quarantine:
            raise LogQuarantinedError(self.quarantine)
        path = url.removeprefix(URL + "/")
        if path in {"pending", "checkpoint"}:
            return self.note.encode()
        if not path.startswith("tile/"):
            raise NotThereError(url)
        tile = parse_path(path)
        if isinstance(tile, Bundle):
            if tile.index * 256 < self.minimum:
                raise NotThereError(url)
            return bundle_bytes(self.entries[tile.index * 256 : tile.index * 256 + tile.width])
        return tile_bytes(tile, self.tree)

    def post(self, url: str, body: bytes) -> None:
        assert url == f"{URL}/add-cosignature"
        if self.down:
            raise RemoteError(f"{url} is down")
        note = parse_note(body)
        self.posted.append(note)
        if note.text == self.note.text:
            self.note = self.note.with_lines(note.lines)
        if self.lost:
            raise RemoteError(f"{url} did not answer")


class Party:
    """A witness with its clock, its alarms and its file."""

    def __init__(self, folder: Path, cosigners: Sequence[Cosigner] = (WA,)) -> None:
        self.clock = Clock()
        self.alarms: list[Alarm] = []
        self.path = folder / "witness.sqlite"
        self.store = WitnessStore(self.path)
        self.cosigners = cosigners
        self.witness = self._witness()

    def _witness(self) -> Witness:
        return Witness({ORIGIN: (LogKey(LOG.key),)}, self.cosigners, self.store, self.clock, self.alarms.append)

    def restart(self) -> None:
        self.store.close()
        self.store = WitnessStore(self.path)
        self.witness = self._witness()

    @property
    def size(self) -> int:
        last = self.store.last(ORIGIN)
        return last.checkpoint.size if last else 0

    @property
    def findings(self) -> list[Finding]:
        return [alarm.finding for alarm in self.alarms]


def rewritten(count: int, at: int) -> list[bytes]:
    """The vectors' entries with another one at this index."""
    return [b"rewritten" if index == at else leaf for index, leaf in enumerate(leaves(count))]


def size_of(note: Note) -> int:
    return parse_checkpoint(note.text).size
