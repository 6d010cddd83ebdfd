"""A receipt that anybody checks offline, and its form as a text and as a mail (§ 6.4, HD-30)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.holding.test_receipt import AT, EAU, LETTER, NOW

from schleuse.errors import MalformedError, RefusedError
from schleuse.holding.receipt import Case, entry
from schleuse.holding.states import State
from schleuse.kim.receipt_mail import receipt_mail
from schleuse.kim.receipt_text import receipt_text
from schleuse.kim.receipts import (
    BadReceiptError,
    ReceiptSignatureError,
    check_file,
    document,
    jwks,
    keys_of,
    read_payload,
    sign,
    thumbprint,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
REFERENCE = "ab" * 32
NEWS_BY = AT + timedelta(hours=5)
PRACTICE = "praxis@a.kim.telematik-test"


def with_news(case: Case) -> Case:
    """What somebody has promised of whatever is held."""
    return replace(case, hold=replace(case.hold, news_by=NEWS_BY)) if case.hold else case


def a_document(*cases: Any) -> dict[str, Any]:
    entries = [(REFERENCE, entry(with_news(case))) for case in cases or (EAU,)]
    return document(
        entries, issuer="schleuse:kim.test", id="r1", now=NOW, status=f"https://kim.test/{REFERENCE}", contact="0800"
    )


def a_file(payload: dict[str, Any], token: str | None = None) -> bytes:
    return json.dumps({"receipt": payload, "signature": token or sign(payload, KEY)}).encode()


def test_a_receipt_has_every_field_that_a_sender_must_see() -> None:
    payload = a_document()
    (message,) = payload["messages"]
    assert (payload["jti"], payload["iat"], payload["contact"]) == ("r1", int(NOW.timestamp()), "0800")
    assert payload["status"].endswith(REFERENCE)
    assert message == {
        "reference": REFERENCE,
        "service": "eau_intake",
        "insurer": "109900011",
        "accepted_at": "2026-11-25T09:00:00Z",
        "accepted_at_counts_as_receipt": True,
        "state": "HELD",
        "held": True,
        "reason_class": "security_hold",
        "held_since": "2026-11-25T10:00:00Z",
        "do_not_resend": True,
        "action_needed": {"what": "none", "by": None},
        "next_information_by": "2026-11-25T14:00:00Z",
        "outside_deadlines": [
            {
                "what": "paper_copy_for_the_insurer",
                "until": "2026-11-26T22:59:59Z",
                "for": "practice",
                "unless": "a DSN says that it was delivered",
            }
        ],
    }


def test_a_receipt_is_checked_without_asking_anybody() -> None:
    payload = a_document()
    keys = keys_of(json.dumps(jwks([OTHER.public_key(), KEY.public_key()])).encode())
    assert check_file(a_file(payload), keys) == payload
    assert check_file(sign(payload, KEY).encode(), keys) == payload


def test_what_is_shown_must_be_what_was_signed() -> None:
    payload = a_document()
    changed = json.loads(json.dumps(payload))
    changed["messages"][0]["accepted_at"] = "2026-11-24T09:00:00Z"
    with pytest.raises(ReceiptSignatureError, match="not what was signed"):
        check_file(a_file(changed, sign(payload, KEY)), [KEY.public_key()])


def test_a_receipt_of_another_platform_proves_nothing() -> None:
    with pytest.raises(ReceiptSignatureError):
        check_file(a_file(a_document()), [OTHER.public_key()])


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_character_of_a_receipt_goes_unnoticed(place: int, change: int) -> None:
    token = sign(a_document(), KEY)
    at = place % len(token)
    changed = token[:at] + chr((ord(token[at]) + change) % 128) + token[at + 1 :]
    if changed == token:
        return
    try:
        payload = verify(changed, [KEY.public_key()])
    except (MalformedError, RefusedError):
        return
    assert payload == a_document()  # the last character of base64 has bits that say nothing


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b"\xff", b'{"receipt": 1, "signature": 2}', b"a.b.c", b"{" * 9000]
)
def test_whatever_else_is_in_the_file_is_told_apart(data: bytes) -> None:
    with pytest.raises(BadReceiptError):
        check_file(data, [KEY.public_key()])


def test_a_token_for_something_else_is_no_receipt() -> None:
    import jwt

    with pytest.raises(BadReceiptError):
        verify(jwt.encode({"iss": "x"}, KEY, algorithm="EdDSA"), [KEY.public_key()])


@pytest.mark.parametrize("data", [b"", b"{}", b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}'])
def test_a_file_without_keys_is_told_apart(data: bytes) -> None:
    with pytest.raises(BadReceiptError):
        keys_of(data)


def test_the_key_is_named_as_others_name_it() -> None:
    """RFC 8037 appendix A.3: the thumbprint of the RFC's own key."""
    data = b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
    (key,) = keys_of(data)
    assert thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("state", State)
def test_every_state_has_words_for_people_and_no_placeholder_is_left(state: State) -> None:
    for case in (EAU, LETTER, replace(EAU, told=False)):
        text = receipt_text(a_document(replace(case, state=state)))
        assert "{" not in text
        assert "None" not in text


def test_the_text_says_in_german_first_what_not_to_do() -> None:
    text = receipt_text(a_document())
    assert text.index("Bitte senden Sie sie nicht noch einmal.") < text.index("Please do not send it again.")


def a_mail(original: str = "<1@praxis.example>") -> bytes:
    payload = a_document()
    return receipt_mail(
        delivery=1024, to=PRACTICE, original=original, token=sign(payload, KEY), receipt=payload, host="kim.test",
        label="Eingang;X;V1", at=AT + timedelta(minutes=1),
    ).content  # fmt: skip


def test_a_receipt_mail_has_its_own_label_and_is_no_dsn_and_no_error() -> None:
    """HD-30."""
    message = message_from_bytes(a_mail(), policy=default)
    assert message["X-KIM-Dienstkennung"] == "Eingang;X;V1"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == "<1@praxis.example>"
    assert message.get_content_type() == "multipart/mixed"
    (attachment,) = message.iter_attachments()
    assert check_file(attachment.get_content(), [KEY.public_key()]) == a_document()


def test_made_again_it_is_the_same_octet_for_octet() -> None:
    assert a_mail() == a_mail()
    assert b"\n" not in a_mail().replace(b"\r\n", b"")


@pytest.mark.parametrize("original", ["<a@b>\r\nBcc: x@y", "", "<ä@b>", f"<{'x' * 900}@b>", "<a b@c>"])
def test_a_message_id_that_is_none_becomes_no_field(original: str) -> None:
    message = message_from_bytes(a_mail(original), policy=default)
    assert message["In-Reply-To"] is None
    assert message["Bcc"] is None


def test_a_payload_is_read_back_from_what_was_recorded() -> None:
    assert read_payload(sign(a_document(), KEY)) == a_document()


def test_a_promise_that_has_passed_is_not_told_as_one_that_will_be_kept() -> None:
    """CM-03: what the record says, and no more."""
    document_ = a_document()
    assert "Nächste Information bis 2026-11-25T14:00:00Z" in receipt_text(document_)
    late = {**document_, "iat": int((NEWS_BY + timedelta(seconds=1)).timestamp())}
    assert "Nächste Information war zugesagt bis 2026-11-25T14:00:00Z" in receipt_text(late)
    assert "Next information was promised by" in receipt_text(late)
