"""A development PKI: a CA, institution certificates like those of an SMC-B, and TLS server certificates.

Never for production: there the certificates come from the card issuers of the Telematikinfrastruktur. Who uses
it: `schleuse init`, `up --demo`, the practice simulator and the tests. Time is an argument; key material comes from the
operating system.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, assert_never

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from schleuse.errors import MalformedError, UnavailableError
from schleuse.vault import Signer
from schleuse.vault.private_keys import key_signer, open_private_key

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Algorithm = Literal["rsa", "p256", "brainpool"]
#: Certificate of a card: encryption (C.HCI.ENC), institution signature (C.HCI.OSIG), qualified signature (C.HP.QES).
Kind = Literal["enc", "osig", "qes"]

#: Profession OIDs: Betriebsstätte Kostenträger is confirmed (kim.md § 2), the practice's is the neighbouring arc.
INSURER_OID = "1.2.276.0.76.4.59"
PRACTICE_OID = "1.2.276.0.76.4.50"
_PROFESSION_ITEM = {INSURER_OID: "Betriebsstätte Kostenträger", PRACTICE_OID: "Betriebsstätte Arzt"}

DEFAULT_VALIDITY = timedelta(days=5 * 365)
#: Certificates start a little earlier than now, for hosts whose clocks are behind.
BACKDATED = timedelta(hours=1)
_PROOF_VALIDITY = timedelta(days=7)


class NoDevelopmentCAError(UnavailableError):
    """The directory holds no development CA; `schleuse init` makes one."""

    code = "kim.no-development-ca"


class BadCertificateRequestError(MalformedError):
    """A certificate was asked for that makes no sense."""

    code = "kim.bad-certificate-request"


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A certificate with its private key and the CA certificate above it."""

    certificate: x509.Certificate
    key: PrivateKey
    issuer: x509.Certificate

    @property
    def certificate_der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """PKCS#8 without password; whoever writes it protects the file."""
        return _key_pem(self.key)

    def signer(self) -> Signer:
        return key_signer(self.certificate_der, self.key)

    def p12(self, password: bytes, name: str = "schleuse") -> bytes:
        """PKCS#12 with certificate, key and issuer, as `kim open --p12` reads it."""
        return pkcs12.serialize_key_and_certificates(
            name.encode(), self.key, self.certificate, [self.issuer], serialization.BestAvailableEncryption(password)
        )

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """(certificate, key) as `name.pem` and `name.key` in PEM, mode 0600."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        write_private(certificate, self.certificate_pem)
        write_private(key, self.key_pem)
        return certificate, key


@dataclass(frozen=True, slots=True, repr=False)
class DevelopmentCA:
    """One self-signed CA that issues everything; revoked: serial number -> time."""

    certificate: x509.Certificate
    key: PrivateKey
    revoked: Mapping[int, datetime] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        now: datetime,
        *,
        name: str = "Schleuse Entwicklungs-CA",
        algorithm: Algorithm = "p256",
        validity: timedelta = DEFAULT_VALIDITY,
    ) -> DevelopmentCA:
        key = new_key(algorithm)
        subject = _name(name, "NOT-VALID Schleuse")
        builder = (
            _builder(subject, subject, key, now, validity)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_key_usage("key_cert_sign", "crl_sign", "digital_signature"), critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, directory: Path) -> DevelopmentCA:
        """The CA that `save` wrote. Raises NoDevelopmentCAError, KeyMissingError."""
        try:
            certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
            key = (directory / "ca.key").read_bytes()
        except (OSError, ValueError) as cause:
            raise NoDevelopmentCAError("the development CA (ca.pem, ca.key) is missing or unreadable") from cause
        return cls(certificate, open_private_key(key))

    def save(self, directory: Path) -> Path:
        """Write ca.pem and ca.key (mode 0600); the path of ca.pem, which is the trust anchor file."""
        write_private(directory / "ca.pem", self.certificate_pem)
        write_private(directory / "ca.key", _key_pem(self.key))
        return directory / "ca.pem"

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue_institution(
        self,
        name: str,
        telematik_id: str,
        profession_oid: str,
        *,
        now: datetime,
        kind: Kind = "enc",
        algorithm: Algorithm = "rsa",
        validity: timedelta = DEFAULT_VALIDITY,
    ) -> Identity:
        """A certificate as on an SMC-B (or HBA for "qes"), with the admission extension (profession, Telematik-ID)."""
        key = new_key(algorithm)
        builder = (
            self._leaf(_name(name, name), key, now, validity)
            .add_extension(_usage_of(kind, algorithm), critical=True)
            .add_extension(_admission(profession_oid, telematik_id), critical=False)
        )
        return self._sign(builder, key)

    def issue_tls(
        self,
        hosts: Sequence[str],
        *,
        now: datetime,
        validity: timedelta = timedelta(days=825),
        algorithm: Algorithm = "p256",
    ) -> Identity:
        """A TLS server certificate for host names and IP addresses."""
        if not hosts:
            raise BadCertificateRequestError("a TLS certificate needs at least one host name or address")
        key = new_key(algorithm)
        builder = (
            self._leaf(_name(hosts[0], "Schleuse"), key, now, validity)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return self._sign(builder, key)

    def issue_tls_client(
        self, name: str, *, now: datetime, validity: timedelta = timedelta(days=825), algorithm: Algorithm = "p256"
    ) -> Identity:
        """A TLS client certificate, such as an insurer's for the feed."""
        key = new_key(algorithm)
        builder = (
            self._leaf(_name(name, name), key, now, validity)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        return self._sign(builder, key)

    def revoke(self, certificate: x509.Certificate, at: datetime) -> DevelopmentCA:
        """The same CA, knowing that this certificate is revoked from then on."""
        return DevelopmentCA(self.certificate, self.key, {**self.revoked, certificate.serial_number: at})

    def crl(self, now: datetime, validity: timedelta = _PROOF_VALIDITY) -> x509.CertificateRevocationList:
        """The revocation list of this moment (RFC 5280 § 5)."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(now + validity)
        )
        for serial, at in self.revoked.items():
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256())

    def ocsp(self, certificate: x509.Certificate, now: datetime, validity: timedelta = _PROOF_VALIDITY) -> bytes:
        """DER of an OCSPResponse about one of our certificates (RFC 6960 § 4.2.1), signed by the CA itself."""
        revoked_at = self.revoked.get(certificate.serial_number)
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate,
            issuer=self.certificate,
            algorithm=hashes.SHA1(),  # noqa: S303 -- names the issuer, protects nothing (RFC 6960 § 4.3)
            cert_status=ocsp.OCSPCertStatus.GOOD if revoked_at is None else ocsp.OCSPCertStatus.REVOKED,
            this_update=now,
            next_update=now + validity,
            revocation_time=revoked_at,
            revocation_reason=None,
        )
        response = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate).sign(
            self.key, hashes.SHA256()
        )
        return response.public_bytes(serialization.Encoding.DER)

    def _leaf(self, subject: x509.Name, key: PrivateKey, now: datetime, validity: timedelta) -> x509.CertificateBuilder:
        return (
            _builder(subject, self.certificate.subject, key, now, validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(self.key)), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder, key: PrivateKey) -> Identity:
        return Identity(builder.sign(self.key, hashes.SHA256()), key, self.certificate)


def new_key(algorithm: Algorithm) -> PrivateKey:
    """A fresh private key: RSA-2048, P-256 or brainpoolP256r1 (kim.md § 7)."""
    match algorithm:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "brainpool":
            return ec.generate_private_key(ec.BrainpoolP256R1())
        case _:
            assert_never(algorithm)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, replacing an older one whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, now: datetime, validity: timedelta
) -> x509.CertificateBuilder:
    public = _public(key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _public(key: PrivateKey) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    return key.public_key()


def _name(common_name: str, organization: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage_of(kind: Kind, algorithm: Algorithm) -> x509.KeyUsage:
    match kind:
        case "enc":
            return _key_usage("key_encipherment" if algorithm == "rsa" else "key_agreement")
        case "osig":
            return _key_usage("digital_signature")
        case "qes":
            return _key_usage("content_commitment")
        case _:
            assert_never(kind)


def _key_usage(*wanted: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in wanted for name in names})


def _admission(profession_oid: str, telematik_id: str) -> x509.Admissions:
    profession = x509.ProfessionInfo(
        naming_authority=None,
        profession_items=[_PROFESSION_ITEM.get(profession_oid, "Institution")],
        profession_oids=[x509.ObjectIdentifier(profession_oid)],
        registration_number=telematik_id,
        add_profession_info=None,
    )
    return x509.Admissions(None, [x509.Admission(None, None, [profession])])


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
