"""One KIM mail, opened and built (kim.md §§ 4, 5, 7, 12).

Work in progress: the signatures are settled, the bodies follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from schleuse.kim.results import DecryptionResult, IntegrityCheckResult
from schleuse.mail.head import Head
from schleuse.mail.smime.trust import SignerCertificate, TrustStore
from schleuse.vault import Signer, WrappedKey


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
        raise NotImplementedError


def open_kim_mail(
    raw: bytes,
    *,
    address: str | None,
    certificates: Sequence[bytes],
    unwrap: Callable[[WrappedKey], bytes],
    trust: TrustStore | None,
    now: datetime,
) -> OpenedMail:
    """Decrypt and verify one mail as fetched from the mailbox (kim.md § 12.1). Never raises for what is in the mail.

    address: of the mailbox; only its own key is used (step 3). None (command line): any address bound to our certificates.
    certificates: DER of our own encryption certificates. unwrap: such as `lambda w: vault.unwrap(ik, w)`.
    trust: None leaves the certificate unchecked, result 07.
    """
    raise NotImplementedError


def build_kim_mail(
    inner: bytes,
    *,
    signer: Signer,
    recipients: Sequence[tuple[str, bytes]],
    sender: tuple[str, bytes],
    date: datetime,
    message_id: str | None = None,
    cm_version: str | None = None,
) -> bytes:
    """The mail on the wire (layer D) around a client mail (layer A), signed and encrypted.

    recipients, sender: (KIM address, DER of the encryption certificate); the sender gets a key too (kim.md § 7.2).
    date: signing time, and the Date of an inner mail without one. message_id: for an inner mail without one.
    Raises MalformedError (inner mail unusable), UnsupportedWrapError (EC certificate), KeyMissingError (signer).
    """
    raise NotImplementedError
