"""One KIM mail, opened: decrypted, verified, its outer compared with its inner header (kim.md §§ 4, 5, 7, 12).

    D  AuthEnvelopedData, base64, in the mail on the wire      decryption result (kim.md § 12.2)
    C  SignedData, binary, as a MIME entity                    integrity results (kim.md § 12.3)
    B  a Content-Type: message/rfc822 line and an empty line
    A  the client mail                                         OpenedMail.inner

In two steps, because whoever opens mail has no key (decision 0016): `read_envelope` finds the wrapped content key that
is ours, `open_with` takes what became of it. `open_kim_mail` is both, for tools with a key of their own.

Everything in a mail is an expected outcome and comes back as a value. Building is in `building`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_der_x509_certificate

from schleuse.errors import Error, MalformedError, UnavailableError
from schleuse.kim.building import build_kim_mail
from schleuse.kim.results import VERSION_UNSUPPORTED_CODE, DecryptionResult, IntegrityCheckResult
from schleuse.mail.head import Head, parse, split
from schleuse.mail.parts import decode_body
from schleuse.mail.smime.envelope import TI_ECIES, Envelope, EnvelopeFormatError, open_envelope, parse_envelope
from schleuse.mail.smime.judge import Judged, Verdict, judge_signed
from schleuse.mail.smime.recipients import issuer_and_serial, same_pairs, same_recipients
from schleuse.mail.smime.trust import SignerCertificate, TrustStore
from schleuse.vault import WrappedKey
from schleuse.vault.algorithms import is_oaep_sha256
from schleuse.vault.contracts import UnsupportedWrapError, UnwrapFailedError

__all__ = ["OpenedMail", "SealedKIMMail", "build_kim_mail", "open_kim_mail", "open_with", "read_envelope"]

#: kim.md § 1; "1.5+" belongs into the directory, but nothing depends on the sender knowing that.
SUPPORTED_VERSIONS = frozenset({"1.0", "1.5", "1.5+"})
#: Fields that must be the same outside and inside (kim.md § 12.1, step 5). Date is not among them: no result code
#: speaks of it (§ 12.3), and even the official sample spells it differently outside and inside (§ 7.5).
COMPARED_FIELDS = ("from", "sender", "reply-to", "to", "cc")
#: Recipient infos tried: one for each own certificate that an address may have at the same time.
MAX_TRIED = 4
_PKCS7 = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})

_INTEGRITY = {
    Verdict.VALID: IntegrityCheckResult.INTACT,
    Verdict.STATUS_UNKNOWN: IntegrityCheckResult.STATUS_UNKNOWN,
    Verdict.CONTENT_DIFFERS: IntegrityCheckResult.CONTENT_DIFFERS,
    Verdict.NO_SIGNATURE: IntegrityCheckResult.NO_SIGNATURE,
    Verdict.WRONG_FORMAT: IntegrityCheckResult.WRONG_FORMAT,
    Verdict.CERTIFICATE_INVALID: IntegrityCheckResult.CERTIFICATE_INVALID,
}


@dataclass(frozen=True, slots=True, repr=False)
class OpenedMail:
    """What became of one received mail.

    version: X-KOM-LE-Version as found; None: no KIM S/MIME mail, `inner` is the mail unchanged (DSN, error mail).
    decryption: None if it was not tried (no KIM mail, or version not supported, code 4008).
    integrity: empty unless decrypted; first the verdict on the signature, then 08 and 09 if they apply.
    inner: layer A, the client mail; also given when the integrity check failed. None if it could not be reached.
    reason: for logs and error mails, English, without personal data.
    """

    outer: Head
    version: str | None
    decryption: DecryptionResult | None
    integrity: tuple[IntegrityCheckResult, ...]
    inner: bytes | None
    signer: SignerCertificate | None
    signing_time: datetime | None
    reason: str

    @property
    def intact(self) -> bool:
        """Decrypted, and every integrity result counts as success (01 or 07)."""
        return bool(self.integrity) and all(result.success for result in self.integrity)

    @property
    def error_codes(self) -> tuple[str, ...]:
        """Codes for X-KIM-Fehlermeldung (kim.md § 13)."""
        if self.version is not None and self.version not in SUPPORTED_VERSIONS:
            return (VERSION_UNSUPPORTED_CODE,)
        codes = [self.decryption.error_code] if self.decryption is not None else []
        codes += [result.error_code for result in self.integrity]
        return tuple(code for code in codes if code is not None)


@dataclass(frozen=True, slots=True, repr=False)
class SealedKIMMail:
    """A mail that is for us. wrapped: its content key, as one of our certificates can have it opened."""

    outer: Head
    version: str
    envelope: Envelope
    wrapped: WrappedKey


def open_kim_mail(
    raw: bytes,
    *,
    address: str | None,
    certificates: Sequence[bytes],
    unwrap: Callable[[WrappedKey], bytes],
    trust: TrustStore | None,
    now: datetime,
) -> OpenedMail:
    """Decrypt and verify one mail with a key of one's own: `read_envelope` and `open_with`."""
    mail = read_envelope(raw, address=address, certificates=certificates)
    if isinstance(mail, OpenedMail):
        return mail
    key: bytes | Error
    try:
        key = unwrap(mail.wrapped)
    except (MalformedError, UnavailableError) as error:
        key = error
    return open_with(mail, key, trust=trust, now=now)


def read_envelope(raw: bytes, *, address: str | None, certificates: Sequence[bytes]) -> SealedKIMMail | OpenedMail:
    """One mail as fetched from the mailbox up to its wrapped key, or what became of it if no key can help.

    Never raises for what is in the mail (kim.md § 12.1).
    address: of the mailbox; only its own key is used (step 3). None (command line): any that is bound to our keys.
    certificates: DER of our own encryption certificates.
    """
    try:
        block, body = split(raw)
        outer = parse(block)
    except MalformedError as error:
        return _not_decrypted(Head(()), None, DecryptionResult.WRONG_FORMAT, error)
    version = outer.get("X-KOM-LE-Version")
    if version is None:
        return OpenedMail(outer, None, None, (), raw, None, None, "no KIM mail: it has no X-KOM-LE-Version")
    if version not in SUPPORTED_VERSIONS:
        return OpenedMail(outer, version, None, (), None, None, None, "the X-KOM-LE-Version is not supported")
    try:
        envelope = _envelope(outer, body)
        return SealedKIMMail(outer, version, envelope, _choose(envelope, address, certificates))
    except UnsupportedWrapError as error:
        return _not_decrypted(outer, version, DecryptionResult.UNSUPPORTED_KEY_TRANSPORT, error)
    except UnavailableError as error:
        return _not_decrypted(outer, version, DecryptionResult.KONNEKTOR_NOT_AVAILABLE, error)
    except _NoKeyError as error:
        return _not_decrypted(outer, version, DecryptionResult.KEY_NOT_AVAILABLE, error)
    except MalformedError as error:
        return _not_decrypted(outer, version, DecryptionResult.WRONG_FORMAT, error)


def open_with(mail: SealedKIMMail, key: bytes | Error, *, trust: TrustStore | None, now: datetime) -> OpenedMail:
    """Decrypt and verify, with the content key or with the reason why there is none. Never raises.

    Of the reasons only UnwrapFailedError says something about the mail; every other one is our own trouble (HD-01), for
    `read_envelope` chose a key that its certificate can open.
    trust: None leaves the certificate unchecked, result 07.
    """
    outer, version = mail.outer, mail.version
    if isinstance(key, UnsupportedWrapError):
        return _not_decrypted(outer, version, DecryptionResult.UNSUPPORTED_KEY_TRANSPORT, key)
    if isinstance(key, Error) and not isinstance(key, UnwrapFailedError):
        return _not_decrypted(outer, version, DecryptionResult.KONNEKTOR_NOT_AVAILABLE, key)
    try:
        content = open_envelope(mail.envelope, mail.wrapped, lambda _: _key_or_raise(key))
    except MalformedError as error:
        return _not_decrypted(outer, version, DecryptionResult.WRONG_FORMAT, error)
    return _verified(outer, version, mail.envelope, _judge(content, trust, now))


def _key_or_raise(key: bytes | Error) -> bytes:
    if isinstance(key, Error):
        raise key
    return key


class _NoKeyError(MalformedError):
    """The envelope binds none of our certificates to the mailbox's address."""

    code = "kim.no-key"


def _not_decrypted(outer: Head, version: str | None, result: DecryptionResult, error: Error) -> OpenedMail:
    return OpenedMail(outer, version, result, (), None, None, None, str(error))


def _envelope(outer: Head, body: bytes) -> Envelope:
    if outer.content_type()[0] not in _PKCS7:
        raise EnvelopeFormatError("the content type of the KIM mail is not application/pkcs7-mime")
    return parse_envelope(decode_body(body, outer.get("content-transfer-encoding")))


def _choose(envelope: Envelope, address: str | None, certificates: Sequence[bytes]) -> WrappedKey:
    """The key that recipient-emails binds to the address and no other (kim.md § 7.3), of several one we can open.

    Whether we can is told by certificate and algorithm alone, so that no key is asked for in vain.
    """
    if envelope.recipient_emails is None:
        raise EnvelopeFormatError("the envelope has no recipient-emails")
    if not certificates:
        raise UnavailableError("no encryption certificate of our own is configured")
    own = {issuer_and_serial(certificate): certificate for certificate in certificates}
    bound = {pair.recipient for pair in envelope.recipient_emails if address is None or pair.address == address.lower()}
    candidates = [one for one in envelope.recipients if one.recipient in own and one.recipient in bound]
    if not candidates:
        raise _NoKeyError("the envelope binds none of our certificates to this address")
    candidates.sort(key=lambda one: TI_ECIES in one.algorithm)  # what we can open first
    tried = candidates[:MAX_TRIED]
    for one in tried:
        if is_oaep_sha256(one.algorithm) and _has_rsa(own[one.recipient]):
            return one
    # TI ECIES is right and we cannot do it; anything else but RSAES-OAEP is outside the profile (kim.md § 7.2).
    if any(TI_ECIES in one.algorithm for one in tried):
        raise UnsupportedWrapError("the content key is transported by TI ECIES, which is not supported yet")
    raise EnvelopeFormatError("the content key is not transported by RSAES-OAEP with SHA-256 to an RSA key")


@lru_cache(64)
def _has_rsa(certificate: bytes) -> bool:
    return isinstance(load_der_x509_certificate(certificate).public_key(), RSAPublicKey)


def _verified(outer: Head, version: str, envelope: Envelope, judged: Judged) -> OpenedMail:
    inner = _client_mail(judged.content)
    found = [(_INTEGRITY[judged.verdict], judged.reason)]
    if judged.verdict not in {Verdict.NO_SIGNATURE, Verdict.WRONG_FORMAT}:
        found += _comparisons(outer, inner, envelope, judged)
    return OpenedMail(
        outer,
        version,
        DecryptionResult.DECRYPTED,
        tuple(result for result, _ in found),
        inner,
        judged.signer,
        judged.signing_time,
        "; ".join(reason for _, reason in found),
    )


def _comparisons(
    outer: Head, inner: bytes | None, envelope: Envelope, judged: Judged
) -> list[tuple[IntegrityCheckResult, str]]:
    """What differs between outside and inside (kim.md § 12.1, step 5)."""
    found = []
    differing = _differing_fields(outer, inner)
    if differing is None:
        found.append((IntegrityCheckResult.OTHER_FAILURE, "the signed content is no mail"))
    elif differing:
        reason = f"outer and inner header differ in {', '.join(differing)}"
        found.append((IntegrityCheckResult.HEADERS_DIFFER, reason))
    if not _recipients_agree(envelope, judged):
        reason = "recipient-emails of envelope and signature, or the recipients of the envelope, differ"
        found.append((IntegrityCheckResult.RECIPIENT_EMAILS_DIFFER, reason))
    return found


def _judge(content: bytes, trust: TrustStore | None, now: datetime) -> Judged:
    """The verdict on layer C, the decrypted MIME entity. For an unsigned one, content is that entity itself."""
    try:
        block, body = split(content)
        head = parse(block)
        type_, parameters = head.content_type()
        if type_ == "multipart/signed":
            return Judged(Verdict.WRONG_FORMAT, "the mail is clear-signed; KIM signs opaquely", content)
        if type_ not in _PKCS7 or parameters.get("smime-type", "signed-data").lower() != "signed-data":
            return Judged(Verdict.NO_SIGNATURE, "the decrypted content is not signed", content)
        signed = decode_body(body, head.get("content-transfer-encoding"))
    except MalformedError as error:
        return Judged(Verdict.WRONG_FORMAT, str(error))
    return judge_signed(signed, trust, now)


def _client_mail(content: bytes | None) -> bytes | None:
    """Layer A out of layer B; content that lacks the message/rfc822 wrapper is taken for the mail itself."""
    if content is None:
        return None
    try:
        block, body = split(content)
        return body if parse(block).content_type()[0] == "message/rfc822" else content
    except MalformedError:
        return content


def _differing_fields(outer: Head, inner: bytes | None) -> list[str] | None:
    """Names of the fields that differ; None if there is no inner header to compare."""
    try:
        head = parse(split(inner or b"")[0])
        if head.get("from") is None:
            return None
        return [name for name in COMPARED_FIELDS if not _same_addresses(outer, head, name)]
    except MalformedError:
        return None


def _same_addresses(outer: Head, inner: Head, name: str) -> bool:
    """Whether a field has the same addresses in both, however they are folded, ordered or named."""
    if outer.all(name) == inner.all(name):
        return True
    one, other = (sorted(address.lower() for address in head.addresses(name)) for head in (outer, inner))
    # Values that differ and yield no address cannot be shown to be the same.
    return bool(one) and one == other


def _recipients_agree(envelope: Envelope, judged: Judged) -> bool:
    """Envelope, signature and recipient infos name the same recipients (kim.md § 12.1, step 5)."""
    pairs = envelope.recipient_emails or ()
    return (
        judged.recipient_emails is not None
        and same_pairs(pairs, judged.recipient_emails)
        and same_recipients(pairs, (one.recipient for one in envelope.recipients))
    )
