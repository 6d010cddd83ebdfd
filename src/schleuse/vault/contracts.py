"""What a role may ask of the vault, and how it is told no (journal.md § 14).

Every method that yields plaintext or a key has its entry durable in the insurer's journal before it returns (RP-01,
promise 2), in batches: one entry for each object, one round trip for the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.identifiers import IK


class VaultUnavailableError(UnavailableError):
    """The vault does not answer, or its journal cannot write: nothing is opened, and the work waits (RP-01)."""

    code = "vault.unavailable"


class KeyMissingError(UnavailableError):
    """A key that should be here cannot be used: our own trouble, never the sender's (HD-01)."""

    code = "vault.key-missing"


class OverBudgetError(UnavailableError):
    """More would be opened than the budget of this actor, insurer or platform allows in an hour (§ 14.4).

    It helps to wait; an override needs two persons (`schleuse vault override`).
    """

    code = "vault.over-budget"


class NotAllowedError(RefusedError):
    """The vault does not know this caller, or he may not do this; its operator can change the configuration."""

    code = "vault.not-allowed"


class ScopeClosedError(UnavailableError):
    """The switch does not let this insurer's content be opened now; the work waits until two persons open it."""

    code = "vault.scope-closed"


class BadTokenError(RefusedError):
    """The token does not show who asks: signature, audience, age or purpose are wrong. The caller makes a new one."""

    code = "vault.bad-token"


class ErasedError(RefusedError):
    """The person's key was destroyed: this content can never be opened again (G6)."""

    code = "vault.erased"


class UnwrapFailedError(MalformedError):
    """The wrapped key does not open with the right private key: the sender built it wrongly."""

    code = "vault.unwrap-failed"


class UnsupportedWrapError(MalformedError):
    """The key transport is one that we do not support yet, such as TI ECIES (kim.md § 7.4)."""

    code = "vault.unsupported-wrap"


class BadRequestError(MalformedError):
    """Not a request of the vault's protocol; the caller's program can change it."""

    code = "vault.bad-request"


class TooLargeError(MalformedError):
    """The content does not fit into one container; whoever files it splits it."""

    code = "vault.too-large"


class RotationRefusedError(ConflictError):
    """The key encryption key is not in the state that the order presumes; the operator looks again and decides."""

    code = "vault.rotation-refused"


class OverrideRefusedError(RefusedError):
    """This override of a budget is not granted to anybody, or no longer; the operators order another."""

    code = "vault.override-refused"


class SealBrokenError(CorruptError):
    """A container does not open under its key and context: it is damaged or belongs elsewhere."""

    code = "vault.seal-broken"


class CounterAheadError(CorruptError):
    """The vault has counted more releases than the journal has entries: the journal lost some. Nothing is opened."""

    code = "vault.counter-ahead"


class OlderStoreError(CorruptError):
    """The journal says of keys what this store does not reflect: an older copy of the vault's database was put back.

    This insurer's log stays closed until the operator puts the newest copy back, or accepts in
    `vault.accept_older_store` that the keys are lost.
    """

    code = "vault.older-store"


class Unshown(msgspec.Struct, frozen=True):
    """A value that shows nothing of itself when printed.

    A release makes a handful of them; a frozen dataclass costs four times as much to make.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # the library's own shows every field
        return []


@dataclass(frozen=True, slots=True, repr=False)
class WrappedKey:
    """One KeyTransRecipientInfo of an envelope (RFC 5652 § 6.2.1).

    recipient: DER of IssuerAndSerialNumber. algorithm: DER of the key encryption AlgorithmIdentifier.
    """

    recipient: bytes
    algorithm: bytes
    encrypted_key: bytes


@dataclass(frozen=True, slots=True, repr=False)
class SealedMail:
    """A KIM mail whose content key is wanted.

    delivery: its id in the mail store, as the caller says; it goes into the detail record. What the entry commits to
    is the wrapped key itself, so that a caller cannot have one mail opened and name another.
    """

    delivery: int
    wrapped: WrappedKey


@dataclass(frozen=True, slots=True, repr=False)
class Named:
    """What a document says about whom, in the plain: its insured person, its practice, its content beside the id.

    Octets of `eau.document.Facts`, or None where a document does not say.
    """

    person: bytes
    content: bytes
    practice: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """What the eAU store may keep of `Named`.

    subject: 16 octets, random, assigned to the person within the insurer; the journal's entries have it too.
    content: 32 octets, equal for equal contents of one person; meaningless once the person is erased (G6).
    practice: 32 octets, keyed, equal for equal practices of one insurer.
    """

    subject: bytes
    content: bytes
    practice: bytes | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """A document to be sealed under its person's key.

    subject: of `Pseudonyms`. name: Dokumenten-ID; form: "xml" or "p7s". The container is bound to insurer, name and
    form; whoever fetches it must say the same.
    """

    subject: bytes
    name: str
    form: str
    plaintext: bytes


def feed_paths(ik: IK, name: str) -> tuple[str, ...]:
    """Paths under which the feed serves a document, of which a token names one: the vault judges it by itself."""
    prefix = f"/v1/{ik}/eau/"
    return prefix + name, prefix + name.removeprefix("urn:uuid:")


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
    """What roles hold instead of keys; a batch is of one insurer.

    Every method raises VaultUnavailableError, KeyMissingError, OverBudgetError (all UnavailableError: the work waits)
    and NotAllowedError.
    """

    def certificates(self, ik: IK) -> tuple[bytes, ...]:
        """DER of the insurer's encryption certificates (C.HCI.ENC), newest first. Opens nothing, leaves no entry."""
        ...

    def open_mails(self, ik: IK, mails: Sequence[SealedMail]) -> Sequence[bytes | Error]:
        """The content key of each mail: entry KEY_RELEASED, purpose EAU_INTAKE.

        In place of a key: UnwrapFailedError, UnsupportedWrapError, KeyMissingError (no key for that recipient).
        """
        ...

    def pseudonyms(self, ik: IK, named: Sequence[Named]) -> Sequence[Pseudonyms]:
        """Assigned when first asked for. Opens nothing, leaves no entry."""
        ...

    def file(self, ik: IK, documents: Sequence[Document]) -> Sequence[bytes]:
        """A container VE1 for each: entries KEY_CREATED (a new version of the person's key) and WRITE.

        Filing never releases an older version, so whoever can file can read nothing. Raises ErasedError for a subject
        that does not exist (any more).
        """
        ...

    def fetch(self, ik: IK, token: str, name: str, form: str, container: bytes) -> bytes:
        """A filed document for the insurer's system that signed the token: entry KEY_RELEASED, purpose EAU_DELIVERY.

        The token must be for GET and one of `feed_paths`.

        Raises BadTokenError, ErasedError, SealBrokenError. A refusal leaves an entry, too.
        """
        ...

    def seal_letter(self, ik: IK, name: str, draft: bytes) -> bytes:
        """A container of the insurer's own for a Fehlernachricht. name: its Message-ID.

        Entries KEY_CREATED and WRITE, purpose FEHLERNACHRICHT.
        """
        ...

    def open_letter(self, ik: IK, name: str, container: bytes) -> bytes:
        """The draft again: entry KEY_RELEASED, purpose FEHLERNACHRICHT. Raises SealBrokenError."""
        ...

    def signer(self, ik: IK) -> Signer:
        """The insurer's KIM signature identity (C.HCI.OSIG).

        Each signature is an entry KEY_RELEASED, purpose FEHLERNACHRICHT.
        """
        ...
