"""What `control` does about each new epoch, and again after each crash (SW-11, SW-12, SW-14, RS-14)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.shutdown.operators import BREAKERS, KEYS, NOW, Clock, close, new_log, open_again, opening, signed

from schleuse.errors import UnavailableError
from schleuse.journal.opening import Json
from schleuse.processes.control import NoPolicies
from schleuse.processes.control_watch import Places, Watch, anything_closed
from schleuse.scopes import ScopeState, parse_scopes
from schleuse.shutdown.automat import Automat
from schleuse.shutdown.evidence import verify
from schleuse.switch.copy import LocalSwitch

ATOMS = parse_scopes("eau_intake/109900011/process/-")


@dataclass
class Trail:
    """The journal's trail; a test can fill its disk before an entry is written, or cut us off after it."""

    entries: list[Mapping[str, Json]] = field(default_factory=list)
    full: bool = False
    die_after: bool = False

    def __call__(self, facts: Mapping[str, Json], granted: bool) -> None:
        if self.full:
            raise UnavailableError("no room")
        self.entries.append({**facts, "granted": granted})
        if self.die_after:
            raise KeyboardInterrupt

    def acts(self) -> list[Json]:
        return [one["act"] for one in self.entries]


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = new_log(folder / "switch" / "log")
        self.places = Places(folder / "switch", folder / "run" / "retention.frozen")
        self.trail = Trail()
        self.clock = Clock()
        self.restart()

    def restart(self) -> None:
        switch = LocalSwitch(self.log, self.folder / "switch" / "copies" / "control.json", self.clock)
        automat = Automat(self.log, "automat", lambda: KEYS["automat"], NoPolicies(), self.clock)
        sources = {"counters.txt": lambda: b"17"}
        self.watch = Watch(switch, ATOMS, self.places, sources, automat, self.trail, self.clock)

    def step(self) -> None:
        async def one() -> None:
            await self.watch.step()
            await self.watch.settle()

        asyncio.run(one())

    @property
    def frozen(self) -> bool:
        return self.places.frozen.exists()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_each_command_is_told_once_with_its_digest(site: Site) -> None:
    accepted = close(site.log, "eau_intake")
    for _ in range(2):
        site.step()
        site.restart()
    told = [one for one in site.trail.entries if one["act"] == "switch.command"]
    assert [(one["epoch"], one["sha256"]) for one in told] == [(1, accepted.digest)]
    assert told[0]["signed_by"] == ["officer as switch_officer"]


def test_a_command_without_authority_is_told_as_refused(site: Site) -> None:
    good = close(site.log, "eau_intake")
    forged = good.data.replace(b'"epoch":1', b'"epoch":2').replace(b"0" * 64, good.digest.encode())
    site.log.restore(2, forged)
    site.step()
    assert [one["granted"] for one in site.trail.entries if one["act"] == "switch.command"] == [True, False]


def test_what_the_trail_did_not_take_is_told_later(site: Site) -> None:
    close(site.log, "eau_intake")
    site.trail.full = True
    with pytest.raises(UnavailableError):
        site.step()
    assert site.frozen  # the rest does not wait for it
    site.trail.full = False
    site.step()
    assert "switch.command" in site.trail.acts()


def test_a_death_between_telling_and_noting_it_tells_it_again(site: Site) -> None:
    """Twice is better than never; the digest says that it is the same."""
    close(site.log, "eau_intake")
    site.trail.die_after = True
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(site.watch.step())
    site.trail.die_after = False
    site.restart()
    site.step()
    digests = {one["sha256"] for one in site.trail.entries if one["act"] == "switch.command"}
    assert len(digests) == 1


def test_deletion_is_frozen_while_anything_is_closed(site: Site) -> None:
    """SW-12."""
    close(site.log, "eau_intake/109900011/deliver")
    site.step()
    assert site.frozen
    open_again(site.log, "eau_intake")
    site.step()
    assert not site.frozen


def test_a_scope_that_no_role_enforces_freezes_it_as_well(site: Site) -> None:
    close(site.log, "epa_read")
    site.step()
    assert site.frozen


def test_what_a_person_froze_only_a_person_thaws(site: Site) -> None:
    site.places.frozen.parent.mkdir()
    site.places.frozen.write_text("by order of the auditor")
    close(site.log, "eau_intake")
    site.step()
    open_again(site.log, "eau_intake")
    site.step()
    assert site.places.frozen.read_text() == "by order of the auditor"


def test_a_role_that_cannot_know_the_state_freezes_too(site: Site) -> None:
    """SW-02: a log that lost an epoch is not believed."""
    close(site.log, "eau_intake")
    copy = site.folder / "switch" / "copies" / "control.json"
    copy.write_bytes(copy.read_bytes()[:-10] if copy.exists() else b"damaged")
    (site.folder / "switch" / "log" / "0000000001.json").unlink()
    site.restart()
    assert site.watch.freeze([])


def test_what_would_vanish_is_kept_with_a_manifest_and_an_entry(site: Site) -> None:
    """SW-11."""
    close(site.log, "eau_intake")
    site.step()
    assert verify(site.places.evidence / "0000000001") == []
    [entry] = [one for one in site.trail.entries if one["act"] == "switch.evidence"]
    assert entry["files"] == 1
    assert len(str(entry["manifest_sha256"])) == 64


def test_a_collection_that_a_crash_cut_short_is_made_again(site: Site) -> None:
    """Found by killing the role: the command was told already, and nobody came back for the evidence."""
    close(site.log, "eau_intake")
    site.step()
    (site.places.evidence / "0000000001" / "manifest.json").unlink()
    site.step()
    assert not (site.places.evidence / "0000000001" / "manifest.json").exists()  # this process has tried
    site.restart()
    site.step()
    assert verify(site.places.evidence / "0000000001") == []


def test_closings_that_come_together_are_one_collection(site: Site) -> None:
    close(site.log, "eau_intake")
    close(site.log, "kim_mail", "d")
    site.step()
    assert [one.name for one in site.places.evidence.iterdir()] == ["0000000002"]


def test_nothing_volatile_is_collected_of_an_old_closing_or_of_an_opening(site: Site) -> None:
    close(site.log, "eau_intake")
    site.clock.forward(3600)
    site.step()
    open_again(site.log, "eau_intake")
    site.step()
    assert not site.places.evidence.exists()


def test_an_emergency_opening_gets_its_closing_command(site: Site) -> None:
    """RS-14; once, also when `control` was dead at that moment."""
    close(site.log, "eau_intake")
    until: datetime = NOW + timedelta(minutes=10)
    site.log.append(signed(opening("eau_intake", 1, actor="breaker-1", closes_at=until), BREAKERS), NOW)
    site.step()
    site.clock.forward(601)
    site.restart()
    for _ in range(2):
        site.step()
    last = site.log.read_all()[-1]
    assert last.epoch == 3
    assert last.signed is not None
    assert (last.signed.command.state, last.signed.command.kind) == (ScopeState.HOLD, "automatic")


def test_a_told_file_that_is_damaged_is_no_reason_to_stop(site: Site) -> None:
    close(site.log, "eau_intake")
    site.step()
    site.places.told.write_text("{")
    site.step()
    assert json.loads(site.places.told.read_bytes()) == {"epoch": 1}


def test_with_no_command_nothing_is_closed() -> None:
    assert not anything_closed([], ATOMS)
