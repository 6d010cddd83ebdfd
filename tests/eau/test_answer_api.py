"""Answers to employers as an insurer's own system gets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from tests.eau.asgi import Http
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER, ONE_PRACTICE, an_id, eau, file
from tests.eau.test_feed import (
    CLIENTS,
    HERE,
    Journal,
    MailStore,
    SignedHttp,
    benefits,
    clock,
    journal,
    mails,
    switch,
    vault,
)
from tests.eau.test_feed_schema import CHECKS
from tests.switch_double import FakeSwitch
from tests.vault_double import VaultDouble

from schleuse.clock import Now
from schleuse.database import transaction
from schleuse.eau.document import Period
from schleuse.eau.feed import AnswersOf, create_app
from schleuse.eau.feed_client import Signature
from schleuse.eau.feed_login import Happened, Logins
from schleuse.eau.feed_session import Door
from schleuse.eau.sealing import person_without_kvnr
from schleuse.eau.store import EauStore
from schleuse.eau.switched import answering, delivering
from schleuse.eau.tables import REQUEST
from schleuse.errors import UnavailableError
from schleuse.identifiers import IK
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.documents import Limit
from schleuse.vault import Named

__all__ = ["benefits", "clock", "journal", "mails", "switch", "vault"]  # fixtures

KVNR = "A123456780"
URL = f"/v1/{AN_INSURER}/answers"
ASK = {"request": "ds-1", "absent_from": "2026-02-02", "kvnr": KVNR}


@dataclass
class Mail:
    """What waits, as a test sets it."""

    waits: bool | Exception = False
    frozen: bool = False

    def ask(self, _ik: IK, _day: date, _upto: datetime) -> bool:
        if isinstance(self.waits, Exception):
            raise self.waits
        return self.waits


@pytest.fixture
def mail() -> Mail:
    return Mail()


@pytest.fixture
def app(
    sqlite_store: EauStore,
    vault: VaultDouble,
    mails: MailStore,
    journal: Journal,
    clock: Now,
    switch: FakeSwitch,
    mail: Mail,
) -> FastAPI:
    return create_app(
        sqlite_store.feed,
        vault,
        CLIENTS,
        mails.confirm,
        aud=HERE,
        now=clock,
        door=Door(switch, "Telefon 0800"),
        told=journal.tell,
        answers=AnswersOf(sqlite_store.answers, mail.ask, lambda: mail.frozen),
    )


@pytest.fixture
def http(app: FastAPI, benefits: Signature) -> Http:
    return SignedHttp(app, benefits)


def file_au(store: EauStore, vault: VaultDouble, delivery: int, key: bytes = KVNR.encode()) -> None:
    (whose,) = vault.pseudonyms(AN_INSURER, [Named(key, b"")])
    period = Period("ERST", date(2026, 2, 2), date(2026, 2, 6), date(2026, 2, 2))
    file(store, eau(delivery, person=whose.subject, period=period, practice=ONE_PRACTICE))


def test_nothing_found_is_4_and_7_while_anything_waits(http: Http, mail: Mail, journal: Journal) -> None:
    """T-08, HD-09."""
    none = http.post(URL, json=ASK).json()
    assert (none["code"], none["kind"], none["certificates"]) == (4, "interim", [])
    mail.waits = True
    review = http.post(URL, json={**ASK, "request": "ds-2"}).json()
    assert (review["code"], review["meaning"], review["until"]) == (7, "In Prüfung", "2026-03-02T12:00:00Z")
    told = [one for one in journal.events if one.what is Happened.ANSWER]
    assert [(one.request, one.code, one.count, one.client) for one in told] == [
        ("ds-1", "4", 0, "benefits"),
        ("ds-2", "7", 0, "benefits"),
    ]


def test_whose_mail_cannot_be_asked_hears_nothing_rather_than_4(http: Http, mail: Mail) -> None:
    mail.waits = UnavailableError("the mail store is off")
    assert http.post(URL, json=ASK).status_code == 503
    mail.waits = True
    assert http.post(URL, json=ASK).json()["code"] == 7


def test_what_was_found_has_its_days_and_never_a_diagnosis_or_a_practice(
    http: Http, sqlite_store: EauStore, vault: VaultDouble
) -> None:
    file_au(sqlite_store, vault, 1)
    answer = http.post(URL, json=ASK).json()
    assert answer["code"] == 2
    (one,) = answer["certificates"]
    assert one == {
        "document_id": str(an_id(1)),
        "accepted_at": "2026-02-02T12:00:01Z",
        "au_type": "ERST",
        "since": "2026-02-02",
        "until": "2026-02-06",
        "issued_on": "2026-02-02",
    }


def test_an_eau_of_the_ersatzverfahren_is_found_by_name(http: Http, sqlite_store: EauStore, vault: VaultDouble) -> None:
    file_au(sqlite_store, vault, 1, person_without_kvnr("Muster", "Max", "1980-01-01"))
    person = {"family": "Muster", "given": "Max", "born": "1980-01-01"}
    assert http.post(URL, json={**ASK, "person": person}).json()["code"] == 2
    assert http.post(URL, json={"request": "x", "absent_from": "2026-02-02"}).status_code == 400
    named = http.post(URL, json={**ASK, "request": KVNR})
    assert (named.status_code, named.json()["code"]) == (400, "eau.reference-names-a-person")


def test_no_kvnr_hides_in_an_id(http: Http) -> None:
    """An id is kept and logged in the plain. A UUID or a hash that happens to hold the shape is no KVNR."""
    for id in ("fall-A123456780-1", "fallA1234567801", "a123456780", "x.a123456780"):
        assert http.post(URL, json={**ASK, "request": id}).json()["code"] == "eau.reference-names-a-person", id
    for id in ("fall-A123456781-1", "0f0e0d0c-0b0a-4908-8706-05a123456780", f"{'0' * 22}A123456780"):
        assert http.post(URL, json={**ASK, "request": id}).json()["code"] == 4, id


def test_what_follows_is_listed_until_it_is_acknowledged(
    http: Http, sqlite_store: EauStore, vault: VaultDouble, mail: Mail, clock: Now, journal: Journal
) -> None:
    mail.waits = True
    http.post(URL, json=ASK)
    assert [one["request"] for one in http.get(f"{URL}/open").json()["requests"]] == ["ds-1"]
    file_au(sqlite_store, vault, 1)
    sqlite_store.answers.follow(AN_INSURER, clock(), waits=lambda _day, _upto: True)
    page = http.get(URL).json()
    assert [(one["seq"], one["answer"]["request"], one["answer"]["code"]) for one in page["answers"]] == [
        (1, "ds-1", 2)
    ]
    assert journal.events[-1].what is Happened.ANSWER
    assert http.post(f"{URL}/ack", json={"cursor": 1}).json() == {"acked": 1, "last": 1}
    assert http.get(URL).json()["answers"] == []
    assert http.get(f"{URL}/open").json()["requests"] == []


@pytest.mark.parametrize("scopes", ["eau_employer_answer/*", f"eau_intake/{AN_INSURER}/deliver"])
def test_while_it_is_closed_the_answer_is_deferred(
    http: Http, switch: FakeSwitch, sqlite_store: EauStore, clock: Now, scopes: str
) -> None:
    """T-08, HD-01: 503 that says so, never 4."""
    switch.set(scopes, ScopeState.HOLD)
    for answer in (http.post(URL, json=ASK), http.get(URL), http.get(f"{URL}/open")):
        assert (answer.status_code, answer.json()["code"]) == (503, "eau.feed.closed")
    assert sqlite_store.answers.open(AN_INSURER, clock()) == []
    switch.set(scopes, ScopeState.OPEN)
    assert http.post(URL, json=ASK).json()["code"] == 4


@pytest.mark.parametrize("scopes", ["eau_employer_answer/*", f"eau_intake/{AN_INSURER}/deliver"])
def test_that_answers_are_closed_hears_also_who_has_no_token(app: FastAPI, switch: FakeSwitch, scopes: str) -> None:
    """SW-07: as the probe of the closing asks; with the answers alone the feed stays open."""
    nobody = Http(app)
    assert nobody.get(URL).status_code == 401
    switch.set(scopes, ScopeState.HOLD)
    found = nobody.get(URL)
    assert (found.status_code, found.json()["closed"]["state"]) == (503, "HOLD")
    assert nobody.get(f"/v1/{AN_INSURER}/eau").status_code == (401 if "answer" in scopes else 503)


def test_an_answer_is_a_unit_of_work_of_both_scopes(app: FastAPI, benefits: Signature, switch: FakeSwitch) -> None:
    """SW-10: whoever closes one of them waits for it."""
    entered: list[Scope] = []

    @contextmanager
    def unit(scope: Scope) -> Iterator[None]:
        entered.append(scope)
        yield

    app.state.door = Door(switch, unit=unit)
    assert SignedHttp(app, benefits).post(URL, json=ASK).json()["code"] == 4
    assert entered == [answering(AN_INSURER), delivering(AN_INSURER)]


def test_answers_that_are_limited_are_deferred(http: Http, switch: FakeSwitch) -> None:
    """RS-06: nobody counts them, so a limit of theirs cannot be kept."""
    switch.set("eau_employer_answer/*", ScopeState.LIMITED, Limit(permille=999))
    assert http.post(URL, json=ASK).json()["code"] == "eau.feed.closed"


@pytest.mark.parametrize("limit", [Limit(permille=0), Limit(per_hour=1000)])
def test_an_answer_names_no_eau_that_the_limit_of_deliveries_keeps_back(
    http: Http, switch: FakeSwitch, sqlite_store: EauStore, vault: VaultDouble, limit: Limit
) -> None:
    """RS-06, HD-09: it is there, so it is no 4."""
    file_au(sqlite_store, vault, 1)
    switch.set(f"eau_intake/{AN_INSURER}/deliver", ScopeState.LIMITED, limit)
    answer = http.post(URL, json=ASK).json()
    assert (answer["code"], answer["certificates"]) == (7, [])
    switch.set(f"eau_intake/{AN_INSURER}/deliver", ScopeState.LIMITED, Limit(permille=1000))
    assert http.post(URL, json={**ASK, "request": "ds-2"}).json()["code"] == 2


def test_a_request_is_cancelled_once_and_that_is_told(http: Http, mail: Mail, journal: Journal) -> None:
    """§ 17.2: a record that was sent wrongly. Again is harmless."""
    mail.waits = True
    http.post(URL, json=ASK)
    for _ in range(2):
        assert http.delete(f"{URL}/ds-1").status_code == 204
        told = journal.events[-1]
        assert (told.what, told.request, told.client) == (Happened.ANSWER_CANCELLED, "ds-1", "benefits")
    assert http.get(f"{URL}/open").json()["requests"] == []
    late = http.post(URL, json=ASK)
    assert (late.status_code, late.json()["code"]) == (409, "eau.answers.request-cancelled")


def test_a_cancellation_that_comes_before_its_request_is_remembered_and_that_is_said(
    http: Http, mail: Mail, journal: Journal
) -> None:
    """Decision 0027: 202 also shows a wrong id to a system that has asked before."""
    mail.waits = True
    for _ in range(2):
        assert http.delete(f"{URL}/ds-1").status_code == 202
    assert (journal.events[-1].what, journal.events[-1].request) == (Happened.ANSWER_CANCELLED, "ds-1")
    late = http.post(URL, json=ASK)
    assert (late.status_code, late.json()["code"]) == (409, "eau.answers.request-cancelled")
    assert http.get(f"{URL}/open").json()["requests"] == []
    named = http.delete(f"{URL}/{KVNR}")  # it would be kept
    assert (named.status_code, named.json()["code"]) == (400, "eau.reference-names-a-person")


def test_a_cancellation_is_taken_while_retention_is_frozen_and_destroys_nothing(
    http: Http, mail: Mail, sqlite_store: EauStore
) -> None:
    """SW-12, decision 0027."""
    http.post(URL, json=ASK)
    mail.frozen = True
    assert http.delete(f"{URL}/ds-1").status_code == 204
    assert http.get(f"{URL}/open").json()["requests"] == []
    with transaction(sqlite_store._engine) as connection:
        (row,) = connection.execute(REQUEST.select())
    assert row.person
    mail.frozen = False
    assert http.delete(f"{URL}/ds-1").status_code == 204
    with transaction(sqlite_store._engine) as connection:
        (row,) = connection.execute(REQUEST.select())
    assert row.person == b""


def test_what_cannot_be_told_is_not_cancelled(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes pseudonyms and answers away for good: record, then act."""

    def no_room(*_: object) -> None:
        raise UnavailableError("the trail cannot be written")

    http.post(URL, json=ASK)
    with monkeypatch.context() as patched:
        patched.setattr(Logins, "tell_cancelled", no_room)
        assert http.delete(f"{URL}/ds-1").status_code == 503
    assert [one["request"] for one in http.get(f"{URL}/open").json()["requests"]] == ["ds-1"]


def test_while_it_is_closed_nothing_is_cancelled(http: Http, switch: FakeSwitch) -> None:
    """SW-12."""
    http.post(URL, json=ASK)
    switch.set("eau_employer_answer/*", ScopeState.HOLD)
    assert http.delete(f"{URL}/ds-1").json()["code"] == "eau.feed.closed"
    switch.set("eau_employer_answer/*", ScopeState.OPEN)
    assert [one["request"] for one in http.get(f"{URL}/open").json()["requests"]] == ["ds-1"]


def test_a_list_whose_newest_answer_was_cancelled_leads_to_its_end(
    http: Http, mail: Mail, sqlite_store: EauStore, clock: Now
) -> None:
    """Else a client would ask for it for ever."""
    mail.waits = True
    http.post(URL, json=ASK)
    sqlite_store.answers.follow(AN_INSURER, clock(), waits=lambda _day, _upto: False)
    http.delete(f"{URL}/ds-1")
    page = http.get(URL).json()
    assert (page["answers"], page["next"], page["last"]) == ([], 1, 1)
    assert http.post(f"{URL}/ack", json={"cursor": page["next"]}).json() == {"acked": 1, "last": 1}


def test_what_cannot_be_told_to_the_journal_is_not_said(http: Http, journal: Journal) -> None:
    """RP-01."""
    http.get(f"{URL}/codes")
    journal.fail = True
    assert http.post(URL, json=ASK).status_code == 503


def test_another_insurers_answers_are_not_given(app: FastAPI, benefits: Signature) -> None:
    token = benefits.token(AN_INSURER, "GET", URL)
    answer = Http(app).get(f"/v1/{ANOTHER_INSURER}/answers", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "eau.feed.foreign-insurer")


def test_the_codes_are_a_table(http: Http) -> None:
    codes = {one["code"]: one for one in http.get(f"{URL}/codes").json()["codes"]}
    assert sorted(codes) == list(range(1, 10))
    assert (codes[7]["watched_days"], codes[7]["counted_from"], codes[4]["watched_days"]) == (28, "request", 14)


@pytest.mark.parametrize(
    ("path", "method"),
    [("", "POST"), ("", "GET"), ("/ack", "POST"), ("/open", "GET"), ("/codes", "GET"), ("/{request_id}", "DELETE")],
)
def test_every_answer_is_one_that_the_description_promises(
    app: FastAPI, benefits: Signature, path: str, method: str
) -> None:
    operation = schemathesis.openapi.from_asgi("/v1/openapi.json", app)["/v1/{ik}/answers" + path][method]

    @given(operation.as_strategy())
    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        case.path_parameters["ik"] = AN_INSURER.value
        token = benefits.token(AN_INSURER, case.method, unquote(case.formatted_path))
        answer = case.call(headers={"Authorization": f"Bearer {token}"})
        case.validate_response(answer, checks=CHECKS)

    check()
