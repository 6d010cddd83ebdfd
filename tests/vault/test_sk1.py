"""SK1 records and subject keys, byte for byte as fixed; nothing changed opens (journal.md § 14.1, § 20)."""

from __future__ import annotations

import hmac
import json
from pathlib import Path

import pytest

from schleuse.vault.contracts import KeyMissingError, SealBrokenError
from schleuse.vault.kek import SoftwareKek
from schleuse.vault.sk1 import NO_SHARE, RECORD, derive, kek_id, open_sk1, rewrap, seal_sk1

KNOWN = json.loads((Path(__file__).parents[1] / "journal" / "vectors.json").read_text())["sk1"]
SUBJECT, VERSION, S_VAULT = bytes.fromhex(KNOWN["subject"]), KNOWN["version"], bytes.fromhex(KNOWN["S_vault"])
KEY, NONCE = bytes.fromhex(KNOWN["hsm_kek"]), bytes.fromhex(KNOWN["nonce"])
KEK = SoftwareKek(KNOWN["kek_id"], KEY)
RECORD_7 = bytes.fromhex(KNOWN["record"])


def test_the_record_is_the_published_one() -> None:
    assert seal_sk1(KEK, SUBJECT, VERSION, S_VAULT, NONCE) == RECORD_7
    assert len(RECORD_7) == RECORD
    assert kek_id(RECORD_7) == 7


def test_the_published_record_opens() -> None:
    assert open_sk1(KEK, RECORD_7, SUBJECT, VERSION) == S_VAULT


def test_the_subject_key_is_the_published_one() -> None:
    share = hmac.digest(bytes.fromhex(KNOWN["k_journal"]), b"JS1\n" + SUBJECT + VERSION.to_bytes(4), "sha256")
    assert share.hex() == KNOWN["S_journal"]
    assert derive(S_VAULT, share, SUBJECT, VERSION).hex() == KNOWN["SK"]


def test_each_of_share_subject_and_version_changes_the_key() -> None:
    keys = {
        derive(S_VAULT, NO_SHARE, SUBJECT, VERSION),
        derive(S_VAULT, bytes(31) + b"\x01", SUBJECT, VERSION),
        derive(S_VAULT, NO_SHARE, bytes(16), VERSION),
        derive(S_VAULT, NO_SHARE, SUBJECT, VERSION + 1),
    }
    assert len(keys) == 4


@pytest.mark.parametrize(("s_vault", "share", "subject"), [(31, 32, 16), (32, 31, 16), (32, 0, 16), (32, 32, 15)])
def test_a_half_of_the_wrong_length_gives_no_key(s_vault: int, share: int, subject: int) -> None:
    with pytest.raises(ValueError, match="both halves"):
        derive(bytes(s_vault), bytes(share), bytes(subject), VERSION)


@pytest.mark.parametrize(("subject", "s_vault", "nonce"), [(15, 32, 12), (16, 31, 12), (16, 32, 11)])
def test_fields_of_the_wrong_length_make_no_record(subject: int, s_vault: int, nonce: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal_sk1(KEK, bytes(subject), VERSION, bytes(s_vault), bytes(nonce))


@pytest.mark.parametrize("bit", range(RECORD * 8))
def test_a_record_with_one_flipped_bit_does_not_open(bit: int) -> None:
    damaged = bytearray(RECORD_7)
    damaged[bit // 8] ^= 1 << bit % 8
    # A flipped generation is one that we do not have: nobody can tell it from a generation that was lost.
    expected = KeyMissingError if 28 <= bit // 8 < 32 else SealBrokenError
    with pytest.raises(expected):
        open_sk1(KEK, bytes(damaged), SUBJECT, VERSION)


@pytest.mark.parametrize("length", range(RECORD))
def test_a_truncated_record_does_not_open(length: int) -> None:
    with pytest.raises(SealBrokenError):
        open_sk1(KEK, RECORD_7[:length], SUBJECT, VERSION)


def test_a_longer_record_does_not_open() -> None:
    with pytest.raises(SealBrokenError):
        open_sk1(KEK, RECORD_7 + b"\0", SUBJECT, VERSION)


def test_a_record_of_another_person_or_version_does_not_open() -> None:
    other = seal_sk1(KEK, bytes(16), VERSION, S_VAULT, NONCE)
    with pytest.raises(SealBrokenError, match="another subject"):
        open_sk1(KEK, other, SUBJECT, VERSION)
    with pytest.raises(SealBrokenError, match="another subject"):
        open_sk1(KEK, RECORD_7, SUBJECT, VERSION + 1)
    with pytest.raises(SealBrokenError):  # the header of one, the wrapped key of the other
        open_sk1(KEK, RECORD_7[:32] + other[32:], SUBJECT, VERSION)


def test_a_record_does_not_open_under_another_key_of_the_same_generation() -> None:
    with pytest.raises(SealBrokenError):
        open_sk1(SoftwareKek(7, bytes(32)), RECORD_7, SUBJECT, VERSION)


def test_a_record_of_an_older_generation_opens_and_is_wrapped_again() -> None:
    kek = SoftwareKek(8, bytes(32), {7: KEY})
    assert open_sk1(kek, RECORD_7, SUBJECT, VERSION) == S_VAULT
    renewed = rewrap(kek, RECORD_7, bytes(12))
    assert renewed is not None
    assert kek_id(renewed) == 8
    assert open_sk1(SoftwareKek(8, bytes(32)), renewed, SUBJECT, VERSION) == S_VAULT


def test_a_record_of_the_newest_generation_is_left_as_it_is() -> None:
    assert rewrap(KEK, RECORD_7, bytes(12)) is None


def test_a_record_of_a_generation_that_is_gone_says_so() -> None:
    with pytest.raises(KeyMissingError, match=r"generation 7 .* here are \[8\]"):
        open_sk1(SoftwareKek(8, bytes(32)), RECORD_7, SUBJECT, VERSION)
