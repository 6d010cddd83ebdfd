"""At its start a journal asks the real witness what it remembers (journal.md § 9.1, § 12.3)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from tests.journal.journals import ORIGIN, WITNESS, config, entry, journal, settings, signer

from schleuse.journal.ask import ask_witnesses, get
from schleuse.journal.contracts import Level, QuarantinedError
from schleuse.journal.note import LogKey
from schleuse.journal.policy import parse_policy
from schleuse.journal.push import WitnessPush
from schleuse.journal.recovery import open_journal
from schleuse.journal.store import Journal
from schleuse.witness.http import WitnessPages
from schleuse.witness.service import Witness
from schleuse.witness.store import WitnessStore

POLICY = parse_policy(f"log {signer().key.vkey}\nwitness w {WITNESS.key.vkey} http://witness\nquorum w\n".encode())
CONFIG = replace(config(witnessed=True), policy=POLICY)


class Remote:
    """The witness's service without a network. down: no answer."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.down = False
        self.answer: tuple[int, bytes] | None = None
        self._client = client

    async def get(self, url: str) -> tuple[int, bytes]:
        if self.down:
            raise OSError("down")
        if self.answer is not None:
            return self.answer
        answer = await self._client.get(url)
        return answer.status_code, answer.content

    async def post(self, url: str, body: bytes) -> tuple[int, bytes]:
        answer = await self._client.post(url, content=body)
        return answer.status_code, answer.content


@asynccontextmanager
async def witness(folder: Path) -> AsyncIterator[Remote]:
    store = WitnessStore(folder / "witness.sqlite")
    service = Witness(
        {ORIGIN: (LogKey(signer().key),)}, (WITNESS,), store, lambda: datetime.now(UTC), lambda alarm: None
    )
    transport = httpx.ASGITransport(WitnessPages(service, [ORIGIN]).app())
    try:
        async with httpx.AsyncClient(transport=transport) as client:
            yield Remote(client)
    finally:
        store.close()


async def grow(opened: Journal, remote: Remote, start: int, stop: int, *, salt: int = 0) -> None:
    """Cosigned by the witness up to `stop` entries."""
    push = WitnessPush(opened, remote.post, lambda *_: None)
    await opened.append_many(ORIGIN, [entry(i, salt=salt) for i in range(start, stop)])
    opened.tick()
    await opened.wait(ORIGIN, stop, Level.PUBLISHED, 5)
    push.signed(opened.log(ORIGIN), POLICY)
    await push.idle()


async def ask(opened: Journal, remote: Remote) -> tuple[list[str], list[str]]:
    """Findings and alarms."""
    alarms: list[str] = []
    found = await ask_witnesses(opened, {ORIGIN: POLICY}, remote.get, lambda event, origin, name: alarms.append(event))
    return found, alarms


def test_a_witness_that_never_saw_the_log_and_one_that_agrees_stop_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with witness(tmp_path) as remote:
            async with journal(tmp_path, logs=(CONFIG,)) as opened:
                assert await ask(opened, remote) == ([], [])
                await grow(opened, remote, 0, 300)
                assert await ask(opened, remote) == ([], [])
            async with journal(tmp_path, logs=(CONFIG,)) as opened:
                assert await ask(opened, remote) == ([], [])

    asyncio.run(run())


def test_an_older_copy_of_everything_is_noticed_before_the_first_append(tmp_path: Path) -> None:
    async def run() -> None:
        async with witness(tmp_path) as remote:
            async with journal(tmp_path, logs=(CONFIG,)) as opened:
                await grow(opened, remote, 0, 5)
            shutil.copytree(tmp_path / "journal", tmp_path / "older" / "journal")
            async with journal(tmp_path, logs=(CONFIG,)) as opened:
                await grow(opened, remote, 5, 12)
            async with journal(tmp_path / "older", logs=(CONFIG,)) as opened:
                assert opened.findings == ()
                [finding], _ = await ask(opened, remote)
                for word in ("w cosigned", "size 12", "5 entries"):
                    assert word in finding
                opened.stop([finding])
                with pytest.raises(QuarantinedError, match="w cosigned"):
                    await opened.append(ORIGIN, entry(5))
                assert len(list(opened.read(ORIGIN, 0, 5))) == 5  # what is there can still be read

    asyncio.run(run())


def test_another_history_of_the_same_length_is_noticed(tmp_path: Path) -> None:
    async def run() -> None:
        async with witness(tmp_path) as remote:
            async with journal(tmp_path, logs=(CONFIG,)) as opened:
                await grow(opened, remote, 0, 5)
            async with journal(tmp_path / "forged", logs=(CONFIG,)) as opened:
                await opened.append_many(ORIGIN, [entry(i, salt=1) for i in range(9)])
                [finding], _ = await ask(opened, remote)
                assert "another root at size 5" in finding

    asyncio.run(run())


def test_a_log_that_is_gone_with_its_whole_folder_is_noticed(tmp_path: Path) -> None:
    async def run() -> None:
        async with witness(tmp_path) as remote:
            async with journal(tmp_path, logs=(CONFIG,)) as opened:
                await grow(opened, remote, 0, 5)
            opened = open_journal(settings(tmp_path / "empty", logs=(CONFIG,)))
            try:
                [finding], _ = await ask(opened, remote)
                assert "size 5" in finding
                assert "no such log" in finding
            finally:
                await opened.close()

    asyncio.run(run())


@pytest.mark.parametrize("answer", [None, (500, b""), (200, b"no note"), (200, b"\xe2")])
def test_silence_and_nonsense_are_alarms_and_the_start_goes_on(
    tmp_path: Path, answer: tuple[int, bytes] | None
) -> None:
    async def run() -> None:
        async with witness(tmp_path) as remote, journal(tmp_path, logs=(CONFIG,)) as opened:
            remote.down, remote.answer = answer is None, answer
            assert await ask(opened, remote) == ([], ["witness-silent"])

    asyncio.run(run())


def test_a_larger_checkpoint_that_no_key_of_ours_signed_stops_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        async with witness(tmp_path) as remote, journal(tmp_path, logs=(CONFIG,)) as opened:
            await grow(opened, remote, 0, 5)
            signed = opened.log(ORIGIN).signed
            assert signed is not None
            remote.answer = 200, signed.note.encode().replace(b"\n5\n", b"\n500\n")
            assert await ask(opened, remote) == ([], ["witness-silent"])

    asyncio.run(run())


def test_only_http_is_asked() -> None:
    with pytest.raises(OSError, match="no witness is reached"):
        asyncio.run(get("file:///etc/passwd"))
