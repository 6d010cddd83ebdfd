"""Who is to know hears of a closing, whatever is killed meanwhile; with the real `control` role (§ 10, RS-14)."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from tests.scenarios import switching
from tests.scenarios.platform import Platform, platform, until

from schleuse.scopes import ScopeState


def heard(one: Platform) -> list[str]:
    path = one.home / "heard.txt"
    return [json.loads(line)["id"] for line in path.read_text().splitlines()] if path.exists() else []


def test_control_that_is_killed_before_and_while_it_tells_tells_it_all_the_same(
    base_home: Path, tmp_path: Path
) -> None:
    """kill -9 between record and sending, and between sending and the record of it; control is all that runs."""
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

        block.unlink()
        one.start("control")
        told = home / "switch" / "informing" / "told" / waits.name
        until(told.exists, f"the end\n{one.log('control')}")
        assert set(heard(one)) == {f"{one.config.hostname}/closed-{epoch}"}
        assert len(heard(one)) == 2
        assert not waits.exists()
