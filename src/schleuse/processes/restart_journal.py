"""Whether the journal only grew since it was last witnessed, and holds what the stores hold (G-DATA, RS-07).

    <home>/switch/witnessed/109900011-2026     the last checkpoint that witnesses had cosigned when we looked

The next checkpoint must continue it, by a proof from tiles that are checked themselves. Of the entries at its end each
acceptance must be of a mail that the mail store has, by the commitment to its digest; a mail that the journal does not
know yet is no contradiction, because intake tells the journal afterwards (decision 0018).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from schleuse.clock import Now
from schleuse.config import Config
from schleuse.database import asking
from schleuse.errors import Error, UnavailableError
from schleuse.journal import audit
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.entry import NOTHING, Kind, parse_entry
from schleuse.journal.note import Note, parse_note
from schleuse.journal.opening import object_commitment
from schleuse.journal.policy import NoQuorumError, Policy
from schleuse.journal.tile_reader import VerifiedTiles
from schleuse.journal.tiles import WIDTH, Bundle
from schleuse.processes.journal_keys import origin_of, policy_file, read_policy
from schleuse.processes.kim_trail import object_name
from schleuse.processes.trail import PLATFORM
from schleuse.restart.gates import Result
from schleuse.said import Said, as_it_is

#: Bundles at the end of a log whose entries are held against the store.
TAIL = 4
#: Deliveries of a mailbox among which they are looked for: many more than the tail can name.
DELIVERIES = 20_000
CONTINUES = Said("setzt fort, was bezeugt war", "continues what was witnessed")
_DELIVERIES = sa.text(
    "SELECT id, digest FROM kim_delivery WHERE account = :account AND digest IS NOT NULL ORDER BY id DESC LIMIT :most"
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One log. size: of the witnessed checkpoint."""

    origin: str
    result: Result
    text: Said
    size: int = 0

    @property
    def named(self) -> Said:
        """With the log's name."""
        return Said(f"{self.origin}: {self.text.de}", f"{self.origin}: {self.text.en}")


class JournalWatch:
    """Reads only, but for what it remembers."""

    def __init__(self, config: Config, now: Now) -> None:
        self._config = config
        self._now = now
        self._folder = config.switch_folder / "witnessed"

    def compare(self) -> list[Compared]:
        """Each log of this year that has entries. Raises nothing: what cannot be read is inconclusive (RS-04)."""
        found: list[Compared] = []
        for tenant in (*(one.ik for one in self._config.insurers), PLATFORM):
            origin = origin_of(self._config.hostname, tenant, self._now().year)
            try:
                one = self._one(tenant, origin)
            except (UnavailableError, NoQuorumError, OSError) as cause:
                one = Compared(origin, Result.INCONCLUSIVE, as_it_is(str(cause)))
            except Error as cause:  # what is there contradicts itself or what was there: a ledger gap (RS-07)
                one = Compared(origin, Result.FAIL, as_it_is(str(cause)))
            if one is not None:
                found.append(one)
        return found

    def _one(self, tenant: str, origin: str) -> Compared | None:
        source = audit.from_url(f"http://{self._config.journal.http}/{origin.partition('/')[2]}")
        policy = read_policy(policy_file(self._config.home / "journal", origin))
        kept = self._kept(origin)
        try:
            note = parse_note(source("checkpoint"))
        except audit.SourceAbsentError:
            if kept is None:
                return None  # nothing of it was ever witnessed
            gone = Said("ein Protokoll, das bezeugt war, ist nicht da", "a log that was witnessed is not there")
            return Compared(origin, Result.FAIL, gone)
        checkpoint = policy.judge(note).checkpoint
        if kept is not None:
            self._continues(kept, note, policy, source)
            if policy.judge(kept).checkpoint.size > checkpoint.size:
                shorter = Said(
                    "das Protokoll ist kürzer, als es bezeugt war",
                    "the log is shorter than it was when it was witnessed",
                )
                return Compared(origin, Result.FAIL, shorter)
        missing = self._missing(tenant, checkpoint, source)
        if missing:
            text = Said(
                f"{missing} Annahmen im Journal betreffen Mails, die der Speicher nicht hat",
                f"{missing} acceptances of the journal are of mails that the store does not have",
            )
            return Compared(origin, Result.FAIL, text, checkpoint.size)
        self._keep(origin, note)
        return Compared(origin, Result.PASS, CONTINUES, checkpoint.size)

    @staticmethod
    def _continues(kept: Note, note: Note, policy: Policy, source: audit.Source) -> None:
        """Raises HistoryChangedError."""
        audit.compare(kept, note, policy, source)

    def _missing(self, tenant: str, checkpoint: Checkpoint, source: audit.Source) -> int:
        insurer = next((one for one in self._config.insurers if one.ik == tenant), None)
        if insurer is None:
            return 0
        told = set(self._told(checkpoint, source))
        return len(told - self._have(insurer.address.lower())) if told else 0

    @staticmethod
    def _told(checkpoint: Checkpoint, source: audit.Source) -> Iterator[bytes]:
        """What the entries at the end commit to, of mails that were accepted."""
        tiles = VerifiedTiles(checkpoint, lambda tile: source(tile.path))
        last = (checkpoint.size + WIDTH - 1) // WIDTH
        for index in range(max(last - TAIL, 0), last):
            bundle = Bundle(index, min(WIDTH, checkpoint.size - index * WIDTH))
            for raw in tiles.entries(bundle, source(bundle.path)):
                entry = parse_entry(raw)
                if entry.kind is Kind.SPOOL_ACCEPTED and entry.object != NOTHING:
                    yield entry.object

    def _have(self, account: str) -> set[bytes]:
        with asking(self._config.kim_database) as connection:
            rows = connection.execute(_DELIVERIES, {"account": account, "most": DELIVERIES}).all()
        return {object_commitment(row.digest[:16], object_name(row.id, bytes(row.digest)), 0) for row in rows}

    def _kept(self, origin: str) -> Note | None:
        path = self._path(origin)
        return parse_note(path.read_bytes()) if path.exists() else None

    def _keep(self, origin: str, note: Note) -> None:
        path = self._path(origin)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(OsDisk(), path, note.encode())

    def _path(self, origin: str) -> Path:
        return self._folder / origin.partition("/")[2].replace("/", "-")
