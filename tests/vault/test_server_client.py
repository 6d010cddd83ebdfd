"""The vault's socket, server and client together, and each against bytes and peers that nobody should meet."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.vault.vaults import (
    ENC,
    FOREIGN,
    KASSE,
    OTHER,
    SIG,
    MemoryJournal,
    Vault,
    build,
    mail,
    store_in,
    take_over,
    token,
)

from schleuse.identifiers import IK
from schleuse.vault import Vault as Contract
from schleuse.vault.client import FILE_AT_ONCE, VaultClient, _portions
from schleuse.vault.contracts import (
    BadRequestError,
    BadTokenError,
    Document,
    KeyMissingError,
    Named,
    NotAllowedError,
    SealBrokenError,
    UnwrapFailedError,
    VaultUnavailableError,
)
from schleuse.vault.server import IN_FLIGHT, MAX_ITEMS, SMALL, Desk, Door, listen
from schleuse.vault.service import Insured
from schleuse.vault.wire import (
    DONE,
    MAX_REQUEST,
    REFUSED,
    REPLY,
    REQUEST,
    Ask,
    Insurer,
    Names,
    Nothing,
    Refusal,
    Sign,
    decode,
    encode,
    error_of,
    request,
)

ME = {os.getuid(): "eau"}
PERSON = b"A123456780"


class Site:
    """A vault behind its socket, in this process's loop; clients run in threads."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self.path = folder / "vault.sock"
        self.vault = vault
        self.door = Door()
        self.clients: list[VaultClient] = []

    def client(self, **changes: Any) -> VaultClient:
        self.clients.append(VaultClient(self.path, **changes))
        return self.clients[-1]

    async def imports(self) -> list[dict[str, str]]:
        raise RuntimeError(PERSON.decode())

    @asynccontextmanager
    async def open(self, roles: dict[int, str] | None = None, **changes: Any) -> AsyncIterator[VaultClient]:
        desk = Desk(self.vault.service, self.imports)
        async with listen(self.path, desk, ME if roles is None else roles, self.door, **changes):
            yield self.client()


def at_site(folder: Path, test: Callable[[Site], Awaitable[None]], **changes: Any) -> None:
    async def run() -> None:
        vault = build(store_in(folder), **changes)
        await take_over(vault)
        site = Site(folder, vault)
        try:
            await test(site)
        finally:
            for client in site.clients:
                client.close()
            vault.store.close()

    asyncio.run(run())


def test_the_whole_contract_holds_over_the_socket(tmp_path: Path) -> None:
    def use(client: VaultClient, vault: Vault) -> None:
        held: Contract = client
        assert held.certificates(KASSE) == (ENC,)
        key, broken, foreign = held.open_mails(KASSE, [mail(1), mail(2, damaged=True), mail(3, recipient=FOREIGN)])
        assert key == b"k" * 32
        assert isinstance(broken, UnwrapFailedError)
        assert isinstance(foreign, KeyMissingError)
        one, again, other = held.pseudonyms(
            KASSE, [Named(PERSON, b"c"), Named(PERSON, b"c"), Named(b"B", b"c", b"practice")]
        )
        assert one == again
        assert (one.subject, one.practice) != (other.subject, None)
        first, second = held.file(
            KASSE,
            [Document(one.subject, "urn:uuid:1", "xml", b"<a/>"), Document(other.subject, "urn:uuid:2", "xml", b"")],
        )
        assert held.fetch(KASSE, token(vault.clock, "urn:uuid:1"), "urn:uuid:1", "xml", first) == b"<a/>"
        assert held.fetch(KASSE, token(vault.clock, "urn:uuid:2"), "urn:uuid:2", "xml", second) == b""
        letter = held.seal_letter(KASSE, "<1@example>", b"draft")
        assert held.open_letter(KASSE, "<1@example>", letter) == b"draft"
        signer = held.signer(KASSE)
        assert signer.certificate == SIG
        assert all(signer.sign(b"data"))
        assert held.open_mails(KASSE, []) == []
        assert held.file(KASSE, []) == []
        assert client.status()["releases_since_start"][f"{KASSE} EAU_INTAKE"] == 2

    async def test(site: Site) -> None:
        async with site.open() as client:
            await asyncio.to_thread(use, client, site.vault)

    at_site(tmp_path, test)


def test_errors_keep_their_class_over_the_socket(tmp_path: Path) -> None:
    def use(client: VaultClient) -> None:
        for kind, attempt in (
            (KeyMissingError, lambda: client.certificates(IK("109999999"))),
            (KeyMissingError, lambda: client.signer(OTHER)),
            (BadTokenError, lambda: client.fetch(KASSE, "nonsense", "n", "xml", bytes(200))),
            (SealBrokenError, lambda: client.open_letter(KASSE, "<1@example>", b"nonsense")),
            (BadTokenError, lambda: client.erase(KASSE, "nonsense", PERSON)),
            (BadTokenError, lambda: client.opening(KASSE, "nonsense", bytes(16))),
            (BadRequestError, lambda: client.pseudonyms(KASSE, [Named(b"", b"")] * (MAX_ITEMS + 1))),
        ):
            with pytest.raises(kind):
                attempt()

    async def test(site: Site) -> None:
        async with site.open() as client:
            await asyncio.to_thread(use, client)
        assert site.door.refused == site.door.requests == 7

    at_site(tmp_path, test)


def test_a_user_without_a_role_is_hung_up_on_and_counted(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async with site.open(roles={os.getuid() + 1: "eau"}) as client:
            with pytest.raises(VaultUnavailableError):
                await asyncio.to_thread(client.certificates, KASSE)
        assert (site.door.strangers, site.door.requests) == (1, 0)

    at_site(tmp_path, test)


def test_an_operators_user_may_give_orders_and_use_no_key(tmp_path: Path) -> None:
    def use(client: VaultClient) -> None:
        assert client.status()["logs"]
        for attempt in (
            lambda: client.open_mails(KASSE, [mail(1)]),
            lambda: client.sign(KASSE, b"data"),
            lambda: client.pseudonyms(KASSE, [Named(PERSON, b"c")]),
            lambda: client.certificates(KASSE),
        ):
            with pytest.raises(NotAllowedError):
                attempt()

    async def test(site: Site) -> None:
        async with site.open(roles={os.getuid(): "operator"}) as client:
            await asyncio.to_thread(use, client)
        assert site.vault.journal.releases() == []

    at_site(tmp_path, test)


def test_a_mistake_of_ours_is_unavailability_and_quotes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(site: Site) -> None:
        async with site.open() as client:
            with pytest.raises(VaultUnavailableError) as raised:
                await asyncio.to_thread(client.import_keys)
            assert "RuntimeError" in str(raised.value)
            assert PERSON.decode() not in str(raised.value)
            assert await asyncio.to_thread(client.certificates, KASSE) == (ENC,)

    at_site(tmp_path, test)
    told = capsys.readouterr()
    assert "vault.mistake" in told.out + told.err
    assert PERSON.decode() not in told.out + told.err


def test_threads_share_a_client_and_each_gets_its_own_answers(tmp_path: Path) -> None:
    def use(client: VaultClient) -> None:
        def one(number: int) -> bool:
            (key,) = client.open_mails(KASSE, [mail(number, number.to_bytes(32))])
            return key == number.to_bytes(32)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(60)))

    async def test(site: Site) -> None:
        async with site.open() as client:
            await asyncio.to_thread(use, client)
            assert site.door.connections <= 8
        assert [one.release_counter for one in site.vault.journal.releases()] == list(range(1, 61))

    at_site(tmp_path, test)


def test_requests_are_pipelined_and_answered_by_their_numbers(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async with site.open():
            reader, writer = await asyncio.open_unix_connection(site.path)
            names = Names(KASSE.value, [])
            writer.write(b"".join(request(Ask.PSEUDONYMS, 1000 + number, names) for number in range(200)))
            answered = {(await answer(reader))[0] for _ in range(200)}
            assert answered == set(range(1000, 1200))
            writer.close()

    at_site(tmp_path, test)


def test_no_more_requests_are_worked_on_than_may_be_in_flight(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        gate = site.vault.journal.gate = asyncio.Event()
        async with site.open():
            reader, writer = await asyncio.open_unix_connection(site.path)
            sign = Sign(KASSE.value, b"data")
            writer.write(b"".join(request(Ask.SIGN, number, sign) for number in range(IN_FLIGHT + 20)))
            await until(lambda: site.door.requests == IN_FLIGHT)
            for _ in range(50):
                await asyncio.sleep(0)
            assert site.door.requests == IN_FLIGHT
            gate.set()
            answered = {(await answer(reader))[0] for _ in range(IN_FLIGHT + 20)}
            assert answered == set(range(IN_FLIGHT + 20))
            writer.close()

    at_site(tmp_path, test)


def test_requests_of_all_connections_share_the_room_for_octets(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        gate = site.vault.journal.gate = asyncio.Event()
        async with site.open(octets=100):
            pairs = [await asyncio.open_unix_connection(site.path) for _ in range(3)]
            for _, writer in pairs:
                writer.write(request(Ask.SIGN, 1, Sign(KASSE.value, bytes(90))))
            await until(lambda: site.door.requests == 1)
            for _ in range(50):
                await asyncio.sleep(0)
            assert site.door.requests == 1, "the others stay in their sockets"
            gate.set()
            for reader, writer in pairs:
                assert (await answer(reader))[1] == DONE
                writer.close()

    at_site(tmp_path, test)


def test_a_large_request_that_does_not_come_holds_up_no_small_one(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async with site.open(octets=SMALL, progress_s=60.0) as client:
            pairs = [await asyncio.open_unix_connection(site.path) for _ in range(2)]
            for _, writer in pairs:
                writer.write(REQUEST.pack(SMALL + 1, Ask.SIGN, 7) + b"begun")
            await until(lambda: site.door.connections == 2)
            assert await asyncio.to_thread(client.certificates, KASSE) == (ENC,)
            assert site.door.connections == 3, "the slow ones are still there"
            for _, writer in pairs:
                writer.close()

    at_site(tmp_path, test)


@pytest.mark.parametrize("length", [6, SMALL + 1])
def test_a_sender_that_stops_in_the_middle_is_hung_up_on_and_its_room_is_free(tmp_path: Path, length: int) -> None:
    async def test(site: Site) -> None:
        async with site.open(octets=1, progress_s=0.01):
            pairs = [await asyncio.open_unix_connection(site.path) for _ in range(2)]
            for _, writer in pairs:
                writer.write(REQUEST.pack(length, Ask.SIGN, 7) + b"begun")
            for reader, writer in pairs:  # the second gets room when the first is gone
                assert await reader.read() == b""
                writer.close()

    at_site(tmp_path, test)


def test_a_request_that_is_too_long_is_refused_unread_and_hung_up_on(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async with site.open() as client:
            reader, writer = await asyncio.open_unix_connection(site.path)
            writer.write(REQUEST.pack(MAX_REQUEST + 1, Ask.SIGN, 7))
            number, status, body = await answer(reader)
            assert (number, status) == (7, REFUSED)
            assert isinstance(error_of(decode(body, Refusal)), BadRequestError)
            assert await reader.read() == b""
            writer.close()
            assert await asyncio.to_thread(client.certificates, KASSE) == (ENC,)

    at_site(tmp_path, test)


@pytest.mark.parametrize("operation", [0, 99, 65535])
def test_an_operation_that_does_not_exist_is_a_bad_request(tmp_path: Path, operation: int) -> None:
    async def test(site: Site) -> None:
        async with site.open():
            reader, writer = await asyncio.open_unix_connection(site.path)
            body = encode(Nothing())
            writer.write(REQUEST.pack(len(body), operation, 1) + body)
            _, status, said = await answer(reader)
            assert status == REFUSED
            assert isinstance(error_of(decode(said, Refusal)), BadRequestError)
            writer.close()

    at_site(tmp_path, test)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 14), st.binary(max_size=60)), max_size=8), st.binary(max_size=30))
def test_whatever_bytes_come_every_whole_request_is_answered_and_the_vault_goes_on(
    tmp_path_factory: pytest.TempPathFactory, frames: list[tuple[int, bytes]], rest: bytes
) -> None:
    rest = rest and b"\0" + rest  # no length above the limit
    folder = tmp_path_factory.mktemp("fuzz")

    async def run() -> None:
        vault = build(store_in(folder))
        site = Site(folder, vault)
        async with site.open():
            reader, writer = await asyncio.open_unix_connection(site.path)
            for number, (operation, body) in enumerate(frames):
                writer.write(REQUEST.pack(len(body), operation, number) + body)
            answered = {(await answer(reader))[0] for _ in frames}
            assert answered == set(range(len(frames)))
            writer.write(rest)
            writer.close()
            await writer.wait_closed()
            good, out = await asyncio.open_unix_connection(site.path)
            out.write(request(Ask.CERTIFICATES, 5, Insurer(KASSE.value)))
            assert (await answer(good))[:2] == (5, DONE)
            out.close()
        vault.store.close()

    asyncio.run(run())


def test_the_client_comes_back_after_the_vault_and_believes_nothing_of_its_former_life(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        client = site.client()
        with pytest.raises(VaultUnavailableError, match=r"vault\.sock"):
            await asyncio.to_thread(client.certificates, KASSE)
        async with site.open():
            assert await asyncio.to_thread(client.certificates, KASSE) == (ENC,)
            assert await asyncio.to_thread(client.certificates, KASSE) == (ENC,)
            assert site.door.requests == 1, "asked once of each life"
        with pytest.raises(VaultUnavailableError):
            await asyncio.to_thread(client.certificates, KASSE)
        site.vault = build(site.vault.store, insurers={KASSE: Insured((SIG, ENC), SIG)})
        async with site.open():
            assert await asyncio.to_thread(client.certificates, KASSE) == (SIG, ENC)

    at_site(tmp_path, test)


def test_a_vault_that_does_not_answer_in_time_is_unavailable(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        gate = site.vault.journal.gate = asyncio.Event()
        async with site.open():
            client = site.client(answer_s=0.05)
            with pytest.raises(VaultUnavailableError, match="timed out"):
                await asyncio.to_thread(client.sign, KASSE, b"data")
            gate.set()
            patient = site.client()
            assert await asyncio.to_thread(patient.sign, KASSE, b"data")
            assert await asyncio.to_thread(client.certificates, KASSE) == (ENC,)
        assert len(site.vault.journal.releases()) == 2, "what was asked was done, and its entry says so"

    at_site(tmp_path, test)


def test_what_is_worked_on_when_the_vault_ends_is_answered_first(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        journal: MemoryJournal = site.vault.journal
        gate = journal.gate = asyncio.Event()
        before = len(journal.levels)
        async with site.open() as client:
            asked = asyncio.create_task(asyncio.to_thread(client.sign, KASSE, b"data"))
            await until(lambda: len(journal.levels) > before)
            asyncio.get_running_loop().call_soon(gate.set)
        assert await asked

    at_site(tmp_path, test)


def test_a_connection_that_ends_in_the_middle_of_a_request_disturbs_nobody(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        async with site.open() as client:
            for cut in (3, 14, 20):
                _, writer = await asyncio.open_unix_connection(site.path)
                writer.write(request(Ask.SIGN, 1, Sign(KASSE.value, b"data"))[:cut])
                writer.close()
                await writer.wait_closed()
            assert await asyncio.to_thread(client.certificates, KASSE) == (ENC,)
            await until(lambda: site.door.connections == 1)
        assert site.vault.journal.releases() == []

    at_site(tmp_path, test)


@pytest.mark.parametrize(
    "said",
    [
        b"",  # hangs up
        REPLY.pack(1, DONE, 100) + b"half",
        REPLY.pack(2, DONE, 1) + b"\x90",  # of another request
        REPLY.pack(1, DONE, 2**32 - 1),
        REPLY.pack(1, DONE, 3) + b"\xff\xff\xff",
        REPLY.pack(1, REFUSED, 3) + b"\xff\xff\xff",
        REPLY.pack(1, 77, 1) + b"\x90",
    ],
)
def test_whatever_a_vault_may_say_the_client_ends_with_unavailability(tmp_path: Path, said: bytes) -> None:
    """A stranger at the socket, another version, a vault that dies in the middle of its reply."""
    with a_liar(tmp_path / "s", said):
        client = VaultClient(tmp_path / "s", answer_s=10)
        with pytest.raises(VaultUnavailableError):
            client.sign(KASSE, b"data")
        client.close()


def test_a_vault_that_answers_fewer_things_than_were_asked_is_not_believed(tmp_path: Path) -> None:
    body = encode([b"k" * 32])
    with a_liar(tmp_path / "s", REPLY.pack(1, DONE, len(body)) + body):
        client = VaultClient(tmp_path / "s", answer_s=10)
        with pytest.raises(VaultUnavailableError, match="1 things where 2"):
            client.open_mails(KASSE, [mail(1), mail(2)])
        client.close()


def test_large_batches_are_filed_in_portions() -> None:
    third = Document(b"s" * 16, "n", "xml", bytes(FILE_AT_ONCE // 3 + 1))
    small = Document(b"s" * 16, "n", "xml", b"x")
    assert [len(some) for some in _portions([third] * 5)] == [2, 2, 1]
    assert [len(some) for some in _portions([small] * 1000)] == [1000]
    assert list(_portions([])) == []


def test_the_socket_of_a_dead_vault_is_replaced_and_nobody_else_may_use_it(tmp_path: Path) -> None:
    (tmp_path / "vault.sock").write_text("left behind")

    async def test(site: Site) -> None:
        async with site.open() as client:
            assert site.path.stat().st_mode & 0o007 == 0
            assert await asyncio.to_thread(client.certificates, KASSE) == (ENC,)
        assert not site.path.exists()

    at_site(tmp_path, test)


async def answer(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    number, status, length = REPLY.unpack(await reader.readexactly(REPLY.size))
    return number, status, await reader.readexactly(length)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


@contextmanager
def a_liar(path: Path, said: bytes) -> Iterator[None]:
    """Somebody at the socket who reads one request and says this, then hangs up."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(30)
