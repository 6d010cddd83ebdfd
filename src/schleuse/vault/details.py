"""Detail records: what the commitments in the vault's entries stand for, sealed, in its store (journal.md § 4).

A row has all entries of a batch that one reader may see together. What names an insured person goes with the person.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag

from schleuse.journal.opening import Json, Opening, canonical_json, detail_commitment, object_commitment
from schleuse.vault.contracts import SealBrokenError, Unshown
from schleuse.vault.kek import Random
from schleuse.vault.keyring import TenantKeys
from schleuse.vault.store import SealedOpening
from schleuse.vault.ve1 import open_container, seal_container

_NONCE = 12


class Details(Unshown, frozen=True):
    """What is said about a batch. record: canonical JSON; objects: (event, name, version) of each entry."""

    salt: bytes
    record: bytes
    objects: Sequence[tuple[bytes, str, int]]

    @property
    def commitment(self) -> bytes:
        """The `detail` of each entry."""
        return detail_commitment(self.salt, self.record)

    def object_(self, place: int) -> bytes:
        """The `object` of one entry."""
        _, name, version = self.objects[place]
        return object_commitment(self.salt, name, version)

    def encode(self) -> bytes:
        """For sealing."""
        content = {
            "salt": self.salt.hex(),
            "detail": self.record.decode(),
            "events": [event.hex() for event, _, _ in self.objects],
            "objects": [[name, str(version)] for _, name, version in self.objects],
        }
        return msgspec.json.encode(content)

    def about(self, event: bytes) -> Opening | None:
        """What makes the entry of one event readable."""
        for own, name, version in self.objects:
            if own == event:
                return Opening((self.salt, name, version), (self.salt, self.record))
        return None


def describe(
    detail: dict[str, Json], objects: Sequence[tuple[bytes, str, int]], random: Random = os.urandom
) -> Details:
    """With a fresh salt."""
    return Details(random(16), canonical_json(detail), objects)


def seal_for_insurer(
    keys: TenantKeys, details: Details, subject: bytes | None = None, random: Random = os.urandom
) -> SealedOpening:
    """A row that names no person; subject: a person with whom it is to be erased all the same."""
    first, last = details.objects[0][0], details.objects[-1][0]
    nonce = random(_NONCE)
    sealed = nonce + keys.opening.encrypt(nonce, details.encode(), first)
    return SealedOpening(first, last, sealed, subject, None)


def seal_for_person(
    sk: bytes, details: Details, subject: bytes, version: int, random: Random = os.urandom
) -> SealedOpening:
    """A row that names a person, readable by a release of this version of the person's key only."""
    first, last = details.objects[0][0], details.objects[-1][0]
    sealed = seal_container(
        sk,
        subject=subject,
        key_version=version,
        object_id=first,
        object_version=version,
        plaintext=details.encode(),
        random=random,
    )
    return SealedOpening(first, last, sealed, subject, version)


def open_for_insurer(keys: TenantKeys, row: SealedOpening) -> Details:
    """Raises SealBrokenError."""
    try:
        return _decode(keys.opening.decrypt(row.sealed[:_NONCE], row.sealed[_NONCE:], row.first))
    except InvalidTag as cause:
        raise SealBrokenError("an opening does not open under the insurer's key; the store is damaged") from cause


def open_for_person(sk: bytes, row: SealedOpening) -> Details:
    """Raises SealBrokenError."""
    return _decode(open_container(sk, row.sealed))


def _decode(data: bytes) -> Details:
    content: Any = json.loads(data)
    objects = [
        (bytes.fromhex(event), name, int(version))
        for event, (name, version) in zip(content["events"], content["objects"], strict=True)
    ]
    return Details(bytes.fromhex(content["salt"]), content["detail"].encode(), objects)
