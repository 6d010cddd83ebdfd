"""Opening mail and signing: an entry for each, and never without one (RP-01, journal.md § 14.2)."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tests.vault.vaults import (
    EAU,
    FOREIGN,
    KASSE,
    OPERATOR,
    Fate,
    Vault,
    build,
    ec_key,
    mail,
    rsa_key,
    token,
    with_vault,
)

from schleuse.identifiers import IK
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import parse_opening
from schleuse.vault.actors import Caller
from schleuse.vault.budgets import Limits
from schleuse.vault.contracts import (
    KeyMissingError,
    NotAllowedError,
    OverBudgetError,
    UnwrapFailedError,
    VaultUnavailableError,
)


def test_each_mail_of_a_batch_is_opened_and_has_its_entry(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        keys = [bytes([number]) * 32 for number in range(5)]
        mails = [mail(number, key) for number, key in enumerate(keys)]
        assert await vault.service.open_mails(EAU, KASSE, mails) == keys
        found = vault.journal.releases()
        assert len(found) == 5
        assert {one.purpose for one in found} == {Purpose.EAU_INTAKE}
        assert {one.result for one in found} == {Result.GRANTED}
        assert [one.release_counter for one in found] == [1, 2, 3, 4, 5]
        assert len({one.subject for one in found}) == 1  # the insurer's identity, which names no insured person
        assert found[0].subject_key_version == 1

    with_vault(tmp_path, test)


def test_an_entry_commits_to_the_wrapped_key_that_was_opened(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        mails = [mail(41), mail(42)]
        await vault.service.open_mails(EAU, KASSE, mails)
        for sealed, entry in zip(mails, vault.journal.releases(), strict=True):
            what = ("OPENING", entry.event.bytes.hex())
            order = token(vault.clock, "", signer=OPERATOR, issuer="op", purpose="opening", what=what)
            found = await vault.service.opening(EAU, KASSE, order, entry.event.bytes)
            opening = parse_opening(json.dumps(found, sort_keys=True, separators=(",", ":")).encode())
            assert opening.matches(entry)
            assert opening.object_ is not None
            assert opening.detail is not None
            assert opening.object_[1] == "kim:" + sha256(sealed.wrapped.encrypted_key).hexdigest()
            assert json.loads(opening.detail[1])["deliveries"] == [41, 42]

    with_vault(tmp_path, test)


def test_a_mail_for_a_key_that_we_do_not_have_waits_and_leaves_no_entry(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        ours, foreign = mail(1), mail(2, recipient=FOREIGN)
        key, error = await vault.service.open_mails(EAU, KASSE, [ours, foreign])
        assert key == b"k" * 32
        assert isinstance(error, KeyMissingError)
        assert len(vault.journal.releases()) == 1

    with_vault(tmp_path, test)


def test_a_damaged_wrap_is_the_senders_mistake_and_may_have_been_read(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        error, key = await vault.service.open_mails(EAU, KASSE, [mail(1, damaged=True), mail(2)])
        assert isinstance(error, UnwrapFailedError)
        assert key == b"k" * 32
        assert len(vault.journal.releases()) == 2

    with_vault(tmp_path, test)


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNANSWERED, Fate.HALF, Fate.LATE])
def test_nothing_is_opened_if_the_journal_does_not_confirm(tmp_path: Path, fate: Fate) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(0)])
        vault.core.keyring.drop()
        unwraps = vault.kek.subject_unwraps
        vault.journal.fates.append(fate)
        with pytest.raises(VaultUnavailableError):
            await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)])
        assert vault.kek.subject_unwraps == unwraps
        assert await vault.service.open_mails(EAU, KASSE, [mail(3)]) == [b"k" * 32]
        # What was in doubt was sent again first: no number is missing, and none is there twice.
        assert [one.release_counter for one in vault.journal.releases()] == [1, 2, 3, 4]

    with_vault(tmp_path, test)


def test_a_journal_that_does_not_answer_holds_the_keys_back(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(0)])  # the identity is remembered now
        vault.journal.gate = asyncio.Event()
        waiting = asyncio.create_task(vault.service.open_mails(EAU, KASSE, [mail(1)]))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        assert len(vault.journal.releases()) == 1
        vault.journal.gate.set()
        assert await waiting == [b"k" * 32]
        assert len(vault.journal.releases()) == 2

    with_vault(tmp_path, test)


def test_a_remembered_key_spares_the_unwrapping_for_a_minute_and_never_the_entry(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        for _ in range(3):
            await vault.service.open_mails(EAU, KASSE, [mail(1)])
        assert (vault.kek.subject_unwraps, len(vault.journal.releases())) == (1, 3)
        vault.clock.move(61)
        vault.core.keyring.forget()
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        assert (vault.kek.subject_unwraps, len(vault.journal.releases())) == (2, 4)
        vault.service.drop()
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        assert (vault.kek.subject_unwraps, len(vault.journal.releases())) == (3, 5)

    with_vault(tmp_path, test)


def test_over_budget_nothing_is_opened_and_the_attempt_is_written(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1), mail(2)])
        with pytest.raises(OverBudgetError, match="budget actor"):
            await vault.service.open_mails(EAU, KASSE, [mail(3), mail(4)])
        assert len(vault.journal.releases()) == 2
        (denied,) = vault.journal.denials()
        assert (denied.result, denied.purpose) == (Result.DENIED, Purpose.EAU_INTAKE)
        assert denied.release_counter is None
        assert denied.subject == vault.journal.releases()[0].subject
        vault.clock.move(3700)
        assert await vault.service.open_mails(EAU, KASSE, [mail(3)]) == [b"k" * 32]

    with_vault(tmp_path, test, limits=Limits(3, 3))


def test_a_journal_that_is_away_does_not_use_up_the_budget(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.service.open_mails(EAU, KASSE, [mail(1)])
        vault.journal.fates.extend([Fate.LOST] * 50)
        for _ in range(50):
            with pytest.raises(VaultUnavailableError):
                await vault.service.open_mails(EAU, KASSE, [mail(1)])
        await vault.service.open_mails(EAU, KASSE, [mail(1)])

    with_vault(tmp_path, test, limits=Limits(3, 3))


def test_without_a_share_from_the_journal_no_key_is_derived(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        vault.journal.gives_shares = False
        (error,) = await vault.service.open_mails(EAU, KASSE, [mail(1)])
        assert isinstance(error, KeyMissingError)
        assert vault.kek.subject_unwraps == 0

    with_vault(tmp_path, test)


def test_a_signature_is_an_entry_of_its_own(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        _, signature = await vault.service.sign(EAU, KASSE, b"a letter")
        ec_key().public_key().verify(signature, b"a letter", ec.ECDSA(hashes.SHA256()))
        (entry,) = vault.journal.releases()
        assert entry.purpose is Purpose.FEHLERNACHRICHT

    with_vault(tmp_path, test)


def test_a_stranger_and_an_unknown_insurer_get_nothing(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        with pytest.raises(NotAllowedError):
            await vault.service.open_mails(Caller("kim", 1002), KASSE, [mail(1)])
        with pytest.raises(KeyMissingError):
            await vault.service.open_mails(EAU, IK("109900033"), [mail(1)])
        assert vault.journal.releases() == []

    with_vault(tmp_path, test)


def test_an_identity_is_taken_over_once_and_outlives_a_restart(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        service = vault.service
        assert not await service.import_identity(KASSE, "enc", await _certificate(vault), rsa_key())
        created = [one for one in vault.journal.entries() if one.kind is Kind.KEY_CREATED]
        assert [one.purpose for one in created] == [Purpose.OPERATION] * 2
        again = build(vault.store, clock=vault.clock, journal=vault.journal)
        assert await again.service.open_mails(EAU, KASSE, [mail(1)]) == [b"k" * 32]

    with_vault(tmp_path, test)


async def _certificate(vault: Vault) -> bytes:
    (found,) = await vault.service.certificates(EAU, KASSE)
    return found


def test_a_key_of_another_certificate_is_not_taken_over(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        with pytest.raises(KeyMissingError):
            await vault.service.import_identity(KASSE, "enc", FOREIGN, rsa_key())

    with_vault(tmp_path, test)


def test_an_identity_can_be_taken_over_while_mail_is_opened(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        (before,) = await vault.service.open_mails(EAU, KASSE, [mail(1, recipient=FOREIGN)])
        assert isinstance(before, KeyMissingError)
        await vault.service.import_identity(KASSE, "enc", FOREIGN, rsa_key("foreign"))
        assert await vault.service.open_mails(EAU, KASSE, [mail(1, recipient=FOREIGN)]) == [b"k" * 32]

    with_vault(tmp_path, test)


def test_no_private_key_and_no_name_stands_in_the_store(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        await vault.filed("urn:uuid:1", b"<plaintext of a document/>", person=b"Z987654321")

    with_vault(tmp_path, test)
    content = b"".join(path.read_bytes() for path in tmp_path.glob("vault.sqlite*"))
    number = rsa_key().private_numbers()
    assert number.p.to_bytes(128) not in content
    for word in (b"Z987654321", b"plaintext of", b"urn:uuid:1"):
        assert word not in content
