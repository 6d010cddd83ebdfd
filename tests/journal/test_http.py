"""What a foreign tlog-tiles client and a witness in pull mode see (journal.md § 5, § 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.journal.journals import ORIGIN, OTHER, WITNESS, config, entry, journal, signer

from schleuse.journal.checkpoint import open_checkpoint, parse_checkpoint
from schleuse.journal.contracts import JournalUnavailableError, Level, QuarantinedError
from schleuse.journal.disk import OsDisk
from schleuse.journal.entry import Kind, parse_entry
from schleuse.journal.http import JournalPages
from schleuse.journal.note import LogKey, LogSigner, parse_note
from schleuse.journal.opening import Opening, canonical_json, detail_commitment
from schleuse.journal.proof_file import parse_proof_file
from schleuse.journal.store import Journal
from schleuse.journal.successor import (
    ENTRY,
    PROOF,
    Announced,
    announced_key,
    announcement,
    following_origin,
    keep_announced,
)
from schleuse.journal.tiles import bundle_bytes, bundles_of, tile_bytes, tiles_of
from schleuse.journal.tree import MemoryTree

LOG = "/kasse-a/2027"
TIME_S = 1_800_000_000


class Readers:
    """Remembers who read; `down` refuses, as a journal does that cannot write."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.down = False

    async def __call__(self, origin: str, reader: str) -> None:
        if self.down:
            raise JournalUnavailableError("down")
        self.told.append((origin, reader))


@asynccontextmanager
async def served(folder: Path, *, witnessed: bool = False) -> AsyncIterator[tuple[Journal, httpx.AsyncClient, Readers]]:
    readers = Readers()
    async with journal(folder, logs=(config(witnessed=witnessed),)) as opened:
        transport = httpx.ASGITransport(JournalPages(opened, readers).app())
        async with httpx.AsyncClient(transport=transport, base_url="http://journal") as client:
            yield opened, client, readers


async def signed(opened: Journal, count: int, start: int = 0) -> None:
    await opened.append_many(ORIGIN, [entry(i) for i in range(start, count)])
    opened.tick()
    await opened.wait(ORIGIN, count, Level.PUBLISHED, 5)


def test_every_tile_and_bundle_of_a_checkpoint_is_served(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client, readers):
            await signed(opened, 700)
            note = await client.get(f"{LOG}/checkpoint")
            assert note.headers["content-type"] == "text/plain; charset=utf-8"
            checkpoint = open_checkpoint(parse_note(note.content), [LogKey(signer().key)])
            memory = MemoryTree([entry(i) for i in range(700)])
            assert (checkpoint.size, checkpoint.root) == (700, memory.root())
            for tile in tiles_of(700):
                assert (await client.get(f"{LOG}/{tile.path}")).content == tile_bytes(tile, memory)
            assert readers.told == []
            for bundle in bundles_of(700):
                answer = await client.get(f"{LOG}/{bundle.path}")
                first = 256 * bundle.index
                assert answer.content == bundle_bytes([entry(i) for i in range(first, first + bundle.width)])
                assert "immutable" in answer.headers["cache-control"]
            assert readers.told == [(ORIGIN, "127.0.0.1")] * 3

    asyncio.run(run())


def test_no_entry_is_shown_whose_reading_cannot_be_journalled(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client, readers):
            await signed(opened, 10)
            readers.down = True
            answer = await client.get(f"{LOG}/tile/entries/000.p/10")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert (await client.get(f"{LOG}/tile/0/000.p/10")).status_code == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{LOG}/tile/0/000.p/11", 404),
        (f"{LOG}/tile/0/000", 404),
        (f"{LOG}/tile/entries/001.p/1", 404),
        (f"{LOG}/tile/0/000.p/010", 400),
        (f"{LOG}/tile/8/000", 400),
        ("/nobody/2027/checkpoint", 404),
        ("/kasse-a", 404),
    ],
)
def test_what_is_not_there_is_said_so(tmp_path: Path, path: str, status: int) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client, _):
            await signed(opened, 10)
            url = httpx.URL("http://journal").copy_with(raw_path=path.encode())
            assert (await client.get(url)).status_code == status

    asyncio.run(run())


def test_a_cosignature_completes_the_quorum_and_survives_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, witnessed=True) as (opened, client, _):
            await signed(opened, 10)
            assert (await client.get(f"{LOG}/checkpoint")).status_code == 404
            waiting = asyncio.create_task(opened.wait(ORIGIN, 10, Level.WITNESSED, 5))
            note = parse_note((await client.get(f"{LOG}/pending")).content)
            line = WITNESS.cosign(parse_checkpoint(note.text), TIME_S)
            answer = await client.post(f"{LOG}/add-cosignature", content=note.with_lines([line]).encode())
            assert answer.status_code == 204
            await waiting
            assert (await client.get(f"{LOG}/checkpoint")).content == note.with_lines([line]).encode()
            again = await client.post(f"{LOG}/add-cosignature", content=note.with_lines([line]).encode())
            assert again.status_code == 204
            await signed(opened, 20, 10)
            assert b"\n10\n" in (await client.get(f"{LOG}/checkpoint")).content
            assert b"\n20\n" in (await client.get(f"{LOG}/pending")).content
        async with served(tmp_path, witnessed=True) as (opened, client, _):
            assert (await client.get(f"{LOG}/checkpoint")).content == note.with_lines([line]).encode()
            assert config(witnessed=True).policy.judge(parse_note(opened.checkpoint(ORIGIN))).since_s == TIME_S

    asyncio.run(run())


def test_cosignatures_that_nobody_can_use_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, witnessed=True) as (opened, client, _):
            await signed(opened, 10)
            note = parse_note(opened.checkpoint(ORIGIN, pending=True))
            line = WITNESS.cosign(parse_checkpoint(note.text), TIME_S)
            other = parse_note(note.encode().replace(b"\n10\n", b"\n9\n"))
            bad = line.signature[:-1] + bytes([line.signature[-1] ^ 1])
            false = type(line)(line.name, line.key_id, bad)
            for content, status in (
                (b"no note", 400),
                (note.encode(), 403),
                (note.with_lines([false]).encode(), 403),
                (other.with_lines([line]).encode(), 404),
                (bytes(70_000), 413),
            ):
                assert (await client.post(f"{LOG}/add-cosignature", content=content)).status_code == status
            assert opened.log(ORIGIN).served is None

    asyncio.run(run())


def test_health_tells_how_far_each_level_is(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client, _):
            await signed(opened, 3)
            health = (await client.get("/health")).json()
            assert health["state"] == "RUNNING"
            assert health["logs"][ORIGIN] == {"durable": 3, "published": 3, "witnessed": 3, "minimum": 0}

    asyncio.run(run())


@pytest.mark.parametrize("file", ["b00", "entries-000001"])
def test_in_quarantine_good_logs_are_read_and_a_damaged_one_is_refused_with_the_finding(
    tmp_path: Path, file: str
) -> None:
    async def run() -> None:
        async with journal(tmp_path, segment_size=1 << 20) as opened:
            for origin in (ORIGIN, OTHER):
                await opened.append_many(origin, [entry(i) for i in range(400)])
                await opened.append_many(origin, [entry(i) for i in range(400, 700)])
            opened.tick()
            for origin in (ORIGIN, OTHER):
                await opened.wait(origin, 700, Level.PUBLISHED, 5)
        path = tmp_path / "journal" / "logs" / "00000" / file
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        async with journal(tmp_path, segment_size=1 << 20) as opened:
            assert len(opened.findings) == 1
            transport = httpx.ASGITransport(JournalPages(opened, Readers()).app())
            async with httpx.AsyncClient(transport=transport, base_url="http://journal") as client:
                memory = MemoryTree([entry(i) for i in range(700)])
                assert b"\n700\n" in (await client.get("/kasse-b/2027/checkpoint")).content
                for tile in tiles_of(700):
                    assert (await client.get(f"/kasse-b/2027/{tile.path}")).content == tile_bytes(tile, memory)
                    refused = await client.get(f"{LOG}/{tile.path}")
                    assert (refused.status_code, file in refused.text) == (503, True)
                assert (await client.get(f"{LOG}/checkpoint")).status_code == 200  # our own word can be compared
            with pytest.raises(QuarantinedError, match=file):
                opened.read(ORIGIN, 0, 1)
            assert len(opened.consistency(OTHER, 5, 700)) > 0
        assert path.read_bytes() == data  # nothing was repaired in silence

    asyncio.run(run())


def test_without_a_readable_state_nobody_says_that_a_log_does_not_exist(tmp_path: Path) -> None:
    async def run() -> None:
        async with journal(tmp_path) as opened:
            await signed(opened, 10)
        (tmp_path / "journal" / "state").write_bytes(b"torn")
        async with journal(tmp_path) as opened:
            transport = httpx.ASGITransport(JournalPages(opened, Readers()).app())
            async with httpx.AsyncClient(transport=transport, base_url="http://journal") as client:
                answer = await client.get(f"{LOG}/checkpoint")
                assert (answer.status_code, "state" in answer.text) == (503, True)

    asyncio.run(run())


def test_the_successor_is_served_once_it_is_announced_and_its_entry_accuses_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as (opened, client, readers):
            await signed(opened, 3)
            for name in (PROOF, ENTRY):
                assert (await client.get(f"{LOG}/{name}")).status_code == 404
            following = LogSigner(following_origin(ORIGIN), Ed25519PrivateKey.from_private_bytes(b"n" * 32)).key
            salt, record = b"s" * 16, canonical_json(announcement(ORIGIN, following))
            opening, commitment = Opening(detail=(salt, record)), detail_commitment(salt, record)
            whole = replace(parse_entry(entry(3)), kind=Kind.POLICY_CHANGED, detail=commitment)
            index = (await opened.append(ORIGIN, whole.encode())).index
            keep_announced(OsDisk(), opened.log(ORIGIN).folder, Announced(index, opening))
            assert (await client.get(f"{LOG}/{PROOF}")).status_code == 404  # no checkpoint covers it yet
            opened.tick()
            await opened.wait(ORIGIN, 4, Level.PUBLISHED, 5)
            proof = parse_proof_file((await client.get(f"{LOG}/{PROOF}")).content)
            data = (await client.get(f"{LOG}/{ENTRY}")).content
            assert announced_key(proof, data, [LogKey(signer().key)]) == following
            assert readers.told == []

    asyncio.run(run())
