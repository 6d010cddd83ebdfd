"""Signed hold receipts: the document, its signature, and how anybody checks it offline (incident.md § 6.4).

A receipt is a JWS in compact form (RFC 7515, EdDSA of RFC 8037), type `hold-receipt+jwt`, with `kid` = thumbprint of
the platform's key (RFC 7638). Its payload is the document that the status address shows beside it. What else is signed
with this key is another `Form`, and checked in the same way.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schleuse.errors import MalformedError, RefusedError
from schleuse.holding.receipt import Entry

MAX_FILE = 1 << 20  #: octets of a file that is checked


class Form(NamedTuple):
    """What is signed: the type of the JWS, so that none is taken for another (RFC 8725 § 3.11), and the name of the
    payload where it is shown in JSON beside its signature."""

    type: str
    part: str


RECEIPT = Form("hold-receipt+jwt", "receipt")


class BadReceiptError(MalformedError):
    """The file is not what it is taken for; whoever has it fetches it again, or asks the platform for it again."""

    code = "receipt.bad"


class ReceiptSignatureError(RefusedError):
    """The file was not signed with one of these keys, or was changed; it proves nothing."""

    code = "receipt.signature"


def document(
    entries: Sequence[tuple[str, Entry]], *, issuer: str, id: str, now: datetime, status: str, contact: str
) -> dict[str, Any]:
    """The payload of a receipt. entries: (reference, what is said of one delivery). status: address of the receipt."""
    return {
        "iss": issuer,
        "jti": id,
        "iat": int(now.timestamp()),
        "status": status,
        "contact": contact,
        "messages": [_shown(reference, one) for reference, one in entries],
    }


def sign(payload: Mapping[str, Any], key: Ed25519PrivateKey, form: Form = RECEIPT) -> str:
    """The same payload gives the same text."""
    headers = {"typ": form.type, "kid": thumbprint(key.public_key())}
    return jwt.encode(dict(payload), key, algorithm="EdDSA", headers=headers, sort_headers=True)


def verify(token: str, keys: Sequence[Ed25519PublicKey], form: Form = RECEIPT) -> dict[str, Any]:
    """The payload. Raises BadReceiptError, ReceiptSignatureError."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as cause:
        raise BadReceiptError("expected a JWS in compact form") from cause
    if header.get("typ") != form.type:
        raise BadReceiptError(f"expected a JWS of type {form.type}")
    key = next((one for one in keys if thumbprint(one) == header.get("kid")), None)
    if key is None:
        raise ReceiptSignatureError(f"the {form.part} names a key that is none of these")
    try:
        # No time is judged: it says what was true when it was made, for ever.
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}
        return dict(jwt.decode(token, key, algorithms=["EdDSA"], options=options))
    except jwt.PyJWTError as cause:
        raise ReceiptSignatureError(f"the signature does not match ({type(cause).__name__})") from cause


def read_payload(token: str) -> dict[str, Any]:
    """The payload of a receipt that we have signed ourselves. Raises BadReceiptError."""
    try:
        return dict(jwt.decode(token, options={"verify_signature": False}))
    except jwt.PyJWTError as cause:
        raise BadReceiptError("expected a JWS in compact form") from cause


def read_file(data: bytes, form: Form = RECEIPT) -> tuple[str, Mapping[str, Any] | None]:
    """As it was fetched: JSON with payload and signature, or the JWS alone. Raises BadReceiptError."""
    if len(data) > MAX_FILE:
        raise BadReceiptError(f"a {form.part} has at most {MAX_FILE} octets")
    try:
        text = data.decode().strip()
        if not text.startswith("{"):
            return text, None
        value = json.loads(text)
        token, shown = value["signature"], value[form.part]
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise BadReceiptError(f'expected JSON with "{form.part}" and "signature", or a JWS') from cause
    if not isinstance(token, str) or not isinstance(shown, dict):
        raise BadReceiptError(f'"signature" is a text and "{form.part}" an object')
    return token, shown


def check_file(data: bytes, keys: Sequence[Ed25519PublicKey], form: Form = RECEIPT) -> dict[str, Any]:
    """What was signed. Raises BadReceiptError, ReceiptSignatureError, also when it is not what the file shows."""
    token, shown = read_file(data, form)
    payload = verify(token, keys, form)
    if shown is not None and shown != payload:
        raise ReceiptSignatureError("what the file shows is not what was signed")
    return payload


def jwks(keys: Sequence[Ed25519PublicKey]) -> dict[str, Any]:
    """RFC 7517 § 5."""
    return {"keys": [{**_jwk(key), "alg": "EdDSA", "use": "sig", "kid": thumbprint(key)} for key in keys]}


def keys_of(data: bytes) -> list[Ed25519PublicKey]:
    """The Ed25519 keys of a JWKS. Raises BadReceiptError."""
    try:
        found = [one["x"] for one in json.loads(data)["keys"] if (one["kty"], one["crv"]) == ("OKP", "Ed25519")]
        return [Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4))) for x in found]
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise BadReceiptError("expected a JWKS (RFC 7517) with Ed25519 keys") from cause


def thumbprint(key: Ed25519PublicKey) -> str:
    """RFC 7638 § 3: SHA-256 of the required members in order, base64url."""
    canonical = json.dumps(_jwk(key), sort_keys=True, separators=(",", ":")).encode()
    return _base64url(hashlib.sha256(canonical).digest())


def _jwk(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _shown(reference: str, one: Entry) -> dict[str, Any]:
    case, hold = one.case, one.case.hold
    return {
        "reference": reference,
        "service": case.service.value,
        "insurer": case.insurer or None,
        "accepted_at": _time(case.accepted_at),
        "accepted_at_counts_as_receipt": bool(case.insurer),
        "state": case.state.value,
        "held": one.is_held,
        "reason_class": hold.reason if hold else None,
        "held_since": _time(hold.since) if hold else None,
        "do_not_resend": one.do_not_resend,
        "action_needed": {"what": one.action.value, "by": _time(one.action_by)},
        "next_information_by": _time(one.next_information_by),
        "outside_deadlines": [
            {"what": each.what, "until": _time(each.until), "for": each.whom, "unless": each.unless}
            for each in one.deadlines
        ],
    }


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else None
