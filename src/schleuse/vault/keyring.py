"""Keys in memory: subject keys for a minute after their entry, identities with them, insurers' own keys (§ 14.3).

A hit spares the unwrapping, never the entry: callers come here with the share of an entry that is durable.
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_private_key

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.vault.contracts import ErasedError, SealBrokenError
from schleuse.vault.kek import Kek
from schleuse.vault.private_keys import PrivateKey, checked_key
from schleuse.vault.sk1 import checked_share, derive, open_sk1
from schleuse.vault.store import Identity, VaultStore
from schleuse.vault.ve1 import open_container, parse_header
from schleuse.vault.writing import Together

REMEMBER_S = 60.0
REMEMBER_SUBJECTS = 1000
#: Keys unwrapped in one call, so that the first need not wait long where a token unwraps one after the other.
_AT_ONCE = 64
_NONCE = 12


@dataclass(frozen=True, slots=True, repr=False)
class TenantKeys:
    """An insurer's keys that open no content: for lookups, pseudonyms and openings that name no person."""

    lookup: bytes
    pseudonym: bytes
    opening: AESGCM

    def look_up(self, kind: bytes, value: bytes) -> bytes:
        """What a person or identity is looked up by, 32 bytes."""
        return hmac.digest(self.lookup, kind + b"\0" + value, "sha256")

    def content(self, nonce: bytes, value: bytes) -> bytes:
        """Digest of a content within one person; nonce: of the person's row, gone with it."""
        return hmac.digest(hmac.digest(self.pseudonym, b"content\0" + nonce, "sha256"), value, "sha256")

    def practice(self, value: bytes) -> bytes:
        """Pseudonym of a practice, 32 bytes."""
        return hmac.digest(self.pseudonym, b"practice\0" + value, "sha256")


@dataclass(slots=True, repr=False)
class _Remembered:
    until: float
    sk: bytes
    identity: PrivateKey | None = field(default=None)


#: Subject, version, and the share that an entry about them earned.
_Asked = tuple[bytes, int, bytes]


class Keyring:
    """monotonic: seconds, for forgetting."""

    def __init__(self, store: VaultStore, kek: Kek, monotonic: Callable[[], float]) -> None:
        self._store = store
        self.kek = kek
        self._monotonic = monotonic
        self._subjects: OrderedDict[tuple[bytes, int], _Remembered] = OrderedDict()
        self._dropped = 0
        self._dropping = Lock()
        self._unwrapping: Together[_Asked, bytes | Error] = Together(self._unwrap, _AT_ONCE)
        self.hits = 0
        self.misses = 0

    async def subject_key(self, subject: bytes, version: int, share: bytes) -> bytes:
        """SK, for an entry that earned this share. Raises ErasedError, SealBrokenError, KeyMissingError.

        Those that are not in memory are read and unwrapped in a thread, all at once that are asked for at once.
        """
        known = self._known(subject, version)
        if known is not None:
            return known.sk
        dropped = self._dropped
        found = await self._unwrapping.ask((subject, version, share))
        if isinstance(found, Error):
            raise found
        self._remember(subject, version, found, dropped)
        return found

    def identity_key(self, identity: Identity, share: bytes) -> PrivateKey:
        """The private key of an identity, for an entry about its subject that earned this share."""
        header = parse_header(identity.container)
        known = self._remembered(header.subject, header.key_version, share)
        if known.identity is None:
            key = load_der_private_key(open_container(known.sk, identity.container), None)
            known.identity = checked_key(identity.certificate, key)
        return known.identity

    def forget(self) -> None:
        """Everything whose minute is over; called each second, so that nothing stays because nobody asks."""
        now = self._monotonic()
        for key, one in list(self._subjects.items()):
            if one.until <= now:
                self._subjects.pop(key, None)

    def drop(self) -> None:
        """Everything that opens content, at once. From any thread."""
        with self._dropping:
            self._dropped += 1
            self._subjects.clear()

    def tenant(self, ik: IK) -> TenantKeys:
        """Unwrapped anew with each call; `Core.tenant` remembers them. Raises UnavailableError, SealBrokenError."""
        aad, nonce = _tenant_aad(ik), os.urandom(_NONCE)
        record = self._store.tenant_key(ik, nonce + self.kek.wrap(nonce, os.urandom(32), aad))
        root = self.kek.unwrap(record[:_NONCE], record[_NONCE:], aad)
        return TenantKeys(_part(root, b"lookup"), _part(root, b"pseudonym"), AESGCM(_part(root, b"opening")))

    def renew_tenants(self) -> None:
        """Wrap every insurer's key under the newest generation that is not yet (§ 17). Raises as `tenant`."""
        for ik, record in self._store.tenant_records().items():
            aad, newest = _tenant_aad(ik), self.kek.id
            if not self._wraps(newest, record, aad):
                nonce = os.urandom(_NONCE)
                root = self.kek.unwrap(record[:_NONCE], record[_NONCE:], aad)
                self._store.replace_tenant_key(ik, record, nonce + self.kek.wrap(nonce, root, aad, newest))

    def tenants_are_renewed(self) -> bool:
        """Whether the newest generation wraps every insurer's key."""
        records = self._store.tenant_records()
        return all(self._wraps(self.kek.id, record, _tenant_aad(ik)) for ik, record in records.items())

    def _wraps(self, generation: int, record: bytes, aad: bytes) -> bool:
        try:
            self.kek.unwrap(record[:_NONCE], record[_NONCE:], aad, generation)
        except SealBrokenError:
            return False
        return True

    def _remembered(self, subject: bytes, version: int, share: bytes) -> _Remembered:
        known = self._known(subject, version)
        if known is not None:
            return known
        dropped = self._dropped
        (sk,) = self._unwrap([(subject, version, share)])
        if isinstance(sk, Error):
            raise sk
        return self._remember(subject, version, sk, dropped)

    def _known(self, subject: bytes, version: int) -> _Remembered | None:
        known = self._subjects.get((subject, version))
        if known is not None and known.until > self._monotonic():
            self.hits += 1
            return known
        self.misses += 1
        return None

    def _remember(self, subject: bytes, version: int, sk: bytes, dropped: int) -> _Remembered:
        """Unless all were dropped since: then it was for this entry, and nothing stays in memory."""
        known = _Remembered(self._monotonic() + REMEMBER_S, sk)
        with self._dropping:
            if dropped == self._dropped:
                self._subjects[subject, version] = known
                if len(self._subjects) > REMEMBER_SUBJECTS:
                    self._subjects.popitem(last=False)
        return known

    def _unwrap(self, asked: Sequence[_Asked]) -> list[bytes | Error]:
        records = self._store.keys({(subject, version) for subject, version, _ in asked})
        return [
            self._opened(records.get((subject, version)), subject, version, share) for subject, version, share in asked
        ]

    def _opened(self, record: bytes | None, subject: bytes, version: int, share: bytes) -> bytes | Error:
        try:
            if record is None:
                raise ErasedError("the key of this content was destroyed; nobody can open it any more")
            half = checked_share(share)
            return derive(open_sk1(self.kek, record, subject, version), half, subject, version)
        except Error as error:  # of this one; the others of the same call have theirs
            return error


def _tenant_aad(ik: IK) -> bytes:
    return b"schleuse tenant key " + ik.value.encode()


def _part(root: bytes, use: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, b"schleuse vault " + use).derive(root)
