"""A definite answer for each practice and insurer, from the records alone (§ 6.8)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cli.conftest import NEW
from tests.kim.mails import LEASE, START, Site, a_mail, put
from tests.kim.test_store_audit import spoil
from tests.postgres import fresh_database

from schleuse.config import Config, read_config
from schleuse.errors import UnavailableError
from schleuse.holding.resend import Account, statement
from schleuse.holding.states import State
from schleuse.journal.opening import Json
from schleuse.kim.deferred import Gathered
from schleuse.kim.receipts import BadReceiptError, ReceiptSignatureError, sign, verify
from schleuse.kim.store import MailStore, Outcome, Take, open_mail_store
from schleuse.kim.store.origins import reference_of
from schleuse.processes.home import create_home
from schleuse.processes.kim import load_accounts, store_settings
from schleuse.processes.reconciling import STATEMENT, reconcile_senders, uncertain_deliveries
from schleuse.switch.effects import EffectBook, SwitchEffect

PRAXIS, FERN = "praxis@kim.test.kim.telematik-test", "fern@anderswo.kim.telematik-test"
END = START + timedelta(days=1)
HELD = START + timedelta(minutes=5)


class Place:
    """The mail store of a home with one insurer."""

    def __init__(self, home: Path, database: str | None = None) -> None:
        config = read_config(home)
        kim = config.kim.model_copy(update={"database": database})
        self.config: Config = config.model_copy(update={"kim": kim}) if database else config
        self.account = self.config.insurers[0].address.lower()
        self.accounts = load_accounts(self.config)
        self.settings = replace(store_settings(self.config), reserve_bytes=0)
        self.store: MailStore = open_mail_store(
            self.settings, self.accounts.account_of, now=lambda: START, background=False
        )

    def accept(self, *numbers: int, sender: str = PRAXIS, at: datetime = START) -> None:
        put(self.store, *(replace(a_mail(one, self.account, sender=sender), accepted_at=at) for one in numbers))

    def decide(self, state: State, reason: str | None = None, limit: int = 1, at: datetime = START) -> list[int]:
        taken = [one.id for one in self.store.leases.claim([Take(self.account)], limit, "w", at, LEASE).mails]
        self.store.leases.finish([Outcome(one, state, reason) for one in taken], "w", at)
        return taken

    def hold(self) -> None:
        self.store.leases.holds.begin(self.account, 1, "c", "security_hold", HELD)

    def defer(self, sender: str) -> None:
        gathered = Gathered(self.accounts.account_of)
        gathered.note(sender, self.account, None, START)
        self.store.deferrals.write(gathered.take())

    def ask(self, since: datetime = START, until: datetime = END, practice: str = "", ik: str = "") -> list[Account]:
        return reconcile_senders(self.config, since, until, practice=practice, ik=ik)


@pytest.fixture(scope="module")
def a_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reconciling") / "home"
    create_home(folder, NEW, START)
    return folder


@pytest.fixture
def place(tmp_path: Path, a_home: Path) -> Iterator[Place]:
    made = Place(Path(shutil.copytree(a_home, tmp_path / "home")))
    with made.store:
        yield made


@pytest.mark.postgres
def test_the_answer_is_the_same_from_postgresql(tmp_path: Path, a_home: Path) -> None:
    with fresh_database() as url:
        place = Place(Path(shutil.copytree(a_home, tmp_path / "home")), url)
        with place.store:
            place.accept(1, 2)
            place.decide(State.RETURNED, "eau.signature")
            place.hold()
            place.accept(3, sender="")
            found = {one.sender: one for one in place.ask()}
            assert found[PRAXIS].resend == [("<1@praxis.example>", "eau.signature")]
            assert found[PRAXIS].numbers == {"accepted": 2, "held": 1, "waiting": 1, "returned": 1}
            assert only(place.ask(practice=PRAXIS)).sender == PRAXIS


def only(found: list[Account]) -> Account:
    (one,) = found
    return one


def test_what_is_held_or_delivered_is_not_sent_again(place: Place) -> None:
    place.accept(1, 2)
    place.decide(State.DELIVERED)
    place.hold()
    place.accept(3)
    one = only(place.ask())
    assert (one.sender, one.ik, one.must_resend, one.open) == (PRAXIS, place.config.insurers[0].ik, False, 2)
    assert one.numbers == {"accepted": 3, "delivered": 1, "waiting": 2, "held": 2}


def test_what_was_done_before_a_hold_and_what_came_after_it_was_not_held(place: Place) -> None:
    place.accept(1, 2)
    place.decide(State.DELIVERED, limit=2)
    place.hold()
    place.accept(3, at=HELD + timedelta(minutes=1))
    place.store.leases.holds.end(place.account, 2, HELD + timedelta(hours=1))
    place.accept(4, at=HELD + timedelta(hours=2))
    assert only(place.ask()).numbers["held"] == 1


def test_what_was_held_stays_so_when_it_is_delivered(place: Place) -> None:
    place.accept(1)
    place.hold()
    place.store.leases.holds.end(place.account, 2, HELD + timedelta(hours=1))
    place.store.leases.holds.release_to(place.account, 1 << 60)
    place.decide(State.DELIVERED, at=HELD + timedelta(hours=2))
    assert only(place.ask()).numbers == {"accepted": 1, "delivered": 1, "held": 1}


def test_what_was_returned_is_named_by_the_message_id_that_the_practice_knows(place: Place) -> None:
    place.accept(7, 8)
    place.decide(State.RETURNED, "eau.signature")
    one = only(place.ask())
    assert (one.must_resend, one.resend) == (True, [("<7@praxis.example>", "eau.signature")])


def test_and_by_the_digest_of_it_when_its_record_cannot_be_read(place: Place) -> None:
    place.accept(7)
    (id,) = place.decide(State.RETURNED, "eau.signature")
    spoil(Site(place.settings), place.store, id, 600)
    assert only(place.ask()).resend == [(f"sha256:{reference_of('<7@praxis.example>')}", "eau.signature")]


def test_a_mail_that_names_no_sender_counts_all_the_same(place: Place) -> None:
    """The numbers add up to what was accepted."""
    place.accept(1, sender="")
    place.accept(2)
    assert {one.sender: one.numbers["accepted"] for one in place.ask()} == {"": 1, PRAXIS: 1}


def test_who_was_deferred_and_never_came_back_sends_again(place: Place) -> None:
    place.defer(FERN)
    place.defer(PRAXIS)
    place.accept(1, at=START + timedelta(hours=4))
    assert {one.sender: (one.must_resend, one.deferred) for one in place.ask()} == {
        FERN: (True, 1),
        PRAXIS: (False, 0),
    }


def test_an_uncertain_unit_is_listed_until_it_is_taken_again(place: Place) -> None:
    """SW-10: then its decision is found again, and nothing is uncertain any more."""
    place.accept(1, 2)
    (first,) = place.store.leases.claim([Take(place.account)], 1, "cut", START, LEASE).mails
    book = EffectBook(place.config.switch_folder / "effects")
    book.write(SwitchEffect("eau-worker-0", 3, START, uncertain=(str(first.id),)))
    reference = f"sha256:{reference_of('<1@praxis.example>')}"
    assert only(place.ask()).uncertain == [reference]
    assert not only(place.ask()).must_resend
    place.store.leases.finish([Outcome(first.id, State.DELIVERED)], "cut", START)
    assert only(place.ask()).uncertain == []


def test_what_is_uncertain_elsewhere_or_cannot_be_read_is_no_delivery(place: Place) -> None:
    folder = place.config.switch_folder / "effects"
    book = EffectBook(folder)
    book.write(SwitchEffect("maintenance", 3, START, uncertain=("process 1024",)))
    book.write(SwitchEffect("kim", 3, START, uncertain=("delivery:1024",)))
    book.write(SwitchEffect("eau-worker-1", 3, START, uncertain=("2048",)))
    (folder / f"{3:010d}" / "eau-worker-2.json").write_bytes(b"{")
    assert uncertain_deliveries(folder) == {2048}


def test_the_interval_the_practice_and_the_insurer_are_those_that_were_asked_for(place: Place) -> None:
    place.accept(1)
    place.accept(2, sender=FERN)
    place.accept(3, at=END)
    place.defer("dritte@anderswo.kim.telematik-test")
    assert only(place.ask(practice=FERN.upper())).sender == FERN
    assert place.ask(ik="109999999") == []
    assert only(place.ask(since=END, until=END + timedelta(days=1))).numbers["accepted"] == 1
    assert place.ask(until=START) == []


def test_a_store_that_cannot_be_read_gives_no_answer(place: Place) -> None:
    for path in place.config.home.rglob("kim*.sqlite*"):
        path.unlink()
    with pytest.raises(UnavailableError):
        place.ask()


# --- statements ---


def said(place: Place) -> dict[str, Json]:
    place.accept(1)
    return statement(only(place.ask()), "kim.example", START, END, END)


def test_a_signed_statement_says_what_was_signed(place: Place) -> None:
    key, made = Ed25519PrivateKey.generate(), said(place)
    token = sign(made, key, STATEMENT)
    assert token == sign(made, key, STATEMENT)
    assert verify(token, [Ed25519PrivateKey.generate().public_key(), key.public_key()], STATEMENT) == made
    assert made["must_resend"] == "no"


def test_no_other_key_no_change_and_no_receipt_passes_as_a_statement(place: Place) -> None:
    """RFC 8725 § 3.11."""
    key, made = Ed25519PrivateKey.generate(), said(place)
    token = sign(made, key, STATEMENT)
    head, body, signature = token.split(".")
    for bad in (
        sign(made, Ed25519PrivateKey.generate(), STATEMENT),
        ".".join((head, sign({**made, "must_resend": "yes"}, key, STATEMENT).split(".")[1], signature)),
        sign(made, key),
        body,
    ):
        with pytest.raises((BadReceiptError, ReceiptSignatureError)):
            verify(bad, [key.public_key()], STATEMENT)
    with pytest.raises(BadReceiptError):
        verify(token, [key.public_key()])
