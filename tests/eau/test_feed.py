"""The feed as an insurer's own system sees it."""

from __future__ import annotations

import hashlib
import itertools
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from tests.eau.asgi import Http
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER, NOON, Case, an_id, eau, file, storno
from tests.switch_double import FakeSwitch
from tests.vault_double import Keys, VaultDouble

from schleuse.clock import Now
from schleuse.eau.feed import P7S, XML, confirm_acknowledged, create_app
from schleuse.eau.feed_client import Signature
from schleuse.eau.feed_errors import STATUS
from schleuse.eau.feed_login import FeedClient, FeedEvent, Happened
from schleuse.eau.feed_session import Door
from schleuse.eau.signature import sign_payload
from schleuse.eau.store import EauStore, Sealed
from schleuse.eau.switched import delivering
from schleuse.eau.tables import CONTENT
from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.identifiers import IK
from schleuse.processes.following import Running
from schleuse.scopes import ScopeState
from schleuse.vault import Document, Named, Signer
from schleuse.vault.contracts import (
    BadTokenError,
    KeyMissingError,
    NotAllowedError,
    OverBudgetError,
    VaultUnavailableError,
    feed_paths,
)
from schleuse.vault.private_keys import key_signer
from schleuse.vault.tokens import audience, make_token, verify_token

HERE = audience("schleuse.example")
KEY, OTHER_KEY, SECOND_KEY = (Ed25519PrivateKey.generate() for _ in range(3))
CLIENTS = [
    FeedClient("benefits", AN_INSURER, KEY.public_key()),
    FeedClient("benefits", ANOTHER_INSURER, OTHER_KEY.public_key()),
    FeedClient("archive", AN_INSURER, SECOND_KEY.public_key()),
    FeedClient("archive", ANOTHER_INSURER, SECOND_KEY.public_key()),
]
OPEN_DOOR = Door(FakeSwitch())
PERSON = b"the only person of these tests"


class SignedHttp(Http):
    """Signs each request as an insurer's system does."""

    def __init__(self, app: FastAPI, signature: Signature, ik: IK = AN_INSURER) -> None:
        super().__init__(app)
        self._signature, self._ik = signature, ik

    def request(self, method: str, url: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        token = self._signature.token(self._ik, method, unquote(url.partition("?")[0]))
        return super().request(method, url, {"Authorization": f"Bearer {token}"} | (headers or {}), **more)


@dataclass
class MailStore:
    """Remembers what is confirmed. fail: "before" or "after" it has done so. busy: a worker still has some."""

    confirmed: list[int] = field(default_factory=list)
    fail: str | None = None
    busy: bool = False

    def confirm(self, _ik: IK, deliveries: Sequence[int]) -> bool:
        if self.busy:
            return False
        if self.fail == "before":
            raise UnavailableError("off")
        self.confirmed += deliveries
        if self.fail == "after":
            raise UnavailableError("the reply was lost")
        return True


@pytest.fixture(scope="module")
def signer() -> Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Praxis")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(7).not_valid_before(start).not_valid_after(start + timedelta(days=365))
    return key_signer(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER), key)


@dataclass
class Journal:
    """What the feed tells. fail: it cannot be told."""

    events: list[FeedEvent] = field(default_factory=list)
    fail: bool = False

    def tell(self, event: FeedEvent) -> None:
        if self.fail:
            raise UnavailableError("the trail cannot be written")
        self.events.append(event)

    def happened(self) -> list[Happened]:
        return [event.what for event in self.events]


@pytest.fixture
def clock() -> Now:
    return lambda: NOON


@pytest.fixture
def vault(clock: Now) -> VaultDouble:
    """Judges tokens as the real one does."""

    def check(ik: IK, token: str, name: str) -> None:
        keys = {(client.name, client.ik.value): client.public_key for client in CLIENTS}
        claims = verify_token(token, keys, aud=HERE, purpose="feed", now=clock())
        if claims.ik != ik or claims.what not in [("GET", path) for path in feed_paths(ik, name)]:
            raise BadTokenError("the token is for another request")

    return VaultDouble({AN_INSURER: Keys([]), ANOTHER_INSURER: Keys([])}, check_token=check)


@pytest.fixture
def mails() -> MailStore:
    return MailStore()


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def switch() -> FakeSwitch:
    return FakeSwitch()


@pytest.fixture
def running(clock: Now) -> Running:
    return Running(clock)


@pytest.fixture
def app(
    sqlite_store: EauStore,
    vault: VaultDouble,
    mails: MailStore,
    journal: Journal,
    clock: Now,
    switch: FakeSwitch,
    running: Running,
) -> FastAPI:
    return create_app(
        sqlite_store.feed,
        vault,
        CLIENTS,
        mails.confirm,
        aud=HERE,
        now=clock,
        door=Door(switch, "Telefon 0800", running.unit),
        told=journal.tell,
    )


@pytest.fixture
def benefits(clock: Now) -> Signature:
    return Signature("benefits", KEY, HERE, clock)


@pytest.fixture
def http(app: FastAPI, benefits: Signature) -> Http:
    return SignedHttp(app, benefits)


def archive(app: FastAPI, ik: IK = AN_INSURER) -> Http:
    return SignedHttp(app, Signature("archive", SECOND_KEY, HERE, lambda: NOON), ik)


Fill = Callable[..., None]


@pytest.fixture
def fill(sqlite_store: EauStore, vault: VaultDouble, signer: Signer) -> Fill:
    """Files documents whose XML is `xml_of(case)`, signed or not, and publishes them."""

    def fill_one(*cases: Case, ik: IK = AN_INSURER, signed: bool = True) -> None:
        (person,) = vault.pseudonyms(ik, [Named(PERSON, b"")])
        for case in cases:
            id = case.arrival.document_id
            assert id is not None
            xml = xml_of(case)
            content = sign_payload(xml, signer, NOON, encoding="ber") if signed else xml
            form = "p7s" if signed else "xml"
            (container,) = vault.file(ik, [Document(person.subject, id.value, form, content)])
            case.sealed = Sealed(p7s=container) if signed else Sealed(xml=container)
        file(sqlite_store, *cases, ik=ik)
        sqlite_store.feed.publish(ik, None)

    return fill_one


def xml_of(case: Case) -> bytes:
    """The document of which the sample's file hash is the hash."""
    assert case.arrival.document_id is not None
    return case.arrival.document_id.value.encode()


def url(ik: IK = AN_INSURER, rest: str = "") -> str:
    return f"/v1/{ik}/eau{rest}"


# --- events ---


def test_events_come_in_acceptance_order_with_their_original_time(http: Http, fill: Fill) -> None:
    fill(eau(2), eau(1), storno(3, of=1))
    page = http.get(url()).json()
    assert [event["document_id"] for event in page["events"]] == [str(an_id(1)), str(an_id(2)), str(an_id(1003))]
    assert [event["kind"] for event in page["events"]] == ["eau", "eau", "storno"]
    assert [event["seq"] for event in page["events"]] == [1, 2, 3]
    assert (page["next"], page["acked"], page["last"]) == (3, 0, 3)
    first, _, cancelling = page["events"]
    assert first["accepted_at"] == "2026-02-02T12:00:01Z"
    assert first["state"] == "cancelled"
    assert cancelling["cancels"] == str(an_id(1))
    assert first["sha256"] == hashlib.sha256(xml_of(eau(1))).hexdigest()


def test_pages_join_without_gap_and_without_overlap(http: Http, fill: Fill) -> None:
    fill(*(eau(delivery) for delivery in range(1, 8)))
    seen: list[int] = []
    cursor = 0
    while events := (page := http.get(url(), params={"after": cursor, "limit": 3}).json())["events"]:
        seen += [event["seq"] for event in events]
        cursor = page["next"]
    assert seen == list(range(1, 8))
    assert http.get(url(), params={"after": 7}).json()["next"] == 7


def test_a_client_that_stores_and_then_acks_has_each_event_exactly_once(http: Http, fill: Fill) -> None:
    stored: list[str] = []
    for delivery in range(1, 6):
        fill(eau(delivery))
        page = http.get(url(), params={"limit": 2}).json()
        if delivery == 3:
            continue  # it crashed before it stored anything
        stored += [event["document_id"] for event in page["events"]]
        assert http.post(url(rest="/ack"), json={"cursor": page["next"]}).status_code == 200
    assert stored == [str(an_id(number)) for number in range(1, 6)]


# --- acknowledgement ---


def test_an_ack_is_cumulative_repeatable_and_never_goes_back(http: Http, fill: Fill) -> None:
    fill(eau(1), eau(2), eau(3))
    assert http.post(url(rest="/ack"), json={"cursor": 2}).json() == {"acked": 2, "last": 3}
    assert http.post(url(rest="/ack"), json={"cursor": 2}).json() == {"acked": 2, "last": 3}
    assert http.post(url(rest="/ack"), json={"cursor": 1}).json() == {"acked": 2, "last": 3}
    assert http.get(url()).json()["acked"] == 2


def test_an_ack_beyond_the_end_is_a_conflict_and_changes_nothing(http: Http, fill: Fill) -> None:
    fill(eau(1))
    answer = http.post(url(rest="/ack"), json={"cursor": 2})
    assert (answer.status_code, answer.json()["code"]) == (409, "eau.cursor-beyond-end")
    assert http.get(url()).json()["acked"] == 0


def test_acknowledged_deliveries_are_confirmed_once(http: Http, fill: Fill, mails: MailStore) -> None:
    fill(eau(11), storno(12, of=11), eau(13))
    http.post(url(rest="/ack"), json={"cursor": 2})
    http.post(url(rest="/ack"), json={"cursor": 2})
    http.post(url(rest="/ack"), json={"cursor": 3})
    assert mails.confirmed == [11, 12, 13]


@pytest.mark.parametrize("fail", ["before", "after"])
def test_a_mail_store_that_is_off_does_not_undo_an_ack_and_is_told_later(
    http: Http, fill: Fill, mails: MailStore, sqlite_store: EauStore, fail: str
) -> None:
    fill(eau(1), eau(2))
    mails.fail = fail
    assert http.post(url(rest="/ack"), json={"cursor": 2}).json()["acked"] == 2
    mails.fail = None
    assert confirm_acknowledged(sqlite_store.feed, mails.confirm) == 2
    assert confirm_acknowledged(sqlite_store.feed, mails.confirm) == 0
    assert set(mails.confirmed) == {1, 2}


def test_what_a_dead_worker_has_filed_and_not_finished_is_confirmed_later(
    http: Http, fill: Fill, mails: MailStore, sqlite_store: EauStore
) -> None:
    fill(eau(1), eau(2))
    mails.busy = True
    assert http.post(url(rest="/ack"), json={"cursor": 2}).json()["acked"] == 2
    assert confirm_acknowledged(sqlite_store.feed, mails.confirm) == 0
    mails.busy = False
    assert confirm_acknowledged(sqlite_store.feed, mails.confirm) == 2


def test_each_client_has_a_cursor_of_its_own(http: Http, app: FastAPI, fill: Fill) -> None:
    fill(eau(1), eau(2))
    http.post(url(rest="/ack"), json={"cursor": 2})
    assert [event["seq"] for event in archive(app).get(url()).json()["events"]] == [1, 2]
    assert http.get(url()).json()["events"] == []


# --- documents ---


def test_a_document_comes_as_the_xml_that_was_signed_and_as_the_signed_file(http: Http, fill: Fill) -> None:
    fill(eau(1))
    (event,) = http.get(url()).json()["events"]
    xml, p7s = http.get(event["links"]["xml"]), http.get(event["links"]["p7s"])
    assert (xml.headers["content-type"], p7s.headers["content-type"]) == (XML, P7S)
    assert xml.content == xml_of(eau(1))
    assert hashlib.sha256(xml.content).hexdigest() == event["sha256"]
    assert xml.headers["etag"] == f'"{event["sha256"]}"'
    digest = b64encode(hashlib.sha256(p7s.content).digest()).decode()
    assert p7s.headers["content-digest"] == f"sha-256=:{digest}:"


@pytest.mark.parametrize(
    ("accept", "type"),
    [
        ("*/*", XML),
        ("application/xml", XML),
        ("application/pkcs7-mime", P7S),
        ("application/fhir+xml;q=0.2, application/pkcs7-mime;q=0.9", P7S),
        ("text/html, application/*;q=0.1", XML),
    ],
)
def test_the_accept_header_chooses_the_form(http: Http, fill: Fill, accept: str, type: str) -> None:
    fill(eau(1))
    answer = http.get(url(rest=f"/{an_id(1)}"), headers={"Accept": accept})
    assert answer.headers["content-type"] == type


@pytest.mark.parametrize("accept", ["application/json", "application/fhir+xml;q=0", "x;q=y", ""])
def test_a_form_that_we_do_not_have_is_not_acceptable(http: Http, fill: Fill, accept: str) -> None:
    fill(eau(1))
    assert http.get(url(rest=f"/{an_id(1)}"), headers={"Accept": accept}).status_code == 406


def test_a_document_without_a_signed_file_says_so(http: Http, fill: Fill) -> None:
    fill(eau(1), signed=False)
    (event,) = http.get(url()).json()["events"]
    assert event["links"]["p7s"] is None
    assert http.get(event["links"]["xml"]).content == xml_of(eau(1))
    assert http.get(url(rest=f"/{an_id(1)}?format=p7s")).status_code == 406


@pytest.mark.parametrize("form", ["xml", "p7s"])
def test_a_client_that_has_the_document_is_not_sent_it_again_and_nothing_is_opened(
    http: Http, fill: Fill, vault: VaultDouble, form: str
) -> None:
    fill(eau(1))
    path = url(rest=f"/{an_id(1)}?format={form}")
    etag = http.get(path).headers["etag"]
    assert vault.fetched == [(str(an_id(1)), "p7s")]
    again = http.get(path, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert vault.trips("fetch") == [1]  # an entry for nothing otherwise
    assert http.get(path, headers={"If-None-Match": '"x"'}).status_code == 200


def test_the_two_forms_of_a_document_have_two_tags(http: Http, fill: Fill) -> None:
    fill(eau(1))
    assert len({http.get(url(rest=f"/{an_id(1)}?format={form}")).headers["etag"] for form in ("xml", "p7s")}) == 2


def test_a_document_is_fetched_under_its_id_with_and_without_urn(http: Http, fill: Fill, vault: VaultDouble) -> None:
    fill(eau(1))
    for id in (str(an_id(1)), str(an_id(1)).removeprefix("urn:uuid:")):
        assert http.get(url(rest=f"/{id}")).content == xml_of(eau(1))
    assert len(vault.fetched) == 2


def test_an_id_with_signs_of_urls_can_be_fetched_by_its_link(http: Http, fill: Fill) -> None:
    case = eau(1)
    odd = type(an_id(1))("2026/02 ä?#%2F..")
    case.found = _renamed(case, odd)
    case.arrival = Case(1, case.found).arrival
    fill(case)
    (event,) = http.get(url()).json()["events"]
    assert event["document_id"] == odd.value
    assert http.get(event["links"]["xml"]).content == odd.value.encode()


def _renamed(case: Case, id: Any) -> Any:
    from dataclasses import replace

    assert case.found.facts is not None
    facts = replace(case.found.facts, id=id)
    return replace(case.found, document_id=id, facts=facts, file_hash=hashlib.sha256(id.value.encode()).digest())


def test_bytes_that_changed_in_our_store_are_never_handed_out(http: Http, fill: Fill, sqlite_store: EauStore) -> None:
    fill(eau(1))
    with sqlite_store._engine.begin() as connection:
        connection.execute(sa.update(CONTENT).values(p7s=b"\0" * 100))
    answer = http.get(url(rest=f"/{an_id(1)}"))
    assert (answer.status_code, answer.json()["code"]) == (500, "eau.feed.damaged-document")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (VaultUnavailableError("off"), 503),
        (KeyMissingError("no key"), 503),
        (NotAllowedError("this role may not"), 503),  # our trouble, not the client's
        (OverBudgetError("too many"), 429),
    ],
)
def test_a_vault_that_cannot_open_now_says_when_to_come_again(
    http: Http, fill: Fill, vault: VaultDouble, error: Error, status: int, after: bool
) -> None:
    fill(eau(1))
    vault.fail("fetch", error, after=after, times=1)
    answer = http.get(url(rest=f"/{an_id(1)}"))
    assert (answer.status_code, answer.json()["code"]) == (status, error.code)
    assert int(answer.headers["retry-after"]) > 0
    assert http.get(url(rest=f"/{an_id(1)}")).content == xml_of(eau(1))


def test_a_document_of_an_erased_person_is_gone(http: Http, fill: Fill, vault: VaultDouble) -> None:
    fill(eau(1))
    vault.erase(AN_INSURER, PERSON)
    answer = http.get(url(rest=f"/{an_id(1)}"))
    assert (answer.status_code, answer.json()["code"]) == (410, "vault.erased")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_token_that_the_vault_does_not_take_is_a_bad_one(http: Http, fill: Fill, vault: VaultDouble) -> None:
    fill(eau(1))
    vault.fail("fetch", BadTokenError("a key that was changed meanwhile"))
    answer = http.get(url(rest=f"/{an_id(1)}"))
    assert (answer.status_code, answer.json()["code"]) == (401, "vault.bad-token")
    assert answer.headers["www-authenticate"] == "Bearer"


# --- who may ---


def token(key: Ed25519PrivateKey = KEY, name: str = "benefits", ik: IK = AN_INSURER, **more: Any) -> str:
    given: dict[str, Any] = {"aud": HERE, "purpose": "feed", "what": ("GET", url(ik)), "now": NOON} | more
    return make_token(key, name, ik, given["aud"], given["purpose"], given["what"], given["now"])


@pytest.mark.parametrize("header", [None, "", "Basic dTpw", "Bearer", "Bearer wrong", "Bearer a.b.c"])
def test_without_a_token_there_is_nothing(app: FastAPI, fill: Fill, journal: Journal, header: str | None) -> None:
    fill(eau(1))
    anonymous = Http(app, {} if header is None else {"Authorization": header})
    for answer in (
        anonymous.get(url()),
        anonymous.get(url(rest=f"/{an_id(1)}")),
        anonymous.post(url(rest="/ack"), json={"cursor": 1}),
        anonymous.get("/v1/123/eau"),
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"] == "eau.feed.bad-token"
    assert journal.happened() == [Happened.LOGIN_FAILED] * 4
    assert [event.ik for event in journal.events] == [AN_INSURER] * 3 + [None]


@pytest.mark.parametrize(
    "presented",
    [
        token(OTHER_KEY),
        token(name="unknown"),
        token(aud=audience("elsewhere.example")),
        token(purpose="opening"),
        token(now=NOON - timedelta(minutes=6)),
        token(now=NOON + timedelta(minutes=6)),
        token(what=("POST", url())),
        token(what=("GET", url(rest="/ack"))),
        token(what=("GET", url(rest=f"/{an_id(1)}"))),
    ],
)
def test_a_token_that_is_not_for_this_request_is_as_good_as_none(
    app: FastAPI, journal: Journal, presented: str
) -> None:
    answer = Http(app).get(url(), headers={"Authorization": f"Bearer {presented}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "eau.feed.bad-token")
    assert presented not in answer.text
    assert journal.happened() == [Happened.LOGIN_FAILED]


def test_a_token_for_one_document_opens_no_other_and_no_list(app: FastAPI, fill: Fill, vault: VaultDouble) -> None:
    fill(eau(1), eau(2))
    of_one = {"Authorization": f"Bearer {token(what=('GET', url(rest=f'/{an_id(1)}')))}"}
    http = Http(app, of_one)
    for _ in range(2):  # within its minutes it may be used again for the same (decision 0017)
        assert http.get(url(rest=f"/{an_id(1)}?format=p7s")).status_code == 200
    for path in (url(rest=f"/{an_id(2)}"), url()):
        assert http.get(path).status_code == 401
    assert [name for name, _ in vault.fetched] == [str(an_id(1))] * 2


def test_one_insurer_sees_nothing_of_another_not_even_whether_it_is_served(
    http: Http, app: FastAPI, fill: Fill, journal: Journal
) -> None:
    fill(eau(1), ik=ANOTHER_INSURER)
    served, unknown = url(ANOTHER_INSURER), url(IK("999999999"))
    for rest in ("", f"/{an_id(1)}"):
        answers = [
            Http(app).get(path + rest, headers={"Authorization": f"Bearer {token()}"}) for path in (served, unknown)
        ]
        assert [answer.status_code for answer in answers] == [403, 403]
        assert answers[0].content == answers[1].content
    assert journal.happened() == [Happened.DENIED] * 4
    assert {(event.client, event.home, event.ik) for event in journal.events} == {
        ("benefits", AN_INSURER, ANOTHER_INSURER),
        ("benefits", AN_INSURER, None),
    }
    missing = http.get(url(rest=f"/{an_id(1)}"))  # it is there, of another insurer
    assert missing.status_code == 404
    assert missing.content == http.get(url(rest=f"/{an_id(2)}")).content == http.get(url(rest="/%00")).content


def test_a_client_cannot_make_itself_a_token_for_another_insurer(app: FastAPI, fill: Fill) -> None:
    fill(eau(1), ik=ANOTHER_INSURER)
    for path in (url(ANOTHER_INSURER), url(ANOTHER_INSURER, f"/{an_id(1)}")):
        forged = token(KEY, ik=ANOTHER_INSURER, what=("GET", path))
        assert Http(app).get(path, headers={"Authorization": f"Bearer {forged}"}).status_code == 401


def test_one_key_may_be_known_at_several_insurers(app: FastAPI, fill: Fill) -> None:
    fill(eau(1))
    fill(eau(2), ik=ANOTHER_INSURER)
    assert [len(archive(app, ik).get(url(ik)).json()["events"]) for ik in (AN_INSURER, ANOTHER_INSURER)] == [1, 1]


# --- what is told ---


def test_every_login_and_every_list_is_told(http: Http, fill: Fill, journal: Journal) -> None:
    fill(eau(1), eau(2))
    http.get(url())
    login, listing = journal.events
    assert (login.what, login.ik, login.client) == (Happened.LOGIN, AN_INSURER, "benefits")
    assert (listing.what, listing.count, listing.token) == (Happened.LISTING, 2, login.token)
    http.get(url(rest=f"/{an_id(1)}"))
    http.post(url(rest="/ack"), json={"cursor": 1})
    assert journal.happened()[2:] == [Happened.LOGIN, Happened.LOGIN]
    assert len({event.token for event in journal.events}) == 3


def test_what_cannot_be_told_is_not_done(
    http: Http, app: FastAPI, fill: Fill, journal: Journal, vault: VaultDouble
) -> None:
    fill(eau(1))
    journal.fail = True
    for answer in (
        http.get(url()),
        http.get(url(rest=f"/{an_id(1)}")),
        http.post(url(rest="/ack"), json={"cursor": 1}),
        Http(app).get(url()),
    ):
        assert answer.status_code == 503
    journal.fail = False
    assert vault.fetched == []
    assert http.get(url()).json()["acked"] == 0


def test_a_list_that_cannot_be_told_is_not_given(
    sqlite_store: EauStore, vault: VaultDouble, mails: MailStore, fill: Fill, benefits: Signature, journal: Journal
) -> None:
    fill(eau(1))

    def tell(event: FeedEvent) -> None:
        journal.fail = event.what is Happened.LISTING
        journal.tell(event)

    app = create_app(
        sqlite_store.feed, vault, CLIENTS, mails.confirm, aud=HERE, now=lambda: NOON, door=OPEN_DOOR, told=tell
    )
    answer = SignedHttp(app, benefits).get(url())
    assert (answer.status_code, str(an_id(1)) in answer.text) == (503, False)


# --- every answer ---


def test_each_kind_of_error_has_one_status() -> None:
    kinds: list[tuple[type[Error], int]] = [
        (MalformedError, 400),
        (RefusedError, 403),
        (ConflictError, 409),
        (UnavailableError, 503),
        (CorruptError, 500),
    ]
    assert {kind: STATUS[kind] for kind, _ in kinds} == dict(kinds)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/12345678x/eau", None, 401),
        ("GET", "/v1/109500969/eau?limit=0", None, 422),
        ("GET", "/v1/109500969/eau?after=-1", None, 422),
        ("POST", "/v1/109500969/eau/ack", b"{", 422),
        ("POST", "/v1/109500969/eau/ack", b'{"cursor": 1, "more": 2}', 422),
        ("POST", "/v1/109500969/eau/ack", b'{"cursor": true}', 422),
        ("POST", "/v1/109500969/eau/ack", b'{"cursor": "1"}', 422),
        ("POST", "/v1/109500969/eau/ack", b" " * 5000, 413),
        ("DELETE", "/v1/109500969/eau", None, 405),
        ("GET", "/docs", None, 404),
        ("GET", "/", None, 404),
    ],
)
def test_failures_are_problem_details_and_quote_nothing(
    http: Http, method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = http.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert "12345678x" not in answer.text


@pytest.mark.parametrize("path", ["/v1/109500969/eau", "/v1/openapi.json", "/nothing", "/v1/1/eau"])
def test_no_answer_is_cached_framed_or_sniffed(http: Http, path: str) -> None:
    headers = http.get(path).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "strict-transport-security" in headers


def test_an_error_that_nobody_foresaw_is_a_problem_too(
    vault: VaultDouble, mails: MailStore, benefits: Signature
) -> None:
    class Broken:
        def position(self, *_: object) -> None:
            raise ZeroDivisionError("secret")

    app = create_app(Broken(), vault, CLIENTS, mails.confirm, aud=HERE, now=lambda: NOON, door=OPEN_DOOR)  # type: ignore[arg-type]
    answer = SignedHttp(app, benefits).get(url())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_the_description_names_every_operation_and_its_failures(http: Http) -> None:
    schema = http.get("/v1/openapi.json").json()
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == {
        "list_events",
        "acknowledge",
        "get_document",
        "tell_paper",
        "list_papers",
    }
    for operation in operations:
        assert operation["security"]
        assert {"401", "403", "422", "503"} <= set(operation["responses"])
    contents = itertools.chain.from_iterable(operation["responses"].values() for operation in operations)
    assert not any("HTTPValidationError" in str(response) for response in contents)


# --- closed by the switch ---


@pytest.mark.parametrize("state", [state for state in ScopeState if not state.begins])
@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [("GET", "", None), ("GET", f"/{an_id(1).value}", None), ("POST", "/ack", {"cursor": 1})],
)
def test_a_closed_feed_says_so_and_is_never_an_empty_list(
    http: Http, fill: Fill, switch: FakeSwitch, state: ScopeState, method: str, rest: str, body: Any
) -> None:
    """incident.md § 2.4: an empty list looks like "no documents" and is dangerous."""
    fill(eau(1))
    epoch = switch.set(f"eau_intake/{AN_INSURER}/deliver", state)
    answer = http.request(method, url(rest=rest), json=body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "120")
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:schleuse:error:eau.feed.closed"
    assert problem["closed"] == {
        "scope": f"eau_intake/{AN_INSURER}/deliver/-",
        "state": state,
        "reason": "security_hold",
        "since": None,
        "epoch": epoch,
        "contact": "Telefon 0800",
    }


def test_the_login_at_a_closed_feed_is_in_the_journal_and_nothing_was_given(
    http: Http, fill: Fill, switch: FakeSwitch, journal: Journal, vault: VaultDouble, running: Running
) -> None:
    fill(eau(1))
    switch.set("eau", ScopeState.HOLD)
    http.get(url(rest=f"/{an_id(1).value}"))
    assert journal.happened() == [Happened.LOGIN]
    assert vault.trips("fetch") == []
    assert running.last([delivering(AN_INSURER)]) is None, "what is refused is no unit of work"


def test_who_has_no_token_hears_that_it_is_closed_and_gets_no_further(
    app: FastAPI, switch: FakeSwitch, journal: Journal
) -> None:
    """SW-07: a probe of the closing comes without one. The refused login is told all the same."""
    nobody = Http(app)
    assert nobody.get(url()).status_code == 401
    switch.set("eau", ScopeState.HOLD)
    answer = nobody.get(url())
    assert (answer.status_code, answer.json()["closed"]["state"]) == (503, "HOLD")
    assert nobody.get(url().replace(str(AN_INSURER), "000000000")).status_code in (401, 503)
    assert set(journal.happened()) == {Happened.LOGIN_FAILED}


def test_one_insurer_is_closed_and_the_other_is_served(app: FastAPI, fill: Fill, switch: FakeSwitch) -> None:
    """T-24."""
    fill(eau(1), ik=ANOTHER_INSURER)
    switch.set(f"eau_intake/{AN_INSURER}", ScopeState.HOLD)
    assert archive(app).get(url()).status_code == 503
    answer = archive(app, ANOTHER_INSURER).get(url(ANOTHER_INSURER))
    assert [event["seq"] for event in answer.json()["events"]] == [1]


def test_a_document_that_was_opened_while_the_feed_was_closed_is_not_given_out(
    http: Http, fill: Fill, switch: FakeSwitch, vault: VaultDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(eau(1))
    fetch = vault.fetch

    def close_meanwhile(*asked: Any) -> bytes:
        switch.set("eau", ScopeState.HOLD)
        return fetch(*asked)

    monkeypatch.setattr(vault, "fetch", close_meanwhile)
    assert http.get(url(rest=f"/{an_id(1).value}")).status_code == 503


def test_an_acknowledgement_of_an_older_epoch_is_refused_at_the_store(
    http: Http, fill: Fill, sqlite_store: EauStore, mails: MailStore
) -> None:
    """SW-06: this process has not seen the closing yet, its database has."""
    fill(eau(1))
    sqlite_store.raise_fence({delivering(AN_INSURER): 1}, 1)
    answer = http.post(url(rest="/ack"), json={"cursor": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "switch.stale-epoch")
    assert mails.confirmed == []
    assert sqlite_store.feed.position(AN_INSURER, "benefits").acked == 0


def test_an_event_tells_how_long_its_mail_was_held(http: Http, fill: Fill) -> None:
    """HD-46: beside the original time of acceptance."""
    fill(eau(1, held_for=timedelta(hours=54)), eau(2))
    events = http.get(url()).json()["events"]
    assert [event["held_for_seconds"] for event in events] == [54 * 3600, 0]
    assert events[0]["accepted_at"] == "2026-02-02T12:00:01Z"
