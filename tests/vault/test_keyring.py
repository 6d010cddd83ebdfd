"""Keys in memory: who asks at the same moment shares one reading, and nothing outlives the order to forget (§ 14.3)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from pathlib import Path
from threading import Event

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.vault.vaults import KASSE, certificate, store_in

from schleuse.vault.contracts import ErasedError, KeyMissingError
from schleuse.vault.kek import SoftwareKek
from schleuse.vault.keyring import Keyring
from schleuse.vault.reflected import Key
from schleuse.vault.sk1 import derive, seal_all
from schleuse.vault.store import Deposit, Identity, VaultStore
from schleuse.vault.ve1 import seal_container

PATIENCE_S = 10.0
SHARE = b"s" * 32


class SlowStore:
    """Reads keys once the gate is open. asked: of each reading."""

    def __init__(self, store: VaultStore) -> None:
        self._store = store
        self.gate, self.began = Event(), Event()
        self.asked: list[int] = []

    def keys(self, wanted: Collection[Key]) -> dict[Key, bytes]:
        self.asked.append(len(wanted))
        self.began.set()
        assert self.gate.wait(PATIENCE_S)
        return self._store.keys(wanted)


def keyring(folder: Path, persons: int) -> tuple[Keyring, SlowStore, dict[bytes, bytes]]:
    """With so many persons' keys; SK by subject."""
    store, kek = store_in(folder), SoftwareKek(1, os.urandom(32))
    subjects = [one.pseudonym for one in store.assign(KASSE, [bytes([n]) * 32 for n in range(persons)]).values()]
    halves = [(subject, 1, os.urandom(32)) for subject in subjects]
    store.keep([Deposit(KASSE, seal_all(kek, halves))])
    slow = SlowStore(store)
    keys = {subject: derive(half, SHARE, subject, 1) for subject, _, half in halves}
    return Keyring(slow, kek, lambda: 0.0), slow, keys  # type: ignore[arg-type]


def test_all_who_ask_while_one_reading_runs_share_the_next(tmp_path: Path) -> None:
    ring, store, keys = keyring(tmp_path, 20)

    async def run() -> None:
        first, *others = keys
        waiting = [asyncio.create_task(ring.subject_key(first, 1, SHARE))]
        await asyncio.to_thread(store.began.wait, PATIENCE_S)
        waiting += [asyncio.create_task(ring.subject_key(one, 1, SHARE)) for one in others]
        await asyncio.sleep(0)
        store.gate.set()
        assert await asyncio.gather(*waiting) == list(keys.values())
        assert store.asked == [1, 19]
        assert await ring.subject_key(first, 1, SHARE) == keys[first]
        assert store.asked == [1, 19]

    asyncio.run(run())


def test_one_key_that_does_not_open_keeps_no_other_from_opening(tmp_path: Path) -> None:
    ring, store, keys = keyring(tmp_path, 2)
    store.gate.set()

    async def run() -> None:
        first, second = keys
        asked = ((first, 1, SHARE), (first, 2, SHARE), (second, 1, b""))
        found = await asyncio.gather(*(ring.subject_key(*one) for one in asked), return_exceptions=True)
        assert found[0] == keys[first]
        assert [type(one) for one in found[1:]] == [ErasedError, KeyMissingError]
        with pytest.raises(ErasedError):
            await ring.subject_key(first, 2, SHARE)

    asyncio.run(run())


def test_a_key_that_was_on_its_way_when_all_were_dropped_stays_in_no_memory(tmp_path: Path) -> None:
    """A scope was closed (SW-06), or a person erased, in between."""
    ring, store, keys = keyring(tmp_path, 1)

    async def run() -> None:
        (subject,) = keys
        waiting = asyncio.create_task(ring.subject_key(subject, 1, SHARE))
        await asyncio.to_thread(store.began.wait, PATIENCE_S)
        ring.drop()
        store.gate.set()
        assert await waiting == keys[subject]  # its entry was durable before
        assert await ring.subject_key(subject, 1, SHARE) == keys[subject]
        assert store.asked == [1, 1]

    asyncio.run(run())


def test_an_identity_that_was_on_its_way_when_all_were_dropped_stays_in_no_memory(tmp_path: Path) -> None:
    """SW-06: whoever follows the switch drops them from a thread of his own."""
    ring, store, keys = keyring(tmp_path, 1)
    (subject,) = keys
    private = ec.generate_private_key(ec.SECP256R1())
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    container = seal_container(
        keys[subject], subject=subject, key_version=1, object_id=bytes(16), object_version=0, plaintext=der
    )
    identity = Identity(KASSE, "kim", bytes(32), certificate(private, 1), container)

    async def run() -> None:
        waiting = asyncio.create_task(asyncio.to_thread(ring.identity_key, identity, SHARE))
        await asyncio.to_thread(store.began.wait, PATIENCE_S)
        ring.drop()
        store.gate.set()
        assert await waiting
        ring.identity_key(identity, SHARE)
        assert store.asked == [1, 1]
        ring.identity_key(identity, SHARE)
        assert store.asked == [1, 1]

    asyncio.run(run())
