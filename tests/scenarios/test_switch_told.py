"""A time of the switch's log that is moved contradicts the journal, whatever else was rewritten with it (SW-14)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.scenarios import switching
from tests.scenarios.platform import Platform, platform, until

from schleuse.clock import utc_now
from schleuse.processes.switch_told import Compared, compare
from schleuse.processes.switching import switch_log
from schleuse.scopes import ScopeState
from schleuse.switch.documents import parse_time, time_text
from schleuse.switch.log import GENESIS


def asked(one: Platform) -> Compared:
    """When all that was told must be published."""
    return compare(one.config, switch_log(one.config).read_all(), utc_now() + timedelta(hours=1))


def move_times(home: Path, by: timedelta) -> list[tuple[str, str]]:
    """Another time in the first epoch, and a log that is whole all the same; old and new digest of each epoch."""
    before, digests = GENESIS, []
    for path in sorted((home / "switch" / "log").glob("0*.json")):
        old = path.read_bytes()
        table: dict[str, Any] = json.loads(old) | {"previous": before}
        if table["epoch"] == 1:
            table["accepted_at"] = time_text(parse_time(table["accepted_at"]) - by)
        data = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        path.write_bytes(data)
        before = hashlib.sha256(data).hexdigest()
        digests.append((hashlib.sha256(old).hexdigest(), before))
    return digests


def change(path: Path, how: Callable[[str], str]) -> None:
    path.write_text(how(path.read_text()))


def test_a_time_that_was_moved_in_log_copies_and_trail_is_found_by_the_journal(base_home: Path, tmp_path: Path) -> None:
    with platform(base_home, tmp_path / "home") as one:
        for role in ("journal", "control"):
            one.start(role)
            until(lambda role=role: one.ready(role), role)  # type: ignore[misc]
        for insurer in (0, 1):
            one.start_witness(insurer)  # nothing is published that nobody has witnessed
        switching.close(one.home, "eau/*", ScopeState.HOLD)
        switching.open(one.home, "eau/*")
        until(lambda: asked(one).in_journal == 2, "both epochs in the published journal")
        assert asked(one) == Compared([], 2, 2)
        one.kill("control")

        digests = move_times(one.home, timedelta(days=1))
        for path in (one.home / "switch" / "copies").glob("*.json"):
            path.unlink()
        entries = switch_log(one.config).read_all()
        assert [bool(entry.fault) for entry in entries] == [False, False], "no signature and no chain shows it"
        found = asked(one)
        assert [case.partition(" was told")[0][:20] for case in found.cases] == [
            "epoch 1 of the log i",
            "epoch 2 of the log i",
        ]
        answer = one.command("invariants", "check", "--json", "--home", str(one.home), check=False)
        (third,) = [line for line in json.loads(answer.stdout) if line["number"] == 3]
        assert (third["answer"], third["findings"]) == ("violated", list(found.cases))

        (trail,) = (one.home / "trail").glob("control-*.jsonl")
        whole = trail.read_text()
        for old, new in digests:
            change(trail, lambda text, old=old, new=new: text.replace(old, new))  # type: ignore[misc]
        found = asked(one)
        assert (found.in_journal, len(found.cases)) == (0, 2)
        assert all("the journal has no entry that says" in case for case in found.cases)

        trail.write_text("".join(line for line in whole.splitlines(keepends=True) if "switch.command" not in line))
        assert ["the trail of control has lost them" in case for case in asked(one).cases] == [True]

        one.kill("journal")
        trail.write_text(whole)
        without = asked(one)
        assert (without.in_journal, len(without.cases)) == (None, 2), "what was told says it without the journal too"
