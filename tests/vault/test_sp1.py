"""Records that the machine which accepted them cannot read (journal.md § 15)."""

from __future__ import annotations

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import VECTORS

from schleuse.errors import Error
from schleuse.vault.contracts import SealBrokenError
from schleuse.vault.sp1 import (
    FIRST,
    SpoolBrokenError,
    check_chain,
    fingerprint,
    for_custodians,
    open_record,
    parse_sp1,
    reseal,
    seal_record,
    unseal,
    unseal_import,
)

PRIVATE = bytes([7] * 32)
PUBLIC = X25519PrivateKey.from_private_bytes(PRIVATE).public_key().public_bytes_raw()
SPOOL = bytes(range(16))


def record(sequence: int = 0, before: bytes = FIRST, body: bytes = b"body", metadata: bytes = b'{"length":4}') -> bytes:
    return seal_record(
        PUBLIC,
        sequence=sequence,
        accepted_us=1_800_000_000_000_000,
        spool=SPOOL,
        before=before,
        metadata=metadata,
        body=body,
    )


def spool(count: int) -> list[bytes]:
    records: list[bytes] = []
    for number in range(count):
        records.append(record(number, sha256(records[-1]).digest() if records else FIRST))
    return records


def test_the_vector_opens_with_its_recovery_key() -> None:
    """§ 20 sp1."""
    known = VECTORS["sp1"]
    found, private = bytes.fromhex(known["record"]), bytes.fromhex(known["recovery_private"])
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    assert public.hex() == known["recovery_public"]
    assert fingerprint(public).hex() == known["fingerprint"]
    header = parse_sp1(found)
    assert (header.sequence, header.before, header.recovery) == (0, FIRST, fingerprint(public))
    assert sha256(found).hexdigest() == known["record_sha256"]
    metadata, body = open_record(unseal(private, for_custodians(found)), found)
    whole = len(metadata).to_bytes(4) + metadata + body
    assert sha256(whole).hexdigest() == known["plaintext_sha256"]


@given(st.binary(max_size=2_000), st.binary(max_size=2_000))
def test_what_is_sealed_opens_with_zeros_after_it(metadata: bytes, body: bytes) -> None:
    sealed = record(body=body, metadata=metadata)
    found, padded = open_record(unseal(PRIVATE, for_custodians(sealed)), sealed)
    assert found == metadata
    assert padded[: len(body)] == body
    assert not any(padded[len(body) :])


@pytest.mark.parametrize(
    ("octets", "step"), [(0, 256), (243, 256), (65_536 - 4, 256), (65_536 - 3, 4_096), (100_000, 4_096)]
)
def test_the_length_tells_steps_only(octets: int, step: int) -> None:
    sealed = record(body=bytes(octets), metadata=b"")
    assert (parse_sp1(sealed).length - 16) % step == 0
    assert parse_sp1(sealed).length - 16 - octets - 4 < step


def test_no_octet_of_a_record_can_be_changed() -> None:
    sealed = record()
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with pytest.raises(SealBrokenError):
            open_record(unseal(PRIVATE, for_custodians(changed)), changed)


@given(st.binary(max_size=400))
def test_other_octets_are_no_record(octets: bytes) -> None:
    for read in (parse_sp1, for_custodians, lambda one: unseal(PRIVATE, one), lambda one: open_record(bytes(32), one)):
        with pytest.raises(SealBrokenError):
            read(octets)


def test_whoever_accepted_it_cannot_read_it_and_neither_can_another_key() -> None:
    sealed = record()
    with pytest.raises(SealBrokenError):
        unseal(bytes([8] * 32), for_custodians(sealed))
    with pytest.raises(SealBrokenError):
        open_record(bytes(32), sealed)


def test_the_vault_gets_the_key_of_one_record() -> None:
    """Opening, step 2: sealed again, bound to the digest of the record."""
    sealed = record()
    vault = X25519PrivateKey.generate()
    key, digest = unseal(PRIVATE, for_custodians(sealed)), sha256(sealed).digest()
    again = reseal(key, digest, vault.public_key().public_bytes_raw())
    assert unseal_import(vault.private_bytes_raw(), again, digest) == key
    with pytest.raises(SealBrokenError):
        unseal_import(vault.private_bytes_raw(), again, sha256(b"another").digest())


def test_a_chain_ends_with_the_digest_of_its_last_record() -> None:
    records = spool(4)
    assert check_chain(records) == sha256(records[-1]).digest()
    assert check_chain([]) == FIRST


@pytest.mark.parametrize(
    "touched",
    [
        lambda all: all[1:],
        lambda all: [*all[:1], *all[2:]],
        lambda all: [all[0], all[2], all[1], all[3]],
        lambda all: [*all[:2], record(2, sha256(b"other").digest()), all[3]],
        lambda all: [*all[:2], all[1], *all[2:]],
    ],
    ids=["first removed", "one removed", "another order", "one replaced", "one twice"],
)
def test_gaps_another_order_and_removal_are_seen(touched: object) -> None:
    with pytest.raises(SpoolBrokenError):
        check_chain(touched(spool(4)))  # type: ignore[operator]


def test_a_record_of_another_spool_breaks_the_chain() -> None:
    first, second = spool(2)
    other = seal_record(
        PUBLIC,
        sequence=2,
        accepted_us=0,
        spool=bytes(16),
        before=sha256(second).digest(),
        metadata=b"",
        body=b"",
    )
    with pytest.raises(Error):
        check_chain([first, second, other])
