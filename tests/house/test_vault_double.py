"""The vault double keeps what the contract promises, so that tests on top of it mean something."""

from __future__ import annotations

import pytest
from tests.mail.smime.samples import insurer
from tests.vault_double import Keys, VaultDouble

from schleuse.identifiers import IK
from schleuse.mail.smime.envelope import wrap_for
from schleuse.vault import Vault
from schleuse.vault.contracts import (
    BadTokenError,
    Document,
    ErasedError,
    KeyMissingError,
    Named,
    SealBrokenError,
    SealedMail,
    UnwrapFailedError,
    VaultUnavailableError,
    WrappedKey,
)

KASSE, ANDERE = IK("109900011"), IK("109900022")


@pytest.fixture
def vault() -> VaultDouble:
    pair = insurer().certificate_der, insurer().key
    return VaultDouble({KASSE: Keys([pair], pair)})


def test_it_opens_each_mail_or_says_why_it_does_not(vault: VaultDouble) -> None:
    good = wrap_for(insurer().certificate_der, bytes(32))
    broken = WrappedKey(good.recipient, good.algorithm, bytes(256))
    foreign = WrappedKey(b"someone", good.algorithm, good.encrypted_key)
    found = vault.open_mails(KASSE, [SealedMail(n, one) for n, one in enumerate([good, broken, foreign])])
    assert found[0] == bytes(32)
    assert [type(one) for one in found[1:]] == [UnwrapFailedError, KeyMissingError]
    assert (vault.opened, vault.trips("open_mails")) == ([0], [3])


def test_pseudonyms_are_equal_for_equal_values_of_one_insurer(vault: VaultDouble) -> None:
    one, again, other = vault.pseudonyms(KASSE, [Named(b"a", b"c", b"p"), Named(b"a", b"c", b"p"), Named(b"b", b"c")])
    assert one == again
    assert (len(one.subject), len(one.content), len(one.practice or b"")) == (16, 32, 32)
    assert other.subject != one.subject
    assert other.content != one.content
    assert other.practice is None
    assert vault.pseudonyms(ANDERE, [Named(b"a", b"c", b"p")])[0] != one


def test_a_document_opens_under_its_name_form_and_insurer_only(vault: VaultDouble) -> None:
    subject = vault.pseudonyms(KASSE, [Named(b"a", b"c")])[0].subject
    (container,) = vault.file(KASSE, [Document(subject, "id", "xml", b"content")])
    assert vault.fetch(KASSE, "token", "id", "xml", container) == b"content"
    for ik, name, form in ((KASSE, "other", "xml"), (KASSE, "id", "p7s"), (ANDERE, "id", "xml")):
        with pytest.raises(SealBrokenError):
            vault.fetch(ik, "token", name, form, container)
    with pytest.raises(BadTokenError):
        vault.fetch(KASSE, "", "id", "xml", container)
    assert vault.fetched == [("id", "xml")]


def test_an_erased_person_is_a_stranger_and_its_documents_are_gone(vault: VaultDouble) -> None:
    before = vault.pseudonyms(KASSE, [Named(b"a", b"c")])[0]
    document = Document(before.subject, "id", "xml", b"content")
    (container,) = vault.file(KASSE, [document])
    vault.erase(KASSE, b"a")
    with pytest.raises(ErasedError):
        vault.fetch(KASSE, "token", "id", "xml", container)
    with pytest.raises(ErasedError):
        vault.file(KASSE, [document])
    after = vault.pseudonyms(KASSE, [Named(b"a", b"c")])[0]
    assert after.subject != before.subject
    assert after.content != before.content


def test_a_letter_opens_again_and_signatures_are_counted(vault: VaultDouble) -> None:
    assert vault.open_letter(KASSE, "<x>", vault.seal_letter(KASSE, "<x>", b"draft")) == b"draft"
    signer = vault.signer(KASSE)
    assert signer.certificate == insurer().certificate_der
    signer.sign(b"data")
    assert vault.trips("sign") == [1]


def test_it_breaks_off_before_or_after_the_effect(vault: VaultDouble) -> None:
    mail = SealedMail(7, wrap_for(insurer().certificate_der, bytes(32)))
    vault.fail("open_mails", times=1)
    with pytest.raises(VaultUnavailableError):
        vault.open_mails(KASSE, [mail])
    assert vault.opened == []
    vault.fail("*", after=True)
    with pytest.raises(VaultUnavailableError):
        vault.open_mails(KASSE, [mail])
    assert vault.opened == [7]
    vault.recover()
    assert vault.open_mails(KASSE, [mail]) == [bytes(32)]


def seen_as_vault(vault: VaultDouble) -> Vault:
    return vault
