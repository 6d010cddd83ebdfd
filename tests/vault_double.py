"""A vault in memory that keeps the promises of `vault.contracts.Vault` and can be made to break off.

Everything it seals and every pseudonym follows from its root, so that forks of one process, and a second double of the
same root, agree with each other as clients of one vault do. It has no journal: `calls` and `opened` stand for it.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schleuse.config import Config
from schleuse.errors import CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.identifiers import IK
from schleuse.vault.contracts import (
    BadTokenError,
    Document,
    ErasedError,
    KeyMissingError,
    Named,
    Pseudonyms,
    SealBrokenError,
    SealedMail,
    Signer,
    VaultUnavailableError,
)
from schleuse.vault.private_keys import PrivateKey, issuer_and_serial, key_signer, load_pair, unwrap_with

MAGIC = b"DOUBLE1\n"
_ITEM_ERRORS = (MalformedError, UnavailableError, CorruptError, RefusedError)

_T = TypeVar("_T")
Pair = tuple[bytes, PrivateKey]  # DER of the certificate, its key


@dataclass(frozen=True, repr=False)
class Keys:
    """Of one insurer. encryption: newest first."""

    encryption: Sequence[Pair]
    signature: Pair | None = None


@dataclass(frozen=True)
class Call:
    """One round trip. items: how many things were asked for in it."""

    method: str
    ik: IK
    items: int


@dataclass
class _Failure:
    error: Error
    after: bool
    times: int | None


def any_token(_ik: IK, token: str, _name: str) -> None:
    """Every token but the empty one is good."""
    if not token:
        raise BadTokenError("no token")


@dataclass(repr=False)
class VaultDouble:
    """root: 32 octets. check_token: of (insurer, token, name), raises BadTokenError.

    calls: every round trip, also those that failed. opened: deliveries whose content key was released, in order;
    fetched: (name, form) of the documents that were given out.
    """

    keys: Mapping[IK, Keys]
    root: bytes = field(default_factory=lambda: os.urandom(32))
    check_token: Callable[[IK, str, str], None] = any_token
    calls: list[Call] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    fetched: list[tuple[str, str]] = field(default_factory=list)
    mail_errors: dict[int, Error] = field(default_factory=dict)
    _failures: dict[str, _Failure] = field(default_factory=dict)
    _erased: dict[bytes, int] = field(default_factory=dict)
    _gone: set[bytes] = field(default_factory=set)

    # --- switches ---

    def fail(self, method: str, error: Error | None = None, *, after: bool = False, times: int | None = None) -> None:
        """Make a method raise, or "*" every one, before its effect or after it, so many times or until `recover`."""
        self._failures[method] = _Failure(error or VaultUnavailableError("switched off by the test"), after, times)

    def recover(self) -> None:
        """Work again."""
        self._failures.clear()

    def erase(self, ik: IK, person: bytes) -> None:
        """The person's key is destroyed; the next time it is a stranger."""
        self._gone.add(self._subject(ik, person))
        name = ik.value.encode() + person
        self._erased[name] = self._erased.get(name, 0) + 1

    def trips(self, method: str) -> list[int]:
        """How many things each round trip of this method asked for."""
        return [call.items for call in self.calls if call.method == method]

    # --- contracts.Vault ---

    def certificates(self, ik: IK) -> tuple[bytes, ...]:
        self._begin("certificates", ik, 0)
        return self._end("certificates", tuple(der for der, _ in self._of(ik).encryption))

    def open_mails(self, ik: IK, mails: Sequence[SealedMail]) -> Sequence[bytes | Error]:
        self._begin("open_mails", ik, len(mails))
        found = [self._open(ik, mail) for mail in mails]
        self.opened += [mail.delivery for mail, key in zip(mails, found, strict=True) if isinstance(key, bytes)]
        return self._end("open_mails", found)

    def pseudonyms(self, ik: IK, named: Sequence[Named]) -> Sequence[Pseudonyms]:
        self._begin("pseudonyms", ik, len(named))
        return self._end("pseudonyms", [self._pseudonyms(ik, one) for one in named])

    def file(self, ik: IK, documents: Sequence[Document]) -> Sequence[bytes]:
        self._begin("file", ik, len(documents))
        for document in documents:
            if document.subject in self._gone:
                raise ErasedError("the person's key was destroyed")
        return self._end(
            "file", [self._seal(ik, one.subject, _context(one.name, one.form), one.plaintext) for one in documents]
        )

    def fetch(self, ik: IK, token: str, name: str, form: str, container: bytes) -> bytes:
        self._begin("fetch", ik, 1)
        self.check_token(ik, token, name)
        content = self._unseal(ik, _context(name, form), container)
        self.fetched.append((name, form))
        return self._end("fetch", content)

    def seal_letter(self, ik: IK, name: str, draft: bytes) -> bytes:
        self._begin("seal_letter", ik, 1)
        return self._end("seal_letter", self._seal(ik, bytes(16), _context(name, "draft"), draft))

    def open_letter(self, ik: IK, name: str, container: bytes) -> bytes:
        self._begin("open_letter", ik, 1)
        return self._end("open_letter", self._unseal(ik, _context(name, "draft"), container))

    def signer(self, ik: IK) -> Signer:
        self._begin("signer", ik, 0)
        pair = self._of(ik).signature
        if pair is None:
            raise KeyMissingError("the insurer has no signature key")
        return self._end("signer", _CountedSigner(self, ik, key_signer(*pair)))

    # --- inside ---

    def _of(self, ik: IK) -> Keys:
        if ik not in self.keys:
            raise KeyMissingError(f"no keys are there for the insurer {ik}")
        return self.keys[ik]

    def _open(self, ik: IK, mail: SealedMail) -> bytes | Error:
        if mail.delivery in self.mail_errors:
            return self.mail_errors[mail.delivery]
        for der, key in self._of(ik).encryption:
            if issuer_and_serial(x509.load_der_x509_certificate(der)) == mail.wrapped.recipient:
                try:
                    return unwrap_with(key, mail.wrapped)
                except _ITEM_ERRORS as error:
                    return error
        return KeyMissingError("no key for that recipient")

    def _pseudonyms(self, ik: IK, named: Named) -> Pseudonyms:
        subject = self._subject(ik, named.person)
        return Pseudonyms(
            subject,
            self._mac(b"content", ik, subject + named.content),
            None if named.practice is None else self._mac(b"practice", ik, named.practice),
        )

    def _subject(self, ik: IK, person: bytes) -> bytes:
        life = self._erased.get(ik.value.encode() + person, 0)
        return self._mac(b"subject", ik, bytes([life]) + person)[:16]

    def _seal(self, ik: IK, subject: bytes, context: bytes, plaintext: bytes) -> bytes:
        head, nonce = MAGIC + subject, os.urandom(12)
        return head + nonce + self._cipher(ik, subject).encrypt(nonce, plaintext, head + context)

    def _unseal(self, ik: IK, context: bytes, container: bytes) -> bytes:
        head, nonce, sealed = container[:24], container[24:36], container[36:]
        if head[8:] in self._gone:
            raise ErasedError("the person's key was destroyed")
        try:
            return self._cipher(ik, head[8:]).decrypt(nonce, sealed, head + context)
        except (InvalidTag, ValueError) as cause:
            raise SealBrokenError("the container does not open under its key and context") from cause

    def _cipher(self, ik: IK, subject: bytes) -> AESGCM:
        return AESGCM(self._mac(b"key", ik, subject))

    def _mac(self, purpose: bytes, ik: IK, value: bytes) -> bytes:
        return hmac.digest(self.root, purpose + ik.value.encode() + value, "sha256")

    def _begin(self, method: str, ik: IK, items: int) -> None:
        self.calls.append(Call(method, ik, items))
        self._break_off(method, after=False)

    def _end(self, method: str, answer: _T) -> _T:
        self._break_off(method, after=True)
        return answer

    def _break_off(self, method: str, *, after: bool) -> None:
        for failure in (self._failures.get(method), self._failures.get("*")):
            if failure is None or failure.after is not after or failure.times == 0:
                continue
            if failure.times is not None:
                failure.times -= 1
            raise failure.error


def _context(name: str, form: str) -> bytes:
    return f"{name}\0{form}".encode()


@dataclass(frozen=True, repr=False)
class _CountedSigner:
    vault: VaultDouble
    ik: IK
    signer: Signer

    @property
    def certificate(self) -> bytes:
        return self.signer.certificate

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        self.vault._begin("sign", self.ik, 1)
        return self.vault._end("sign", self.signer.sign(data))


def vault_of(config: Config, root: bytes | None = None) -> VaultDouble:
    """With the key files of a home. root: as that of another double that this one shall agree with."""
    keys = {
        IK(insurer.ik): Keys([load_pair(*pair) for pair in insurer.encryption], load_pair(*insurer.signature))
        for insurer in config.insurers
    }
    return VaultDouble(keys, root or os.urandom(32))
