"""The control role's part of restarts: what leads to S0 comes first, and nothing keeps it waiting (RS-06, RS-07)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.restart.restarting_site import ANNA, EINS, NOW, ZWEI, DeathError, Deaths, Site

from schleuse.errors import UnavailableError
from schleuse.processes.restart_control import PlanMandates
from schleuse.processes.restart_evidence import touched
from schleuse.processes.restarting import NotReadyError, RoleMissingError
from schleuse.restart.gates import Result
from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import GateKind, PlanRefusedError, RestartPlan, StageName, next_version, refuse_change
from schleuse.restart.progress import Changed, Noted, Returned
from schleuse.scopes import Direction, Scope, ScopeState, Service
from schleuse.switch.documents import Kind, Role

HOLD, LIMITED, OPEN = ScopeState.HOLD, ScopeState.LIMITED, ScopeState.OPEN
CANARY, FIRST_COHORT = 3, 4  # stages climbed


def plan(name: str = "r1", service: Service = Service.EAU_INTAKE) -> RestartPlan:
    return default_plan(name, [service], [EINS, ZWEI], EINS, NOW, fast=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path, deaths=Deaths())
    site.close("eau")
    site.close("payments_support")
    return site


def climbed(site: Site, stages: int, made: RestartPlan | None = None) -> Site:
    made = made or plan()
    site.restarts.make(made, "anna")
    site.approve(made.id)
    site.give_documents(made.id)
    for _ in range(stages):
        site.climb(made.id)
    return site


def test_what_a_release_had_let_go_is_held_again_after_an_abort(site: Site) -> None:
    """RS-06: unprocessed messages go back to HELD."""
    climbed(site, CANARY)
    site.released = 40
    site.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
    site.settle()
    assert site.released == 0
    assert [one.count for one in site.book.events("r1") if isinstance(one, Returned)] == [40]


def test_it_is_held_again_as_soon_as_the_store_answers(site: Site) -> None:
    climbed(site, CANARY)
    real = site.control._take_back

    def fails(_plan: RestartPlan) -> int:
        raise UnavailableError("the store does not answer")

    site.control._take_back = fails
    site.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
    site.settle()
    assert not site.at().backlog_returned
    site.control._take_back = real
    site.settle()
    assert site.at().backlog_returned


@pytest.mark.parametrize("how", ["a closing by anybody", "an abort that died before its record"])
def test_a_new_version_does_not_hide_an_abort_that_nobody_has_recorded_yet(site: Site, how: str) -> None:
    """RS-06, RS-08: whoever makes it before the control role has looked records the abort first, and begins in S0."""
    climbed(site, CANARY)
    before = site.at().plan
    assert before is not None
    if how == "a closing by anybody":
        site.close("eau")
    else:
        site.deaths.left = 1  # the closing is in the log; the record of it is not
        with suppress(DeathError):
            site.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
        site.start()
    site.restarts.make(next_version(before, site.now), "anna")
    assert [one.epoch for one in site.restarts.aborts("r1")] == [len(site.log.read_all())]
    assert (site.at().place, site.at().backlog_returned) == (-1, False)
    site.settle()
    assert site.at().backlog_returned


def test_a_rule_aborts_also_while_another_restart_cannot_be_read(site: Site) -> None:
    """T-14: a damaged book of one plan keeps no other from being closed."""
    climbed(site, CANARY)
    climbed(site, 1, plan("a0", Service.PAYMENTS_SUPPORT))
    (site.folder / "restart" / "a0" / "00001.json").write_text("{")
    site.start()
    site.trouble = "a decoy was touched"
    site.settle()
    assert site.state(EINS) is HOLD
    assert site.at().aborted is not None


def test_where_only_a_part_was_closed_the_rest_stays_and_goes_no_further(site: Site) -> None:
    """P-02: a backward step of one insurer reopens nothing, and takes nothing from the others."""
    climbed(site, CANARY + 2)  # both cohorts
    assert (site.state(EINS), site.state(ZWEI)) == (OPEN, OPEN)
    site.close(f"eau_intake/{ZWEI}")
    site.settle()
    assert (site.state(EINS), site.state(ZWEI)) == (OPEN, HOLD)
    assert site.at().place == CANARY + 1
    site.now += timedelta(seconds=3)
    site.sign_both()
    site.settle()
    assert site.at().place == CANARY + 1  # signed by two, and not entered
    with pytest.raises(NotReadyError, match="make a new version"):
        site.restarts.enter("r1")
    before = site.at().plan
    assert before is not None
    site.restarts.make(next_version(before, site.now), "anna")
    site.approve()
    site.climb()
    assert site.at().place == CANARY + 2
    assert (site.state(EINS, Direction.DELIVER), site.state(ZWEI)) == (OPEN, HOLD)


def test_a_changed_configuration_starts_the_soak_anew(site: Site) -> None:
    """RS-11."""
    climbed(site, CANARY)
    site.now += timedelta(seconds=1)
    site.configuration = "c2"
    site.settle()
    assert site.at().soak_from == site.now
    changes = [one for one in site.book.events("r1") if isinstance(one, Changed)]
    assert [(one.by, one.configuration) for one in changes] == [("control", "c2")]
    site.settle()
    assert len([one for one in site.book.events("r1") if isinstance(one, Changed)]) == 1


def test_after_an_abort_two_persons_begin_anew_with_a_newer_version(site: Site) -> None:
    """RS-06, RO-04."""
    climbed(site, CANARY)
    site.restarts.abort("r1", ANNA, Role.SWITCH_OFFICER, "looks wrong")
    site.settle()
    site.now += timedelta(seconds=20)
    site.approve()
    site.give_documents()
    site.settle()
    assert site.at().place == -1
    before = site.at().plan
    assert before is not None
    site.restarts.make(next_version(before, site.now), "anna")
    site.approve()
    for _ in range(CANARY):
        site.climb()
    assert site.state(EINS) is LIMITED


def test_a_stage_that_was_entered_is_not_rewritten(site: Site) -> None:
    climbed(site, CANARY)
    before = site.at().plan
    assert before is not None
    with pytest.raises(PlanRefusedError, match="entered"):
        site.restarts.make(next_version(before, site.now, stages=before.stages[1:]), "anna")


def test_plans_of_the_same_scopes_wait_for_each_other(site: Site) -> None:
    """RS-09."""
    climbed(site, 1)
    with pytest.raises(PlanRefusedError, match="r1 brings back the same"):
        site.restarts.make(plan("r2"), "anna")
    site.restarts.make(plan("p1", Service.PAYMENTS_SUPPORT), "anna")  # an independent group


def test_who_may_not_open_prepares_no_commands(site: Site) -> None:
    climbed(site, CANARY - 1)
    with pytest.raises(RoleMissingError):
        site.restarts.offer("r1", "automat")
    with pytest.raises(RoleMissingError):
        site.restarts.offer("r1", "nobody")


def test_no_commands_are_prepared_for_a_plan_that_nobody_approved(site: Site) -> None:
    site.restarts.make(replace(plan(), stages=plan().stages[2:]), "anna")
    with pytest.raises(NotReadyError, match="approve"):
        site.restarts.offer("r1", "anna")


def test_a_rule_that_died_before_its_record_is_recorded_by_the_next(site: Site) -> None:
    """RS-07, RS-08: the closing is first, its record may wait."""
    climbed(site, CANARY)
    site.trouble = "a decoy was touched"
    site.deaths.left, site.deaths.after = 0, True  # the closing is in the log, and then it died
    with suppress(DeathError):
        site.settle()
    site.start()
    assert site.state(EINS) is HOLD
    assert site.at().place >= 0
    site.settle()
    assert site.at().place == -1
    assert sum(one.signed is not None and one.signed.command.kind is Kind.AUTOMATIC for one in site.log.read_all()) == 1


def test_an_abort_is_recorded_although_others_write_at_the_same_moment(site: Site) -> None:
    climbed(site, CANARY)
    real = site.log.append

    def append(signed: object, now: object) -> object:
        found = real(signed, now)  # type: ignore[arg-type]
        site.book.append("r1", Noted(site.now, "bert", "writes meanwhile"), len(site.book.events("r1")))
        return found

    site.log.append = append  # type: ignore[assignment]
    site.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
    assert site.at().aborted is not None


def test_integrity_is_looked_at_also_in_the_last_stage(site: Site) -> None:
    """RS-07: thirty days of raised monitoring are days in which an abort must still be possible."""
    made = plan()
    last = replace(made.stages[-1], soak=timedelta(days=30))
    climbed(site, len(made.stages), replace(made, stages=(*made.stages[:-1], last)))
    assert site.at().is_done
    site.now += timedelta(days=29)
    site.results[GateKind.DATA] = Result.FAIL
    site.settle()
    assert [one.result for one in site.at().evidence if one.kind is GateKind.DATA][-1] is Result.FAIL
    site.trouble = "integrity"
    site.settle()
    assert site.state(EINS) is HOLD


def test_a_look_that_takes_its_time_keeps_no_abort_waiting(site: Site) -> None:
    """T-14: while one thread looks at something slow, another closes."""
    climbed(site, CANARY)
    site.now += timedelta(minutes=20)
    site.trouble = "a decoy was touched"

    async def both() -> None:
        running = asyncio.create_task(site.control.run())
        while site.at().aborted is None:
            await asyncio.sleep(0.01)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(both(), 30))
    assert site.state(EINS) is HOLD


@pytest.mark.parametrize(
    ("scopes", "concerns"), [("", True), (',"scopes":["eau_intake"]', True), (',"scopes":["epa_read"]', False)]
)
def test_a_warning_about_other_scopes_ends_no_stage(tmp_path: Path, scopes: str, concerns: bool) -> None:
    """RS-09, T-14: who warns may say of what; without it everything is meant."""
    text = f'{{"at":"2026-11-25T12:00:01.000Z","rule":"decoy","action":"auto_hold"{scopes}}}'
    (tmp_path / "w1.json").write_text(text)
    assert bool(touched(tmp_path, plan(), NOW)) is concerns


def test_every_stage_is_recorded_with_its_gates(site: Site) -> None:
    """§ 9.5."""
    climbed(site, CANARY)
    (entered,) = [one for one in site.book.events("r1") if getattr(one, "place", None) == 2 and hasattr(one, "gates")]
    assert any(gate.startswith("HUMAN pass: signed by anna and bert") for gate in entered.gates)
    assert Scope("eau_intake", EINS, "process") in site.at().opened
    assert site.at().has_reached(StageName.S3)


def ended(site: Site) -> Site:
    """The last stage was entered; its soak has begun."""
    climbed(site, 0)
    for _ in range(40):
        if site.at().is_done:
            return site
        site.climb()
    raise AssertionError(site.at().stage)


def test_a_plan_that_is_over_closes_nothing_and_is_not_aborted_by_a_later_closing(site: Site) -> None:
    """§ 9.1: after S9 it is normal; what is closed then is another incident, with another plan."""
    ended(site)
    site.now += timedelta(days=31)
    site.settle()
    site.trouble = "a decoy was touched"
    site.settle()
    assert (site.state(EINS), site.at().aborted) == (OPEN, None)
    assert PlanMandates(site.restarts).valid("r1", site.now) is None
    before = len(site.book.events("r1"))
    site.close("eau")
    site.settle()
    assert site.at().aborted is None
    assert len(site.book.events("r1")) == before, "nothing is measured any more"
    site.restarts.make(plan("r2"), "anna")


def test_until_its_last_soak_is_over_a_plan_is_aborted_by_rule_or_by_any_closing(site: Site) -> None:
    """RS-07: S9 is normal with raised monitoring."""
    ended(site)
    site.trouble = "a decoy was touched"
    site.settle()
    assert (site.state(EINS), site.at().place) == (HOLD, -1)


def test_a_closing_in_the_moment_in_which_a_new_version_is_made_is_an_abort_as_any(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RS-06: the new version stands under what was looked at, so what came after it is still seen."""
    climbed(site, CANARY)
    before = site.at().plan
    assert before is not None
    made, refused = next_version(before, site.now), refuse_change

    def close_first(*versions: Any) -> None:
        site.close("eau")
        refused(*versions)

    monkeypatch.setattr("schleuse.processes.restarting.refuse_change", close_first)
    site.restarts.make(made, "anna")
    site.settle()
    assert (len(site.restarts.aborts("r1")), site.at().place) == (1, -1)
