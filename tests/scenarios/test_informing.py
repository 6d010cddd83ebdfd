"""Who is to know hears of a closing, whatever is killed meanwhile; with the real `control` role (§ 10, RS-14)."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from tests.scenarios import switching
from tests.scenarios.platform import Platform, platform, until

from schleuse.clock import utc_now
from schleuse.processes.restart_home import restarts_of
from schleuse.processes.restarting import Signer
from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import next_version
from schleuse.scopes import ScopeState, Service
from schleuse.switch.documents import Role
from schleuse.vault.tokens import read_token_key


def heard(one: Platform) -> list[str]:
    path = one.home / "heard.txt"
    return [json.loads(line)["id"] for line in path.read_text().splitlines()] if path.exists() else []


def test_control_that_is_killed_before_and_while_it_tells_tells_it_all_the_same(
    base_home: Path, tmp_path: Path
) -> None:
    """kill -9 between record and sending, and between sending and the record of it; control is all that runs.

    RS-06: while it is dead, a restart is aborted and planned anew; the abort is told all the same.
    """
    home = tmp_path / "home"
    receiver, block = home / "receiver", home / "block"
    with platform(base_home, home) as one:
        with (home / "schleuse.toml").open("a") as file:
            file.write(f'\n[[control.inform]]\nname = "night"\nsend_to = ["{receiver}"]\ntimeout_seconds = 50\n')
        one.start("control")
        since = home / "switch" / "informing" / "since.json"
        until(since.exists, f"control\n{one.log('control')}")
        epoch = switching.close(home, "eau_intake/109900011/process", ScopeState.HOLD)
        waits = home / "switch" / "informing" / "waits" / f"closed-{epoch}.json"
        until(waits.exists, f"the record\n{one.log('control')}")
        until(lambda: '"inform.failed"' in one.log("control"), "an attempt while the receiver is away")
        one.kill("control")
        assert heard(one) == []

        receiver.write_text(f"#!/bin/sh\n(cat; echo) >> {home}/heard.txt\nwhile [ -e {block} ]; do sleep 0.1; done\n")
        block.touch()
        receiver.chmod(receiver.stat().st_mode | stat.S_IXUSR)
        one.start("control")
        until(lambda: len(heard(one)) == 1, f"the receiver\n{one.log('control')}")
        one.kill("control")

        aborted = abort_and_plan_anew(one)
        block.unlink()
        one.start("control")
        ids = {f"closed-{epoch}", f"closed-{aborted}", f"aborted-r1-{aborted}"}
        told = [home / "switch" / "informing" / "told" / f"{id}.json" for id in ids]
        until(lambda: all(path.exists() for path in told), f"the end\n{one.log('control')}")
        assert set(heard(one)) == {f"{one.config.hostname}/{id}" for id in ids}
        assert heard(one).count(f"{one.config.hostname}/closed-{epoch}") == 2
        assert not waits.exists()


def abort_and_plan_anew(one: Platform) -> int:
    """Returns the epoch of the abort."""
    restarts = restarts_of(one.config, lambda _facts, _granted: None)
    insurers = [insurer.ik for insurer in one.config.insurers]
    made = default_plan("r1", [Service.EAU_INTAKE], insurers, insurers[0], utc_now(), fast=True)
    restarts.make(made, "betrieb-1")
    signer = Signer("betrieb-1", read_token_key(one.home / "operators" / "betrieb-1.key"))
    epoch = restarts.abort("r1", signer, Role.LEAD, "looks wrong").epoch
    restarts.make(next_version(made, utc_now()), "betrieb-1")
    return epoch
