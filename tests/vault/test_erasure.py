"""A person is erased: content and linkage are gone, and every proof of the journal still holds (G6)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from tests.journal.journals import config, journal
from tests.vault.vaults import (
    EAU,
    KASSE,
    OPERATOR,
    OTHER,
    SYSTEM,
    Clock,
    Fate,
    MemoryJournal,
    Vault,
    build,
    origin_of,
    store_in,
    token,
    with_vault,
)

from schleuse.identifiers import IK
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.contracts import Level, Receipt
from schleuse.journal.entry import Kind, Purpose, Result, parse_entry
from schleuse.journal.hashing import leaf_hash
from schleuse.journal.proof import is_consistent, is_included
from schleuse.journal.shares import KeyShares
from schleuse.journal.store import Journal
from schleuse.vault import Document, Named
from schleuse.vault.actors import Caller
from schleuse.vault.contracts import BadTokenError, ErasedError, NotAllowedError, VaultUnavailableError
from schleuse.vault.ve1 import parse_header

ANNA, BERT = b"A123456780", b"B123456782"
ORIGIN = origin_of(KASSE, 2026)


class RealJournal(MemoryJournal):
    """The durable journal behind the same face."""

    def __init__(self, clock: Clock, real: Journal) -> None:
        super().__init__(clock)
        self.real = real

    async def append_all(
        self, origin: str, entries: Sequence[bytes], level: Level = Level.DURABLE
    ) -> Sequence[Receipt]:
        """See `ledger.Appends`."""
        receipts = [await self.real.append(origin, entry) for entry in entries]
        self.logs.setdefault(origin, []).extend(entries)
        if level > Level.DURABLE:
            self.real.tick()
            await self.real.wait(origin, receipts[-1].index + 1, level, 5.0)
        return receipts


def test_an_erased_person_is_gone_and_old_proofs_hold(tmp_path: Path) -> None:
    async def test() -> None:
        clock = Clock()
        shares = KeyShares({ORIGIN: os.urandom(32)}, 10**9, lambda: 0)
        now_us = lambda: int(clock().timestamp() * 1_000_000)  # noqa: E731
        async with journal(tmp_path, logs=(config(ORIGIN),), now_us=now_us, share=shares.share) as real:
            real.open_log(ORIGIN)
            vault = build(store_in(tmp_path), clock=clock, journal=RealJournal(clock, real))
            container = await vault.filed("urn:uuid:1", b"<eau/>", person=ANNA)
            other = await vault.filed("urn:uuid:2", b"<eau/>", person=BERT)
            assert await vault.fetched("urn:uuid:1", container) == b"<eau/>"
            subject = parse_header(container).subject
            before = await served(real)

            assert await vault.erased(ANNA)
            with pytest.raises(ErasedError):
                await vault.fetched("urn:uuid:1", container)
            assert await vault.fetched("urn:uuid:2", other) == b"<eau/>"
            (again,) = await vault.service.pseudonyms(EAU, KASSE, [Named(ANNA, b"content")])
            assert again.subject != subject
            await vault.erased(ANNA)

            after = await served(real)
            proven = real.consistency(ORIGIN, before.size, after.size)
            assert is_consistent(before.size, after.size, before.root, after.root, proven)
            log = real.log(ORIGIN)
            kinds = []
            for checkpoint in (before, after):
                for index, data in enumerate(log.entries.read(0, checkpoint.size)):
                    path = real.inclusion(ORIGIN, index, checkpoint.size)
                    assert is_included(index, checkpoint.size, leaf_hash(data), path, checkpoint.root)
                    if checkpoint is after and parse_entry(data).subject == subject:
                        kinds.append(parse_entry(data).kind)
            assert kinds == [
                Kind.KEY_CREATED,
                Kind.WRITE,
                Kind.KEY_RELEASED,
                Kind.KEY_DESTROYED,
                Kind.KEY_RELEASED,  # the attempt after it, which failed
            ]
            vault.store.close()
            # Whoever has the store and the journal finds no way from the entries to the person.
            content = b"".join(path.read_bytes() for path in tmp_path.glob("vault.sqlite*"))
            assert subject not in content
            assert again.subject not in content
            assert parse_header(other).subject in content

    asyncio.run(test())


async def served(real: Journal) -> Checkpoint:
    """The newest checkpoint, over all that is there."""
    log = real.log(ORIGIN)
    real.tick()
    await real.wait(ORIGIN, log.size, Level.PUBLISHED, 5.0)
    assert log.served is not None
    return log.served.checkpoint


def test_nothing_is_destroyed_before_the_entry_has_reached_its_level(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>", person=ANNA)
        for fate in (Fate.LOST, Fate.UNANSWERED, Fate.SLOW):
            vault.journal.fates.append(fate)
            with pytest.raises(VaultUnavailableError):
                await vault.erased(ANNA)
            assert await vault.fetched("urn:uuid:1", container) == b"<eau/>"
        assert await vault.erased(ANNA)
        assert vault.journal.levels[-1] is Level.WITNESSED
        assert not await vault.erased(ANNA)  # nobody is there any more

    with_vault(tmp_path, test)


def test_a_remembered_key_does_not_outlive_the_person(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>", person=ANNA)
        await vault.fetched("urn:uuid:1", container)
        await vault.erased(ANNA)
        with pytest.raises(ErasedError):
            await vault.fetched("urn:uuid:1", container)
        failed = vault.journal.denials()[-1]
        assert failed.result is Result.FAILED

    with_vault(tmp_path, test)


def test_content_of_an_erased_person_compares_with_nothing(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        (before,) = await vault.service.pseudonyms(EAU, KASSE, [Named(ANNA, b"content")])
        await vault.erased(ANNA)
        (after,) = await vault.service.pseudonyms(EAU, KASSE, [Named(ANNA, b"content")])
        assert before.content != after.content

    with_vault(tmp_path, test)


def test_after_a_death_nobody_gets_the_pseudonym_of_a_person_whose_erasure_was_told(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        (before,) = await vault.service.pseudonyms(EAU, KASSE, [Named(ANNA, b"")])
        vault.journal.fates.append(Fate.UNANSWERED)
        with pytest.raises(VaultUnavailableError):
            await vault.erased(ANNA)
        started = build(vault.store, clock=vault.clock, journal=vault.journal)
        (after,) = await started.service.pseudonyms(EAU, KASSE, [Named(ANNA, b"")])
        assert after.subject != before.subject
        assert await started.service.file(EAU, KASSE, [Document(after.subject, "urn:uuid:1", "xml", b"<eau/>")])

    with_vault(tmp_path, test)


def test_what_is_being_filed_while_a_person_is_erased_is_refused(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        (anna,) = await vault.service.pseudonyms(EAU, KASSE, [Named(ANNA, b"")])
        await vault.core.ledger(KASSE)
        vault.journal.gate = asyncio.Event()
        filing = asyncio.create_task(
            vault.service.file(EAU, KASSE, [Document(anna.subject, "urn:uuid:1", "xml", b"<eau/>")])
        )
        await asyncio.sleep(0.05)  # until it waits for the journal
        gate, vault.journal.gate = vault.journal.gate, None
        assert await vault.erased(ANNA)
        gate.set()
        with pytest.raises(ErasedError):
            await filing

    with_vault(tmp_path, test)


def test_only_an_operators_order_for_this_person_erases(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>", person=ANNA)
        of_bert = ("ERASE", sha256(BERT).hexdigest())
        of_anna = ("ERASE", sha256(ANNA).hexdigest())
        orders = [
            token(vault.clock, "", signer=OPERATOR, issuer="op", purpose="erase", what=of_bert),
            token(vault.clock, "", signer=SYSTEM, issuer="system", purpose="erase", what=of_anna),
            token(vault.clock, "", signer=OPERATOR, issuer="op", purpose="opening", what=of_anna),
            token(vault.clock, "", signer=OPERATOR, issuer="op", purpose="erase", what=of_anna, ik=OTHER),
        ]
        for order in orders:
            with pytest.raises(BadTokenError):
                await vault.service.erase(EAU, KASSE, order, ANNA)
        assert await vault.fetched("urn:uuid:1", container) == b"<eau/>"
        denied = vault.journal.denials()
        assert [one.purpose for one in denied] == [Purpose.DATA_PROTECTION] * len(orders)

    with_vault(tmp_path, test)


def test_an_order_for_a_person_who_is_not_known_leaves_an_entry(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        assert not await vault.erased(ANNA)
        (denied,) = vault.journal.denials()
        assert (denied.result, denied.purpose) == (Result.DENIED, Purpose.DATA_PROTECTION)

    with_vault(tmp_path, test)


@pytest.mark.parametrize("ik", [KASSE, IK("109900033")])
def test_a_role_that_may_not_erase_is_refused_with_an_entry_where_there_is_a_log(tmp_path: Path, ik: IK) -> None:
    async def test(vault: Vault) -> None:
        with pytest.raises(NotAllowedError):
            await vault.service.erase(Caller("letters", 1002), ik, "", ANNA)
        assert [one.result for one in vault.journal.denials()] == ([Result.DENIED] if ik == KASSE else [])

    with_vault(tmp_path, test)
