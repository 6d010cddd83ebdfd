"""An insurer reads its whole log, continuously, and is told what does not fit (journal.md § 16).

Nothing that the log serves is believed before it was checked against a signed root; the root is believed when it
continues the one that the monitor has kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from schleuse.clock import Now
from schleuse.errors import MalformedError, UnavailableError
from schleuse.journal.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from schleuse.journal.note import Note, NoteRefusedError, open_note
from schleuse.journal.policy import NONE, Judged, NoQuorumError, Policy, Witness
from schleuse.journal.tile_reader import FalseTileError, VerifiedTiles
from schleuse.journal.tiles import WIDTH, Bundle
from schleuse.journal.tree import root_at
from schleuse.witness.alarm import Alarm, Finding, OnAlarm
from schleuse.witness.monitor_store import MonitorStore, Position
from schleuse.witness.remote import LogQuarantinedError, NotThereError, RemoteLog
from schleuse.witness.rules import Between, Settings, Watcher

STALE = timedelta(minutes=15)  #: age of the newest cosignature that completes a quorum (§ 16)

BUNDLES_A_STEP = 16  #: entry bundles that are looked at in one transaction: 4,096 entries

#: Another witness's latest note of this log; raises RemoteError and MalformedError.
AskPeer = Callable[[Witness], Note]
#: Keeps a note for ever: (finding, what we were shown, reason, what it contradicts). See `service.Witness.keep`.
Keep = Callable[[Finding, Note, str, Note | None], object]


class Monitor:
    """Watches one log. Used by one thread at a time.

    reread: entry bundles that were read before and are read again with each look, all in turn: what was changed on the
    log's disk long after we read it does not lead to the root that was signed then.
    A condition that lasts (stale, rolled back, a peer ahead) is one alarm when it begins, not one with every look.
    """

    def __init__(
        self,
        origin: str,
        policy: Policy,
        settings: Settings,
        log: RemoteLog,
        store: MonitorStore,
        now: Now,
        on_alarm: OnAlarm,
        ask_peer: AskPeer | None = None,
        *,
        keep: Keep = lambda *_: None,
        reread: int = BUNDLES_A_STEP,
    ) -> None:
        self._origin = origin
        self._policy = policy
        self._log = log
        self._store = store
        self._now = now
        self._began = now()
        self._on_alarm = on_alarm
        self._ask_peer = ask_peer
        self._keep = keep
        self._reread = reread
        self._settings = settings
        self._memory = store.memory()
        self._lasting: set[tuple[Finding, str]] = set()

    def judge_by(self, policy: Policy) -> None:
        """From the next look on, this is what the insurer wants to see."""
        self._policy = policy

    def look(self) -> None:
        """One round: the checkpoint, the entries that are new, the other witnesses.

        Raises RemoteError for a log that does not answer (after 15 minutes of that it is stale as well).
        """
        lasting: dict[tuple[Finding, str], Alarm] = {}
        # Peers before the log: what one of them has cosigned, the log had signed before we ask it.
        peers = self._peers()
        try:
            self._look(lasting, peers)
        except LogQuarantinedError as cause:
            self._add(lasting, Finding.QUARANTINE, "log", str(cause))
            raise
        finally:
            self._tell(lasting)

    def _look(self, lasting: dict[tuple[Finding, str], Alarm], peers: Mapping[str, tuple[Note, Checkpoint]]) -> None:
        found = self._judged(lasting)
        if found is None:
            return
        note, judged = found
        self._freshness(judged, lasting)
        checkpoint, before = judged.checkpoint, self._store.position()
        if before.checkpoint is not None and checkpoint.size < before.checkpoint.size:
            gone = before.checkpoint.size - checkpoint.size
            text = (
                f"the log shows size {checkpoint.size} and had shown {before.checkpoint.size}: {gone} entries are gone"
            )
            self._contradicted(lasting, Finding.ROLLBACK, "log", text, note, before.note)
            return
        try:
            tiles = VerifiedTiles(checkpoint, self._log.tile)
            if before.checkpoint is not None and root_at(before.checkpoint.size, tiles) != before.checkpoint.root:
                text = f"size {checkpoint.size} does not continue size {before.checkpoint.size}, which was shown before"
                self._contradicted(lasting, Finding.FORK, "log", text, note, before.note)
                return
            self._compare(peers, note, checkpoint, tiles, lasting)
            self._read(note, judged, tiles, before)
            self._look_again(checkpoint.size, -(-before.read // WIDTH), tiles)
        except (FalseTileError, MalformedError) as cause:
            self._add(lasting, Finding.FALSE_TILES, "log", str(cause))

    def _judged(self, lasting: dict[tuple[Finding, str], Alarm]) -> tuple[Note, Judged] | None:
        try:
            note = self._log.note("checkpoint")
            judged = self._policy.judge(note)
        except NotThereError:
            # A log that has just been opened: its witnesses may need a moment.
            if self._store.position().note is not None or self._now() - self._began > STALE:
                self._add(lasting, Finding.NO_QUORUM, "log", "the log serves no checkpoint that satisfies its policy")
            return None
        except (NoQuorumError, NoteRefusedError, MalformedError) as cause:
            self._add(lasting, Finding.NO_QUORUM, "log", str(cause))
            return None
        if judged.checkpoint.origin != self._origin:
            text = f"the log at the URL is {judged.checkpoint.origin}, expected {self._origin}"
            self._add(lasting, Finding.NO_QUORUM, "origin", text)
            return None
        return note, judged

    def _freshness(self, judged: Judged, lasting: dict[tuple[Finding, str], Alarm]) -> None:
        """Whether the newest quorum is fresh; its checkpoint may be older, if the log rests."""
        if self._policy.quorum == NONE:
            return
        age = self._now().timestamp() - max(judged.times.values())
        if age > STALE.total_seconds():
            text = f"the newest cosignature of size {judged.checkpoint.size} is {round(age)} s old"
            self._add(lasting, Finding.STALE, "log", text)

    def _peers(self) -> dict[str, tuple[Note, Checkpoint]]:
        """What other witnesses have cosigned, by their names; who does not answer or answers nonsense is left out."""
        found: dict[str, tuple[Note, Checkpoint]] = {}
        if self._ask_peer is None:
            return found
        for witness in self._policy.witnesses:
            if witness.url is None:
                continue
            try:
                note = self._ask_peer(witness)
                checkpoint = open_checkpoint(note, self._policy.log_keys)
                open_note(note, [witness.key])
            except (UnavailableError, MalformedError, NoteRefusedError):
                continue
            if checkpoint.origin == self._origin:
                found[witness.name] = note, checkpoint
        return found

    def _compare(
        self,
        peers: Mapping[str, tuple[Note, Checkpoint]],
        note: Note,
        checkpoint: Checkpoint,
        tiles: VerifiedTiles,
        lasting: dict[tuple[Finding, str], Alarm],
    ) -> None:
        """The others must have seen the same history (G3)."""
        for name, (their_note, theirs) in peers.items():
            if theirs.size <= checkpoint.size:
                if root_at(theirs.size, tiles) != theirs.root:
                    text = f"{name} cosigned another size {theirs.size}, root {theirs.root.hex()}"
                    self._contradicted(lasting, Finding.FORK, name, text, their_note, note)
            elif theirs.size > self._pending_size():
                text = f"{name} cosigned size {theirs.size}, and the log shows us less"
                self._add(lasting, Finding.PEER_AHEAD, name, text)

    def _pending_size(self) -> int:
        return parse_checkpoint(self._log.note("pending").text).size

    def _read(self, note: Note, judged: Judged, tiles: VerifiedTiles, before: Position) -> None:
        size = judged.checkpoint.size
        start = before.read or self._first(size, tiles)
        # Entries that came between two checkpoints have times between those of their cosignatures.
        cosigned = Between(before.since_s, judged.since_s)
        while start < size:
            # To the end of a bundle, so that the next step begins with a whole one.
            stop = min(size, (start // WIDTH + BUNDLES_A_STEP) * WIDTH)
            bundles = range(start // WIDTH, -(-stop // WIDTH))
            entries = [entry for index in bundles for entry in self._bundle(index, size, tiles)]
            since_s = judged.since_s if stop == size else before.since_s
            try:
                self._step(Position(note, stop, since_s), entries[start % WIDTH :], cosigned)
            except BaseException:
                self._memory = self._store.memory()  # of the last step that is durable
                raise
            start = stop
        here = Position(note, size, judged.since_s)
        if self._store.position() != here:
            with self._store.step():
                self._store.move(here, self._memory)

    def _first(self, size: int, tiles: VerifiedTiles) -> int:
        """Where a monitor begins that has read nothing yet: its insurer says, with `reread`, whether entries may be
        deleted after their period; then from the first one that is there.
        """
        for index in range(-(-size // WIDTH) if self._reread == 0 else 0):
            try:
                self._bundle(index, size, tiles)
            except NotThereError:
                continue
            return index * WIDTH
        return 0

    def _look_again(self, size: int, known: int, tiles: VerifiedTiles) -> None:
        """Some of the first `known` bundles, which earlier looks have read. Raises as `_bundle`."""
        count = min(self._reread, known)
        start = self._store.reread() if count else 0
        for one in range(start, start + count):
            try:
                self._bundle(one % known, size, tiles)
            except NotThereError as cause:
                raise FalseTileError(f"entry bundle {one % known} was there and is not there any more") from cause
        if count:
            self._store.read_again((start + count) % known)

    def _bundle(self, index: int, size: int, tiles: VerifiedTiles) -> list[bytes]:
        bundle = Bundle(index, min(WIDTH, size - index * WIDTH))
        return tiles.entries(bundle, self._log.bundle(bundle))

    def _step(self, after: Position, entries: list[bytes], cosigned: Between) -> None:
        """Look at some entries; findings and position become durable together, then the findings are told."""
        store, found_s = self._store, int(self._now().timestamp())
        watcher = Watcher(self._origin, self._settings, self._memory, store.is_new_event, store.spool)
        with store.step():
            for index, data in enumerate(entries, after.read - len(entries)):
                for alarm in watcher.look(index, data, cosigned):
                    store.found(alarm, found_s)
            store.move(after, self._memory)
        self._tell_untold()

    def _contradicted(
        self,
        lasting: dict[tuple[Finding, str], Alarm],
        finding: Finding,
        whose: str,
        text: str,
        shown: Note,
        before: Note | None,
    ) -> None:
        """Two notes that do not fit together: told, and kept for ever."""
        self._add(lasting, finding, whose, text)  # first: it is told even if it cannot be kept
        self._keep(finding, shown, text, before if before is not None and before.lines else None)

    def _add(self, lasting: dict[tuple[Finding, str], Alarm], finding: Finding, whose: str, text: str) -> None:
        lasting[finding, whose] = Alarm(finding, self._origin, text)

    def _tell(self, lasting: Mapping[tuple[Finding, str], Alarm]) -> None:
        new = [alarm for key, alarm in lasting.items() if key not in self._lasting]
        if new:
            with self._store.step():
                for alarm in new:
                    self._store.found(alarm, int(self._now().timestamp()))
        self._lasting = set(lasting)
        self._tell_untold()

    def _tell_untold(self) -> None:
        """Also what a crash kept us from telling. Told twice is possible, not told is not."""
        if untold := self._store.untold():
            for _, alarm in untold:
                self._on_alarm(alarm)
            self._store.told([one for one, _ in untold])
