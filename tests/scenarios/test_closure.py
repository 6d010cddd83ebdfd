"""Closings of the real platform are proven from outside, with `control` and without it (SW-07, SW-17, T-03, T-04)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.scenarios import switching
from tests.scenarios.platform import ROOT, Platform, platform, until

from schleuse.scopes import ScopeState
from schleuse.shutdown.evidence import verify

PROVABLE = "eau_intake/*/process"


@contextmanager
def controlled(base: Path, folder: Path) -> Iterator[Platform]:
    """All roles and `control`."""
    with platform(base, folder) as one:
        one.start_all()
        one.start("control")
        until(lambda: one.ready("control"), "control")
        yield one


def closures(one: Platform, verb: str = "list") -> list[dict[str, Any]]:
    answer = one.command("closure", verb, "--json", "--home", str(one.home), check=False)
    assert answer.returncode in (0, 75), answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def proven(one: Platform) -> bool:
    found = closures(one)
    return bool(found) and {claim["verdict"] for claim in found} == {"proven"}


def seen(one: Platform) -> str:
    """For the message of a test that waited in vain."""
    return "\n".join(path.read_text() for path in sorted((one.home / "switch" / "proofs").rglob("*.json"))[-1:])


def test_a_closing_is_proven_and_stays_proven_when_everything_dies(base_home: Path, tmp_path: Path) -> None:
    with controlled(base_home, tmp_path / "home") as one:
        epoch = switching.close(one.home, PROVABLE, ScopeState.HOLD)
        until(lambda: proven(one), f"the proof\n{seen(one)}", 60)
        claims = closures(one)
        assert {claim["epoch"] for claim in claims} == {epoch}
        assert len(claims) == 2
        accepted = [reply.code for reply in one.send(one.mails(one.order(2)))]
        assert accepted == [250, 250]  # HD-02: held, not refused
        assert verify(one.home / "switch" / "evidence" / f"{epoch:010d}") == []
        assert (one.home / "run" / "retention.frozen").exists()
        before = {(claim["scope"], claim["proven_at"]) for claim in claims}
        for role in list(one.processes):
            one.kill(role)
        one.start_all()
        one.start("control")
        until(lambda: one.ready("control"), "control again")
        assert {(claim["scope"], claim["proven_at"]) for claim in closures(one)} == before
        switching.open(one.home, PROVABLE, with_backlog=True)
        until(lambda: not (one.home / "run" / "retention.frozen").exists(), "deletion to go on")
        until(lambda: len(one.events()) == 2, "what was held")
        assert closures(one) == []


def test_control_that_dies_at_any_step_ends_where_it_would_have(base_home: Path, tmp_path: Path) -> None:
    """Freezing, telling, collecting and proving are each cut off somewhere; the next start does the same again."""
    with platform(base_home, tmp_path / "home") as one:
        one.start_all()
        epoch = switching.close(one.home, PROVABLE, ScopeState.HOLD)
        told, frozen = one.home / "switch" / "told.json", one.home / "run" / "retention.frozen"
        manifest = one.home / "switch" / "evidence" / f"{epoch:010d}" / "manifest.json"
        steps = (frozen.exists, manifest.parent.exists, told.exists, manifest.exists)
        for step in steps:
            one.start("control")
            until(step, "a step of control", 60)
            one.kill("control")
        one.start("control")
        until(lambda: proven(one), f"the proof\n{seen(one)}", 60)
        assert verify(manifest.parent) == []
        assert json.loads(told.read_bytes()) == {"epoch": epoch}


def test_with_control_dead_a_closing_is_in_force_and_its_proof_is_made_afterwards(
    base_home: Path, tmp_path: Path
) -> None:
    """T-04."""
    with platform(base_home, tmp_path / "home") as one:
        one.start_all()
        switching.close(one.home, "eau_intake/109900011/process", ScopeState.HOLD)
        assert [claim["text"] for claim in closures(one)] == ["commanded, not proven (inconclusive)"]

        def by_hand() -> bool:
            return {claim["verdict"] for claim in closures(one, "prove")} == {"proven"}

        until(by_hand, f"the proof\n{seen(one)}", 60)


def test_a_drill_that_control_finds_cut_short_is_ended_by_it(base_home: Path, tmp_path: Path) -> None:
    """SW-15: nothing stays closed because somebody died while it was only rehearsed."""
    with controlled(base_home, tmp_path / "home") as one:
        home = ["--home", str(one.home)]
        id = one.command("drill", "plan", "keys/109900022", "--operator", "betrieb-1", *home).stdout.strip()
        one.command("drill", "sign", id, "--operator", "betrieb-2", "--yes", *home)
        one.kill("control")
        closing_of(one, id)
        one.start("control")
        result = one.home / "switch" / "drills" / id / "result.json"
        until(result.exists, f"the end of the drill\n{one.log('control')}", 90)
        assert json.loads(result.read_bytes())["outcome"] == "passed"
        assert closures(one) == []


def closing_of(one: Platform, id: str) -> None:
    """The first step of a drill whose command died after it."""
    from schleuse.processes.control_drills import drill_book
    from schleuse.processes.switching import switch_log

    plan = drill_book(one.config.switch_folder).read_plan(id)
    switch_log(one.config).append(plan.closing, datetime.now(UTC))


def test_one_person_cannot_sign_both_sides_of_a_drill(base_home: Path, tmp_path: Path) -> None:
    """SW-01, RO-01; nothing of the platform runs."""
    with platform(base_home, tmp_path / "home") as one:
        home = ["--home", str(one.home)]
        id = one.command("drill", "plan", "eau_intake", "--operator", "betrieb-1", *home).stdout.strip()
        refused = one.command("drill", "sign", id, "--operator", "betrieb-1", "--yes", *home, check=False)
        assert refused.returncode == 77
        early = one.command("drill", "run", id, "--yes", *home, check=False)
        assert early.returncode == 77
        assert switching.epoch(one.home) == 0


def test_what_stays_open_is_said_and_signed_by_a_person(base_home: Path, tmp_path: Path) -> None:
    """Exception of § 5.3: with one, nothing is left to be done; it never says that the scope is off (SW-17)."""
    with platform(base_home, tmp_path / "home") as one:
        home = ["--home", str(one.home)]
        switching.close(one.home, "keys/109900011/admin", ScopeState.HOLD)
        assert one.command("closure", "list", *home, check=False).returncode == 75
        id = one.command(
            "closure", "exception", "keys/109900011", "--why", "the vault is away", "--measure", "its host is off",
            "--operator", "betrieb-1", *home,
        ).stdout.strip()  # fmt: skip
        [claim] = map(json.loads, one.command("closure", "list", "--json", *home).stdout.splitlines())
        assert (claim["exception"], claim["verdict"]) == (id, "inconclusive")
        one.command("closure", "end-exception", id, "--operator", "betrieb-1", *home)
        assert one.command("closure", "list", *home, check=False).returncode == 75
        assert "ended" in one.command("closure", "exceptions", *home).stdout


def test_a_system_that_is_not_ours_follows_the_switch_and_survives_the_death_of_control(
    base_home: Path, tmp_path: Path
) -> None:
    """SW-08; with `control` alone: nothing else of the platform need run."""
    script, pidfile = str(ROOT / "deploy" / "external" / "service"), str(tmp_path / "payments.pid")
    program = ["sleep", "600"]
    external = (
        '[[control.external]]\nname = "payments"\nscope = "payments_support"\n'
        f"stop = {json.dumps([script, 'stop', pidfile])}\n"
        f"start = {json.dumps([script, 'start', pidfile, *program])}\n"
        f"probe = {json.dumps([script, 'probe', pidfile])}\n\n[vault]\n"
    )

    def runs() -> bool:
        return subprocess.run([script, "probe", pidfile], check=False).returncode == 0

    subprocess.run([script, "start", pidfile, *program], check=True)
    try:
        with platform(base_home, tmp_path / "home", {"[vault]\n": external}) as one:
            one.start("control")
            until(lambda: one.ready("control"), "control")
            switching.close(one.home, "payments_support", ScopeState.CLOSED)
            until(lambda: proven(one), f"the proof\n{seen(one)}", 60)
            assert not runs()
            one.kill("control")
            one.start("control")
            until(lambda: one.ready("control"), "control again")
            assert not runs()
            switching.open(one.home, "payments_support")
            if "external.unsure" in one.log("control"):  # so busy a machine that the probe took more than a second
                for name in ("betrieb-1", "betrieb-2"):
                    one.command("switch", "start", "payments", "--operator", name, "--yes", "--home", str(one.home))
            until(runs, f"the service to come back\n{one.log('control')}", 60)
            assert closures(one) == []
    finally:
        subprocess.run([script, "stop", pidfile], check=False)
