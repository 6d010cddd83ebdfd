"""Events of a restart as they are kept (RS-08)."""

from __future__ import annotations

from datetime import UTC, datetime

from schleuse.restart.book import decode, encode
from schleuse.restart.gates import Evidence, Result
from schleuse.restart.plan import GateKind
from schleuse.said import Said

FOUND = Evidence(
    GateKind.WATCH,
    "r1",
    Result.PASS,
    datetime(2026, 11, 26, 2, tzinfo=UTC),
    "control",
    Said("alle bereit", "all ready"),
)


def test_what_was_found_is_kept_in_both_languages() -> None:
    assert decode(encode(FOUND)) == FOUND


def test_what_an_older_home_has_kept_is_read_in_the_language_it_has() -> None:
    found = decode({**encode(FOUND), "text": "all ready"})
    assert isinstance(found, Evidence)
    assert found.text == Said("all ready", "all ready")
