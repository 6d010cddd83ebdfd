"""A model of restarts with people, looks, closings, time and deaths in any order (SW-01, SW-03, RS-01 to RS-08).

Whatever happens: what became more open was signed by two persons in two roles on exactly that command, its plan was
approved by two and every gate let it in at that moment; what was closed stays closed; and after a death at any step the
same home goes on from where it stood.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.restart.restarting_site import (
    ANNA,
    BERT,
    EINS,
    NOW,
    RIGHTS,
    SIGNERS_BY_NAME,
    ZWEI,
    DeathError,
    Deaths,
    Site,
)

from schleuse.errors import Error
from schleuse.restart.approvals import PLAN, approver
from schleuse.restart.gates import DOCUMENTED, MEASURED, Result
from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import GateKind, next_version
from schleuse.restart.progress import Approved, Entered, Made
from schleuse.scopes import Direction, Scope, ScopeState, Service
from schleuse.switch.documents import Kind, Role

ATOMS = [Scope("eau_intake", ik, direction.value) for ik in (EINS, ZWEI) for direction in Direction]
PEOPLE = st.sampled_from(sorted(SIGNERS_BY_NAME))
OPENING_ROLES = st.sampled_from([Role.SWITCH_OFFICER, Role.RELEASER])


class Restarting(RuleBasedStateMachine):
    """One plan for the eAU of two insurers."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="schleuse-restart-")
        self.site = Site(Path(self._folder.name))
        self.states: dict[Scope, ScopeState] = {}
        self.epoch = 0

    def teardown(self) -> None:
        self._folder.cleanup()

    @initialize(stages=st.integers(0, 6))
    def everything_was_held_and_came_back_some_stages(self, stages: int) -> None:
        climbed(self.site, stages)
        self.states = {atom: self.site.standing(atom).state for atom in ATOMS}
        self.epoch = len(self.site.log.read_all())

    # What people do; a refusal is an answer, too

    @rule(who=PEOPLE, role=OPENING_ROLES)
    def somebody_approves_the_plan(self, who: str, role: Role) -> None:
        self._tried(lambda: self.site.restarts.approve_plan("r1", SIGNERS_BY_NAME[who], role))

    @rule()
    def two_approve_the_plan(self) -> None:
        self._tried(self.site.approve)

    @rule(who=PEOPLE)
    def somebody_prepares_the_commands(self, who: str) -> None:
        self._tried(lambda: self.site.restarts.offer("r1", who))

    @rule(who=PEOPLE, role=OPENING_ROLES)
    def somebody_signs_them(self, who: str, role: Role) -> None:
        self._tried(lambda: self.site.restarts.sign_offer("r1", SIGNERS_BY_NAME[who], role))

    @rule()
    def two_sign_the_next_stage(self) -> None:
        self._tried(self.site.sign_both)

    @rule()
    def every_document_is_given(self) -> None:
        self._tried(self.site.give_documents)

    @rule(kind=st.sampled_from(sorted(DOCUMENTED)), result=st.sampled_from([Result.FAIL, Result.INCONCLUSIVE]))
    def a_document_says_otherwise(self, kind: GateKind, result: Result) -> None:
        self._tried(lambda: self.site.give(kind, result=result))

    @rule(who=PEOPLE, role=st.sampled_from([Role.LEAD, Role.SECURITY_OFFICER]), kind=st.sampled_from(GateKind))
    def somebody_waives(self, who: str, role: Role, kind: GateKind) -> None:
        until = NOW + timedelta(days=30)
        signer = SIGNERS_BY_NAME[who]
        self._tried(lambda: self.site.restarts.waive("r1", kind, signer, role, "by telephone", until))

    @rule()
    def the_plan_is_changed(self) -> None:
        before = self.site.at().plan
        assert before is not None
        self._tried(lambda: self.site.restarts.make(next_version(before, self.site.now), "anna"))

    @rule(by=st.sampled_from([(ANNA, Role.LEAD), (BERT, Role.RELEASER)]))
    def somebody_aborts(self, by: tuple[object, Role]) -> None:
        signer, role = by
        self._tried(lambda: self.site.restarts.abort("r1", signer, role, "looks wrong"))  # type: ignore[arg-type]

    @rule(
        scopes=st.sampled_from(["eau", f"eau_intake/{ZWEI}", f"eau_intake/{EINS}/process", "keys"]),
        kind=st.sampled_from([Kind.MANUAL, Kind.DRILL]),
    )
    def somebody_closes(self, scopes: str, kind: Kind) -> None:
        self._tried(lambda: self.site.close(scopes, kind))

    # What happens by itself

    @rule(
        kind=st.sampled_from(sorted(MEASURED)), result=st.sampled_from([Result.PASS, Result.FAIL, Result.INCONCLUSIVE])
    )
    def a_look_shows(self, kind: GateKind, result: Result) -> None:
        self.site.results[kind] = result

    @rule()
    def all_is_well(self) -> None:
        self.site.results = dict.fromkeys(MEASURED, Result.PASS)
        self.site.trouble = ""

    @rule()
    def a_decoy_is_touched(self) -> None:
        self.site.trouble = "a decoy was touched"

    @rule()
    def the_configuration_is_changed(self) -> None:
        self.site.configuration += "x"

    @rule(seconds=st.sampled_from([1, 3, 11, 700, 1000, 15_000, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.site.now += timedelta(seconds=seconds)

    @rule()
    def control_works(self) -> None:
        self._tried(self.site.settle)

    @rule()
    def all_that_one_stage_needs_is_done(self) -> None:
        """So that the model climbs, and not only tries to."""
        self.all_is_well()
        for step in (self.site.settle, self.site.approve, self.site.give_documents):
            self._tried(step)
        self.site.now += timedelta(seconds=11)
        for step in (self.site.settle, self.site.sign_both, self.site.settle):
            self._tried(step)

    @rule(steps=st.integers(0, 4), after=st.booleans())
    def the_process_will_die(self, steps: int, after: bool) -> None:
        self.site.deaths.left, self.site.deaths.after = steps, after

    @precondition(lambda self: self.site.deaths.left is None)
    @rule()
    def the_process_restarts(self) -> None:
        before = self.site.at(), [atom for atom in ATOMS if self.site.standing(atom).state.begins]
        self.site.start()
        after = self.site.at(), [atom for atom in ATOMS if self.site.standing(atom).state.begins]
        assert after == before  # RS-08

    # What holds at any moment

    @invariant()
    def what_opened_was_signed_by_two_for_exactly_this(self) -> None:
        states = {atom: self.site.standing(atom).state for atom in ATOMS}
        opened = [atom for atom in self.states if states[atom].openness > self.states[atom].openness]
        entries = self.site.log.read_all()
        for atom in opened:
            command = self.site.standing(atom).command
            entry = next(one for one in entries if one.id == command)
            assert entry.signed is not None
            RIGHTS.check(entry.signed, entry.accepted_at)
            people = {RIGHTS.people()[one.operator].person for one in entry.signed.signatures}
            assert len(people) >= 2
            assert entry.signed.command.kind is not Kind.AUTOMATIC
            self._was_let_in(entry.signed.command.plan, entry.epoch)
        self.states, self.epoch = states, len(entries)

    def _was_let_in(self, plan_hash: str, epoch: int) -> None:
        """By a version of the plan that two persons approved before."""
        events = self.site.book.events("r1")
        made = next(one for one in events if isinstance(one, Made) and one.plan.hash == plan_hash)
        approved = [one.approval for one in events if isinstance(one, Approved)]
        who = {person.person for one in approved if (person := approver(one, PLAN, made.plan.hash, RIGHTS))}
        assert len(who) >= 2
        for one in events:
            if isinstance(one, Entered) and epoch in one.epochs:
                assert all(" pass" in gate or " waived" in gate for gate in one.gates) or self._began_before(epoch)

    def _began_before(self, epoch: int) -> bool:
        """A record that a crash kept back judges the gates of the moment when it is made; the opening came before."""
        return epoch <= self.epoch

    @invariant()
    def a_touched_decoy_leaves_nothing_open_once_control_has_worked(self) -> None:
        """T-14."""
        if self.site.trouble and self.site.deaths.left is None and self.site.at().place >= 0:
            opened = self.site.at().opened
            self.site.settle()
            assert self.site.at().place == -1
            assert not any(self.site.standing(atom).state.begins for atom in opened)
            self.states = {atom: self.site.standing(atom).state for atom in ATOMS}

    def _tried(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except DeathError:
            self.site.start()
        except Error:
            pass


TestRestarting = Restarting.TestCase
TestRestarting.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def climbed(site: Site, stages: int) -> Site:
    site.close("eau")
    site.restarts.make(default_plan("r1", [Service.EAU_INTAKE], [EINS, ZWEI], EINS, NOW, fast=True), "anna")
    site.approve()
    site.give_documents()
    for _ in range(stages):
        site.climb()
    return site


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("steps", range(8))
def test_a_death_at_any_step_of_an_entry_ends_where_it_would_have(tmp_path: Path, steps: int, after: bool) -> None:
    """RS-08: kill -9 before and after each durable step from the preparation of the canary to its record."""
    site = climbed(Site(tmp_path, deaths=Deaths()), 2)
    site.now += timedelta(seconds=3)
    site.settle()
    site.deaths.left, site.deaths.after = steps, after
    for _ in range(6):
        try:
            if site.at().offer is None or len(site.at().signed) < 2:
                site.sign_both()
            site.settle()
            break
        except DeathError:
            site.start()
        except Error:
            continue
    site.deaths.left = None
    site.settle()
    if site.at().place < 2:  # the death was before the second signature
        site.sign_both()
        site.settle()
    at = site.at()
    assert at.stage is not None
    assert at.stage.label == "canary"
    assert site.state(EINS) is ScopeState.LIMITED
    ids = [one.id for one in site.log.read_all()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("steps", range(3))
def test_a_death_at_any_step_of_an_abort_leaves_it_closed_and_recorded(tmp_path: Path, steps: int, after: bool) -> None:
    """RS-06: closed by the first step, or not begun; whoever comes next completes the record and holds the backlog."""
    site = climbed(Site(tmp_path, released=7), 3)
    assert site.state(EINS) is ScopeState.LIMITED
    site.deaths.left, site.deaths.after = steps, after
    with suppress(DeathError):
        site.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
        site.settle()
    site.deaths.left = None
    site.start()
    if steps == 0 and not after:  # it died before anything was durable: the person does it again
        assert site.state(EINS) is ScopeState.LIMITED
        site.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
    site.settle()
    assert site.state(EINS) is ScopeState.HOLD
    assert (site.at().place, site.at().backlog_returned, site.released) == (-1, True, 0)
