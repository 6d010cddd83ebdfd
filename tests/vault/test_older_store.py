"""An older copy of the vault's database, or a crash between the journal and the store (decision 0020)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.vault.vaults import EAU, KASSE, Fate, Vault, build, origin_of, with_vault

from schleuse.database import DatabaseUnavailableError, sqlite_url
from schleuse.journal.entry import Kind, Result
from schleuse.vault import Named
from schleuse.vault.contracts import ErasedError, KeyMissingError, OlderStoreError, VaultUnavailableError
from schleuse.vault.store import Deposit, VaultStore, open_vault_store
from schleuse.vault.ve1 import parse_header
from schleuse.vault.writing import Writer

ANNA, BERT = b"A123456780", b"B123456782"
ORIGIN = origin_of(KASSE, 2026)


def copied(folder: Path) -> Path:
    """A backup of this moment."""
    target = folder / "backup"
    target.mkdir()
    for path in folder.glob("vault.sqlite*"):
        shutil.copy(path, target)
    return target


def started(folder: Path, before: Vault, *, accept: Sequence[str] = ()) -> Vault:
    store = open_vault_store(sqlite_url(folder / "vault.sqlite"))
    return build(store, clock=before.clock, journal=before.journal, accept_older_store=accept)


def versions(vault: Vault) -> list[tuple[bytes, int | None]]:
    return [(one.subject, one.subject_key_version) for one in vault.journal.entries() if one.kind is Kind.KEY_CREATED]


def test_a_person_who_comes_back_with_an_older_store_is_erased_again(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>", person=ANNA)
        backup = copied(tmp_path)
        await vault.erased(ANNA)
        again = started(backup, vault)
        with pytest.raises(ErasedError):
            await again.fetched("urn:uuid:1", container)
        assert again.core.figures.erased_again == {str(KASSE): 1}
        assert not await again.erased(ANNA)
        again.store.close()

    with_vault(tmp_path, test)


def test_a_store_that_lacks_keys_stays_closed_until_its_loss_is_accepted(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        kept = await vault.filed("urn:uuid:1", b"<eau/>", person=ANNA)
        backup = copied(tmp_path)
        size = vault.core.ledgers()[ORIGIN].top
        lost = await vault.filed("urn:uuid:2", b"<eau/>", person=ANNA)
        await vault.fetched("urn:uuid:2", lost)
        await vault.filed("urn:uuid:3", b"<eau/>", person=BERT)

        again = started(backup, vault)
        for _ in range(2):
            with pytest.raises(OlderStoreError, match=f"2 keys .*{ORIGIN}@{again.store.reflected(ORIGIN)}"):
                await again.fetched("urn:uuid:1", kept)
        mark = again.store.reflected(ORIGIN)
        assert mark <= size
        again.store.close()
        wrong = started(backup, vault, accept=[f"{ORIGIN}@{mark + 1}"])
        with pytest.raises(OlderStoreError):
            await wrong.fetched("urn:uuid:1", kept)
        wrong.store.close()

        accepted = started(backup, vault, accept=[f"{ORIGIN}@{mark}"])
        assert await accepted.fetched("urn:uuid:1", kept) == b"<eau/>"
        with pytest.raises(KeyMissingError):
            await accepted.fetched("urn:uuid:2", lost)
        told = [one for one in vault.journal.entries() if one.kind is Kind.ADMINISTRATION and one.count == 2]
        assert [one.result for one in told] == [Result.DENIED, Result.DENIED, Result.GRANTED]
        await accepted.filed("urn:uuid:4", b"<eau/>", person=ANNA)
        assert len(versions(vault)) == len(set(versions(vault)))
        accepted.store.close()

        later = started(backup, vault)  # what was accepted is not asked for again
        assert await later.fetched("urn:uuid:1", kept) == b"<eau/>"
        later.store.close()

    with_vault(tmp_path, test)


def test_an_empty_store_under_a_log_with_keys_stays_closed(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.filed("urn:uuid:1", b"<eau/>")
        (tmp_path / "empty").mkdir()
        again = started(tmp_path / "empty", vault)
        with pytest.raises(OlderStoreError):
            await again.core.ledger(KASSE)
        again.store.close()

    with_vault(tmp_path, test)


class Torn:
    """A store whose transactions fail from some moment on."""

    def __init__(self, store: VaultStore) -> None:
        self._store = store
        self.torn = False

    def keep(self, deposits: Sequence[Deposit]) -> Sequence[bool]:
        if self.torn:
            raise DatabaseUnavailableError("the disk is gone")
        return self._store.keep(deposits)


def test_a_version_that_a_crash_left_without_a_key_is_never_given_again(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.filed("urn:uuid:1", b"<eau/>")
        backup = copied(tmp_path)  # the store as a crash between entry and transaction leaves it
        disk = Torn(vault.store)
        vault.core.writer = Writer(disk.keep)
        disk.torn = True
        with pytest.raises(DatabaseUnavailableError):
            await vault.filed("urn:uuid:2", b"<eau/>")
        again = started(backup, vault)
        container = await again.filed("urn:uuid:2", b"<eau/>")
        assert await again.fetched("urn:uuid:2", container) == b"<eau/>"
        assert again.core.figures.used_up == {str(KASSE): 1}
        assert len(versions(vault)) == len(set(versions(vault)))
        again.store.close()

    with_vault(tmp_path, test)


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNANSWERED, Fate.LATE])
def test_a_version_that_failed_is_not_given_again_by_the_same_process(tmp_path: Path, fate: Fate) -> None:
    async def test(vault: Vault) -> None:
        await vault.filed("urn:uuid:1", b"<eau/>")
        vault.journal.fates.append(fate)
        with pytest.raises(VaultUnavailableError):
            await vault.filed("urn:uuid:2", b"<eau/>")
        await vault.filed("urn:uuid:2", b"<eau/>")
        assert len(versions(vault)) == len(set(versions(vault)))
        vault.core.note_counters()
        assert vault.store.reflected(ORIGIN) == len(vault.journal.entries())
        again = started(tmp_path, vault)
        await again.core.ledger(KASSE)
        again.store.close()

    with_vault(tmp_path, test)


def test_each_change_of_keys_notes_how_much_of_the_log_the_store_reflects(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        for act in (vault.filed("urn:uuid:1", b"<eau/>", person=ANNA), vault.erased(ANNA)):
            await act
            assert vault.store.reflected(ORIGIN) == len(vault.journal.entries())

    with_vault(tmp_path, test)


@pytest.mark.parametrize("fate", [Fate.UNANSWERED, Fate.SLOW])
def test_an_erasure_that_failed_after_its_entry_is_completed_by_the_next_start(tmp_path: Path, fate: Fate) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>", person=ANNA)
        subject = parse_header(container).subject
        vault.journal.fates.append(fate)
        with pytest.raises(VaultUnavailableError):
            await vault.erased(ANNA)
        await vault.filed("urn:uuid:2", b"<eau/>", person=BERT)  # the store still knows that it owes an erasure
        vault.core.note_counters()
        assert vault.store.has_key(KASSE, subject, 1)
        again = started(tmp_path, vault)
        with pytest.raises(ErasedError):
            await again.fetched("urn:uuid:1", container)
        (fresh,) = await again.service.pseudonyms(EAU, KASSE, [Named(ANNA, b"content")])
        assert fresh.subject != subject
        again.store.close()

    with_vault(tmp_path, test)


def test_an_erasure_that_failed_is_completed_by_a_retry(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.filed("urn:uuid:1", b"<eau/>", person=ANNA)
        vault.journal.fates.append(Fate.SLOW)
        with pytest.raises(VaultUnavailableError):
            await vault.erased(ANNA)
        assert await vault.erased(ANNA)
        assert vault.store.reflected(ORIGIN) == len(vault.journal.entries())

    with_vault(tmp_path, test)
