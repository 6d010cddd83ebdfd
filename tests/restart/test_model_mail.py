"""The model of restarts over a real mail store: held, released, taken back, by workers that see the switch late.

Whatever happens (SW-06, HD-02, HD-25, HD-40, RS-06): nothing is begun that the worker's own copy holds, nothing ends
under an epoch that its store has seen overtaken, what was accepted while it was held goes only by a release or with an
opening that says so, and each mail is held, in work or done, once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from tests.kim.mails import KASSE, LEASE, a_mail, check, put
from tests.kim.mails import Site as Mails
from tests.restart.restarting_site import EINS
from tests.restart.test_model import Restarting

from schleuse.database import sqlite_url
from schleuse.holding.states import State
from schleuse.identifiers import IK
from schleuse.kim.store import Claimed, Outcome, Settings, Take, Under
from schleuse.processes.eau_following import changes_of
from schleuse.restart.plan import RestartPlan
from schleuse.scopes import Direction, Service, atom
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.standing import Standing

PROCESS = atom(Service.EAU_INTAKE, IK(EINS).value, Direction.PROCESS)


class RestartingWithMail(Restarting):
    """One mailbox, of the first insurer; one worker, which may sleep through as many epochs as the model likes.

    fenced: the epoch of the atom that the store has seen. has: what the worker has taken, and under which epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        folder = Path(self._folder.name)
        self.mails = Mails(
            Settings(sqlite_url(folder / "kim.sqlite"), folder / "spool", "kim.example", reserve_bytes=0)
        )
        self.mails.clock = self.site.clock  # type: ignore[assignment]
        self.store = self.mails.open()
        self.seen = Standing(self.site.standing(PROCESS).state, 0)
        self.fenced = self.number = 0
        self.has: dict[int, tuple[Claimed, int]] = {}
        self.done: set[int] = set()
        self.site._take_back = self.take_back  # type: ignore[method-assign]
        self.site.start()

    def teardown(self) -> None:
        self.store.close()
        super().teardown()

    def take_back(self, _plan: RestartPlan) -> int:
        """As `restart_home.take_back_of`: the windows follow first."""
        self.follow()
        return self.store.leases.holds.take_back_all([KASSE])

    def follow(self) -> None:
        entries = self.site.log.read_all()
        self.fenced = self.site.standing(PROCESS).epoch
        changes = changes_of(entries, {KASSE: PROCESS}, self.site.clock)
        self.store.leases.holds.follow({PROCESS: self.fenced}, len(entries), [KASSE], changes, self.site.now)

    @rule(count=st.integers(1, 3))
    def mails_come(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            put(self.store, replace(a_mail(self.number), accepted_at=self.site.now))

    @rule()
    def the_worker_reads_the_switch(self) -> None:
        """Its copy first; the store hears of it in the next step, or from somebody else before."""
        self.seen = LocalSwitch(self.site.log, Path(self._folder.name) / "worker.json", self.site.clock).standing(
            Service.EAU_INTAKE, EINS, Direction.PROCESS
        )

    @rule()
    def somebody_tells_the_store(self) -> None:
        self.follow()

    @rule(limit=st.integers(1, 4))
    def the_worker_takes(self, limit: int) -> None:
        if not self.seen.state.begins:
            return
        before = self.held_back()
        take = Take(KASSE, Under(PROCESS, self.seen.epoch))
        found = self.store.leases.claim([take], limit, "w", self.site.now, LEASE).mails
        assert self.seen.epoch >= self.fenced or not found, "taken under an epoch that the store knows to be over"
        assert not before & {one.id for one in found}, "taken out of a hold"
        self.has |= {one.id: (one, self.seen.epoch) for one in found}

    @rule()
    def the_worker_ends(self) -> None:
        outcomes = [Outcome(id, State.DELIVERED, under=Under(PROCESS, epoch)) for id, (_, epoch) in self.has.items()]
        found = self.store.leases.finish(outcomes, "w", self.site.now)
        late = {id for id, (_, epoch) in self.has.items() if epoch < self.fenced}
        assert found.stale == late
        ended = set(self.has) - late
        assert not ended & self.done
        self.done |= ended
        assert self.store.leases.put_back(sorted(late), "w", self.site.now) == len(late)
        self.has = {}

    @rule(count=st.integers(1, 3))
    def a_release_lets_some_go(self, count: int) -> None:
        backlog = self.store.leases.holds.backlog(KASSE)
        if backlog:
            self.store.leases.holds.release_to(KASSE, backlog[:count][-1])

    @rule()
    def the_worker_and_the_store_die(self) -> None:
        self.store.close()
        self.store = self.mails.open()
        assert self.store.leases.reset("w") == len(self.has)
        self.has = {}

    @rule(scopes=st.sampled_from(["eau", f"eau_intake/{EINS}/process"]), told=st.booleans())
    def the_worker_sleeps_through_a_closing(self, scopes: str, told: bool) -> None:
        """So that the model comes to late ends, and not only may."""
        self.mails_come(2)
        self.somebody_tells_the_store()
        self.the_worker_reads_the_switch()
        self.the_worker_takes(3)
        self._tried(lambda: self.site.close(scopes))
        if told:
            self.somebody_tells_the_store()
        self.the_worker_takes(1)
        self.the_worker_ends()

    @rule()
    def a_stage_is_climbed_and_work_is_done(self) -> None:
        self.all_that_one_stage_needs_is_done()
        self.mails_come(1)
        self.somebody_tells_the_store()
        self.the_worker_reads_the_switch()
        self.the_worker_takes(2)
        self.the_worker_ends()

    def held_back(self) -> set[int]:
        """What no worker may take now, as the store itself says."""
        return set(self.store.leases.holds.backlog(KASSE))

    @invariant()
    def each_mail_is_held_in_work_or_done_and_once(self) -> None:
        found = check(self.store)
        assert found.holds, found
        waiting = self.store.leases.waiting([State.HELD], 1000)
        assert len(waiting) + len(self.has) + len(self.done) == self.number


TestRestartingWithMail = RestartingWithMail.TestCase
TestRestartingWithMail.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
