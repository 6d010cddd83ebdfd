"""What the tests of the durable part build: entries, keys, policies, a journal in a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.journal.cosignature import Ed25519Cosigner
from schleuse.journal.disk import Disk
from schleuse.journal.entry import Entry, Kind, Purpose, Result, parse_entry
from schleuse.journal.log import LogConfig
from schleuse.journal.note import LogSigner
from schleuse.journal.policy import parse_policy
from schleuse.journal.recovery import open_journal
from schleuse.journal.store import Journal, Settings

ORIGIN = "journal.example/kasse-a/2027"
OTHER = "journal.example/kasse-b/2027"
NOW_US = 1_800_000_000_000_000
SEGMENT = 64 * 1024
WITNESS = Ed25519Cosigner("witness.example/kasse-a", Ed25519PrivateKey.from_private_bytes(b"\2" * 32))

_TEMPLATE = bytes.fromhex("4a45310a10000001") + NOW_US.to_bytes(8) + bytes(16) + b"\xa0" * 16 + b"\xb0" * 16 + bytes(64)


def entry(number: int, *, kind: int = Kind.READ, salt: int = 0) -> bytes:
    """A valid entry with its own event."""
    event = (number + 1).to_bytes(8) + salt.to_bytes(8)
    return _TEMPLATE[:4] + bytes([kind]) + _TEMPLATE[5:16] + event + _TEMPLATE[32:]


def release(number: int, subject: bytes = b"\xb1" * 16) -> bytes:
    """A key release as the vault writes it."""
    whole = replace(
        parse_entry(entry(number)),
        subject=subject,
        kind=Kind.KEY_RELEASED,
        subject_key_version=3,
        release_counter=number,
    )
    assert isinstance(whole, Entry)
    assert (whole.result, whole.purpose) == (Result.GRANTED, Purpose.TREATMENT)
    assert isinstance(whole.event, UUID)
    return whole.encode()


def signer(origin: str = ORIGIN) -> LogSigner:
    return LogSigner(origin, Ed25519PrivateKey.from_private_bytes(b"\1" * 32))


def config(origin: str = ORIGIN, *, witnessed: bool = False) -> LogConfig:
    key = signer(origin)
    quorum = "quorum w" if witnessed else "quorum none"
    text = f"log {key.key.vkey}\nwitness w {WITNESS.key.vkey}\n{quorum}\n"
    return LogConfig(origin, key, parse_policy(text.encode()))


def settings(folder: Path, **changes: Any) -> Settings:
    """Small segments; each log opens with its own number."""
    base = Settings(
        folder / "journal",
        (config(), config(OTHER)),
        now_us=lambda: NOW_US,
        segment_size=SEGMENT,
        segment_entries=512,
        spares=4,
        inline=True,
    )
    return replace(base, **changes)


@asynccontextmanager
async def journal(folder: Path, disk: Disk | None = None, **changes: Any) -> AsyncIterator[Journal]:
    """An open journal with both logs; closed in order, unless it failed."""
    opened = open_journal(settings(folder, **changes), disk=disk)
    if not opened.findings:
        while opened._wal.wants_spares:
            opened._wal.prepare()
        for one in (ORIGIN, OTHER):
            if one not in {log.origin for log in opened.logs()}:
                opened.open_log(one)
    try:
        yield opened
    finally:
        await opened.close()
