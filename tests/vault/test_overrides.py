"""More than a budget allows: two persons, their entry witnessed, and not for long (journal.md § 14.4)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.switch_double import FakeSwitch
from tests.vault.vaults import (
    AUDIENCE,
    EAU,
    KASSE,
    OPERATOR,
    OTHER,
    SYSTEM,
    Fate,
    build,
    mail,
    store_in,
    take_over,
    token,
)

from schleuse.identifiers import IK
from schleuse.journal.contracts import Level
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.scopes import ScopeState
from schleuse.vault.actors import Caller
from schleuse.vault.budgets import Limits
from schleuse.vault.client import VaultClient
from schleuse.vault.contracts import (
    BadTokenError,
    NotAllowedError,
    OverBudgetError,
    OverrideRefusedError,
    ScopeClosedError,
    VaultUnavailableError,
)
from schleuse.vault.overrides import MAX_HOURS, More, Overrides
from schleuse.vault.server import Desk, listen
from schleuse.vault.tokens import END_OVERRIDE, override_order

SECOND, TWIN = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
SIGNERS = {"op": OPERATOR, "second": SECOND, "alias": OPERATOR, "twin": TWIN}
KEYS = {(name, ""): key.public_key() for name, key in SIGNERS.items()} | {("system", str(KASSE)): SYSTEM.public_key()}
BUDGET, TENANT = Limits(2, 1), Limits(4, 2)
MORE = More("eau", 5, 2, "Rückstand nach dem Ausfall")


class Site:
    """A vault whose budget is two mails an hour, four of all actors together, and what survives it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mails = folder, 0
        self.switch = FakeSwitch()
        self.vault = build(store_in(folder), limits=BUDGET, tenant=TENANT, switch=self.switch)
        self.journal, self.clock = self.vault.journal, self.vault.clock
        self.overrides = self._overrides()

    def restart(self) -> None:
        self.vault = build(self.vault.store, limits=BUDGET, tenant=TENANT, clock=self.clock, journal=self.journal)
        self.overrides = self._overrides()

    def order(self, name: str = "op", more: More = MORE, ik: IK = KASSE) -> str:
        what = override_order(more.role, more.releases, more.hours, more.reason)
        return self.signed(name, what, ik)

    def signed(self, name: str, what: tuple[str, str], ik: IK = KASSE) -> str:
        return token(self.clock, "", ik=ik, signer=SIGNERS[name], issuer=name, purpose="override", what=what)

    async def begin(self, more: More = MORE) -> object:
        return await self.overrides.begin(EAU, KASSE, more, [self.order("op", more), self.order("second", more)])

    async def end(self, role: str = "eau") -> bool:
        return await self.overrides.end(EAU, KASSE, role, self.signed("op", (END_OVERRIDE, role)))

    async def opened(self, most: int = 20) -> int:
        """How many mails can be opened now, one after the other."""
        for done in range(most):
            self.mails += 1
            try:
                await self.vault.service.open_mails(EAU, KASSE, [mail(self.mails)])
            except OverBudgetError:
                return done
        return most

    def granted(self) -> list[Entry]:
        return [one for one in self.journal.entries() if one.kind is Kind.BUDGET_OVERRIDE]

    def _overrides(self) -> Overrides:
        people = {"op": "Anna", "twin": "Anna", "second": "Berta", "alias": "Clara"}
        return Overrides(self.vault.core, [KASSE, OTHER], KEYS, AUDIENCE, people)


def at_site(folder: Path, test: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        site = Site(folder)
        await take_over(site.vault)
        try:
            await test(site)
        finally:
            site.vault.store.close()

    asyncio.run(run())


def test_two_persons_raise_a_budget_and_the_entry_is_witnessed_first(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        assert await site.opened() == 2
        await site.begin()
        assert site.journal.levels[-1] is Level.WITNESSED
        (entry,) = site.granted()
        assert (entry.result, entry.purpose) == (Result.GRANTED, Purpose.OPERATION)
        assert entry.second_actor not in (None, bytes(16), entry.actor)
        assert await site.opened() == 3, "five in the hour, of which two were opened before"
        status = await site.vault.service.status(EAU)
        until = (site.clock() + timedelta(hours=2)).isoformat()
        assert status["overrides"] == [{"ik": KASSE.value, "role": "eau", "releases": 5, "until": until}]

    at_site(tmp_path, test)


def test_its_entry_can_be_opened_and_says_who_why_and_how_much(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        await site.begin()
        event = site.granted()[0].event.bytes
        look = token(site.clock, "", signer=OPERATOR, issuer="op", purpose="opening", what=("OPENING", event.hex()))
        found = str(await site.vault.service.opening(EAU, KASSE, look, event))
        for part in ("operator op", "operator second", MORE.reason, '"releases":5', '"hours":2'):
            assert part in found

    at_site(tmp_path, test)


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNANSWERED, Fate.SLOW])
def test_without_the_witnessed_entry_nothing_is_raised(tmp_path: Path, fate: Fate) -> None:
    """Before the effect and after it; what is in the log all the same can be opened."""

    async def test(site: Site) -> None:
        assert await site.opened() == 2
        site.journal.fates.append(fate)
        with pytest.raises(VaultUnavailableError):
            await site.begin()
        assert site.vault.core.raised.in_force() == {}
        assert await site.opened() == 0
        assert len(site.granted()) == 1, "sent again if need be; it says that it may have been"
        assert site.vault.store.opening(KASSE, site.granted()[0].event.bytes) is not None
        await site.begin()
        assert await site.opened() == 3

    at_site(tmp_path, test)


@pytest.mark.parametrize("names", [("op",), ("op", "op"), ("op", "twin"), ("op", "alias"), (), ("op", "second", "op")])
def test_one_person_is_not_two(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Two credentials of one person are one (RO-01), and so is one key under two names (T-12)."""

    async def test(site: Site) -> None:
        with pytest.raises(BadTokenError, match="two different persons"):
            await site.overrides.begin(EAU, KASSE, MORE, [site.order(name) for name in names])
        assert_refused(site)

    at_site(tmp_path, test)


def assert_refused(site: Site) -> None:
    assert site.granted() == []
    assert site.vault.core.raised.in_force() == {}
    assert [one.result for one in site.journal.denials()] == [Result.DENIED]


@pytest.mark.parametrize(
    "other",
    [
        replace(MORE, releases=6),
        replace(MORE, role="insurer"),
        replace(MORE, hours=3),
        replace(MORE, reason="because"),
    ],
)
def test_both_sign_exactly_this(tmp_path: Path, other: More) -> None:
    async def test(site: Site) -> None:
        with pytest.raises(BadTokenError):
            await site.overrides.begin(EAU, KASSE, MORE, [site.order("op"), site.order("second", other)])
        assert_refused(site)

    at_site(tmp_path, test)


def test_a_token_of_another_insurer_or_another_time_is_refused(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        with pytest.raises(BadTokenError, match="another insurer"):
            await site.overrides.begin(EAU, KASSE, MORE, [site.order("op"), site.order("second", ik=OTHER)])
        assert_refused(site)
        late = site.order("second")
        site.clock.move(600)
        with pytest.raises(BadTokenError, match="not valid now"):
            await site.overrides.begin(EAU, KASSE, MORE, [site.order("op"), late])
        assert site.granted() == []
        with pytest.raises(NotAllowedError):
            await site.overrides.begin(Caller("kim", 1), KASSE, MORE, [])

    at_site(tmp_path, test)


@pytest.mark.parametrize(
    "more",
    [
        replace(MORE, hours=0),
        replace(MORE, hours=MAX_HOURS + 1),
        replace(MORE, reason=" "),
        replace(MORE, reason="x" * 501),
        replace(MORE, releases=1),
        replace(MORE, releases=10**9 + 1),
        replace(MORE, role="platform"),
    ],
)
def test_what_nobody_may_allow(tmp_path: Path, more: More) -> None:
    async def test(site: Site) -> None:
        with pytest.raises(OverrideRefusedError):
            await site.begin(more)
        with pytest.raises(OverrideRefusedError, match="knows no insurer"):
            await site.overrides.begin(EAU, IK("109519005"), MORE, [])
        assert site.granted() == []
        assert site.vault.core.raised.in_force() == {}

    at_site(tmp_path, test)


def test_orders_about_keys_that_are_closed_are_closed_for_this_too_before_and_after_the_entry(tmp_path: Path) -> None:
    """SW-13, SW-06."""

    async def test(site: Site) -> None:
        site.switch.set(f"keys/{KASSE}/admin", ScopeState.CLOSED)
        with pytest.raises(ScopeClosedError):
            await site.begin()
        assert site.granted() == []
        site.switch.set("*", ScopeState.OPEN)
        site.journal.gate = asyncio.Event()
        beginning = asyncio.create_task(site.begin())
        await _until(lambda: site.journal.levels[-1] is Level.WITNESSED)
        site.switch.set(f"keys/{KASSE}/admin", ScopeState.CLOSED)
        site.journal.gate.set()
        with pytest.raises(ScopeClosedError):
            await beginning
        assert site.vault.core.raised.in_force() == {}

    at_site(tmp_path, test)


async def _until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():
            await asyncio.sleep(0)


def test_it_ends_by_itself_and_what_was_opened_meanwhile_counts(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        await site.begin()
        site.clock.move(2 * 3600 - 1)
        assert await site.opened() == 5
        site.clock.move(1)
        assert site.vault.core.raised.in_force() == {}
        assert await site.opened() == 0
        site.clock.move(62 * 60)
        assert await site.opened() == 2

    at_site(tmp_path, test)


def test_a_clock_that_is_set_back_prolongs_nothing(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        await site.begin()
        site.clock.move(2 * 3600)
        site.clock.now -= timedelta(hours=2)
        assert site.vault.core.raised.in_force() == {}
        await site.begin()
        site.clock.now += timedelta(hours=2)  # the machine slept
        assert site.vault.core.raised.in_force() == {}

    at_site(tmp_path, test)


def test_one_operator_ends_it_at_once_and_its_orders_do_not_bring_it_back(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        orders = [site.order("op"), site.order("second")]
        await site.overrides.begin(EAU, KASSE, MORE, orders)
        assert await site.end()
        assert await site.opened() == 2
        (ended,) = [one for one in site.journal.entries() if one.kind is Kind.POLICY_CHANGED]
        assert ended.actor == site.granted()[0].actor
        assert not await site.end()
        for again in (orders, [site.order("op"), orders[1]]):
            with pytest.raises(BadTokenError, match="was used"):
                await site.overrides.begin(EAU, KASSE, MORE, again)
        assert site.vault.core.raised.in_force() == {}
        with pytest.raises(BadTokenError):
            await site.overrides.end(EAU, KASSE, "eau", site.signed("op", (END_OVERRIDE, "insurer")))

    at_site(tmp_path, test)


def test_it_ends_without_the_journal_and_while_its_entry_waits_for_witnesses(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        await site.begin()
        site.journal.fates.append(Fate.LOST)
        with pytest.raises(VaultUnavailableError, match="as configured again"):
            await site.end()
        assert site.vault.core.raised.in_force() == {}

        assert not await site.end(), "nothing is in doubt any more"
        site.journal.gate = asyncio.Event()
        beginning = asyncio.create_task(site.begin())
        await _until(lambda: site.journal.levels[-1] is Level.WITNESSED)
        ending = asyncio.create_task(site.end())
        await _until(lambda: site.journal.levels[-1] is not Level.WITNESSED)
        site.journal.gate.set()
        await ending
        with pytest.raises(OverrideRefusedError, match="ended it before"):
            await beginning
        assert site.vault.core.raised.in_force() == {}

    at_site(tmp_path, test)


def test_a_restart_ends_it(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        await site.begin()
        assert await site.opened() == 5
        site.restart()
        assert await site.opened() == 0, "what was opened counts, and nothing is raised any more"
        site.clock.move(62 * 60)
        assert await site.opened() == 2

    at_site(tmp_path, test)


def test_other_roles_and_insurers_stay_and_the_insurers_own_bucket_is_raised(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        await site.begin()
        raised = site.vault.core.raised
        assert raised.over(Limits(3, 3), KASSE, "eau") == Limits(5, 5)
        assert raised.over(Limits(3, 3), KASSE, None) == Limits(5, 5)
        assert raised.over(Limits(9, 3), KASSE, None) == Limits(9, 5, counted=True)
        assert raised.over(Limits(3, 3), KASSE, "insurer") == Limits(3, 3)
        assert raised.over(Limits(3, 3), OTHER, "eau") == Limits(3, 3)

    at_site(tmp_path, test)


def test_over_the_socket(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async def imports() -> list[dict[str, str]]:
            return []

        path, desk = tmp_path / "vault.sock", Desk(site.vault.service, imports, None, site.overrides)
        roles = {os.getuid(): "operator"}
        async with listen(path, desk, roles):
            with VaultClient(path) as client:
                orders = [site.order("op"), site.order("second")]
                asked = (KASSE, MORE.role, MORE.releases, MORE.hours, MORE.reason)
                with pytest.raises(BadTokenError):
                    await asyncio.to_thread(client.override, *asked, orders[:1])
                with pytest.raises(OverrideRefusedError):
                    await asyncio.to_thread(client.override, KASSE, "all", 5, 1, "because", orders)
                found = await asyncio.to_thread(client.override, *asked, orders)
                assert found["releases"] == 5
                assert (await asyncio.to_thread(client.status))["overrides"] == [found]
                stop = site.signed("second", (END_OVERRIDE, "eau"))
                assert await asyncio.to_thread(client.end_override, KASSE, "eau", stop)
                assert (await asyncio.to_thread(client.status))["overrides"] == []

    at_site(tmp_path, test)
