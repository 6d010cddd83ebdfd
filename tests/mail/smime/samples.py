"""A development PKI and one valid example of each kind, made once for all S/MIME and KIM tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

from schleuse.kim.pki import INSURER_OID, PRACTICE_OID, Algorithm, DevelopmentCA, Identity, Kind
from schleuse.mail.smime.trust import TrustStore
from schleuse.vault import WrappedKey
from schleuse.vault.private_keys import unwrap_with

NOW = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
INSURER = "eau@kasse.kim.telematik-test"
PRACTICE = "praxis@arzt.kim.telematik-test"


@cache
def ca() -> DevelopmentCA:
    return DevelopmentCA.create(NOW)


def insurer(algorithm: Algorithm = "rsa", kind: Kind = "enc") -> Identity:
    return _institution("Beispielkasse", "8-1234", INSURER_OID, kind, algorithm)


def practice(algorithm: Algorithm = "rsa", kind: Kind = "osig") -> Identity:
    return _institution("Praxis Beispiel", "1-5678", PRACTICE_OID, kind, algorithm)


@cache
def _institution(name: str, telematik_id: str, oid: str, kind: Kind, algorithm: Algorithm) -> Identity:
    return ca().issue_institution(name, telematik_id, oid, now=NOW, kind=kind, algorithm=algorithm)


def trust() -> TrustStore:
    """With a CRL of the day, so that certificates are known to be good."""
    return TrustStore((ca().certificate,), (ca().crl(NOW),))


def unwrap_by(identity: Identity) -> Callable[[WrappedKey], bytes]:
    return lambda wrapped: unwrap_with(identity.key, wrapped)
