"""Tokens: only who holds the key, for this platform, insurer, purpose and thing, and only now (journal.md § 14.2)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from schleuse.identifiers import IK
from schleuse.vault.contracts import BadTokenError
from schleuse.vault.tokens import (
    LIFETIME,
    MAX_TOKEN,
    Claims,
    Purpose,
    TokenKeyError,
    audience,
    make_token,
    read_public_key,
    read_token_key,
    verify_token,
)

NOON = datetime(2026, 2, 2, 12, tzinfo=UTC)
AN_INSURER, ANOTHER_INSURER = IK("109500969"), IK("104212059")
HERE = audience("schleuse.example")
A_DOCUMENT = "GET", f"/v1/{AN_INSURER}/eau/urn:uuid:1"
KEY, OPERATOR_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEYS: Mapping[tuple[str, str], Ed25519PublicKey] = {
    ("benefits", AN_INSURER.value): KEY.public_key(),
    ("lead", ""): OPERATOR_KEY.public_key(),
}


def verify(token: str, purpose: Purpose = "feed", now: datetime = NOON) -> Claims:
    return verify_token(token, KEYS, aud=HERE, purpose=purpose, now=now)


def signed(key: Any = KEY, algorithm: str = "EdDSA", /, **changes: Any) -> str:
    """A valid token but for these claims; None: the claim is missing."""
    claims = {
        "iss": "benefits",
        "aud": HERE,
        "iat": int(NOON.timestamp()),
        "exp": int(NOON.timestamp()) + 300,
        "jti": "x",
        "ik": AN_INSURER.value,
        "purpose": "feed",
        "htm": A_DOCUMENT[0],
        "htu": A_DOCUMENT[1],
    } | changes
    payload = json.dumps({name: value for name, value in claims.items() if value is not None}).encode()
    return jwt.PyJWS().encode(payload, key, algorithm)


def test_a_token_says_who_asks_for_what_at_which_insurer() -> None:
    claims = verify(make_token(KEY, "benefits", AN_INSURER, HERE, "feed", A_DOCUMENT, NOON))
    assert (claims.name, claims.ik, claims.purpose, claims.what) == ("benefits", AN_INSURER, "feed", A_DOCUMENT)
    assert claims.expires == NOON + LIFETIME
    assert verify(signed()).id == "x"


def test_an_order_of_an_operator_names_its_act_and_the_digest_of_its_object() -> None:
    order = ("ERASE", "00" * 32)
    token = make_token(OPERATOR_KEY, "lead", ANOTHER_INSURER, HERE, "erase", order, NOON)
    assert verify(token, "erase").what == order


def test_two_tokens_for_the_same_thing_are_two() -> None:
    one, two = (make_token(KEY, "benefits", AN_INSURER, HERE, "feed", A_DOCUMENT, NOON) for _ in range(2))
    assert verify(one).id != verify(two).id


@pytest.mark.parametrize("claim", ["iss", "aud", "iat", "exp", "jti", "ik", "purpose", "htm", "htu"])
def test_every_claim_is_needed(claim: str) -> None:
    with pytest.raises(BadTokenError):
        verify(signed(KEY, "EdDSA", **dict.fromkeys([claim])))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "unknown"},
        {"iss": ["benefits"]},
        {"aud": audience("elsewhere.example")},
        {"aud": [HERE, audience("elsewhere.example")]},
        {"ik": ANOTHER_INSURER.value},
        {"ik": "1"},
        {"ik": ""},
        {"purpose": "erase"},
        {"jti": ""},
        {"jti": 7},
        {"jti": "\ud800"},
        {"jti": "a\nb"},
        {"jti": "x" * 65},
        {"htm": 7},
        {"htu": f"/v1/{ANOTHER_INSURER}/eau"},
        {"iat": str(int(NOON.timestamp()))},
        {"iat": True},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": 10**30},
        {"exp": {}},
    ],
)
def test_a_token_for_something_else_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(BadTokenError):
        verify(signed(**changes))


@pytest.mark.parametrize(
    ("at", "good"),
    [
        (timedelta(seconds=-31), False),
        (timedelta(seconds=-30), True),
        (timedelta(0), True),
        (timedelta(seconds=329), True),
        (timedelta(seconds=330), False),
        (timedelta(days=1), False),
    ],
)
def test_a_token_is_good_for_its_minutes_and_half_a_minute_of_clocks_that_differ(at: timedelta, good: bool) -> None:
    token = signed()
    if good:
        assert verify(token, now=NOON + at).name == "benefits"
        return
    with pytest.raises(BadTokenError, match="clock"):
        verify(token, now=NOON + at)


@pytest.mark.parametrize("seconds", [301, 10**9, 0, -1])
def test_no_token_lives_longer_than_five_minutes_or_less_than_none(seconds: int) -> None:
    with pytest.raises(BadTokenError, match="five minutes"):
        verify(signed(exp=int(NOON.timestamp()) + seconds))


def test_an_operator_cannot_read_documents_and_a_system_cannot_order() -> None:
    for ik in (AN_INSURER, ANOTHER_INSURER):
        with pytest.raises(BadTokenError, match="no key for feed"):
            verify(make_token(OPERATOR_KEY, "lead", ik, HERE, "feed", ("GET", f"/v1/{ik}/eau"), NOON))
    with pytest.raises(BadTokenError, match="no key for erase"):
        verify(make_token(KEY, "benefits", AN_INSURER, HERE, "erase", ("ERASE", "0"), NOON), "erase")
    with pytest.raises(BadTokenError, match="not for erase"):
        verify(make_token(OPERATOR_KEY, "lead", AN_INSURER, HERE, "opening", ("ERASE", "0"), NOON), "erase")


def test_a_signature_of_another_key_or_algorithm_or_of_none_is_refused() -> None:
    public = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for token in (
        signed(OPERATOR_KEY),
        signed(public, "HS256"),  # the public key taken for a shared secret (RFC 8725 § 2.1)
        signed(ec.generate_private_key(ec.SECP256R1()), "ES256"),
        signed("", "none"),
    ):
        with pytest.raises(BadTokenError):
            verify(token)


def test_a_claim_changed_after_signing_is_noticed() -> None:
    header, body, signature = signed().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["htu"] = f"/v1/{AN_INSURER}/eau/urn:uuid:2"
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(BadTokenError, match="InvalidSignature"):
        verify(f"{header}.{changed}.{signature}")


@given(st.text(max_size=60) | st.lists(st.binary(max_size=40).map(base64.urlsafe_b64encode), max_size=4).map(
    lambda parts: b".".join(parts).decode()
))  # fmt: skip
def test_whatever_is_no_token_is_told_so_without_quoting_it(text: str) -> None:
    with pytest.raises(BadTokenError) as caught:
        verify(text)
    assert len(text) < 12 or text not in str(caught.value)


def test_deep_or_long_nonsense_is_refused_and_not_quoted() -> None:
    deep = base64.urlsafe_b64encode(b"[" * 2900).rstrip(b"=").decode()
    for text in (f"{deep}.e30.e30", "x" * (MAX_TOKEN + 1), signed(jti="secret" * 2000)):
        with pytest.raises(BadTokenError) as caught:
            verify(text)
        assert len(str(caught.value)) < 200


# --- key files ---


def test_keys_are_read_from_pem(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "pub").write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    token = make_token(read_token_key(tmp_path / "key"), "n", AN_INSURER, HERE, "feed", A_DOCUMENT, NOON)
    keys = {("n", AN_INSURER.value): read_public_key(tmp_path / "pub")}
    assert verify_token(token, keys, aud=HERE, purpose="feed", now=NOON).name == "n"


def test_a_file_that_is_missing_or_no_ed25519_key_is_said_by_name(tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    (tmp_path / "rsa").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "rsa.pub").write_bytes(public)
    (tmp_path / "text").write_text("nothing")
    for name in ("missing", "text", "rsa", "rsa.pub"):
        for read in (read_public_key, read_token_key):
            with pytest.raises(TokenKeyError, match=name.replace(".", r"\.")):
                read(tmp_path / name)
