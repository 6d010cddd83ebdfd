"""The feed as an insurer's own system sees it."""

from __future__ import annotations

import hashlib
import itertools
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from tests.eau.asgi import Http
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER, NOON, Case, an_id, eau, file, storno

from schleuse.eau.feed import P7S, XML, FeedClient, authenticate, confirm_acknowledged, create_app
from schleuse.eau.feed_errors import STATUS, BadTokenError
from schleuse.eau.signature import sign_payload
from schleuse.eau.store import EauStore, Sealed, context
from schleuse.eau.tables import CONTENT
from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.identifiers import IK
from schleuse.vault import Signer
from schleuse.vault.private_keys import key_signer

TOKEN, OTHER_TOKEN, SECOND_TOKEN = "token-of-one", "token-of-another", "second-token-of-one"


def client(name: str, token: str, *iks: IK) -> FeedClient:
    return FeedClient(name, hashlib.sha256(token.encode()).digest(), frozenset(iks))


CLIENTS = [
    client("benefits", TOKEN, AN_INSURER),
    client("benefits", OTHER_TOKEN, ANOTHER_INSURER),
    client("archive", SECOND_TOKEN, AN_INSURER, ANOTHER_INSURER),
]


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


@pytest.fixture
def vault(tmp_path: Path) -> LocalVault:
    nothing = tmp_path / "none"
    files: dict[IK, InsurerKeyFiles] = {}
    for number, ik in enumerate((AN_INSURER, ANOTHER_INSURER)):
        store_key = tmp_path / f"{ik}.key"
        store_key.write_bytes(bytes([number]) * 32)
        files[ik] = InsurerKeyFiles(((nothing, nothing),), (nothing, nothing), store_key)
    return LocalVault(files)


@pytest.fixture
def mails() -> MailStore:
    return MailStore()


@pytest.fixture
def app(sqlite_store: EauStore, vault: LocalVault, mails: MailStore) -> FastAPI:
    return create_app(sqlite_store.feed, vault, CLIENTS, mails.confirm)


@pytest.fixture
def http(app: FastAPI) -> Http:
    return Http(app, {"Authorization": f"Bearer {TOKEN}"})


Fill = Callable[..., None]


@pytest.fixture
def fill(sqlite_store: EauStore, vault: LocalVault, signer: Signer) -> Fill:
    """Files documents whose XML is `xml_of(case)`, signed or not, and publishes them."""

    def fill_one(*cases: Case, ik: IK = AN_INSURER, signed: bool = True) -> None:
        for case in cases:
            id = case.arrival.document_id
            assert id is not None
            xml = xml_of(case)
            if signed:
                p7s = sign_payload(xml, signer, NOON, encoding="ber")
                case.sealed = Sealed(p7s=vault.seal(ik, p7s, context(ik, id, "p7s")))
            else:
                case.sealed = Sealed(xml=vault.seal(ik, xml, context(ik, id, "xml")))
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


def test_each_client_has_a_cursor_of_its_own(http: Http, fill: Fill) -> None:
    fill(eau(1), eau(2))
    http.post(url(rest="/ack"), json={"cursor": 2})
    other = {"Authorization": f"Bearer {SECOND_TOKEN}"}
    assert [event["seq"] for event in http.get(url(), headers=other).json()["events"]] == [1, 2]
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


def test_a_client_that_has_the_document_is_not_sent_it_again(http: Http, fill: Fill) -> None:
    fill(eau(1))
    etag = http.get(url(rest=f"/{an_id(1)}")).headers["etag"]
    again = http.get(url(rest=f"/{an_id(1)}"), headers={"If-None-Match": f'"x", W/{etag}'})
    assert (again.status_code, again.content) == (304, b"")


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


def test_a_key_that_is_off_is_said_as_unavailable(http: Http, fill: Fill, vault: LocalVault, tmp_path: Path) -> None:
    fill(eau(1))
    vault._store_keys.clear()
    (tmp_path / f"{AN_INSURER}.key").unlink()
    answer = http.get(url(rest=f"/{an_id(1)}"))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


# --- who may ---


@pytest.mark.parametrize("header", [None, "", "Basic dTpw", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x"])
def test_without_a_known_token_there_is_nothing(app: FastAPI, fill: Fill, header: str | None) -> None:
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


def test_one_insurer_sees_nothing_of_another_not_even_whether_it_is_served(http: Http, fill: Fill) -> None:
    fill(eau(1), ik=ANOTHER_INSURER)
    served, unknown = url(ANOTHER_INSURER), url(IK("999999999"))
    for rest in ("", f"/{an_id(1)}"):
        answers = [http.get(served + rest), http.get(unknown + rest)]
        assert [answer.status_code for answer in answers] == [403, 403]
        assert answers[0].content == answers[1].content
    assert http.post(served + "/ack", json={"cursor": 0}).status_code == 403
    missing = http.get(url(rest=f"/{an_id(1)}"))  # it is there, of another insurer
    assert missing.status_code == 404
    assert missing.content == http.get(url(rest=f"/{an_id(2)}")).content == http.get(url(rest="/%00")).content


def test_a_token_may_be_for_several_insurers(http: Http, fill: Fill) -> None:
    fill(eau(1))
    fill(eau(2), ik=ANOTHER_INSURER)
    both = {"Authorization": f"Bearer {SECOND_TOKEN}"}
    assert [len(http.get(url(ik), headers=both).json()["events"]) for ik in (AN_INSURER, ANOTHER_INSURER)] == [1, 1]


def test_every_client_is_compared_before_a_token_is_accepted_or_refused() -> None:
    assert authenticate(CLIENTS, SECOND_TOKEN) is CLIENTS[2]
    with pytest.raises(BadTokenError):
        authenticate([], "")


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
        ("GET", "/v1/12345678x/eau", None, 422),
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


def test_an_error_that_nobody_foresaw_is_a_problem_too(vault: LocalVault, mails: MailStore) -> None:
    class Broken:
        def position(self, *_: object) -> None:
            raise ZeroDivisionError("secret")

    app = create_app(Broken(), vault, CLIENTS, mails.confirm)  # type: ignore[arg-type]
    answer = Http(app).get(url(), headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_the_description_names_every_operation_and_its_failures(http: Http) -> None:
    schema = http.get("/v1/openapi.json").json()
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == {"list_events", "acknowledge", "get_document"}
    for operation in operations:
        assert operation["security"]
        assert {"401", "403", "422", "503"} <= set(operation["responses"])
    contents = itertools.chain.from_iterable(operation["responses"].values() for operation in operations)
    assert not any("HTTPValidationError" in str(response) for response in contents)
