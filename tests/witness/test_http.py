"""Status codes and bodies exactly as tlog-witness has them, whatever is sent (journal.md § 9.1)."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.journal.samples import LOG, ORIGIN, VECTORS, leaves, policy
from tests.witness.parties import FakeLog, Party, rewritten

from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.note import LogSigner, parse_note
from schleuse.journal.witness_request import MAX_REQUEST, WitnessRequest
from schleuse.witness.http import WitnessPages


def post(party: Party, *bodies: bytes) -> list[httpx.Response]:
    """The answers to these bodies, one after the other."""

    async def run() -> list[httpx.Response]:
        async with _client(party) as client:
            return [await client.post("/add-checkpoint", content=body) for body in bodies]

    return asyncio.run(run())


def get(party: Party, path: str) -> httpx.Response:
    async def run() -> httpx.Response:
        async with _client(party) as client:
            return await client.get(path)

    return asyncio.run(run())


def _client(party: Party) -> httpx.AsyncClient:
    app = WitnessPages(party.witness, [ORIGIN]).app()
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://witness")


def test_the_published_exchange(tmp_path: Path) -> None:
    first = FakeLog(leaves(9)).request(0, 5).encode()
    answers = post(Party(tmp_path), first, VECTORS["witness"]["request"].encode())
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].text == VECTORS["witness"]["response_of_wa"]


def test_another_old_size_is_answered_with_ours(tmp_path: Path) -> None:
    log = FakeLog(leaves(9))
    answers = post(Party(tmp_path), log.request(5, 9).encode(), log.request(0, 5).encode(), log.request(0, 9).encode())
    assert [(answer.status_code, answer.text) for answer in (answers[0], answers[2])] == [(409, "0\n"), (409, "5\n")]
    assert answers[0].headers["content-type"] == "text/x.tlog.size"


def test_each_mistake_has_its_status(tmp_path: Path) -> None:
    log = FakeLog(leaves(9))
    good = log.request(0, 9)
    stranger = Checkpoint("journal.example/nobody/2027", 9, good.checkpoint.root)
    unknown = WitnessRequest(0, (), stranger, stranger.signed_by(LogSigner(stranger.origin, LOG._private_key)))
    line = good.note.lines[0]
    false = type(line)(line.name, line.key_id, bytes(64))
    unsigned = WitnessRequest(0, (), good.checkpoint, type(good.note)(good.note.text, (false,)))
    proof_of_nothing = WitnessRequest(0, (bytes(32),), good.checkpoint, good.note)
    bodies = [
        (b"", 400),
        (b"old 10\n\n" + good.note.encode(), 400),
        (b"old 00\n\n" + good.note.encode(), 400),
        (b"old 0\n" + b"A\n" * 64 + b"\n" + good.note.encode(), 400),
        (bytes(MAX_REQUEST + 1), 400),
        (unknown.encode(), 404),
        (unsigned.encode(), 403),
        (proof_of_nothing.encode(), 422),
        (good.encode(), 200),
        (FakeLog(rewritten(9, 4)).request(9, 9).encode(), 422),
    ]
    answers = post(Party(tmp_path), *(body for body, _ in bodies))
    assert [answer.status_code for answer in answers] == [status for _, status in bodies]


def test_what_was_cosigned_is_shown_with_both_lines(tmp_path: Path) -> None:
    party, path = Party(tmp_path), f"/{VECTORS['witness']['origin_hash']}/checkpoint"
    assert get(party, path).status_code == 404
    post(party, FakeLog(leaves(9)).request(0, 9).encode())
    answer = get(party, path)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert policy("wa").judge(parse_note(answer.content)).checkpoint.size == 9
    assert get(party, f"/{sha256(b'other').hexdigest()}/checkpoint").status_code == 404


def test_a_disk_that_fails_gives_no_cosignature(tmp_path: Path) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(9))
    party.store._connection.execute("PRAGMA query_only = ON")
    (answer,) = post(party, log.request(0, 9).encode())
    assert (answer.status_code, answer.text) == (500, "this witness cannot cosign now\n")
    party.store._connection.execute("PRAGMA query_only = OFF")
    assert post(party, log.request(0, 9).encode())[0].status_code == 200


@pytest.fixture(scope="module")
def at_five(tmp_path_factory: pytest.TempPathFactory) -> Party:
    party = Party(tmp_path_factory.mktemp("witness"))
    party.witness.add_checkpoint(FakeLog(leaves(9)).request(0, 5))
    return party


GOOD = FakeLog(leaves(9)).request(5, 9).encode()
LINES = st.sampled_from([*GOOD.splitlines(keepends=True), b"\n", b"old 0\n", b"old 5\n", "\u2014 a b\n".encode()])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | st.lists(LINES, max_size=15).map(b"".join)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)).map(
        lambda change: GOOD[: change[0]] + bytes([GOOD[change[0]] ^ change[1]]) + GOOD[change[0] + 1 :]
    )
)
def test_hostile_bodies_get_a_refusal_and_change_nothing(at_five: Party, body: bytes) -> None:
    if body == GOOD:
        return
    (answer,) = post(at_five, body)
    # A known line may be followed by others; then it is the good request still, and 200 is right.
    assert answer.status_code in {200, 400, 403, 404, 409, 422}
    last = at_five.store.last(ORIGIN)
    assert last is not None
    assert last.checkpoint in (FakeLog(leaves(9)).checkpoint(5), FakeLog(leaves(9)).checkpoint(9))
