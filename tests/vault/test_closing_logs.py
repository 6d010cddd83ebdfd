"""A log that closes under the vault's hands: the batch goes on in the log that takes entries now (decision 0023)."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest
from tests.vault.vaults import EAU, KASSE, Fate, Vault, build, mail, origin_of, with_vault

from schleuse.journal.contracts import Level
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.vault import Document, Named
from schleuse.vault.contracts import VaultUnavailableError

OLD, NEW = origin_of(KASSE, 2026), origin_of(KASSE, 2027)


def closes(vault: Vault, *, after: int = 0) -> None:
    """The old log takes so many more entries; who was told its name a moment ago does not know yet."""
    vault.journal.closed_at[OLD] = len(vault.journal.logs[OLD]) + after
    vault.journal.instead[OLD] = NEW
    vault.journal.remembered.add(OLD)


def numbers(vault: Vault, year: int) -> list[int]:
    return [one.release_counter or 0 for one in vault.journal.releases(KASSE, year)]


def everything(vault: Vault) -> list[Entry]:
    return vault.journal.entries(KASSE, 2026) + vault.journal.entries(KASSE, 2027)


def each_event_stands_once(vault: Vault) -> bool:
    return set(Counter(one.event for one in everything(vault)).values()) == {1}


@pytest.mark.parametrize("written", [0, 1, 2])
def test_mails_are_opened_by_entries_of_both_logs_and_each_counts_without_gaps(tmp_path: Path, written: int) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        closes(vault, after=written)
        keys = [os.urandom(32) for _ in range(3)]
        mails = [mail(number, key) for number, key in enumerate(keys, 2)]
        assert await vault.service.open_mails(EAU, KASSE, mails) == keys
        assert numbers(vault, 2026) == list(range(1, 2 + written))
        assert numbers(vault, 2027) == list(range(1, 4 - written))
        assert each_event_stands_once(vault)
        ledgers = vault.core.ledgers()
        assert [ledgers[origin].counter for origin in (OLD, NEW)] == [1 + written, 3 - written]
        assert [ledgers[origin].confirmed for origin in (OLD, NEW)] == [1 + written, 3 - written]
        assert ledgers[OLD].in_doubt == ledgers[NEW].in_doubt == 0
        assert vault.kek.without_entry == []

    with_vault(tmp_path, test)


def test_many_that_open_at_the_moment_of_closing_are_all_served(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        closes(vault, after=5)
        batches = [[mail(10 * number), mail(10 * number + 1)] for number in range(1, 7)]
        found = await asyncio.gather(*(vault.service.open_mails(EAU, KASSE, batch) for batch in batches))
        assert found == [[b"k" * 32] * 2] * 6
        assert numbers(vault, 2026) == list(range(1, 7))
        assert sorted(numbers(vault, 2027)) == list(range(1, 8))
        assert each_event_stands_once(vault)

    with_vault(tmp_path, test)


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_document_is_filed_and_opens_though_its_entries_are_in_two_logs(tmp_path: Path, written: int) -> None:
    async def test(vault: Vault) -> None:
        subjects = await vault.service.pseudonyms(EAU, KASSE, [Named(b"A123456780", b""), Named(b"B123456780", b"")])
        closes(vault, after=written)
        documents = [Document(one.subject, f"urn:uuid:{at}", "xml", b"<eau/>") for at, one in enumerate(subjects)]
        containers = await vault.service.file(EAU, KASSE, documents)
        for at, container in enumerate(containers):
            assert await vault.fetched(f"urn:uuid:{at}", container) == b"<eau/>"
        kinds = Counter(one.kind for one in everything(vault) if one.subject in {one.subject for one in subjects})
        assert kinds == {Kind.KEY_CREATED: 2, Kind.WRITE: 2, Kind.KEY_RELEASED: 2}
        assert each_event_stands_once(vault)
        # Neither log has a change that the store does not reflect.
        for ledger in vault.core.ledgers().values():
            assert ledger.changes.reflected(ledger.top) == ledger.top
        again = build(vault.store, clock=vault.clock, journal=vault.journal)
        assert await again.fetched("urn:uuid:0", containers[0]) == b"<eau/>"
        assert not again.core.figures.used_up

    with_vault(tmp_path, test)


def test_a_person_is_erased_by_an_entry_in_the_log_that_is_open(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>")
        closes(vault)
        assert await vault.erased()
        assert [one.kind for one in vault.journal.entries(KASSE, 2027)].count(Kind.KEY_DESTROYED) == 1
        assert vault.journal.levels[-1] is Level.WITNESSED
        assert each_event_stands_once(vault)
        assert container

    with_vault(tmp_path, test)


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.HALF, Fate.UNANSWERED])
@pytest.mark.parametrize("waited", [0, 140])
def test_what_was_in_doubt_when_the_log_closed_is_counted_and_keeps_nobody_waiting(
    tmp_path: Path, fate: Fate, waited: int
) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.fates.append(fate)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(2), mail(3)])
        closes(vault)
        vault.clock.move(waited)
        assert await vault.service.open_mails(EAU, KASSE, [mail(2), mail(3)]) == [b"k" * 32] * 2
        written = {Fate.LOST: 0, Fate.HALF: 1, Fate.UNANSWERED: 2}[fate]
        assert numbers(vault, 2026) == list(range(1, 2 + written))
        assert numbers(vault, 2027) == [1, 2]
        ledger = vault.core.ledgers()[OLD]
        assert (ledger.in_doubt, ledger.counter, ledger.confirmed) == (0, 1 + written, 1 + written)
        assert each_event_stands_once(vault)

    with_vault(tmp_path, test)


def test_a_vault_that_starts_on_a_log_that_has_just_closed_goes_to_the_next(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        again = build(vault.store, clock=vault.clock, journal=vault.journal)
        closes(again)
        assert await again.service.open_mails(EAU, KASSE, [mail(2)]) == [b"k" * 32]
        assert numbers(again, 2027) == [1]

    with_vault(tmp_path, test)


def test_a_log_that_closes_and_has_none_after_it_is_asked_about_once(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.closed_at[OLD] = len(vault.journal.logs[OLD])
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(2)])
        assert numbers(vault, 2026) == [1]

    with_vault(tmp_path, test)


def test_a_version_that_the_next_logs_start_used_up_is_not_given_again(tmp_path: Path) -> None:
    """An earlier life of the vault was in the next log already, and stopped before it kept the key."""

    async def test(vault: Vault) -> None:
        (one,) = await vault.service.pseudonyms(EAU, KASSE, [Named(b"A123456780", b"")])
        created = vault.core.entry(Kind.KEY_CREATED, Result.GRANTED, Purpose.EAU_INTAKE, subject=one.subject, version=1)
        vault.journal.logs[NEW] = [created]
        closes(vault)
        document = Document(one.subject, "urn:uuid:1", "xml", b"<eau/>")
        with pytest.raises(VaultUnavailableError, match="come again"):
            await vault.service.file(EAU, KASSE, [document])
        (container,) = await vault.service.file(EAU, KASSE, [document])
        assert await vault.fetched("urn:uuid:1", container) == b"<eau/>"
        of_person = [
            one for one in everything(vault) if one.kind is Kind.KEY_CREATED and one.subject == container[32:48]
        ]
        assert [one.subject_key_version for one in of_person] == [1, 2]

    with_vault(tmp_path, test)
