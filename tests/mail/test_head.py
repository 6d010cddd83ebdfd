from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import compat32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.errors import MalformedError
from schleuse.mail.head import (
    MAX_FIELDS,
    MAX_HEAD_OCTETS,
    BadHeadError,
    addresses_of,
    decode_words,
    parse,
    parse_date,
    parse_parameters,
    raw_fields,
    split,
)

RAW = (
    b"Received: from a\r\n by b\r\nFROM: =?utf-8?Q?Praxis_M=C3=BCller?= <praxis@arzt.kim.telematik>\r\n"
    b"To: a@x.kim.telematik,\r\n\tb@x.kim.telematik\r\nReceived: from c\r\nX-Empty:\r\n\r\nbody\r\n\r\nmore"
)


def test_head_and_body_are_split_at_the_first_empty_line() -> None:
    block, body = split(RAW)
    assert block + b"\r\n" + body == RAW
    assert body == b"body\r\n\r\nmore"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"A: 1\n\nbody", (b"A: 1\n", b"body")),
        (b"A: 1\r\n\nbody", (b"A: 1\r\n", b"body")),
        (b"A: 1\n\r\nbody\r\n\r\n", (b"A: 1\n", b"body\r\n\r\n")),
        (b"\r\nbody", (b"", b"body")),
        (b"\nbody", (b"", b"body")),
        (b"A: 1\r\n", (b"A: 1\r\n", b"")),
        (b"", (b"", b"")),
    ],
)
def test_every_kind_of_line_end_and_absence_is_split(raw: bytes, expected: tuple[bytes, bytes]) -> None:
    assert split(raw) == expected


def test_fields_are_unfolded_and_found_whatever_the_case() -> None:
    head = parse(split(RAW)[0])
    assert head.get("to") == "a@x.kim.telematik,\tb@x.kim.telematik"
    assert head.get("X-EMPTY") == ""
    assert head.get("Cc") is None


def test_duplicates_are_visible() -> None:
    assert parse(split(RAW)[0]).all("received") == ["from a by b", "from c"]


def test_encoded_words_are_decoded_on_demand() -> None:
    head = parse(split(RAW)[0])
    assert head.decoded("From") == "Praxis Müller <praxis@arzt.kim.telematik>"
    assert head.addresses("From") == ["praxis@arzt.kim.telematik"]
    assert head.decoded("Cc") is None


@pytest.mark.parametrize("value", ["=?utf-8?B?abc?=", "=?nonsense?Q?x?=", "=?utf-8?Q?", "plain", "=?utf-8?B?====?="])
def test_what_cannot_be_decoded_stays_readable(value: str) -> None:
    assert isinstance(decode_words(value), str)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@b.c", ["a@b.c"]),
        ("<a@b.c>", ["a@b.c"]),
        ("Name <a@b.c>", ["a@b.c"]),
        ('"Last, First" <a@b.c>', ["a@b.c"]),
        ("a@b.c, Other <d@e.f>", ["a@b.c", "d@e.f"]),
        ("a@b.c (comment)", ["a@b.c"]),
        ("group: a@b.c, d@e.f;", ["a@b.c", "d@e.f"]),
        ("", []),
    ],
)
def test_addresses_are_found_in_every_spelling(value: str, expected: list[str]) -> None:
    assert addresses_of(value) == expected


@pytest.mark.parametrize(
    "block", [b"no field\r\n", b"A: 1\r\nno field\r\n", b": x\r\n", b"A B: x\r\n", b"\xc3\xa4: x\r\n"]
)
def test_a_line_that_is_no_field_is_malformed(block: bytes) -> None:
    with pytest.raises(BadHeadError):
        parse(block)


def test_an_mbox_separator_at_the_top_is_passed_over() -> None:
    assert parse(b"From x Mon Mar  2 10:30:00 2026\nSubject: y\n").get("subject") == "y"


def test_size_and_number_of_fields_are_bounded() -> None:
    with pytest.raises(BadHeadError):
        parse(b"A: 1\r\n" * (MAX_FIELDS + 1))
    with pytest.raises(BadHeadError):
        parse(b"A: " + b"x" * MAX_HEAD_OCTETS)
    with pytest.raises(BadHeadError):
        split(b"A: " + b"x" * MAX_HEAD_OCTETS + b"\r\n\r\n")


def test_values_on_which_a_search_would_cost_its_square_are_left_alone() -> None:
    hostile = "=?a?q?x" * 30_000
    assert decode_words(hostile) == hostile
    assert parse_date("1 " * 100_000) is None
    with pytest.raises(BadHeadError):
        addresses_of("a@b, " * 50_000)
    with pytest.raises(BadHeadError):
        parse_parameters("a/b" + "; a=b" * 1000)


def test_octets_beyond_ascii_survive_reading_and_writing() -> None:
    value = parse(b"Subject: \xe4\xff \xc3\xa4\r\n").get("subject")
    assert value is not None
    assert value.encode("utf-8", "surrogateescape") == b"\xe4\xff \xc3\xa4"


def test_a_bare_carriage_return_starts_no_field() -> None:
    head = parse(b"Subject: x\rBcc: hidden@b.c\r\n")
    assert head.get("bcc") is None


def test_raw_fields_keep_their_folding() -> None:
    assert list(raw_fields(b"A: 1\r\n 2\r\nB : 3\r\n")) == [("a", b"A: 1\r\n 2\r\n"), ("b", b"B : 3\r\n")]


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 2 Mar 2026 11:30:00 +0100",
        "Sun, 2 Mar 2026 11:30:00 +0100",
        "2 Mar 2026 10:30:00 GMT",
        "2 Mar 26 10:30 -0000",
    ],
)
def test_the_spelling_of_a_date_and_a_wrong_weekday_do_not_matter(value: str) -> None:
    assert parse_date(value) == datetime(2026, 3, 2, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", ["", "yesterday", "32 Mar 2026 10:30:00 +0000", "Mo, 2 März 2026", "1 Jan 99999999999 1:1:1"]
)
def test_what_is_no_date_is_none(value: str) -> None:
    assert parse_date(value) is None


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("a/b; Name=x.p7s", {"name": "x.p7s"}),
        ('a/b; name="x y;z.p7s"', {"name": "x y;z.p7s"}),
        (r'a/b; name="x\"y"', {"name": 'x"y'}),
        ("a/b; name*=UTF-8''x%C3%A4.p7s", {"name": "xä.p7s"}),
        ("a/b; name*0=one; name*1=two", {"name": "onetwo"}),
        ("a/b; name*1*=%32; name*0*=utf-8''%31", {"name": "12"}),
        ('a/b; name="=?utf-8?Q?=C3=A4.p7s?="', {"name": "ä.p7s"}),
        ("a/b; name=first; name=second", {"name": "first"}),
        ("a/b; name*=nonsense''%FF", {"name": "\ufffd"}),
        ("a/b; broken; =x; charset=utf-8", {"charset": "utf-8"}),
        ("a/b", {}),
    ],
)
def test_parameters_are_read_in_every_spelling(value: str, parameters: dict[str, str]) -> None:
    assert parse_parameters(value) == ("a/b", parameters)


FIELD_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


@given(st.lists(st.tuples(FIELD_NAMES, st.lists(VALUES, min_size=1, max_size=3)), min_size=1, max_size=10))
def test_we_read_fields_as_the_standard_library_does(fields: list[tuple[str, list[str]]]) -> None:
    block = "".join(f"{name}: {chr(10).join(f' {line}' for line in lines).lstrip()}\n" for name, lines in fields)
    theirs = message_from_bytes(block.encode() + b"\n", policy=compat32).items()
    unfolded = [(name.lower(), str(value).replace("\n", "").strip()) for name, value in theirs]
    assert list(parse(block.encode()).fields) == unfolded


@given(st.binary(max_size=400) | st.text(alphabet='a@b<>,;:"()= *?\r\n\t\\', max_size=120).map(str.encode))
def test_any_octets_are_a_head_or_malformed(raw: bytes) -> None:
    try:
        head = parse(split(raw)[0])
        for name, value in head.fields:
            decode_words(value)
            addresses_of(value)
            parse_date(value)
            parse_parameters(value)
            assert name == name.lower()
        list(raw_fields(raw))
    except MalformedError:
        pass


@given(st.text(alphabet="a@b<>,;:\"()= *?0'%\\", max_size=80))
def test_any_value_is_read_or_malformed(value: str) -> None:
    addresses_of(value)
    parse_date(value)
    decode_words(f"=?utf-8?Q?{value}?=")
    parse_parameters(f"a/b; {value}")
    parse_parameters(f"a/b; name*0*={value}; name*1={value}")
