"""Who asks, in his own words: a short token signed with his Ed25519 key (journal.md § 14.2 step 1; decision 0017).

A JWT (RFC 7519, EdDSA of RFC 8037) for one purpose at one insurer, at most five minutes old. It also names the request
(`htm` and `htu` as in RFC 9449), so that whoever sees it can ask for this one thing only.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from schleuse.errors import UnavailableError
from schleuse.identifiers import IK, BadIKError
from schleuse.vault.contracts import BadTokenError

Purpose = Literal["feed", "erase", "opening"]

LIFETIME = timedelta(minutes=2)
LONGEST = timedelta(minutes=5)
LEEWAY = timedelta(seconds=30)
MAX_TOKEN = 4096
_REQUIRED = ("iss", "aud", "iat", "exp", "jti", "ik", "purpose", "htm", "htu")


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
    key: Ed25519PrivateKey, name: str, ik: IK, aud: str, purpose: Purpose, what: tuple[str, str], now: datetime
) -> str:
    """name: of the key's owner, as configured. what: ("GET", "/v1/109…/eau/urn:uuid:…") for the feed."""
    claims = {
        "iss": name,
        "aud": aud,
        "iat": int(now.timestamp()),
        "exp": int((now + LIFETIME).timestamp()),
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
    """keys: by (name, IK); an operator's stands under (name, ""). Raises BadTokenError, which quotes no token."""
    if len(token) > MAX_TOKEN:
        raise BadTokenError(f"a token has at most {MAX_TOKEN} characters")
    try:
        unverified = jwt.decode(token, options={"verify_signature": False})
        name, ik = unverified.get("iss"), unverified.get("ik")
        key = keys.get((str(name), str(ik))) or keys.get((str(name), ""))
        if key is None:
            raise BadTokenError("no key is known for the token's issuer at this insurer; the operator configures it")
        # Times are judged below by our own clock, which tests and the vault share.
        options: Any = {"require": list(_REQUIRED), "verify_exp": False, "verify_iat": False, "verify_nbf": False}
        claims = jwt.decode(token, key, algorithms=["EdDSA"], audience=aud, options=options)
        return _judged(claims, purpose, now)
    except (jwt.PyJWTError, BadIKError, ValueError, TypeError, OverflowError, RecursionError) as cause:
        raise BadTokenError(
            f"expected a JWT signed with EdDSA for {aud} and {purpose}; found another ({type(cause).__name__})"
        ) from cause


def _judged(claims: Mapping[str, Any], purpose: Purpose, now: datetime) -> Claims:
    issued, expires = int(claims["iat"]), int(claims["exp"])
    leeway, at = LEEWAY.total_seconds(), now.timestamp()
    if not issued - leeway <= at <= expires + leeway or expires - issued > LONGEST.total_seconds():
        raise BadTokenError("the token is not valid now, or for longer than five minutes; make a new one, check clocks")
    if claims["purpose"] != purpose:
        raise BadTokenError(f"the token is not for {purpose}")
    return Claims(
        str(claims["iss"]),
        IK(str(claims["ik"])),
        purpose,
        str(claims["jti"]),
        (str(claims["htm"]), str(claims["htu"])),
        datetime.fromtimestamp(expires, now.tzinfo),
    )


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Raises TokenKeyError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as cause:
        raise TokenKeyError(f"{path.name} cannot be read as a public key in PEM") from cause
    if not isinstance(key, Ed25519PublicKey):
        raise TokenKeyError(f"{path.name} is no Ed25519 key")
    return key


def read_token_key(path: Path) -> Ed25519PrivateKey:
    """The asker's own key. Raises TokenKeyError."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as cause:
        raise TokenKeyError(f"{path.name} cannot be read as a private key in PEM") from cause
    if not isinstance(key, Ed25519PrivateKey):
        raise TokenKeyError(f"{path.name} is no Ed25519 key")
    return key
