"""A journal that comes back smaller after an outage, and a log whose opening fails half way (§ 14.4, § 14.5)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from tests.vault.vaults import EAU, KASSE, Fate, Vault, build, mail, origin_of, with_vault

from schleuse.clock import to_us
from schleuse.database import DatabaseUnavailableError, sqlite_url
from schleuse.errors import UnavailableError
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.vault.budgets import Limits
from schleuse.vault.contracts import (
    CounterAheadError,
    ErasedError,
    KeyMissingError,
    OverBudgetError,
    VaultUnavailableError,
)
from schleuse.vault.leaves import Events, leaf
from schleuse.vault.store import Deposit, open_vault_store
from schleuse.vault.writing import Writer

ORIGIN = origin_of(KASSE, 2026)


def numbers(vault: Vault) -> list[int | None]:
    return [one.release_counter for one in vault.journal.releases()]


def others_write(vault: Vault, count: int) -> None:
    """Acceptances and logins, which other roles tell the same log."""
    events, at_us = Events(), to_us(vault.clock())
    entries = [
        leaf(Kind.SPOOL_ACCEPTED, Result.GRANTED, Purpose.EAU_INTAKE, at_us, events.next(at_us)) for _ in range(count)
    ]
    vault.journal.logs[ORIGIN] += entries


def test_releases_that_an_outage_took_out_of_the_journal_are_missed_though_others_wrote_since(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)])
        unwraps = vault.kek.subject_unwraps
        vault.core.keyring.drop()
        vault.journal.fates.append(Fate.LOST)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(3)])
        del vault.journal.logs[ORIGIN][-2:]  # the journal comes back from an older copy
        vault.clock.move(140)
        others_write(vault, 10)
        for _ in range(2):
            with pytest.raises(CounterAheadError, match="journal has"):
                await vault.service.open_mails(EAU, KASSE, [mail(4)])
        assert numbers(vault) == []
        assert vault.kek.subject_unwraps == unwraps

    with_vault(tmp_path, test)


def test_entries_in_doubt_that_are_sent_to_a_smaller_journal_open_nothing(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2), mail(3)])
        unwraps = vault.kek.subject_unwraps
        vault.core.keyring.drop()
        vault.journal.fates.append(Fate.LOST)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(4)])
        del vault.journal.logs[ORIGIN][-3:]
        for _ in range(2):
            with pytest.raises(CounterAheadError, match="lost"):
                await vault.service.open_mails(EAU, KASSE, [mail(5), mail(6), mail(7), mail(8)])
        assert vault.kek.subject_unwraps == unwraps

    with_vault(tmp_path, test)


def test_a_log_that_opens_at_the_third_try_has_its_releases_counted_once(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)])
        # Two tries end after the log was read back, at the entry that reports the counter.
        vault.journal.fates.extend([Fate.TAKEN, Fate.LOST, Fate.TAKEN, Fate.LOST])
        again = build(vault.store, clock=vault.clock, journal=vault.journal, limits=Limits(4, 4))
        for _ in range(2):
            with pytest.raises(VaultUnavailableError):
                await again.core.ledger(KASSE)
        assert len(await again.service.open_mails(EAU, KASSE, [mail(3), mail(4)])) == 2
        with pytest.raises(OverBudgetError):
            await again.service.open_mails(EAU, KASSE, [mail(5)])

    with_vault(tmp_path, test)


def test_a_restart_refills_no_budget_that_the_running_vault_would_refuse(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)])
        vault.clock.move(3601)  # the window has the minute that runs and the sixty before it
        again = build(vault.store, clock=vault.clock, journal=vault.journal, limits=Limits(2, 2))
        with pytest.raises(OverBudgetError):
            await again.service.open_mails(EAU, KASSE, [mail(3)])

    with_vault(tmp_path, test)


def test_a_full_disk_leaves_one_batch_of_entries_without_an_explanation_and_no_more(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        full = True
        keep = vault.store.keep

        def keep_or_not(deposits: Sequence[Deposit]) -> list[bool]:
            if full:
                raise DatabaseUnavailableError("the disk is full")
            return keep(deposits)

        vault.core.writer = Writer(keep_or_not)
        for number in range(5):
            with pytest.raises(UnavailableError):
                await vault.service.open_mails(EAU, KASSE, [mail(number)])
        assert numbers(vault) == [1]
        full = False
        for number in range(2):
            assert await vault.service.open_mails(EAU, KASSE, [mail(number)]) == [b"k" * 32]
        assert numbers(vault) == [1, 2, 3]

    with_vault(tmp_path, test)


def test_a_key_that_an_older_copy_of_the_store_has_not_is_not_called_destroyed(tmp_path: Path) -> None:
    """A lost key is our trouble, and may come back with the newer copy; 410 would tell the insurer that it cannot."""

    async def test(vault: Vault) -> None:
        kept = await vault.filed("urn:uuid:1", b"<eau/>")
        older = tmp_path / "older.sqlite"
        with closing(sqlite3.connect(tmp_path / "vault.sqlite")) as now, closing(sqlite3.connect(older)) as copy:
            now.backup(copy)
        later = await vault.filed("urn:uuid:2", b"<eau/>")
        stranger = await vault.filed("urn:uuid:3", b"<eau/>", person=b"B123456782")
        copied = open_vault_store(sqlite_url(older))
        accepted = (f"{ORIGIN}@{copied.reflected(ORIGIN)}",)
        again = build(copied, clock=vault.clock, journal=vault.journal, accept_older_store=accepted)
        assert await again.fetched("urn:uuid:1", kept) == b"<eau/>"
        for name, container in (("urn:uuid:2", later), ("urn:uuid:3", stranger)):
            with pytest.raises(KeyMissingError):
                await again.fetched(name, container)
        assert {one.result for one in again.journal.denials()} == {Result.FAILED}
        assert await again.erased()
        with pytest.raises(ErasedError):
            await again.fetched("urn:uuid:1", kept)
        again.store.close()

    with_vault(tmp_path, test)
