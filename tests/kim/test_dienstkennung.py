from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.errors import MalformedError
from schleuse.kim.dienstkennung import (
    DEFAULT,
    EAU_LIEFERUNG,
    EAU_STORNO_ARZT,
    BadDienstkennungError,
    Dienstkennung,
    dienstkennung_of,
    parse_dienstkennung,
)
from schleuse.mail.head import parse


@pytest.mark.parametrize("text", ["eAU;Lieferung;V1.2", " eAU ; Lieferung ; V1.2 ", "eAU;\tLieferung;V1.2;"])
def test_white_space_does_not_matter(text: str) -> None:
    assert parse_dienstkennung(text) == EAU_LIEFERUNG


@pytest.mark.parametrize("text", ["EAU;lieferung;V1.1", "eAU;Lieferung;V9.9", "eau;LIEFERUNG;2"])
def test_dispatch_looks_at_application_and_type_only(text: str) -> None:
    assert parse_dienstkennung(text).same_service(EAU_LIEFERUNG)
    assert not parse_dienstkennung(text).same_service(EAU_STORNO_ARZT)


@pytest.mark.parametrize(
    "value", ["EBZ;ANW;2.0.0", "1ClickHybridDRG;Lieferung;V1.0", "E-Rezept;Verordnung_Dispensierung;V1.0"]
)
def test_unknown_services_are_read_and_written_alike(value: str) -> None:
    assert str(parse_dienstkennung(value)) == value


@pytest.mark.parametrize(
    "text", ["", "eAU", "eAU;Lieferung", ";;", "a;b;c;d", "a;b;" + "x" * 101, "ä;b;c", "a\nb;\x00;c"]
)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(BadDienstkennungError):
        parse_dienstkennung(text)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"X-KIM-Dienstkennung: KIM-Mail;Default;V1.0\r\n", DEFAULT),
        (b"x-kim-dienstkennung: eAU;Lieferung;\r\n V1.2\r\n", EAU_LIEFERUNG),
        (b"Subject: x\r\n", None),
        (b"X-KIM-Dienstkennung: nonsense\r\n", None),
        (b"X-KIM-Dienstkennung: a;b;c\r\nX-KIM-Dienstkennung: a;b;c\r\n", Dienstkennung("a", "b", "c")),
        (b"X-KIM-Dienstkennung: a;b;c\r\nX-KIM-Dienstkennung: d;e;f\r\n", None),
    ],
)
def test_a_missing_broken_or_ambiguous_one_is_none(block: bytes, expected: Dienstkennung | None) -> None:
    assert dienstkennung_of(parse(block)) == expected


@given(st.text(max_size=60))
def test_what_was_read_can_go_into_a_header(text: str) -> None:
    try:
        written = str(parse_dienstkennung(text))
    except MalformedError:
        return
    assert written.isascii()
    assert written.isprintable()
    assert parse_dienstkennung(written) == parse_dienstkennung(text)
