"""By when there is news: promised by a person or by the configuration, renewed by nobody else (§ 6.4, CM-03, SW-03)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.shutdown.operators import KEYS, NOW, RIGHTS

from schleuse.scopes import ScopeState, parse_scopes
from schleuse.shutdown.closure import Need
from schleuse.shutdown.news import (
    LONGEST,
    SPEAKERS,
    BadNewsError,
    News,
    NewsBook,
    SignedNews,
    parse_next,
    sign_news,
)
from schleuse.switch.documents import NotAuthorisedError, Role
from schleuse.switch.standing import UNKNOWN_TIME

HOUR = timedelta(hours=1)
[EAU] = parse_scopes("eau_intake/109900011/process/-")
NEWS = News("n1", parse_scopes("eau_intake"), NOW + 2 * HOUR, NOW)
CLOSED = Need(EAU, ScopeState.HOLD, 1, "c", NOW)


def given(news: News = NEWS) -> SignedNews:
    return sign_news(news, "officer", Role.SWITCH_OFFICER, KEYS["officer"])


@pytest.fixture
def book(tmp_path: Path) -> NewsBook:
    return NewsBook(tmp_path, RIGHTS, 4 * HOUR)


def test_without_a_word_it_is_due_after_the_configured_time_and_does_not_renew_itself(book: NewsBook) -> None:
    assert [one.by for one in book.due([CLOSED])] == [NOW + 4 * HOUR]


def test_what_somebody_said_last_counts_also_when_it_is_sooner(book: NewsBook) -> None:
    book.keep(given())
    assert book.promised([EAU], NOW) == NOW + 2 * HOUR
    book.keep(given(replace(NEWS, id="n2", given_at=NOW + HOUR, next_by=NOW + 1.5 * HOUR)))
    assert book.promised([EAU], NOW) == NOW + 1.5 * HOUR


def test_what_was_said_of_an_earlier_closing_or_of_others_does_not_count(book: NewsBook) -> None:
    book.keep(given())
    book.keep(given(replace(NEWS, id="n2", scopes=parse_scopes("kim_mail"))))
    assert book.promised([EAU], NOW + HOUR) == NOW + 5 * HOUR


@pytest.mark.parametrize("state", [ScopeState.OPEN, ScopeState.LIMITED])
def test_nobody_waits_for_news_of_what_is_open(book: NewsBook, state: ScopeState) -> None:
    assert book.due([replace(CLOSED, state=state)]) == []


@pytest.mark.parametrize("since", [None, UNKNOWN_TIME])
def test_nobody_has_promised_news_of_what_is_closed_since_an_unknown_time(
    book: NewsBook, since: datetime | None
) -> None:
    assert book.due([replace(CLOSED, since=since)]) == []


def test_another_s_signature_and_a_changed_file_promise_nothing(book: NewsBook, tmp_path: Path) -> None:
    with pytest.raises(NotAuthorisedError, match="does not match"):
        book.keep(replace(given(), news=replace(NEWS, next_by=NOW + 3 * HOUR)))
    with pytest.raises(NotAuthorisedError, match="may not promise"):
        book.keep(sign_news(NEWS, "officer", Role.RELEASER, KEYS["officer"]))
    book.keep(given())
    path = tmp_path / "n1.json"
    path.write_bytes(path.read_bytes().replace(b"T14:00", b"T15:00"))
    assert NewsBook(tmp_path, RIGHTS, 4 * HOUR).promised([EAU], NOW) == NOW + 4 * HOUR


def test_no_rule_of_the_platform_itself_renews_a_promise() -> None:
    assert Role.AUTOMAT not in SPEAKERS


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90m", NOW + 1.5 * HOUR),
        ("4h", NOW + 4 * HOUR),
        ("2d", NOW + timedelta(days=2)),
        ("2026-03-01T13:30+01:00", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_span_or_a_moment_with_its_zone(text: str, at: datetime) -> None:
    assert parse_next(text, NOW) == at


@pytest.mark.parametrize("text", ["", "soon", "0m", "-1h", "8d", "2026-03-01T11:00Z", "2026-03-01T13:30", "99999d"])
def test_a_time_that_is_past_too_far_or_none_is_refused(text: str) -> None:
    with pytest.raises(BadNewsError):
        parse_next(text, NOW)


def test_nobody_promises_silence_for_longer_than_a_week() -> None:
    with pytest.raises(BadNewsError, match="within 7 days"):
        replace(NEWS, next_by=NOW + LONGEST + timedelta(seconds=1))


def test_a_file_that_could_not_be_read_once_counts_as_soon_as_it_can(book: NewsBook, tmp_path: Path) -> None:
    """CM-03: as on a disk that was away for a moment. Nobody has to add another one first."""
    book.keep(given())
    away = (tmp_path / "n1.json").rename(tmp_path / "away")
    (tmp_path / "n1.json").symlink_to(tmp_path / "mount")
    assert book.promised([EAU], NOW) == NOW + 4 * HOUR
    away.rename(tmp_path / "mount")
    assert book.promised([EAU], NOW) == NOW + 2 * HOUR


def test_what_is_in_a_file_now_counts(book: NewsBook, tmp_path: Path) -> None:
    """A damaged file that was put back, one that was damaged after it was read, and one that is gone."""
    book.keep(given())
    whole = (tmp_path / "n1.json").read_bytes()
    (tmp_path / "n1.json").write_bytes(whole[:-20])
    assert book.promised([EAU], NOW) == NOW + 4 * HOUR
    (tmp_path / "n1.json").write_bytes(whole)
    assert book.promised([EAU], NOW) == NOW + 2 * HOUR
    (tmp_path / "n1.json").write_bytes(whole[:-20])
    assert book.promised([EAU], NOW) == NOW + 4 * HOUR
    (tmp_path / "n1.json").unlink()
    assert book.known() == []


def test_what_did_not_change_is_not_checked_again(book: NewsBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the switch asks; a signature costs a tenth of a millisecond, and a year has many promises."""
    book.keep(given())
    assert len(book.known()) == 1
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read again"))
    assert len(book.known()) == 1
