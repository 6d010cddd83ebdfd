"""Numbers without gaps, and a journal that must not shrink (journal.md § 14.5)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from tests.vault.vaults import EAU, KASSE, OTHER, Fate, Vault, build, mail, origin_of, with_vault

from schleuse.errors import Error
from schleuse.journal.contracts import BadRequestError, QuarantinedError, UnknownLogError
from schleuse.journal.entry import Kind
from schleuse.vault.contracts import CounterAheadError, VaultUnavailableError
from schleuse.vault.ledger import UnsettledError

ORIGIN = origin_of(KASSE, 2026)


def numbers(vault: Vault) -> list[int]:
    return sorted(one.release_counter or 0 for one in vault.journal.releases())


def test_a_start_reports_the_counter_and_goes_on_from_there(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)])
        again = build(vault.store, clock=vault.clock, journal=vault.journal)
        await again.service.open_mails(EAU, KASSE, [mail(3)])
        assert numbers(again) == [1, 2, 3]
        reports = [one.release_counter for one in again.journal.entries() if one.kind is Kind.ADMINISTRATION]
        assert [one for one in reports if one is not None] == [0, 2]

    with_vault(tmp_path, test)


def test_each_log_counts_for_itself(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        container = await vault.filed("urn:uuid:1", b"<eau/>", ik=OTHER)
        await vault.fetched("urn:uuid:1", container, ik=OTHER)
        assert [one.release_counter for one in vault.journal.releases(OTHER)] == [1]

    with_vault(tmp_path, test)


def test_batches_in_flight_together_share_no_number(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        vault.journal.fates.extend([Fate.TAKEN, Fate.UNANSWERED, Fate.LOST, Fate.TAKEN, Fate.HALF])
        batches = [vault.service.open_mails(EAU, KASSE, [mail(1), mail(2), mail(3)]) for _ in range(6)]
        found = await asyncio.gather(*batches, return_exceptions=True)
        assert any(isinstance(one, VaultUnavailableError) for one in found)
        opened = 3 * sum(isinstance(one, list) for one in found)
        vault.journal.fates.clear()
        await vault.service.open_mails(EAU, KASSE, [mail(4)])
        found_numbers = numbers(vault)
        assert len(found_numbers) > opened
        assert found_numbers == list(range(1, len(found_numbers) + 1))

    with_vault(tmp_path, test)


def test_what_was_in_flight_when_the_power_went_off_is_no_loss(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.gate = asyncio.Event()
        waiting = asyncio.create_task(vault.service.open_mails(EAU, KASSE, [mail(2)]))
        await asyncio.sleep(0.05)
        vault.core.note_counters()
        waiting.cancel()
        vault.journal.gate = None
        again = build(vault.store, clock=vault.clock, journal=vault.journal)
        await again.service.open_mails(EAU, KASSE, [mail(3)])
        assert numbers(again) == [1, 2]

    with_vault(tmp_path, test)


def test_a_batch_that_failed_is_no_loss_either(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        vault.journal.fates.append(Fate.LOST)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.core.note_counters()
        again = build(vault.store, clock=vault.clock, journal=vault.journal)
        await again.service.open_mails(EAU, KASSE, [mail(2)])
        assert numbers(again) == [1]

    with_vault(tmp_path, test)


def test_a_journal_that_lost_releases_is_told_at_the_start_and_opens_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)])
        vault.core.note_counters()
        del vault.journal.logs[ORIGIN][-1]  # restored from a copy
        again = build(vault.store, clock=vault.clock, journal=vault.journal)
        for _ in range(2):
            with pytest.raises(CounterAheadError, match="counted 2 releases"):
                await again.service.open_mails(EAU, KASSE, [mail(3)])
        assert again.kek.subject_unwraps == 0
        assert "vault.counter-ahead" in capsys.readouterr().out
        # Another insurer's log is not concerned.
        await again.filed("urn:uuid:1", b"<eau/>", ik=OTHER)

    with_vault(tmp_path, test)


def test_a_journal_that_shrinks_while_the_vault_runs_is_noticed_at_the_next_entry(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2), mail(3)])
        unwraps = vault.kek.subject_unwraps
        vault.core.keyring.drop()
        del vault.journal.logs[ORIGIN][-2:]
        for _ in range(2):
            with pytest.raises(CounterAheadError, match="lost entries"):
                await vault.service.open_mails(EAU, KASSE, [mail(4)])
        assert vault.kek.subject_unwraps == unwraps

    with_vault(tmp_path, test)


def test_entries_in_doubt_for_too_long_are_read_back_and_their_numbers_used_again(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.fates.append(Fate.LOST)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(2), mail(3)])
        vault.clock.move(100)  # too old for being sent again, not old enough for being sure
        with pytest.raises(UnsettledError):
            await vault.service.open_mails(EAU, KASSE, [mail(4)])
        vault.clock.move(40)
        await vault.service.open_mails(EAU, KASSE, [mail(5)])
        assert numbers(vault) == [1, 2]

    with_vault(tmp_path, test)


@pytest.mark.parametrize("days", [-30, 30])
def test_a_clock_that_is_set_makes_no_doubt_older_or_younger(tmp_path: Path, days: int) -> None:
    """By the wall it would be over at once, while the bytes may still arrive, or not for a month."""

    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.fates.append(Fate.LOST)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(2)])
        vault.clock.now += timedelta(days=days)
        (ledger,) = vault.core.ledgers().values()
        assert not ledger.may_resume
        vault.clock.move(140)
        await vault.service.open_mails(EAU, KASSE, [mail(3)])
        assert numbers(vault) == [1, 2]

    with_vault(tmp_path, test)


def test_entries_in_doubt_that_were_written_keep_their_numbers(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        vault.journal.fates.append(Fate.UNANSWERED)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(2), mail(3)])
        vault.clock.move(140)
        await vault.service.open_mails(EAU, KASSE, [mail(5)])
        assert numbers(vault) == [1, 2, 3]

    with_vault(tmp_path, test)


def test_a_new_year_has_a_new_log_new_numbers_and_new_actors(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        (before,) = vault.journal.releases()
        vault.clock.now = vault.clock.now.replace(year=2027)
        vault.journal.gives_shares = False
        await vault.service.open_mails(EAU, KASSE, [mail(2)])
        log = vault.journal.logs[origin_of(KASSE, 2027)]
        assert log[-1][32:48] != before.actor
        assert log[-1].endswith(b"\x04\0\x08" + (1).to_bytes(8) + b"\x06\0\x04" + (1).to_bytes(4))

    with_vault(tmp_path, test)


def test_a_clock_of_another_year_opens_mails_all_the_same_under_the_numbers_of_the_open_log(tmp_path: Path) -> None:
    """Decision 0022: the journal says which log takes the entries; before and after they are one series."""

    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        right, wrong = vault.clock.now, vault.clock.now.replace(year=2027)
        vault.clock.now = wrong
        vault.journal.instead[origin_of(KASSE, 2027)] = ORIGIN
        await vault.service.open_mails(EAU, KASSE, [mail(2)])
        vault.clock.now = right
        await vault.service.open_mails(EAU, KASSE, [mail(3)])
        assert numbers(vault) == [1, 2, 3]
        assert set(vault.journal.logs) == {ORIGIN}

    with_vault(tmp_path, test)


@pytest.mark.parametrize(
    "error",
    [UnknownLogError("no such log"), BadRequestError("an older journal"), QuarantinedError(("a segment",))],
    ids=lambda error: error.code,
)
def test_a_journal_that_does_not_say_which_log_takes_entries_is_met_by_whoever_writes(
    tmp_path: Path, error: Error
) -> None:
    """Of its kind `vault.unavailable` work waits; as a refusal it would be taken for the sender's trouble (HD-01)."""

    async def test(vault: Vault) -> None:
        vault.journal.unsaid = error
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.fates.append(Fate.LOST)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(2)])
        assert numbers(vault) == [1]

    with_vault(tmp_path, test)


@pytest.mark.parametrize("written", [0, 1])
def test_a_log_that_closes_before_a_batch_leaves_no_doubt_and_no_number_without_an_entry(
    tmp_path: Path, written: int
) -> None:
    """A closed log takes nothing ever again, so what it has of the batch is all that it will have (decision 0023)."""

    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.closed_at[ORIGIN] = len(vault.journal.logs[ORIGIN]) + written
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(2), mail(3)])
        (ledger,) = vault.core.ledgers().values()
        assert numbers(vault) == list(range(1, 2 + written))
        assert (ledger.in_doubt, ledger.counter, ledger.confirmed) == (0, 1 + written, 1 + written)
        vault.core.note_counters()
        vault.journal.instead[ORIGIN] = origin_of(KASSE, 2027)
        vault.journal.gives_shares = False
        await vault.service.open_mails(EAU, KASSE, [mail(2), mail(3)])
        assert vault.core.ledgers()[origin_of(KASSE, 2027)].counter == 2

    with_vault(tmp_path, test)


def test_a_log_that_closes_and_then_says_nothing_leaves_the_doubt(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.closed_at[ORIGIN] = len(vault.journal.logs[ORIGIN])
        vault.journal.fates.extend([Fate.TAKEN, Fate.LOST])
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(2)])
        (ledger,) = vault.core.ledgers().values()
        assert (ledger.in_doubt, ledger.counter, ledger.confirmed) == (1, 2, 1)

    with_vault(tmp_path, test)


def test_status_says_how_far_every_log_is(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)])
        found = await vault.service.status(EAU)
        logs = found["logs"]
        assert isinstance(logs, dict)
        assert logs[ORIGIN] == {"counter": 2, "size": len(vault.journal.entries()), "in_doubt": 0}
        assert found["releases_since_start"] == {f"{KASSE} EAU_INTAKE": 2}

    with_vault(tmp_path, test)
