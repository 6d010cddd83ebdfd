"""Who asks, in his own words: a short token signed with the asker's Ed25519 key (journal.md § 14.2, decision 0017).

A JWT (RFC 7519, EdDSA of RFC 8037) for one insurer, one purpose and one thing, at most five minutes old. The thing of
an insurer's system is a request, named by `htm` and `htu` as in DPoP (RFC 9449 § 4.2), so that whoever sees the token
can ask for this one document only. The thing of an operator's order is its act and the digest of its object.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from schleuse.errors import UnavailableError
from schleuse.identifiers import IK, BadIKError
from schleuse.vault.contracts import BadTokenError

#: "feed": an insurer's system reads. The others are orders of operators.
Purpose = Literal["feed", "erase", "opening", "import", "rotate", "override"]

LIFETIME = timedelta(minutes=2)  #: of the tokens that we make
LONGEST = timedelta(minutes=5)  #: of those that we take
LEEWAY = timedelta(seconds=30)  #: between the clocks of maker and verifier
MAX_TOKEN = 4096
_ID = re.compile(r"[A-Za-z0-9_.~-]{1,64}")  #: of a token: journals and logs name it
_TEXTS = ("iss", "aud", "jti", "ik", "purpose", "htm", "htu")
_OPTIONS: Any = {
    "require": [*_TEXTS, "iat", "exp"],
    "strict_aud": True,
    # Times are judged below, by the clock that the caller gives.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


END_OVERRIDE = "END-OVERRIDE"  #: the act of ending one, whose object is the role


def override_order(role: str, releases: int, hours: int, reason: str) -> tuple[str, str]:
    """What both persons sign who allow more than a budget for a while (§ 14.4)."""
    return "OVERRIDE", sha256(f"{role}\n{releases}\n{hours}\n{reason}".encode()).hexdigest()


class TokenKeyError(UnavailableError):
    """The file of a token key cannot be read as Ed25519 in PEM; its owner replaces it."""

    code = "vault.token-key"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says, verified. what: method and path of a request, or the act and the digest of its object."""

    name: str
    ik: IK
    purpose: str
    id: str
    what: tuple[str, str]
    expires: datetime


def audience(hostname: str) -> str:
    """The platform that a token is for."""
    return f"schleuse:{hostname}"


def make_token(
    key: Ed25519PrivateKey,
    name: str,
    ik: IK,
    aud: str,
    purpose: Purpose,
    what: tuple[str, str],
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> str:
    """name: of the key's owner, as configured. lifetime: at most LONGEST.

    what: for the feed, method and path ("GET", "/v1/109…/eau/urn:uuid:…"), without query, percent-decoded.
    """
    claims = {
        "iss": name,
        "aud": aud,
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
        "jti": secrets.token_urlsafe(12),
        "ik": ik.value,
        "purpose": purpose,
        "htm": what[0],
        "htu": what[1],
    }
    return jwt.encode(claims, key, algorithm="EdDSA")


def verify_token(
    token: str, keys: Mapping[tuple[str, str], Ed25519PublicKey], *, aud: str, purpose: Purpose, now: datetime
) -> Claims:
    """keys: of insurers' systems by (name, IK), of operators by (name, ""). Raises BadTokenError, which quotes nothing.

    The caller compares `what` with what is asked of it.
    """
    if len(token) > MAX_TOKEN:
        raise BadTokenError(f"a token has at most {MAX_TOKEN} characters")
    try:
        unverified = jwt.decode(token, options={"verify_signature": False})
        # A system may only read, and only at its insurer; an operator may only order.
        key = keys.get((str(unverified.get("iss")), str(unverified.get("ik")) if purpose == "feed" else ""))
        if key is None:
            raise BadTokenError(f"no key for {purpose} is configured for this token's issuer at its insurer")
        claims = jwt.decode(token, key, algorithms=["EdDSA"], audience=aud, options=_OPTIONS)
        return _judged(claims, purpose, now)
    except (jwt.PyJWTError, BadIKError, ValueError, RecursionError) as cause:
        found = type(cause).__name__
        raise BadTokenError(f"expected a JWT signed with EdDSA for {aud} and {purpose}; found: {found}") from cause


def _judged(claims: Mapping[str, Any], purpose: Purpose, now: datetime) -> Claims:
    issued, expires = claims["iat"], claims["exp"]
    if not all(isinstance(claims[name], str) and claims[name] for name in _TEXTS):
        raise BadTokenError(f"the claims {', '.join(_TEXTS)} of a token are texts")
    if not _ID.fullmatch(claims["jti"]):
        raise BadTokenError("jti of a token is 1 to 64 letters, digits and -._~")
    if not (type(issued) is int and type(expires) is int):
        raise BadTokenError("iat and exp of a token are whole seconds since 1970")
    leeway = int(LEEWAY.total_seconds())
    if not 0 < expires - issued <= LONGEST.total_seconds():
        raise BadTokenError("a token expires after it was issued, by at most five minutes")
    if not issued - leeway <= now.timestamp() < expires + leeway:
        raise BadTokenError("the token is not valid now; make a new one, and compare the clocks")
    if claims["purpose"] != purpose:
        raise BadTokenError(f"the token is not for {purpose}")
    ik, what = IK(claims["ik"]), (claims["htm"], claims["htu"])
    if purpose == "feed" and not what[1].startswith(f"/v1/{ik}/"):
        raise BadTokenError("the path of a token (htu) is not one of its insurer (ik)")
    return Claims(claims["iss"], ik, purpose, claims["jti"], what, datetime.fromtimestamp(expires, UTC))


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Raises TokenKeyError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as cause:
        raise TokenKeyError(f"{path.name} cannot be read as a public key in PEM") from cause
    if not isinstance(key, Ed25519PublicKey):
        raise TokenKeyError(f"{path.name} is no Ed25519 key")
    return key


def read_token_key(path: Path) -> Ed25519PrivateKey:
    """The asker's own key. Raises TokenKeyError."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as cause:
        raise TokenKeyError(f"{path.name} cannot be read as a private key in PEM without a passphrase") from cause
    if not isinstance(key, Ed25519PrivateKey):
        raise TokenKeyError(f"{path.name} is no Ed25519 key")
    return key
