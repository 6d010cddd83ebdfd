"""What `control` does about each new epoch, beside proving it: tell, freeze deletion, collect what would vanish.

Nothing here is a precondition of a closing: the roles follow the switch by themselves (SW-04, SW-11). Every step may be
repeated; after a crash the same loop looks at the same files.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from schleuse.clock import Now
from schleuse.errors import Error
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.opening import Json
from schleuse.processes.control_closing import is_closing
from schleuse.scopes import Scope, ScopeState
from schleuse.shutdown.automat import Automat, ended_emergencies
from schleuse.shutdown.evidence import Collection, Source, collect, collected
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.documents import time_text
from schleuse.switch.log import Accepted, rules_of
from schleuse.switch.standing import standings

log = structlog.get_logger()

LOOK_SECONDS = 0.1
#: What would vanish has vanished later; a role that comes up long after a closing collects nothing of it.
FRESH = timedelta(minutes=15)
#: An entry's detail names so many scopes; the digest of the command stands for all of them.
MOST_SCOPES = 50
#: The first line of the file that freezes deletion, if we wrote it; one that a person wrote is not ours to remove.
OURS = "schleuse-control"

#: Gets the facts of one act, for the journal. Raises Error: not recorded.
Tell = Callable[[Mapping[str, Json], bool], None]


@dataclass(frozen=True, slots=True)
class Places:
    """switch: `<home>/switch`. frozen: `<home>/run/retention.frozen`, which journal and mail store respect."""

    switch: Path
    frozen: Path

    @property
    def told(self) -> Path:
        return self.switch / "told.json"

    @property
    def evidence(self) -> Path:
        return self.switch / "evidence"


class Watch:
    """atoms: what the roles enforce. sources: of volatile evidence. tell: facts, and whether the command counts."""

    def __init__(
        self,
        switch: LocalSwitch,
        atoms: Sequence[Scope],
        places: Places,
        sources: Mapping[str, Source],
        automat: Automat | None,
        tell: Tell,
        now: Now,
    ) -> None:
        self._switch = switch
        self._atoms = atoms
        self._places = places
        self._sources = sources
        self._automat = automat
        self._tell = tell
        self._now = now
        self._collecting: set[asyncio.Task[None]] = set()
        self._begun: set[int] = set()  # epochs of collections of this process

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.step()
            except (OSError, Error) as cause:
                log.error("control.waits", reason=str(cause))
                await asyncio.sleep(1.0)
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> None:
        """Everything that is due now. Raises OSError, Error; then it is done at the next step."""
        entries = self._switch.entries()
        told = await asyncio.to_thread(self._told)
        if len(entries) != told:
            await asyncio.to_thread(self.freeze, entries)
        self._collect(entries)
        if len(entries) != told:
            await asyncio.to_thread(self._tell_all, entries[told:])
        for ended in ended_emergencies(entries, self._atoms, self._now()):
            if self._automat is not None:
                await asyncio.to_thread(self._automat.end_emergency, ended)

    # --- retention (SW-12) ------------------------------------------------------------------

    def freeze(self, entries: Sequence[Accepted]) -> bool:
        """While any scope is not open nothing is deleted; returns whether it is frozen now. Raises OSError."""
        closed = anything_closed(entries, self._atoms) or bool(self._switch.safe)
        ours = self._is_ours()
        if closed and not self._places.frozen.exists():
            self._places.frozen.parent.mkdir(parents=True, exist_ok=True)
            line = f"{OURS} {len(entries)} {time_text(self._now())}\n"
            replace(OsDisk(), self._places.frozen, line.encode())
            log.warning("retention.frozen", epoch=len(entries))
        elif not closed and ours:
            self._places.frozen.unlink(missing_ok=True)
            log.warning("retention.thawed", epoch=len(entries))
        return self._places.frozen.exists()

    def _is_ours(self) -> bool:
        try:
            return self._places.frozen.read_text("utf-8").startswith(OURS)
        except (OSError, ValueError):
            return False

    # --- evidence (SW-11) -------------------------------------------------------------------

    def _collect(self, entries: Sequence[Accepted]) -> None:
        """Once for all closings that came together, without waiting for it; again after a crash that cut it short."""
        fresh = [one.epoch for one in entries if is_closing(one) and self._is_fresh(one)]
        if not fresh or fresh[-1] in self._begun:
            return
        self._begun.add(fresh[-1])
        if collected(self._places.evidence, fresh[-1]):
            return
        task = asyncio.create_task(self._collect_one(fresh[-1]))
        self._collecting.add(task)
        task.add_done_callback(self._collecting.discard)

    def _is_fresh(self, entry: Accepted) -> bool:
        return entry.signed is None or self._now() - entry.accepted_at < FRESH

    async def _collect_one(self, epoch: int) -> None:
        try:
            found = await collect(self._places.evidence, epoch, self._sources, self._now)
            await asyncio.to_thread(self._tell, _evidence_facts(epoch, found), True)
            log.info("evidence.collected", epoch=epoch, files=found.files, missing=list(found.missing))
        except Error as error:
            log.error("evidence.not-kept", epoch=epoch, code=error.code, reason=str(error))

    async def settle(self) -> None:
        """Wait for collections that run."""
        await asyncio.gather(*self._collecting)

    # --- telling ----------------------------------------------------------------------------

    def _tell_all(self, new: Sequence[Accepted]) -> None:
        """Each command is an entry of the journal and a line of the log; the cursor moves after each."""
        for one in new:
            facts = command_facts(one)
            unproven = self._switch.unproven(one)
            if unproven:
                facts["unproven_rule"] = unproven
            self._tell(facts, not one.fault)
            event = "switch.closed" if is_closing(one) else "switch.command-refused" if one.fault else "switch.opened"
            shown = {name: value for name, value in facts.items() if name in ("epoch", "state", "scopes", "kind")}
            log.warning(event, **shown)
            replace(OsDisk(), self._places.told, json.dumps({"epoch": one.epoch}).encode())

    def _told(self) -> int:
        try:
            return int(json.loads(self._places.told.read_bytes())["epoch"])
        except (OSError, ValueError, KeyError, TypeError):  # told again: twice is better than never
            return 0


def anything_closed(entries: Sequence[Accepted], atoms: Sequence[Scope]) -> bool:
    """Whether any atom or any scope that a command ever named is not OPEN. Pure."""
    rules = rules_of(entries)
    named = {scope for one in rules if one.command for scope in one.command.scopes}
    return any(at.state is not ScopeState.OPEN for at in standings(rules, {*atoms, *named}).values())


def command_facts(entry: Accepted) -> dict[str, Json]:
    """What the journal gets of a command: who ordered what, and the digest of the file that has it all."""
    facts: dict[str, Json] = {
        "act": "switch.command",
        "epoch": entry.epoch,
        "sha256": entry.digest,
        "accepted_at": time_text(entry.accepted_at),
        "fault": entry.fault,
    }
    if entry.signed is not None:
        command = entry.signed.command
        facts |= {
            "command": command.id,
            "opening": int(command.opening),
            "state": command.state.value,
            "scopes": [str(one) for one in command.scopes[:MOST_SCOPES]],
            "scope_count": len(command.scopes),
            "kind": command.kind.value,
            "reason": command.reason.value,
            "incident": command.incident,
            "policy": command.policy,
            "signed_by": [f"{one.operator} as {one.role}" for one in entry.signed.signatures],
        }
    return facts


def _evidence_facts(epoch: int, found: Collection) -> dict[str, Json]:
    return {
        "act": "switch.evidence",
        "epoch": epoch,
        "manifest_sha256": found.digest,
        "files": found.files,
        "missing": list(found.missing),
    }
