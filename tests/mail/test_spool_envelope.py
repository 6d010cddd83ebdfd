"""What is written beside a content, and how the same mail is known again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.mail.contracts import AcceptedUnder, Mail, Notify, Recipient
from schleuse.mail.spool.envelope import decode, encode, header_block, opened, outer_message_id, seal, trace_length
from schleuse.mail.spool.record import Entry, Kind, decode_head, encode_batch, is_intact

AT = datetime(2026, 3, 2, 7, 30, 0, 123456, tzinfo=UTC)
BELOW = b"Message-ID: <1@a>\r\nReceived: not at the top\r\n\r\nbody\r\n"
A_MAIL = Mail("a@b", (Recipient("c@d"),), BELOW, AT)

RECIPIENTS = st.builds(
    Recipient, st.text(max_size=20), st.frozensets(st.sampled_from(Notify)), st.none() | st.text(max_size=10)
)
MAILS = st.builds(
    Mail,
    sender=st.text(max_size=20),
    recipients=st.lists(RECIPIENTS, min_size=1, max_size=3).map(tuple),
    content=st.binary(max_size=200),
    accepted_at=st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)).map(
        lambda moment: moment.replace(tzinfo=UTC)
    ),
    ret=st.sampled_from(["FULL", "HDRS", None]),
    envid=st.none() | st.text(max_size=10),
    user=st.none() | st.text(max_size=10),
    smtputf8=st.booleans(),
)


@given(MAILS)
def test_a_mail_comes_back_as_it_was(mail: Mail) -> None:
    assert opened(decode(encode(seal(mail))), mail.content) == mail


@pytest.mark.parametrize(
    "trace",
    [
        b"",
        b"Received: from a\r\n",
        b"received: from a\r\n\tby b;\r\n Mon\r\n",
        b"Return-Path: <x@y>\r\nReceived: from a\r\nReceived: from b\r\n",
    ],
)
def test_the_way_a_mail_took_does_not_change_its_digest(trace: bytes) -> None:
    sealed = seal(replace(A_MAIL, content=trace + BELOW))
    assert sealed.trace == len(trace)
    assert sealed.digest == seal(A_MAIL).digest


def test_any_other_octet_changes_the_digest() -> None:
    assert seal(replace(A_MAIL, content=BELOW + b" ")).digest != seal(A_MAIL).digest


def test_a_content_that_is_nothing_but_trace_is_one_too() -> None:
    assert trace_length(b"Received: x\r\n") == 13
    assert trace_length(b"Received: x") == 0


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"Message-ID: <1@a>\r\n", "<1@a>"),
        (b"Subject: x\r\nmessage-id:\r\n <2@a>\r\nTo: y\r\n", "<2@a>"),
        (b"Subject: Message-ID: <3@a>\r\n", ""),
        (b"X: y\r\n Message-ID: <4@a>\r\n", ""),
    ],
)
def test_the_message_id_is_that_of_the_outer_header(head: bytes, expected: str) -> None:
    assert outer_message_id(head + b"\r\nMessage-ID: <inner@a>\r\n\r\n") == expected


def test_the_header_block_ends_before_the_empty_line() -> None:
    assert header_block(b"A: 1\r\nB: 2\r\n\r\nbody") == b"A: 1\r\nB: 2\r\n"
    assert header_block(b"A: 1\r\n") == b"A: 1\r\n"


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=90)), min_size=1, max_size=4), st.data())
def test_no_changed_octet_of_head_meta_or_trace_goes_unnoticed(
    parts: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    salt = b"s" * 16
    entries = [Entry(Kind.MAIL, meta, content, min(3, len(content))) for meta, content in parts]
    buffers, places = encode_batch(entries, 64, salt)
    segment = bytes(64) + b"".join(bytes(part) for part in buffers)
    offset, length = data.draw(st.sampled_from(places))
    record = segment[offset : offset + length]
    head = decode_head(record, offset)
    assert head is not None
    assert is_intact(head, record, salt)
    assert not is_intact(head, record, b"t" * 16)
    at = data.draw(st.integers(0, 55 + head.meta + head.trace))
    if 5 <= at < 8:
        return  # padding of the head: the check covers it as written, its reader sees no field there
    changed = record[:at] + bytes([record[at] ^ data.draw(st.integers(1, 255))]) + record[at + 1 :]
    other = decode_head(changed, offset)
    assert other is None or not is_intact(other, changed, salt)


def test_the_epoch_of_acceptance_is_kept_with_the_mail() -> None:
    """incident.md § 6.3."""
    mail = replace(A_MAIL, under=(AcceptedUnder(12, "HOLD"),))
    assert opened(decode(encode(seal(mail))), mail.content) == mail


def test_a_mail_that_was_written_before_the_switch_was_recorded_has_no_epoch() -> None:
    assert b"switch" not in encode(seal(A_MAIL))
    assert decode(encode(seal(A_MAIL))).under == ()
