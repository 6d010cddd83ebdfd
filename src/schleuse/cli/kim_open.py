"""`schleuse kim open`: decrypt and verify one KIM mail, print what is inside."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cyclopts import Parameter

from schleuse.cli import EXIT_CODES
from schleuse.clock import utc_now
from schleuse.errors import MalformedError, UnavailableError
from schleuse.kim.message import OpenedMail, open_kim_mail
from schleuse.kim.results import DecryptionResult, IntegrityCheckResult
from schleuse.mail.smime.trust import TrustStore
from schleuse.vault import KeyMissingError, WrappedKey
from schleuse.vault.private_keys import PrivateKey, open_private_key, unwrap_with

INTACT, NOT_INTACT, NOT_OPENED = 0, 1, 2

File = Annotated[
    str, Parameter(allow_leading_hyphen=True, help="The mail as fetched from the mailbox; - for standard input")
]
P12 = Annotated[Path | None, Parameter(help="PKCS#12 with encryption certificate and private key")]
PasswordFile = Annotated[
    Path | None, Parameter(help="File with the password of the PKCS#12 or private key in its first line")
]
Key = Annotated[Path | None, Parameter(help="Private key in PEM; with --cert, instead of --p12")]
Cert = Annotated[Path | None, Parameter(help="Encryption certificate in PEM; with --key")]
Trust = Annotated[
    tuple[Path, ...],
    Parameter(
        consume_multiple=True,
        negative="",
        help="PEM files with trust anchors and CRLs; without any the signer's certificate is not checked (result 07)",
    ),
]
Address = Annotated[
    str | None, Parameter(help="KIM address of the mailbox; only its key may open [default: any bound to the key]")
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="The results as one JSON object")]


class NoKeyGivenError(MalformedError):
    """The command line names no key, or two."""

    code = "cli.no-key-given"


class UnreadableFileError(UnavailableError):
    """A file of the command line cannot be read."""

    code = "cli.unreadable-file"


@dataclass(frozen=True, slots=True, repr=False)
class _OwnKey:
    certificate: bytes  # DER
    key: PrivateKey

    def unwrap(self, wrapped: WrappedKey) -> bytes:
        return unwrap_with(self.key, wrapped)


def open_mail(
    file: File,
    /,
    *,
    p12: P12 = None,
    password_file: PasswordFile = None,
    key: Key = None,
    cert: Cert = None,
    trust: Trust = (),
    address: Address = None,
    json_: Json = False,
) -> int:
    """Decrypt and verify one KIM mail: the inner mail goes to stdout, the result codes to stderr.

    Exit code: 0 opened and intact (results 01, 07); 1 opened, not intact; 2 not opened; 69 our own key cannot serve.
    """
    own = _own_key(p12, key, cert, _password(password_file))
    opened = open_kim_mail(
        _read_mail(file),
        address=address,
        certificates=[own.certificate],
        unwrap=own.unwrap,
        trust=TrustStore.from_files(trust) if trust else None,
        now=utc_now(),
    )
    if opened.inner is not None:
        sys.stdout.buffer.write(opened.inner)
        sys.stdout.buffer.flush()
    print(_as_json(opened) if json_ else _as_text(opened), file=sys.stderr)
    return exit_code(opened)


def exit_code(opened: OpenedMail) -> int:
    if opened.decryption is not None and opened.decryption.own_trouble:
        return EXIT_CODES[UnavailableError]
    if opened.decryption is not DecryptionResult.DECRYPTED:
        return NOT_OPENED  # also what is no KIM mail: shown unchanged, and nothing was checked
    return INTACT if opened.intact else NOT_INTACT


def _as_json(opened: OpenedMail) -> str:
    signer = opened.signer
    return json.dumps(
        {
            "version": opened.version,
            "decryption": opened.decryption,
            "integrity": list(opened.integrity),
            "intact": opened.intact,
            "error_codes": list(opened.error_codes),
            "reason": opened.reason,
            "signing_time": opened.signing_time.isoformat() if opened.signing_time else None,
            "telematik_id": signer.telematik_id if signer else None,
            "profession_oids": list(signer.profession_oids) if signer else [],
        }
    )


def _as_text(opened: OpenedMail) -> str:
    lines = []
    if opened.decryption is not None:
        lines.append(f"X-KIM-DecryptionResult: {opened.decryption} ({_words(opened.decryption)})")
    lines += [f"X-KIM-IntegrityCheckResult: {result} ({_words(result)})" for result in opened.integrity]
    lines += [f"X-KIM-Fehlermeldung: {code}" for code in opened.error_codes]
    if opened.signer is not None and opened.signer.telematik_id is not None:
        lines.append(f"Signer: Telematik-ID {opened.signer.telematik_id}")
    if opened.signing_time is not None:
        lines.append(f"Signed: {opened.signing_time.isoformat()}")
    return "\n".join([*lines, f"Reason: {opened.reason}"])


def _words(result: DecryptionResult | IntegrityCheckResult) -> str:
    return result.name.replace("_", " ").lower()


def _read_mail(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    return _read(Path(file))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise UnreadableFileError(f"{path} cannot be read ({cause.strerror})") from cause


def _password(path: Path | None) -> bytes | None:
    return None if path is None else _read(path).split(b"\n")[0].rstrip(b"\r")


def _own_key(p12: Path | None, key: Path | None, cert: Path | None, password: bytes | None) -> _OwnKey:
    if p12 is not None and key is None and cert is None:
        return _from_p12(_read(p12), password)
    if p12 is None and key is not None and cert is not None:
        try:
            certificate = x509.load_pem_x509_certificate(_read(cert))
        except ValueError as cause:
            raise KeyMissingError(f"{cert} is no certificate in PEM") from cause
        return _pair(certificate, open_private_key(_read(key), password))
    raise NoKeyGivenError("give either --p12, or --key together with --cert")


def _from_p12(content: bytes, password: bytes | None) -> _OwnKey:
    try:
        key, certificate, _ = pkcs12.load_key_and_certificates(content, password)
    except ValueError as cause:
        raise KeyMissingError("the PKCS#12 does not open: wrong password (--password-file), or no PKCS#12") from cause
    if certificate is None or not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise KeyMissingError("the PKCS#12 does not hold a certificate together with its RSA or EC key")
    return _pair(certificate, key)


def _pair(certificate: x509.Certificate, key: PrivateKey) -> _OwnKey:
    """A key of another certificate opens nothing, and the sender would be blamed for it (result 02)."""
    if certificate.public_key() != key.public_key():
        raise KeyMissingError("the private key is not that of the certificate; give the one that belongs to it")
    return _OwnKey(certificate.public_bytes(serialization.Encoding.DER), key)
