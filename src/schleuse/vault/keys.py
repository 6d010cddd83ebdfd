"""What a caller may ask of the vault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schleuse.errors import MalformedError, UnavailableError
from schleuse.identifiers import IK


class KeyMissingError(UnavailableError):
    """A key that should be here cannot be used: our own trouble, never the sender's (HD-01)."""

    code = "vault.key-missing"


class UnwrapFailedError(MalformedError):
    """The wrapped key does not open with the right private key: the sender built it wrongly."""

    code = "vault.unwrap-failed"


class UnsupportedWrapError(MalformedError):
    """The key transport is one that we do not support yet, such as TI ECIES (kim.md § 7.4)."""

    code = "vault.unsupported-wrap"


class SealBrokenError(MalformedError):
    """Sealed bytes do not open under this key and context: they are damaged or belong elsewhere."""

    code = "vault.seal-broken"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """One KeyTransRecipientInfo of an envelope (RFC 5652 § 6.2.1).

    recipient: DER of IssuerAndSerialNumber. algorithm: DER of the key encryption AlgorithmIdentifier.
    """

    recipient: bytes
    algorithm: bytes
    encrypted_key: bytes


class Signer(Protocol):
    """A signature key with its certificate."""

    @property
    def certificate(self) -> bytes:
        """DER of the X.509 certificate."""
        ...

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        """(DER of the signature AlgorithmIdentifier, signature) over data with SHA-256.

        RSA signs RSASSA-PSS with MGF1-SHA-256 and salt 32, EC signs ecdsa-with-SHA256 (kim.md § 7.1).
        """
        ...


class Vault(Protocol):
    """All uses of an insurer's keys. Raises KeyMissingError from every method when the key cannot serve."""

    def certificates(self, ik: IK) -> tuple[bytes, ...]:
        """DER of the insurer's encryption certificates (C.HCI.ENC), newest first."""
        ...

    def unwrap(self, ik: IK, wrapped: WrappedKey) -> bytes:
        """The content key of an envelope. Raises UnwrapFailedError, UnsupportedWrapError, KeyMissingError."""
        ...

    def signer(self, ik: IK) -> Signer:
        """The insurer's KIM signature identity (C.HCI.OSIG)."""
        ...

    def seal(self, ik: IK, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt for our own store; opens only with the same context (AES-256-GCM)."""
        ...

    def unseal(self, ik: IK, sealed: bytes, context: bytes) -> bytes:
        """Raises SealBrokenError."""
        ...

    def pseudonym(self, ik: IK, value: bytes) -> bytes:
        """Keyed pseudonym of 32 octets; equal values of one insurer have equal pseudonyms, and only there."""
        ...
