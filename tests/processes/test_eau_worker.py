"""One worker of the eau role on real mails: what is off at our side waits, and one odd mail stops no other (HD-01)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from tests.switch_double import FakeSwitch
from tests.vault_double import Call, VaultDouble, vault_of

from schleuse.config import Config, read_config
from schleuse.database import sqlite_url
from schleuse.eau.checks import Checked, Checker
from schleuse.eau.codes import Fault
from schleuse.eau.decision import Flawed, judge
from schleuse.eau.intake import LOOK_EVERY, Mailbox, Tools, examine
from schleuse.eau.outcome import Policy
from schleuse.eau.store import EauStore, open_store
from schleuse.eau.switched import processing
from schleuse.eau.tables import CONTENT, DOCUMENT
from schleuse.eau.trips import FIRST_REST
from schleuse.eau.worker import STEPS, Overtaken, Worker
from schleuse.environment import Environment
from schleuse.errors import Error
from schleuse.holding.states import State
from schleuse.identifiers import IK
from schleuse.kim.directory import DirectoryFile
from schleuse.kim.pki import DevelopmentCA
from schleuse.kim.store import Claimed, Claims, Finished, Outcome, Take, Under
from schleuse.mail.contracts import Mail
from schleuse.mail.smime.trust import NoTrustAnchorError
from schleuse.practice.documents import Document, Generator, Insurer
from schleuse.practice.faults import FAULTS, Workshop
from schleuse.practice.identity import load_practice
from schleuse.practice.mailing import Addressee, new_message_id
from schleuse.processes.eau import Anchors, make_worker
from schleuse.processes.home import NewHome, NewInsurer, NewPractice, create_home
from schleuse.scopes import ScopeState
from schleuse.switch.documents import Limit
from schleuse.vault import Named, Pseudonyms, SealedMail, Signer
from schleuse.vault.contracts import (
    BadRequestError,
    KeyMissingError,
    OverBudgetError,
    ScopeClosedError,
    SealBrokenError,
    UnwrapFailedError,
)

NOW = datetime.now(UTC)  # certificates of the home are made now
EINS, ZWEI = "109900011", "109900022"


class FakeLeases:
    """Hands out its mails once, and keeps what is said of them."""

    def __init__(self, mails: Sequence[Claimed]) -> None:
        self.mails = list(mails)
        self.states: dict[int, State] = {}
        self.reasons: dict[int, str | None] = {}
        self.asked: list[set[str]] = []
        self.takes: dict[str, Take] = {}
        self.stale: frozenset[int] = frozenset()  # deliveries whose insurer was switched before they were finished

    def claim(self, takes: Sequence[Take], limit: int, _o: str, _n: datetime, _l: timedelta) -> Claims:
        self.takes = {take.account: take for take in takes}
        self.asked.append(set(self.takes))
        taken = [mail for mail in self.mails if mail.account in self.takes][:limit]
        self.mails = [mail for mail in self.mails if mail not in taken]
        return Claims([replace(mail, under=self.takes[mail.account].under) for mail in taken])

    def finish(self, outcomes: Sequence[Outcome], _owner: str, _now: datetime) -> Finished:
        done = [one for one in outcomes if one.id not in self.stale]
        self.states |= {one.id: one.state for one in done}
        self.reasons |= {one.id: one.reason for one in done}
        return Finished(stale=frozenset(one.id for one in outcomes) & self.stale)

    def put_back(self, ids: Sequence[int], _owner: str, _not_before: datetime) -> int:
        self.states |= dict.fromkeys(ids, State.HELD)
        return len(ids)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "home"
    insurers = (NewInsurer(IK(EINS), "Kasse Eins", "eins"), NewInsurer(IK(ZWEI), "Kasse Zwei", "zwei"))
    new = NewHome(Environment.TEST, "kim.test.kim.telematik-test", insurers, [NewPractice("praxis", "Praxis")])
    create_home(folder, new, NOW)
    return folder


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker("own")


@pytest.fixture
def home(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "home")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EauStore]:
    opened = open_store(sqlite_url(tmp_path / "eau.sqlite"))
    yield opened
    opened.close()


class OtherOctets:
    """Signs something else than it was given."""

    def __init__(self, honest: Signer) -> None:
        self.certificate = honest.certificate
        self._honest = honest

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        return self._honest.sign(data + b"changed")


class Sender:
    """A practice with a pen of its own."""

    def __init__(self, config: Config) -> None:
        address = config.insurers[0].address
        to = Addressee(address, DirectoryFile(config.kim.directory).current().certificates(address)[0])
        self.workshop = Workshop(load_practice(config, None), to, "T", new_message_id(), NOW)
        self.account = address.lower()

    def document(self, seed: int = 1) -> Document:
        return Generator(Random(seed), NOW).eau("1.2", insurer=Insurer(EINS, "Kasse Eins"), payor="GKV")

    def mail(self, seed: int = 1, payload: bytes | None = None, header: bytes = b"") -> bytes:
        document = self.document(seed)
        inner = self.workshop.inner(document, payload or self.workshop.payload(document))
        return self.workshop.wire(re.sub(rb"Reply-To: [^\r]*\r\n", header, inner) if header else inner)

    def faulty(self, name: str, seed: int = 1) -> bytes:
        return self.workshop.build(self.document(seed), FAULTS[name])


@pytest.fixture
def sender(base: Path) -> Sender:
    return Sender(read_config(base))


Run = Callable[..., FakeLeases]


@pytest.fixture(scope="module")
def keys(base: Path) -> VaultDouble:
    return vault_of(read_config(base))


@pytest.fixture
def vault(keys: VaultDouble) -> VaultDouble:
    return VaultDouble(keys.keys)


@pytest.fixture
def switch() -> FakeSwitch:
    return FakeSwitch()


@pytest.fixture
def run(home: Path, sender: Sender, store: EauStore, checker: Checker, vault: VaultDouble, switch: FakeSwitch) -> Run:
    """Process mails in one batch, in the changed home; the leases afterwards."""

    def process(
        *mails: bytes, now: datetime = NOW, checker: Checker = checker, vault: VaultDouble = vault
    ) -> FakeLeases:
        config = read_config(home)
        leases = FakeLeases([claimed(number, sender.account, mail) for number, mail in enumerate(mails, 1)])
        worker: Worker = make_worker(config, checker, "w", leases, store, vault, switch)  # type: ignore[arg-type]
        worker.now = lambda: now
        worker.run_batch()
        return leases

    return process


def claimed(number: int, account: str, content: bytes) -> Claimed:
    digest = number.to_bytes(32, "big")
    return Claimed(number, number, account, None, "", digest, NOW, Mail("", (), content, NOW))


def test_a_good_mail_is_filed_and_a_faulty_one_is_answered(run: Run, sender: Sender, store: EauStore) -> None:
    leases = run(sender.mail(), sender.faulty("certificate", 2))
    assert leases.states == {1: State.DELIVERED, 2: State.RETURNED}
    assert leases.reasons[2] == "fehlernachricht 201"
    assert store.letters.waiting() == 1


def test_trust_anchors_of_another_world_make_mails_wait(run: Run, sender: Sender, store: EauStore, home: Path) -> None:
    DevelopmentCA.create(NOW, name="Andere CA").save(home / "pki")
    assert run(sender.mail()).states == {1: State.HELD}
    assert store.letters.waiting() == 0


@pytest.mark.parametrize("behind", [timedelta(hours=3), timedelta(days=3650)])
def test_a_clock_that_is_behind_makes_mails_wait(run: Run, sender: Sender, store: EauStore, behind: timedelta) -> None:
    assert run(sender.mail(), now=NOW - behind).states == {1: State.HELD}
    assert store.letters.waiting() == 0


def test_a_directory_that_has_forgotten_us_makes_mails_wait(run: Run, sender: Sender, home: Path) -> None:
    (home / "directory.json").write_text("[]")
    assert run(sender.faulty("key")).states == {1: State.HELD}


def test_a_reply_to_that_the_parser_cannot_bear_stops_no_other_mail(run: Run, sender: Sender) -> None:
    hostile = b"Reply-To: " + b"(" * 900 + b" a@b.kim.telematik-test\r\n"
    leases = run(sender.mail(1, b"no p7s", hostile), sender.mail(2))
    assert leases.states == {1: State.RETURNED, 2: State.DELIVERED}


def test_a_mistake_of_ours_in_one_mail_stops_no_other(run: Run, sender: Sender, store: EauStore) -> None:
    class Mistaken(Checker):
        mistakes = 1

        def check(self, xml: bytes, *, warnings: bool = False) -> Checked:
            if self.mistakes:
                self.mistakes -= 1
                raise RecursionError
            return super().check(xml, warnings=warnings)

    leases = run(sender.mail(1), sender.mail(2), checker=Mistaken("own"))
    assert leases.states == {1: State.HELD, 2: State.DELIVERED}
    assert store.letters.waiting() == 0


def test_a_mail_that_nobody_can_be_answered_on_says_so(run: Run) -> None:
    leases = run(
        b"From: praxis@example.org\r\nMessage-ID: <a@b>\r\nX-KIM-Dienstkennung: eAU;Lieferung;V1.2\r\n\r\nnothing\r\n"
    )
    assert leases.states == {1: State.QUARANTINED}
    assert leases.reasons[1] == "no_address"


def test_a_storno_that_overtook_a_faulty_eau_is_answered_under_its_own_number(
    run: Run, sender: Sender, store: EauStore, vault: VaultDouble
) -> None:
    storno = Generator(Random(9), NOW).storno(sender.document())
    leases = run(
        sender.workshop.wire(sender.workshop.inner(storno, sender.workshop.payload(storno))), sender.faulty("schema")
    )
    assert leases.states == {1: State.DELIVERED, 2: State.RETURNED}
    answer = next(letter for letter in store.letters.due(datetime.now(UTC), 10) if letter.code == 105)
    draft = message_from_bytes(vault.open_letter(answer.ik, answer.message_id, answer.draft))
    (_, xml) = (part.get_payload(decode=True) for part in draft.walk() if not part.is_multipart())
    assert isinstance(xml, bytes)
    assert storno.document_id.encode() in xml
    assert b"105" in xml


def test_a_storno_of_a_practice_that_nobody_can_write_to_waits_all_the_same(
    run: Run, sender: Sender, store: EauStore
) -> None:
    storno = Generator(Random(9), NOW).storno(sender.document())
    inner = sender.workshop.inner(storno, sender.workshop.payload(storno))
    nobody = re.sub(rb"(From|Reply-To): [^\r]*\r\n", rb"\1: praxis@example.org\r\n", inner)
    leases = run(sender.workshop.wire(nobody))
    assert (leases.states, leases.reasons) == ({1: State.DELIVERED}, {1: "storno_pending"})


@pytest.mark.parametrize("id", ["urn:uuid:" + "7" * 250, "a\u200bb"])
def test_a_dokumenten_id_that_cannot_be_kept_is_shown_to_people(
    run: Run, sender: Sender, store: EauStore, id: str
) -> None:
    document = sender.document()
    storno = Generator(Random(9), NOW).storno(document)
    mails = [
        sender.workshop.wire(sender.workshop.inner(document, sender.workshop.payload(replace(one, xml=odd))))
        for one in (document, storno)
        if (odd := one.xml.replace(document.document_id.encode(), id.encode()))
    ]
    leases = run(*mails)
    assert leases.states == {1: State.QUARANTINED, 2: State.QUARANTINED}
    assert leases.reasons == {1: "id_unkeepable", 2: "id_unkeepable"}
    assert store.letters.waiting() == 0


@pytest.mark.parametrize("storno_first", [False, True])
def test_a_storno_of_another_practice_is_told_without_naming_anybody(
    run: Run, sender: Sender, store: EauStore, storno_first: bool
) -> None:
    eau = sender.document()
    foreign = Generator(Random(9), NOW).storno(replace(sender.document(2), document_id=eau.document_id))
    order = [foreign, eau] if storno_first else [eau, foreign]
    with capture_logs() as log:
        run(*(sender.workshop.wire(sender.workshop.inner(one, sender.workshop.payload(one))) for one in order))
    told = [line for line in log if line["event"] == "eau.storno_of_other_practice"]
    numbers = {"storno": 1 + order.index(foreign), "eau": 1 + order.index(eau)}
    assert told == [{"event": "eau.storno_of_other_practice", "log_level": "warning", **numbers}]


def test_mails_that_wait_are_told_once_a_batch_with_the_number_of_each_reason(
    run: Run, sender: Sender, home: Path
) -> None:
    (home / "directory.json").write_text("not a directory")
    with capture_logs() as log:
        leases = run(sender.mail(1), sender.mail(2), sender.faulty("schema", 3), sender.faulty("schema", 4))
    held = sum(state is State.HELD for state in leases.states.values())
    (line,) = [line for line in log if line["event"] in ("eau.waits", "eau.decided")]
    assert (line["mails"], line["reasons"]) == (held, {"directory": held})
    assert held == 2


def a_dsn(status_lines: bytes) -> bytes:
    return (
        b"From: postmaster@provider.kim.telematik-test\r\nMessage-ID: <dsn@b>\r\nAuto-Submitted: auto-replied\r\n"
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nBericht\r\n"
        b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; provider\r\n\r\n"
        b"Final-Recipient: rfc822; praxis@a.kim.telematik-test\r\n" + status_lines + b"\r\n--b--\r\n"
    )


@pytest.mark.parametrize(
    ("status_lines", "state", "reason"),
    [
        (b"Action: failed\r\nStatus: 5.1.1\r\n", State.QUARANTINED, "undelivered_letter"),
        (b"Action: fehlgeschlagen\r\nStatus: 5.0.0\r\n", State.QUARANTINED, "undelivered_letter"),
        (b"Action: failed\r\n", State.QUARANTINED, "undelivered_letter"),
        (b"Action: delivered\r\nStatus: 2.0.0\r\n", State.DELIVERED, "dsn"),
        (b"Action: delayed\r\nStatus: 4.4.1\r\n", State.DELIVERED, "dsn"),
        (b"nothing that could be read\r\n", State.DELIVERED, "dsn"),
    ],
)
def test_people_see_the_report_of_a_failure_and_no_other_report(
    run: Run, status_lines: bytes, state: State, reason: str
) -> None:
    leases = run(a_dsn(status_lines))
    assert (leases.states, leases.reasons) == ({1: state}, {1: reason})


def test_an_answer_gives_the_reason_of_its_own_code(
    sender: Sender, base: Path, checker: Checker, vault: VaultDouble
) -> None:
    config = read_config(base)
    tools = Tools(vault, Anchors(config.eau.trust).current, checker, DirectoryFile(config.kim.directory).current)
    practice = sender.workshop.practice
    liar = replace(sender.workshop, practice=replace(practice, mail_signer=OtherOctets(practice.mail_signer)))
    raw = liar.wire(sender.workshop.inner(sender.document(), b"no p7s"))
    box = {sender.account: Mailbox(IK(EINS), sender.account)}
    (examined,) = examine(IK(EINS), [claimed(1, sender.account, raw)], box, tools, NOW, lambda: None).mails
    judged = judge(examined.findings, Policy("T"))
    assert isinstance(judged, Flawed)
    assert judged.fault is Fault.MAIL_CONTENT_DIFFERS
    assert [(detail.path, detail.rule) for detail in judged.details] == [
        ("KIM-Nachricht", "IntegrityCheckResult 02"),
        ("p7s", "CMS"),
    ]


def test_anchors_are_read_again_when_their_file_has_changed(tmp_path: Path) -> None:
    first = DevelopmentCA.create(NOW, name="Eins")
    path = first.save(tmp_path)
    anchors = Anchors([path])
    assert anchors.current() is anchors.current()
    DevelopmentCA.create(NOW, name="Zwei").save(tmp_path)
    assert anchors.current().anchors[0] != first.certificate
    path.unlink()
    with pytest.raises(NoTrustAnchorError):
        anchors.current()


# --- the vault (RP-01) ---


def held_for(run: Run, *mails: bytes) -> tuple[dict[int, State], dict[str, int]]:
    """(states, number of waiting mails by reason)."""
    with capture_logs() as log:
        leases = run(*mails)
    waits = [line["reasons"] for line in log if line["event"] == "eau.waits"]
    return leases.states, waits[0] if waits else {}


def test_a_batch_is_three_round_trips_to_the_vault(run: Run, sender: Sender, vault: VaultDouble) -> None:
    run(sender.mail(1), sender.mail(2), sender.faulty("certificate", 3), b"From: a@b\r\n\r\nno KIM mail\r\n")
    asked = {method: vault.trips(method) for method in ("certificates", "open_mails", "pseudonyms", "file")}
    assert asked == {"certificates": [0], "open_mails": [3], "pseudonyms": [3], "file": [2]}
    assert vault.opened == [1, 2, 3]
    assert vault.trips("seal_letter") == [1]


def test_what_is_kept_are_pseudonyms_and_containers_of_the_vault(
    run: Run, sender: Sender, store: EauStore, vault: VaultDouble
) -> None:
    run(sender.mail(1))
    with store._engine.connect() as connection:
        row = connection.execute(sa.select(DOCUMENT, CONTENT.c.p7s).join(CONTENT, sa.true())).one()
    assert (len(row.person), len(row.content_key), len(row.practice)) == (16, 32, 32)
    assert vault.fetch(IK(EINS), "token", row.document_id, "p7s", row.p7s).startswith(b"\x30")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["*", "certificates", "open_mails", "pseudonyms", "file"])
def test_mails_wait_while_the_vault_does_not_serve_and_are_worked_off_afterwards(
    run: Run, sender: Sender, store: EauStore, vault: VaultDouble, method: str, after: bool
) -> None:
    vault.fail(method, after=after)
    mails = sender.mail(1), sender.mail(2)
    assert held_for(run, *mails) == ({1: State.HELD, 2: State.HELD}, {"key": 2})
    assert vault.opened == (
        [] if method in ("*", "certificates") or (method, after) == ("open_mails", False) else [1, 2]
    )
    assert store.documents(IK(EINS)) == {}
    vault.recover()
    assert run(*mails).states == {1: State.DELIVERED, 2: State.DELIVERED}
    assert store.letters.waiting() == 0


@pytest.mark.parametrize("after", [False, True])
def test_a_faulty_mail_waits_for_its_answer_to_be_sealed_and_no_other_does(
    run: Run, sender: Sender, store: EauStore, vault: VaultDouble, after: bool
) -> None:
    vault.fail("seal_letter", after=after)
    mails = sender.faulty("certificate", 1), sender.mail(2), sender.faulty("certificate", 3)
    assert run(*mails).states == {1: State.HELD, 2: State.DELIVERED, 3: State.HELD}
    assert vault.trips("seal_letter") == [1]  # asked once: it happens under a lock
    vault.recover()
    assert run(*mails).states == {1: State.RETURNED, 2: State.DELIVERED, 3: State.RETURNED}
    assert store.letters.waiting() == 2


def test_a_report_needs_no_vault(run: Run, vault: VaultDouble) -> None:
    vault.fail("*")
    assert run(a_dsn(b"Action: delivered\r\n")).states == {1: State.DELIVERED}


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (UnwrapFailedError("wrongly built"), State.RETURNED, {}),
        (KeyMissingError("no such key"), State.HELD, {"key": 1}),
        (SealBrokenError("damaged"), State.HELD, {"key": 1}),
        (BadRequestError("our own mistake"), State.HELD, {"key": 1}),
        (OverBudgetError("enough for now"), State.HELD, {"budget": 1}),
    ],
)
def test_what_keeps_one_mail_closed_is_told_to_its_sender_only_if_it_is_his_fault(
    run: Run, sender: Sender, store: EauStore, vault: VaultDouble, error: Error, state: State, reason: dict[str, int]
) -> None:
    vault.mail_errors[1] = error
    assert held_for(run, sender.mail(1), sender.mail(2)) == ({1: state, 2: State.DELIVERED}, reason)
    assert store.letters.waiting() == (state is State.RETURNED)


def test_beyond_the_budget_mails_wait_and_those_within_it_are_opened(
    run: Run, sender: Sender, keys: VaultDouble
) -> None:
    class Budgeted(VaultDouble):
        def open_mails(self, ik: IK, mails: Sequence[SealedMail]) -> Sequence[bytes | Error]:
            if len(mails) > 1:
                self.calls.append(Call("open_mails", ik, len(mails)))
                raise OverBudgetError("one mail an hour")
            return super().open_mails(ik, mails)

    budgeted = Budgeted(keys.keys)
    states = run(*(sender.mail(number) for number in range(1, 5)), vault=budgeted).states
    assert states == {1: State.DELIVERED, 2: State.HELD, 3: State.HELD, 4: State.HELD}
    assert budgeted.trips("open_mails") == [4, 2, 1]


def test_a_person_who_is_erased_meanwhile_makes_its_own_document_wait_and_no_other(
    run: Run, sender: Sender, keys: VaultDouble
) -> None:
    class Erasing(VaultDouble):
        def pseudonyms(self, ik: IK, named: Sequence[Named]) -> Sequence[Pseudonyms]:
            found = super().pseudonyms(ik, named)
            self.erase(ik, named[0].person)
            return found

    erasing = Erasing(keys.keys)
    assert run(sender.mail(1), sender.mail(2), vault=erasing).states == {1: State.HELD, 2: State.DELIVERED}
    assert erasing.trips("file") == [2, 1, 1]


def test_the_mail_of_an_insurer_whose_vault_does_not_serve_is_left_alone_for_a_while(
    sender: Sender, store: EauStore, checker: Checker, vault: VaultDouble, home: Path
) -> None:
    config = read_config(home)
    leases = FakeLeases([claimed(number, sender.account, sender.mail(number)) for number in (1, 2, 3)])
    worker = make_worker(config, checker, "w", leases, store, vault, FakeSwitch())  # type: ignore[arg-type]
    now = NOW
    worker.now = lambda: now
    worker.settings = replace(worker.settings, batch=1)
    vault.fail("open_mails")
    both = set(worker.mailboxes)
    assert [worker.run_batch(), worker.run_batch()] == [1, 0]
    assert leases.asked == [both, both - {sender.account}]
    assert leases.states == {1: State.HELD}
    vault.recover()
    now = NOW + FIRST_REST
    assert [worker.run_batch(), worker.run_batch()] == [1, 1]
    assert leases.states == {1: State.HELD, 2: State.DELIVERED, 3: State.DELIVERED}


class Died(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("step", STEPS)
def test_a_batch_that_was_cut_short_is_opened_again_and_filed_and_answered_once(
    sender: Sender, store: EauStore, checker: Checker, vault: VaultDouble, home: Path, step: str
) -> None:
    mails = [claimed(1, sender.account, sender.mail(1)), claimed(2, sender.account, sender.faulty("certificate", 2))]

    def die(at: str) -> None:
        if at == step:
            raise Died

    def worker(leases: FakeLeases) -> Worker:
        return make_worker(read_config(home), checker, "w", leases, store, vault, FakeSwitch())  # type: ignore[arg-type]

    dying = worker(FakeLeases(mails))
    dying.step = die
    with pytest.raises(Died):
        dying.run_batch()
    leases = FakeLeases(mails)
    worker(leases).run_batch()
    assert leases.states == {1: State.DELIVERED, 2: State.RETURNED}
    assert (store.letters.waiting(), store.outcomes(IK(EINS))) == (1, {State.DELIVERED: 1, State.RETURNED: 1})
    # Whatever may have been read has an entry (RP-01), so both times.
    assert vault.opened == ([1, 2] if step == "claimed" else [1, 2, 1, 2])


# --- the switch ---

HELD, OPEN = ScopeState.HOLD, ScopeState.OPEN


@dataclass
class Bench:
    """One worker, its switch and what it told."""

    worker: Worker
    leases: FakeLeases
    switch: FakeSwitch
    told: list[Overtaken]


@pytest.fixture
def bench(sender: Sender, store: EauStore, checker: Checker, vault: VaultDouble, home: Path) -> Bench:
    leases = FakeLeases([claimed(1, sender.account, sender.mail(1)), claimed(2, sender.account, sender.mail(2))])
    switch, told = FakeSwitch(), list[Overtaken]()
    worker = make_worker(read_config(home), checker, "w", leases, store, vault, switch)  # type: ignore[arg-type]
    worker.now = lambda: NOW
    worker.told = told.append
    return Bench(worker, leases, switch, told)


@pytest.mark.parametrize("scopes", ["*", "eau", f"eau_intake/{EINS}/process", f"keys/{EINS}", "keys/*/process"])
def test_of_an_insurer_that_is_held_nothing_is_taken(bench: Bench, scopes: str) -> None:
    """HD-02, HD-25; with its keys closed nothing could be opened (T-02)."""
    bench.switch.set(scopes, HELD)
    bench.worker.run_batch()
    assert bench.leases.states == {}
    assert not any(
        sender in asked for asked in bench.leases.asked for sender in bench.worker.mailboxes if EINS in sender
    )


@pytest.mark.parametrize("state", [state for state in ScopeState if not state.begins])
def test_no_unit_begins_in_any_state_below_limited(bench: Bench, state: ScopeState) -> None:
    bench.switch.set("eau", state)
    assert bench.worker.run_batch() == 0
    assert bench.leases.asked == []


def test_one_insurer_is_held_and_the_other_is_served(bench: Bench, sender: Sender) -> None:
    """T-24: shared workers."""
    bench.switch.set(f"eau_intake/{EINS}", HELD)
    bench.worker.run_batch()
    assert bench.leases.asked == [set(bench.worker.mailboxes) - {sender.account}]


def test_a_limited_insurer_is_taken_from_within_its_limits(bench: Bench, sender: Sender) -> None:
    epoch = bench.switch.set(f"eau_intake/{EINS}", ScopeState.LIMITED, Limit(permille=10, per_hour=100))
    bench.worker.run_batch()
    take = bench.leases.takes[sender.account]
    assert (take.permille, take.per_hour) == (10, 100)
    assert take.under == Under(processing(IK(EINS)), epoch)
    assert bench.leases.states == {1: State.DELIVERED, 2: State.DELIVERED}


@pytest.mark.parametrize("step", ["claimed", "opened", "examined"])
def test_a_batch_that_a_closing_overtakes_is_undone_as_a_whole(bench: Bench, store: EauStore, step: str) -> None:
    """T-05, SW-10: wherever the worker slept, nothing is recorded, and all of it is HELD again."""

    def sleep(at: str) -> None:
        if at == step:
            epoch = bench.switch.set("eau", HELD)
            store.raise_fence({processing(IK(EINS)): epoch}, epoch)

    bench.worker.step = sleep
    bench.worker.run_batch()
    assert bench.leases.states == {1: State.HELD, 2: State.HELD}
    assert store.outcomes(IK(EINS)) == {}
    assert bench.told == [Overtaken(IK(EINS), 0, deliveries=(1, 2))]


def test_a_closing_is_seen_between_the_mails_of_a_batch(
    bench: Bench, vault: VaultDouble, store: EauStore, checker: Checker
) -> None:
    """A worker with a whole batch before it is quiet at once (SW-06): not one more document is looked into."""
    checked: list[bytes] = []

    class Watching:
        def check(self, xml: bytes) -> Any:
            checked.append(xml)
            if len(checked) == LOOK_EVERY:
                bench.switch.set(f"eau_intake/{EINS}/process", HELD)
            return checker.check(xml)

    first, second = bench.leases.mails
    bench.leases.mails = [replace(first if n % 2 else second, id=n) for n in range(1, 3 * LOOK_EVERY)]
    bench.worker.tools = replace(bench.worker.tools, checker=Watching())  # type: ignore[arg-type]
    bench.worker.run_batch()
    assert len(checked) == LOOK_EVERY
    assert set(bench.leases.states.values()) == {State.HELD}
    assert len(bench.leases.states) == 3 * LOOK_EVERY - 1
    assert store.outcomes(IK(EINS)) == {}
    assert [one.deliveries for one in bench.told] == [tuple(range(1, 3 * LOOK_EVERY))]


def test_a_closing_between_the_decision_and_its_report_leaves_the_mails_uncertain(
    bench: Bench, store: EauStore
) -> None:
    """SW-10: listed by id; when they are taken again, the same decision is found."""
    bench.leases.stale = frozenset({1, 2})
    bench.worker.run_batch()
    assert bench.leases.states == {1: State.HELD, 2: State.HELD}
    assert bench.told == [Overtaken(IK(EINS), 0, uncertain=(1, 2))]
    assert store.outcomes(IK(EINS)) == {State.DELIVERED: 2}


def test_a_vault_that_saw_the_closing_first_makes_nothing_wait_longer_than_the_closing(
    bench: Bench, vault: VaultDouble, store: EauStore
) -> None:
    def refuse(*_: object) -> Any:
        raise ScopeClosedError("closed")

    bench.worker.tools = replace(bench.worker.tools, vault=vault)
    vault.open_mails = refuse  # type: ignore[assignment, method-assign]
    bench.worker.run_batch()
    assert bench.leases.states == {1: State.HELD, 2: State.HELD}
    assert not bench.worker.rests.resting(IK(EINS), NOW)
    assert store.letters.waiting() == 0


def test_how_long_a_mail_was_held_goes_with_its_document(bench: Bench, store: EauStore) -> None:
    """HD-46."""
    bench.leases.mails = [replace(mail, held_for=timedelta(hours=54)) for mail in bench.leases.mails]
    bench.worker.run_batch()
    with store._engine.connect() as connection:
        held = set(connection.execute(sa.select(DOCUMENT.c.held_us)).scalars())
    assert held == {54 * 3600 * 1_000_000}
