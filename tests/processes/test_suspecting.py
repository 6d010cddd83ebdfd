"""Signed suspicions of a home, and orders of two persons; whoever dies between two steps goes on there (HD-47)."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
import structlog
from tests.kim.mails import PRAXIS, START, a_mail, check, put
from tests.scenarios.platform import build_home
from tests.switch_double import FakeSwitch

from schleuse.config import Config, read_config
from schleuse.holding.receipt import Action, Case, entry
from schleuse.holding.resend import Received, accounts
from schleuse.holding.states import State
from schleuse.holding.suspicion import (
    BadSuspicionError,
    Fate,
    Order,
    SignedSuspicion,
    Suspicion,
    SuspicionRefusedError,
    sign_suspicion,
    suspicion_from,
)
from schleuse.journal.opening import Json
from schleuse.kim.store import MailStore, Take, open_mail_store
from schleuse.processes import eau, suspecting
from schleuse.processes.kim import store_settings
from schleuse.processes.operators import rights_of
from schleuse.processes.suspecting import (
    PURPOSE,
    InsurerLeftError,
    NotKeptAsideError,
    OrderNotApprovedError,
    Suspecting,
    SuspicionDamagedError,
    SuspicionExistsError,
    VoidOrderApprovalError,
    register_all,
)
from schleuse.scopes import Service
from schleuse.switch.approval import LIFETIME, approve
from schleuse.switch.documents import Role
from schleuse.vault.tokens import read_token_key

ANDERE = "andere@arzt.kim.telematik"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WHY = Suspicion("q1", NOW, "this practice's signing key was stolen", senders=(ANDERE,))


class DiedError(Exception):
    pass


@dataclass
class Room:
    """A home with a mail store in which two mails of a suspected sender and one of another wait."""

    config: Config
    mails: MailStore
    switch: FakeSwitch
    told: list[Mapping[str, Json]] = field(default_factory=list)

    @property
    def account(self) -> str:
        return self.config.insurers[0].address.lower()

    def suspecting(self, step: Callable[[str], None] = lambda _name: None) -> Suspecting:
        def tell(facts: Mapping[str, Json], granted: bool) -> None:
            self.told.append({**facts, "granted": granted})

        return Suspecting(self.config, self.mails.leases, self.switch, rights_of(self.config), tell, lambda: NOW, step)

    def signed(
        self, suspicion: Suspicion = WHY, name: str = "betrieb-3", role: Role = Role.CUSTODIAN
    ) -> SignedSuspicion:
        key = read_token_key(self.config.home / "operators" / f"{name}.key")
        return sign_suspicion(suspicion, name, role, key)

    def approve(self, order: Order, name: str, role: Role) -> None:
        key = read_token_key(self.config.home / "operators" / f"{name}.key")
        made = self.suspecting()
        made.approve(order, approve(PURPOSE, order.hash, name, role, key, NOW - timedelta(minutes=1)))

    def states(self) -> dict[State, int]:
        return dict(self.mails.counts().get(self.account, {}))

    def take(self) -> int:
        return len(self.mails.leases.claim([Take(self.account)], 10, "w", NOW, timedelta(minutes=5)).mails)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_home(tmp_path_factory.mktemp("base") / "home")


@pytest.fixture
def room(base: Path, tmp_path: Path) -> Iterator[Room]:
    config = read_config(shutil.copytree(base, tmp_path / "home"))
    addresses = {one.address.lower() for one in config.insurers}
    own = lambda address: address.lower() if address.lower() in addresses else None  # noqa: E731
    with open_mail_store(replace(store_settings(config), reserve_bytes=0), own, background=False) as mails:
        to = config.insurers[0].address
        put(mails, a_mail(1, to, sender=ANDERE), a_mail(2, to, sender=PRAXIS), a_mail(3, to, sender=ANDERE))
        yield Room(config, mails, FakeSwitch())


def dying_at(number: int) -> Callable[[str], None]:
    left = number

    def step(_name: str) -> None:
        nonlocal left
        if left == 0:
            raise DiedError
        left -= 1

    return step


@pytest.mark.parametrize("step", range(4))
def test_a_document_that_was_handed_in_is_carried_out_whenever_somebody_dies(room: Room, step: int) -> None:
    """Recorded, then done: nothing of it is handed out, and handing it in again ends the work."""
    with pytest.raises(DiedError):
        room.suspecting(dying_at(step)).hand_in(room.signed())
    register_all(room.config, room.mails.leases, room.switch)  # as a worker does that starts meanwhile
    assert room.take() == (3 if step == 0 else 1), "before it was written nobody suspects anything"
    room.mails.leases.reset("w")
    room.suspecting().hand_in(room.signed())
    assert room.states() == {State.QUARANTINED: 2, State.HELD: 1}
    assert check(room.mails).holds
    assert room.told[0]["act"] == "quarantine.suspected"


def test_only_somebody_who_answers_for_evidence_suspects_and_only_with_his_own_key(room: Room) -> None:
    """RO-05."""
    made = room.suspecting()
    for signed in (
        room.signed(name="betrieb-1", role=Role.LEAD),
        room.signed(name="betrieb-1", role=Role.CUSTODIAN),
        replace(room.signed(), custodian="nobody"),
        replace(room.signed(), suspicion=replace(WHY, text="something else")),
    ):
        with pytest.raises(SuspicionRefusedError):
            made.hand_in(signed)
    assert room.states() == {State.HELD: 3}
    made.hand_in(room.signed())
    with pytest.raises(SuspicionExistsError):
        made.hand_in(room.signed(replace(WHY, text="something else")))


def approved(room: Room, fate: Fate, *ids: int) -> Order:
    order = Order("o1", "q1", fate, "examined, harmless", ids)
    room.suspecting().order(order)
    with pytest.raises(OrderNotApprovedError):
        room.suspecting().carry_out(order)
    pairs = {
        Fate.HELD: (("betrieb-1", Role.SWITCH_OFFICER), ("betrieb-2", Role.SERVICE_OWNER)),
        Fate.RETURNED: (("betrieb-2", Role.SERVICE_OWNER), ("betrieb-2", Role.RELEASER)),
    }
    for name, role in pairs[fate]:
        with pytest.raises(OrderNotApprovedError):
            room.suspecting().carry_out(order)
        room.approve(order, name, role)
    return order


@pytest.mark.parametrize("step", range(2))
def test_two_persons_give_it_back_and_the_suspicion_ends_whenever_somebody_dies(room: Room, step: int) -> None:
    """T-12, RO-01, RO-04."""
    room.suspecting().hand_in(room.signed())
    order = approved(room, Fate.HELD)
    with pytest.raises(DiedError):
        room.suspecting(dying_at(step)).carry_out(order)
    room.suspecting().carry_out(order)
    register_all(room.config, room.mails.leases, room.switch)
    assert room.states() == {State.HELD: 3}
    put(room.mails, a_mail(4, room.config.insurers[0].address, sender=ANDERE))
    assert room.take() == 4


def lost_index(room: Room) -> None:
    """The rows are gone, as after the index was lost; documents and mail are there."""
    with room.mails.leases.suspicions._backing.writing() as connection:
        for table in ("kim_cleared", "kim_suspicion"):
            connection.execute(sa.text(f"DELETE FROM {table}"))


def active(room: Room) -> bool:
    """After a start of a worker whose index was lost."""
    lost_index(room)
    register_all(room.config, room.mails.leases, room.switch)
    return bool(room.mails.leases.suspicions.active([room.account]))


def test_what_says_that_an_order_was_carried_out_ends_nothing_without_two_persons(room: Room) -> None:
    """RO-01: whoever may write files of this home is still one person."""
    room.suspecting().hand_in(room.signed())
    forged = room.config.switch_folder / "suspicions" / "q1" / "orders" / "o2"
    forged.mkdir(parents=True)
    order = Order("o2", "q1", Fate.HELD, "none")
    (forged / "order.json").write_text(json.dumps(order.encode()))
    room.approve(order, "betrieb-1", Role.SWITCH_OFFICER)
    (mine,) = (json.loads(one.read_bytes()) for one in forged.glob("approval-*.json"))
    done: dict[str, Json] = {"at": NOW.isoformat(), "moved": 0, "hash": order.hash, "approvals": [mine, mine]}
    sayings: list[Json] = [{}, [], done, {**done, "at": 3}, {**done, "hash": "0"}, {**done, "approvals": [3]}]
    for said in sayings:
        (forged / "done.json").write_text(json.dumps(said))
        assert active(room), said
    for damaged in (b"\0", b"[" * 100_000):
        (forged / "done.json").write_bytes(damaged)
        assert active(room)
    (forged / "order.json").write_bytes(b"\0\0")
    (forged / "done.json").write_text(json.dumps(done))
    assert active(room), "an order that nobody can read ends nothing"


def test_what_two_persons_ended_stays_ended_also_when_their_approvals_are_over(room: Room) -> None:
    room.suspecting().hand_in(room.signed())
    order = approved(room, Fate.HELD)
    room.suspecting().carry_out(order)
    folder = room.config.switch_folder / "suspicions" / "q1" / "orders" / order.id
    for path in folder.glob("approval-*.json"):
        path.unlink()  # or written again, later
    assert not active(room)
    table = json.loads((folder / "done.json").read_bytes())
    for change in ({"hash": "0"}, {"at": (NOW + LIFETIME).isoformat()}, {"approvals": table["approvals"][:1]}):
        (folder / "done.json").write_text(json.dumps({**table, **change}))
        assert active(room), change


def test_mail_that_two_persons_gave_back_stays_so_though_the_index_was_lost(room: Room) -> None:
    """By an order for some of it; the suspicion goes on."""
    room.suspecting().hand_in(room.signed())
    first, second = (one.id for one in room.suspecting().quarantined("q1"))
    room.suspecting().carry_out(approved(room, Fate.HELD, first))
    assert active(room)
    assert room.take() == 2
    assert [one.id for one in room.suspecting().quarantined("q1")] == [second]


def test_what_a_claim_kept_aside_just_before_the_end_is_given_back_too(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote the list of what is there did not see it; it is told before it is given back."""
    room.suspecting().hand_in(room.signed())
    order, end = approved(room, Fate.HELD), room.mails.leases.suspicions.end

    def claimed_meanwhile(id: str, now: datetime) -> None:
        put(room.mails, a_mail(4, room.config.insurers[0].address, sender=ANDERE))
        room.take()
        end(id, now)

    monkeypatch.setattr(room.mails.leases.suspicions, "end", claimed_meanwhile)
    room.told.clear()
    assert room.suspecting().carry_out(order) == 3
    assert room.suspecting().quarantined("q1") == []
    assert [len(cast("list[int]", one["deliveries"])) for one in room.told] == [2, 1]


def test_each_mail_that_is_given_back_is_told_in_lines_that_are_not_too_long(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspecting, "TOLD_AT_ONCE", 2)
    put(room.mails, a_mail(4, room.config.insurers[0].address, sender=ANDERE))
    room.suspecting().hand_in(room.signed())
    ids = sorted(one.id for one in room.suspecting().quarantined("q1"))
    order = approved(room, Fate.HELD)
    both: list[list[list[int]]] = [[ids[:2], ids[2:]], [[]]]
    for wanted in both:
        room.told.clear()
        room.suspecting().carry_out(order)
        assert [one["deliveries"] for one in room.told] == wanted
        assert all(one["act"] == "quarantine.carry-out" and one["granted"] for one in room.told)


def test_one_person_in_two_roles_returns_nothing(room: Room) -> None:
    """RO-01: service owner and releaser are the same person here."""
    room.suspecting().hand_in(room.signed())
    first = room.suspecting().quarantined("q1")[0].id
    order = approved(room, Fate.RETURNED, first)
    with pytest.raises(OrderNotApprovedError):
        room.suspecting().carry_out(order)
    assert room.states() == {State.QUARANTINED: 2, State.HELD: 1}


def test_an_approval_of_another_order_or_in_another_role_is_void(room: Room) -> None:
    """RO-04: any change voids it."""
    room.suspecting().hand_in(room.signed())
    order = Order("o1", "q1", Fate.HELD, "examined, harmless")
    room.suspecting().order(order)
    key = read_token_key(room.config.home / "operators" / "betrieb-1.key")
    other = replace(order, deliveries=(1,))
    for void in (
        approve(PURPOSE, other.hash, "betrieb-1", Role.SWITCH_OFFICER, key, NOW),
        approve(PURPOSE, order.hash, "betrieb-1", Role.LEAD, key, NOW),
        approve("release", order.hash, "betrieb-1", Role.SWITCH_OFFICER, key, NOW),
        approve(PURPOSE, order.hash, "betrieb-1", Role.SWITCH_OFFICER, key, NOW, timedelta(days=1)),
    ):
        with pytest.raises(VoidOrderApprovalError):
            room.suspecting().approve(order, void)


def test_an_order_names_only_what_is_kept_aside_for_its_suspicion(room: Room) -> None:
    room.suspecting().hand_in(room.signed())
    (other,) = room.mails.leases.waiting([State.HELD], 10)
    with pytest.raises(NotKeptAsideError):
        room.suspecting().order(Order("o1", "q1", Fate.HELD, "why", (other.id,)))


def test_a_document_that_was_changed_on_disk_stops_people_and_not_the_holding(room: Room) -> None:
    made = room.suspecting()
    made.hand_in(room.signed())
    path = room.config.switch_folder / "suspicions" / "q1" / "document.json"
    written = path.read_text()
    for damaged in ("{", written.replace(ANDERE, "dritte@arzt.kim.telematik")):
        path.write_text(damaged)
        with pytest.raises(SuspicionDamagedError):
            register_all(room.config, room.mails.leases, room.switch)
    assert room.take() == 1


def test_what_was_opened_before_is_listed_by_insurer(room: Room) -> None:
    assert room.take() == 3
    room.suspecting().hand_in(room.signed())
    found = room.suspecting().opened("q1")
    assert {ik: len(mails) for ik, mails in found.items()} == {room.config.insurers[0].ik: 2}


def without_its_insurer(room: Room) -> Config:
    """The operator has taken the first insurer out of the configuration; its mail is still here."""
    return room.config.model_copy(update={"insurers": room.config.insurers[1:]})


def test_mail_of_an_insurer_that_has_left_is_listed_by_its_mailbox(room: Room) -> None:
    """It was a KeyError, and nobody saw anybody's."""
    assert room.take() == 3
    room.suspecting().hand_in(room.signed())
    account = room.account
    room.config = without_its_insurer(room)
    assert {name: len(mails) for name, mails in room.suspecting().opened("q1").items()} == {account: 2}


def test_mail_of_an_insurer_that_has_left_is_not_returned_and_waits_for_its_operator(room: Room) -> None:
    """Nobody knows where its scope stands, so nothing is told, returned or lost; back in the configuration it goes."""
    room.suspecting().hand_in(room.signed())
    others = [one for one in room.config.operators if one.name != "betrieb-3"]
    third = next(one for one in room.config.operators if one.name == "betrieb-3")
    releaser = third.model_copy(update={"roles": (*third.roles, Role.RELEASER.value)})
    room.config = room.config.model_copy(update={"operators": (*others, releaser)})
    order = approved(room, Fate.RETURNED, *(one.id for one in room.suspecting().quarantined("q1")))
    room.approve(order, "betrieb-2", Role.SERVICE_OWNER)
    room.approve(order, "betrieb-3", Role.RELEASER)
    whole, account = room.config, room.account
    room.config = without_its_insurer(room)
    room.told.clear()
    with pytest.raises(InsurerLeftError, match=f"{account}.*schleuse.toml") as refused:
        room.suspecting().carry_out(order)
    assert "carry-out" in str(refused.value)
    assert [one["granted"] for one in room.told] == []
    room.config = whole
    assert room.states() == {State.QUARANTINED: 2, State.HELD: 1}
    assert room.suspecting().carry_out(order) == 2
    assert room.states() == {State.RETURNED: 2, State.HELD: 1}


def test_a_suspicion_is_read_as_it_was_written_and_says_what_it_needs() -> None:
    for bad in (
        {"senders": (), "since": None},
        {"senders": ("no address",)},
        {"since": NOW, "until": NOW},
        {"id": "../q"},
        {"text": " "},
        {"insurers": ("1",)},
    ):
        with pytest.raises(BadSuspicionError):
            replace(WHY, **bad)
    period = replace(WHY, since=NOW, until=NOW + timedelta(hours=1), insurers=("109900011",), references=(("x", "ab"),))
    signed = SignedSuspicion(period, "betrieb-3", Role.CUSTODIAN, b"s")
    assert suspicion_from(json.loads(json.dumps(signed.encode()))) == signed
    with pytest.raises(BadSuspicionError):
        suspicion_from({"suspicion": {}})
    with pytest.raises(BadSuspicionError):
        Order("o1", "q1", Fate.RETURNED, "all of it")


def test_its_sender_hears_that_it_is_being_examined_and_need_not_be_sent_again() -> None:
    """HD-47, § 6.8: the receipt and the reconciliation."""
    said = entry(Case(Service.EAU_INTAKE, "109900011", State.QUARANTINED, START, True, None))
    assert (said.do_not_resend, said.action) == (True, Action.NONE)
    (account,) = accounts([Received(PRAXIS, "109900011", "<1>", START, State.QUARANTINED, "suspected: q1")], [])
    assert (account.must_resend, account.open) == (False, 1)


def without(config: Config, name: str) -> Config:
    return config.model_copy(update={"operators": tuple(one for one in config.operators if one.name != name)})


def test_who_signed_may_leave_and_what_he_suspected_stays_suspected(room: Room) -> None:
    """It only holds more (SW-01), and whoever leaves must not stop the eAU of all insurers."""
    room.suspecting().hand_in(room.signed())
    (operator,) = (one for one in room.config.operators if one.name == "betrieb-3")
    disabled = operator.model_copy(update={"disabled_at": NOW - timedelta(days=1)})
    left = without(room.config, "betrieb-3")
    for config in (
        left,
        left.model_copy(update={"operators": (*left.operators, operator.model_copy(update={"roles": ("lead",)}))}),
        left.model_copy(update={"operators": (*left.operators, disabled)}),
    ):
        lost_index(room)
        with structlog.testing.capture_logs() as lines:
            register_all(config, room.mails.leases, room.switch)
        assert [one["suspicion"] for one in lines if one["event"] == "suspicion.signer-unknown"] == ["q1"]
        assert len(room.mails.leases.suspicions.active([room.account])) == 1
    Path(operator.public_key).unlink()
    lost_index(room)
    register_all(room.config, room.mails.leases, room.switch)
    assert room.take() == 1


def test_a_suspicion_that_ended_asks_for_no_document(room: Room) -> None:
    room.suspecting().hand_in(room.signed())
    room.suspecting().carry_out(approved(room, Fate.HELD))
    (room.config.switch_folder / "suspicions" / "q1" / "document.json").write_text("{")
    register_all(room.config, room.mails.leases, room.switch)
    assert room.take() == 3


def test_a_worker_that_cannot_read_a_suspicion_takes_nothing_and_follows_the_switch(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SW-05: it lives, and goes on once its operator has looked."""
    room.suspecting().hand_in(room.signed())
    path = room.config.switch_folder / "suspicions" / "q1" / "document.json"
    written = path.read_text()
    path.write_text("{")
    done: list[str] = []

    class Follower:
        def step(self, _uncertain: object) -> None:
            done.append("followed")
            if len(done) == 3:
                path.write_text(written)

    class Worker:
        def start(self) -> None:
            done.append("started")

        def run_batch(self) -> int:
            done.append("took")
            return 1

    monkeypatch.setattr(eau, "EauFollower", lambda *_, **__: Follower())
    monkeypatch.setattr(eau, "make_worker", lambda *_: Worker())
    monkeypatch.setattr(eau, "ParentWatch", lambda: SimpleNamespace(gone=lambda: "took" in done))
    monkeypatch.setattr(eau, "TROUBLE_SECONDS", 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    eau._work(room.config, cast("Any", None), "eau-worker-0", cast("Any", None))
    assert done == ["followed", "started"] * 2 + ["took"]
