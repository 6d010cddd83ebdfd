"""Filing and fetching: filing reads nothing, and who fetches shows the vault himself who he is (decision 0016)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.vault.vaults import EAU, KASSE, OPERATOR, OTHER, Fate, Vault, build, token, with_vault

from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import parse_opening
from schleuse.vault import Document, Named, Pseudonyms
from schleuse.vault.budgets import Limits
from schleuse.vault.contracts import (
    BadTokenError,
    ErasedError,
    KeyMissingError,
    OverBudgetError,
    SealBrokenError,
    TooLargeError,
    VaultUnavailableError,
)
from schleuse.vault.ve1 import MAX_PLAINTEXT, parse_header

ANNA, BERT = b"A123456780", b"B123456782"


async def named(vault: Vault, *people: bytes) -> list[Pseudonyms]:
    return await vault.service.pseudonyms(EAU, KASSE, [Named(one, b"content", b"practice") for one in people])


def test_a_person_keeps_the_pseudonym_and_two_persons_share_nothing(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        anna, bert, again = await named(vault, ANNA, BERT, ANNA)
        assert anna == again
        assert anna.subject != bert.subject
        assert anna.content != bert.content  # the same content says nothing across persons
        assert anna.practice == bert.practice
        (elsewhere,) = await vault.service.pseudonyms(EAU, OTHER, [Named(ANNA, b"content", b"practice")])
        assert not {elsewhere.subject, elsewhere.content, elsewhere.practice} & {
            anna.subject,
            anna.content,
            anna.practice,
        }

    with_vault(tmp_path, test)


def test_pseudonyms_open_nothing_and_need_no_journal(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        before = len(vault.journal.entries())
        vault.journal.fates.extend([Fate.LOST] * 3)
        await named(vault, ANNA)
        assert len(vault.journal.entries()) == before

    with_vault(tmp_path, test)


def test_two_callers_at_once_see_one_pseudonym(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        found = await asyncio.gather(*(named(vault, ANNA, BERT) for _ in range(8)))
        assert len({one.subject for batch in found for one in batch}) == 2

    with_vault(tmp_path, test)


def test_what_was_filed_is_fetched_and_both_have_their_entries(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>")
        assert b"<eau/>" not in container
        assert await vault.fetched("urn:uuid:1", container) == b"<eau/>"
        header = parse_header(container)
        created, write = [one for one in vault.journal.entries() if one.subject == header.subject][:2]
        assert (created.kind, write.kind) == (Kind.KEY_CREATED, Kind.WRITE)
        assert created.subject_key_version == write.subject_key_version == header.key_version == 1
        (release,) = vault.journal.releases()
        assert (release.subject, release.purpose) == (header.subject, Purpose.EAU_DELIVERY)

    with_vault(tmp_path, test)


def test_a_batch_has_one_new_key_version_a_person_and_one_write_a_document(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        anna, bert = await named(vault, ANNA, BERT)
        documents = [
            Document(subject, f"urn:uuid:{number}", "xml", f"<{number}/>".encode())
            for number, subject in enumerate([anna.subject, bert.subject, anna.subject, bert.subject, anna.subject])
        ]
        containers = await vault.service.file(EAU, KASSE, documents)
        kinds = [one.kind for one in vault.journal.entries() if one.subject in (anna.subject, bert.subject)]
        assert (kinds.count(Kind.KEY_CREATED), kinds.count(Kind.WRITE), len(kinds)) == (2, 5, 7)
        for document, container in zip(documents, containers, strict=True):
            assert await vault.fetched(document.name, container) == document.plaintext

    with_vault(tmp_path, test)


def test_filing_never_releases_a_key(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        for number in range(3):
            await vault.filed(f"urn:uuid:{number}", b"<eau/>")
        assert vault.kek.subject_unwraps == 0
        assert vault.journal.releases() == []

    with_vault(tmp_path, test)


def test_batches_at_once_for_one_person_get_versions_of_their_own(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        (anna,) = await named(vault, ANNA)

        async def one(number: int) -> tuple[str, bytes]:
            name = f"urn:uuid:{number}"
            (container,) = await vault.service.file(
                EAU, KASSE, [Document(anna.subject, name, "xml", f"<{number}/>".encode())]
            )
            return name, container

        filed = await asyncio.gather(*(one(number) for number in range(20)))
        assert sorted(parse_header(container).key_version for _, container in filed) == list(range(1, 21))
        for number, (name, container) in enumerate(filed):
            assert await vault.fetched(name, container) == f"<{number}/>".encode()
        assert parse_header(await vault.filed("urn:uuid:x", b"<x/>")).key_version == 21

    with_vault(tmp_path, test)


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNANSWERED, Fate.HALF, Fate.LATE])
def test_a_filing_that_the_journal_does_not_confirm_is_repeated_whole(tmp_path: Path, fate: Fate) -> None:
    async def test(vault: Vault) -> None:
        (anna,) = await named(vault, ANNA)
        document = Document(anna.subject, "urn:uuid:1", "xml", b"<eau/>")
        vault.journal.fates.append(fate)
        with pytest.raises(VaultUnavailableError):
            await vault.service.file(EAU, KASSE, [document])
        (container,) = await vault.service.file(EAU, KASSE, [document])
        assert await vault.fetched("urn:uuid:1", container) == b"<eau/>"

    with_vault(tmp_path, test)


def test_a_document_of_nobody_or_of_another_insurers_person_is_not_filed(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        (elsewhere,) = await vault.service.pseudonyms(EAU, OTHER, [Named(ANNA, b"")])
        before = len(vault.journal.entries())
        for subject in (b"\1" * 16, elsewhere.subject):
            with pytest.raises(ErasedError):
                await vault.service.file(EAU, KASSE, [Document(subject, "urn:uuid:1", "xml", b"<eau/>")])
        assert len(vault.journal.entries()) == before

    with_vault(tmp_path, test)


def test_a_document_that_no_container_holds_is_told_before_anything_is_written(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        (anna,) = await named(vault, ANNA)
        before = len(vault.journal.entries())
        with pytest.raises(TooLargeError):
            await vault.service.file(
                EAU, KASSE, [Document(anna.subject, "urn:uuid:1", "xml", bytes(MAX_PLAINTEXT + 1))]
            )
        assert len(vault.journal.entries()) == before

    with_vault(tmp_path, test)


def test_what_an_entry_says_about_a_document_is_read_by_another_release(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        anna, bert = await named(vault, ANNA, BERT)
        documents = [
            Document(subject, f"urn:uuid:{number}", "p7s", b"<eau/>")
            for number, subject in enumerate([anna.subject, bert.subject, anna.subject])
        ]
        await vault.service.file(EAU, KASSE, documents)
        writes = [one for one in vault.journal.entries() if one.kind is Kind.WRITE]
        for entry in writes:
            event = entry.event.bytes
            what = ("OPENING", event.hex())
            order = token(vault.clock, "", signer=OPERATOR, issuer="op", purpose="opening", what=what)
            found = await vault.service.opening(EAU, KASSE, order, event)
            opening = parse_opening(json.dumps(found, sort_keys=True, separators=(",", ":")).encode())
            assert opening.matches(entry)
            assert opening.detail is not None
            assert b"urn:uuid:" in opening.detail[1]
        released = [one for one in vault.journal.releases() if one.purpose is Purpose.DATA_PROTECTION]
        assert [one.subject for one in released] == [one.subject for one in writes]
        reads = [one for one in vault.journal.entries() if one.kind is Kind.READ]
        assert len(reads) == 3  # looking into the journal is an access itself (RP-07)

    with_vault(tmp_path, test)


def test_a_system_without_the_right_token_gets_nothing_and_leaves_an_entry(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>")
        wrong = [
            "no token",
            token(vault.clock, "urn:uuid:2"),
            token(vault.clock, "urn:uuid:1", ik=OTHER),
            token(vault.clock, "urn:uuid:1", signer=OPERATOR),
            token(vault.clock, "urn:uuid:1", signer=OPERATOR, issuer="op"),
            token(vault.clock, "urn:uuid:1", purpose="erase"),
        ]
        for one in wrong:
            with pytest.raises(BadTokenError):
                await vault.service.fetch(EAU, KASSE, one, "urn:uuid:1", "xml", container)
        old = token(vault.clock, "urn:uuid:1")
        vault.clock.move(400)
        with pytest.raises(BadTokenError):
            await vault.service.fetch(EAU, KASSE, old, "urn:uuid:1", "xml", container)
        assert vault.journal.releases() == []
        denied = vault.journal.denials()
        assert len(denied) == len(wrong) + 1
        assert {(one.result, one.purpose, one.subject_key_version) for one in denied} == {
            (Result.DENIED, Purpose.EAU_DELIVERY, 0)
        }
        assert len({one.actor for one in denied}) == 1

    with_vault(tmp_path, test)


@pytest.mark.parametrize("fate", [Fate.TAKEN, Fate.LOST, Fate.UNANSWERED])
def test_refusals_that_would_flood_the_log_become_one_entry_with_a_count(tmp_path: Path, fate: Fate) -> None:
    async def test(vault: Vault) -> None:
        for _ in range(105):
            with pytest.raises(BadTokenError):
                await vault.service.fetch(EAU, KASSE, "no token", "urn:uuid:1", "xml", b"")
        assert len(vault.journal.denials()) == 100
        vault.journal.fates.append(fate)
        for _ in range(3):  # the journal is away at first, and the count is neither lost nor told twice
            await vault.core.tell_coalesced()
        await vault.filed("urn:uuid:1", b"<eau/>")
        assert [one.count for one in vault.journal.denials()[100:] if one.count] == [5]

    with_vault(tmp_path, test)


def test_a_container_of_another_document_does_not_open(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        one, two = await vault.filed("urn:uuid:1", b"<1/>"), await vault.filed("urn:uuid:2", b"<2/>")
        for container in (two, one[:24] + two[24:], one[:-1] + bytes([one[-1] ^ 1]), b"", one[:60]):
            with pytest.raises((SealBrokenError, KeyMissingError)):
                await vault.fetched("urn:uuid:1", container)
        request = token(vault.clock, "urn:uuid:1")
        with pytest.raises(SealBrokenError):  # the same document in another form
            await vault.service.fetch(EAU, KASSE, request, "urn:uuid:1", "p7s", one)
        assert await vault.fetched("urn:uuid:1", one) == b"<1/>"

    with_vault(tmp_path, test)


def test_an_insurer_never_opens_what_belongs_to_another(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        theirs = await vault.filed("urn:uuid:1", b"<eau/>", ik=OTHER)
        with pytest.raises(SealBrokenError):
            await vault.fetched("urn:uuid:1", theirs)
        disguised = theirs[:8] + parse_header(await vault.filed("urn:uuid:1", b"")).object_id + theirs[24:]
        with pytest.raises(KeyMissingError):  # the person is none of this insurer's
            await vault.fetched("urn:uuid:1", disguised)
        assert vault.journal.releases() == []

    with_vault(tmp_path, test)


def test_a_system_over_its_budget_waits(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>")
        await vault.fetched("urn:uuid:1", container)
        with pytest.raises(OverBudgetError):
            await vault.fetched("urn:uuid:1", container)
        # A new start reads what was used from the journal.
        again = build(vault.store, clock=vault.clock, journal=vault.journal, limits=Limits(1, 1))
        with pytest.raises(OverBudgetError):
            await again.fetched("urn:uuid:1", container)
        assert len(vault.journal.releases()) == 1
        assert len(vault.journal.denials()) == 2

    with_vault(tmp_path, test, limits=Limits(1, 1))


def test_a_letter_comes_back_and_nothing_else_opens_as_one(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        letter = await vault.service.seal_letter(EAU, KASSE, "<1@x>", b"draft")
        assert await vault.service.open_letter(EAU, KASSE, "<1@x>", letter) == b"draft"
        assert [one.purpose for one in vault.journal.releases()] == [Purpose.FEHLERNACHRICHT]
        document = await vault.filed("urn:uuid:1", b"<eau/>")
        (anna,) = await named(vault, ANNA)
        (as_letter,) = await vault.service.file(EAU, KASSE, [Document(anna.subject, "<1@x>", "draft", b"<eau/>")])
        for container in (document, as_letter):
            with pytest.raises(SealBrokenError):
                await vault.service.open_letter(EAU, KASSE, "<1@x>", container)
        with pytest.raises(SealBrokenError):
            await vault.service.open_letter(EAU, KASSE, "<2@x>", letter)
        assert len(vault.journal.releases()) == 1
        assert len(vault.journal.denials()) == 3

    with_vault(tmp_path, test)


def test_without_a_share_nothing_is_filed(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        vault.journal.gives_shares = False
        with pytest.raises(KeyMissingError):
            await vault.filed("urn:uuid:1", b"<eau/>")

    with_vault(tmp_path, test)


def test_an_event_is_never_used_twice(tmp_path: Path) -> None:
    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>")
        for _ in range(5):
            await vault.fetched("urn:uuid:1", container)
        events = [one.event for one in vault.journal.entries()]
        assert len(set(events)) == len(events)

    with_vault(tmp_path, test)
