"""The status address over HTTP: what it tells, to whom, and how (§ 6.4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.eau.asgi import Http
from tests.kim.mails import ELSEWHERE, KASSE, PRAXIS, a_mail, put
from tests.processes.receipt_site import KEY, Place
from tests.scenarios.platform import build_home

from schleuse.config import Config, read_config
from schleuse.errors import MalformedError, UnavailableError
from schleuse.kim.receipts import check_file, keys_of
from schleuse.kim.store.origins import reference_of
from schleuse.mail.passwords import TooManyGuessesError
from schleuse.processes.receipts_http import receipts_app

FIRST = reference_of("<1@praxis.example>")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return read_config(build_home(tmp_path_factory.mktemp("base") / "home"))


@pytest.fixture
def place(config: Config, tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, config)
    put(place.store, a_mail(1, KASSE, ELSEWHERE), a_mail(2, KASSE), a_mail(3, PRAXIS, sender=KASSE))
    yield place
    place.store.close()


async def authenticate(user: str, password: str, _peer: str) -> str | None:
    if user == "away":
        raise UnavailableError("the password store is away")
    if user == "guesser":
        raise TooManyGuessesError("wait a minute")
    if user == "no-address":
        raise MalformedError("no KIM address")
    return user if password == "geheim" else None


@pytest.fixture
def client(place: Place) -> Http:
    app = receipts_app(place.store.origins, place.issuer, authenticate, place.clock)
    return Http(app)


def basic(user: str, password: str = "geheim") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def messages(answer: Any) -> list[dict[str, Any]]:
    return list(answer.json()["receipt"]["messages"])


def test_whoever_knows_the_message_id_gets_a_receipt_that_verifies(client: Http) -> None:
    answer = client.get(f"/v1/receipts/{FIRST}")
    assert answer.status_code == 200
    keys = keys_of(client.get("/.well-known/jwks.json").content)
    payload = check_file(answer.content, keys)
    assert [one["service"] for one in payload["messages"]] == ["eau_intake", "kim_mail"]
    assert payload["status"].endswith(f"/v1/receipts/{FIRST}")


def test_the_state_changes_with_the_record(client: Http, place: Place) -> None:
    place.hold()
    assert [one["held"] for one in messages(client.get(f"/v1/receipts/{FIRST}"))] == [True, False]


def test_a_person_gets_a_text(client: Http, place: Place) -> None:
    place.hold()
    answer = client.get(f"/v1/receipts/{FIRST}", headers={"Accept": "text/plain"})
    assert answer.headers["content-type"].startswith("text/plain")
    assert "Aus Sicherheitsgründen angehalten" in answer.text


def test_an_unknown_reference_is_told_apart_from_a_held_mail(client: Http) -> None:
    answer = client.get(f"/v1/receipts/{'0' * 64}")
    assert (answer.status_code, answer.json()["code"]) == (404, "receipt.unknown")


@pytest.mark.parametrize("reference", ["x", "0" * 63, "G" * 64, FIRST.upper(), "%00"])
def test_what_is_no_reference_is_malformed(client: Http, reference: str) -> None:
    assert client.get(f"/v1/receipts/{reference}").status_code == 400


def test_a_sender_who_logs_in_sees_all_of_his_own_and_nothing_else(client: Http) -> None:
    answer = client.get("/v1/receipts?limit=2&since=2026-03-01T00:00:00Z", headers=basic(PRAXIS))
    assert [one["reference"] for one in messages(answer)] == [FIRST, FIRST]
    following = client.get(
        f"/v1/receipts?after={answer.json()['next']}&since=2026-03-01T00:00:00Z", headers=basic(PRAXIS)
    )
    assert [one["reference"] for one in messages(following)] == [reference_of("<2@praxis.example>")]
    last = client.get(f"/v1/receipts?after={following.json()['next']}", headers=basic(PRAXIS))
    assert (messages(last), last.json()["next"]) == ([], following.json()["next"])
    check_file(json.dumps({k: following.json()[k] for k in ("receipt", "signature")}).encode(), [KEY.public_key()])


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic !"}, basic(PRAXIS, "falsch"), basic("no-address"),
     basic("", "x"), {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()}],
)  # fmt: skip
def test_without_a_login_there_is_no_list(client: Http, headers: dict[str, str]) -> None:
    answer = client.get("/v1/receipts", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert PRAXIS not in answer.text


@pytest.mark.parametrize(("user", "status"), [("away", 503), ("guesser", 429)])
def test_own_trouble_and_too_many_guesses_say_when_to_come_again(client: Http, user: str, status: int) -> None:
    answer = client.get("/v1/receipts", headers=basic(user))
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "60")


@pytest.mark.parametrize("query", ["since=yesterday", "after=x", "limit=1e3", "after=99999999999999999999"])
def test_parameters_that_are_none_are_malformed(client: Http, query: str) -> None:
    assert client.get(f"/v1/receipts?{query}", headers=basic(PRAXIS)).status_code == 400


def test_a_store_that_is_away_is_no_missing_mail(client: Http, place: Place) -> None:
    """A 404 would make somebody send again."""
    for file in place.folder.glob("kim.sqlite*"):
        file.write_bytes(b"no database any more" * 10_000)
    assert client.get(f"/v1/receipts/{FIRST}").status_code >= 500


def test_only_reading_is_possible(client: Http) -> None:
    assert client.post(f"/v1/receipts/{FIRST}").status_code == 405
    assert client.get("/elsewhere").status_code == 404


@pytest.mark.parametrize("path", [f"/v1/receipts/{FIRST}", "/v1/receipts", "/elsewhere", "/.well-known/jwks.json"])
def test_every_answer_has_the_headers_that_browsers_need(client: Http, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" in headers
