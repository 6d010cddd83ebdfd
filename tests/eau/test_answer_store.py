"""Requests and what follows them, on both databases; a process that dies says nothing twice and forgets none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
import sqlalchemy as sa
from tests.eau.samples import AN_INSURER, NOON, ONE_PRACTICE, Case, an_id, eau, file, storno

from schleuse.eau import answer_store
from schleuse.eau.answer import Answer, Request, decode_answer
from schleuse.eau.answer_store import RequestReusedError, Waits, which_wait
from schleuse.eau.answers import Code
from schleuse.eau.cursors import CursorBeyondEndError
from schleuse.eau.document import Period
from schleuse.eau.store import EauStore
from schleuse.eau.switched import AnswerTerms, answering, delivering
from schleuse.identifiers import IK
from schleuse.scopes import Scope
from schleuse.switch.fence import StaleEpochError

PERSON, ANOTHER, BY_NAME = b"1" * 16, b"2" * 16, b"3" * 16
MONDAY = date(2026, 2, 2)
ASKED = Request("ds-1", PERSON, None, MONDAY)
LATER = NOON + timedelta(hours=1)


def au(delivery: int, person: bytes = PERSON, start: date = MONDAY) -> Case:
    period = Period("ERST", start, start + timedelta(days=4), start)
    return eau(delivery, person=person, period=period, practice=ONE_PRACTICE)


def nothing(_day: date, _upto: datetime) -> bool:
    return False


def something(_day: date, _upto: datetime) -> bool:
    return True


def followed(
    store: EauStore, waits: Waits = nothing, now: datetime = LATER, permille: int | None = None
) -> list[Answer]:
    """All that ever followed, after another look."""
    store.answers.follow(AN_INSURER, now, waits=waits, terms=AnswerTerms(0, 0, permille))
    return [decode_answer(text) for _, text in store.answers.follow_ups(AN_INSURER, 0, 1000)]


def test_what_waits_makes_nothing_found_7_and_what_is_found_is_said_at_once(store: EauStore) -> None:
    """T-08, HD-09."""
    answer = store.answers.answer
    assert answer(AN_INSURER, ASKED, NOON, waits=something).code is Code.IN_REVIEW
    assert answer(AN_INSURER, replace(ASKED, id="ds-2"), NOON, waits=nothing).code is Code.NONE
    file(store, au(1), au(2, ANOTHER))
    given = answer(AN_INSURER, replace(ASKED, id="ds-3"), NOON, waits=something)
    assert (given.code, [one.document_id for one in given.certificates]) == (Code.AU, [an_id(1)])
    assert {one.id: one.code for one in store.answers.open(AN_INSURER, NOON)} == {"ds-1": 7, "ds-2": 4}


def test_a_request_is_asked_again_under_its_id_and_hears_the_same(store: EauStore) -> None:
    first = store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    assert store.answers.answer(AN_INSURER, ASKED, LATER, waits=nothing) == first
    with pytest.raises(RequestReusedError):
        store.answers.answer(AN_INSURER, replace(ASKED, person=ANOTHER), LATER, waits=nothing)


def test_what_arrives_follows_once_and_also_an_eau_of_the_ersatzverfahren(store: EauStore) -> None:
    store.answers.answer(AN_INSURER, replace(ASKED, other=BY_NAME), NOON, waits=something)
    file(store, au(1, BY_NAME))
    for _ in range(2):
        (only,) = followed(store, something)
        assert (only.request, only.code, [one.delivery for one in only.certificates]) == ("ds-1", Code.AU, [1])
    assert store.answers.open(AN_INSURER, LATER) == []


def test_in_review_becomes_4_only_after_the_backlog_and_is_watched_on(store: EauStore) -> None:
    """HD-09: "final answer follows by itself within 28 days"."""
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    assert followed(store, something) == []
    (none,) = followed(store)
    assert (none.code, none.until) == (Code.NONE, LATER + timedelta(days=14))
    file(store, au(1))
    assert [one.code for one in followed(store)] == [Code.NONE, Code.AU]


def test_no_4_follows_while_a_mail_that_came_after_the_question_waits(store: EauStore) -> None:
    """HD-09: a canary opened what was there when it was asked; the right eAU came later, and is held."""
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    came = NOON + timedelta(minutes=1)
    assert followed(store, lambda _day, upto: upto >= came) == []
    file(store, au(1, ANOTHER), au(2))
    file(store, storno(3, of=2))
    assert followed(store, lambda _day, upto: upto >= came) == [], "somebody else's, and one that was cancelled"
    assert [one.code for one in followed(store)] == [Code.NONE]


def test_what_a_limit_keeps_back_follows_when_it_grows(store: EauStore) -> None:
    """RS-06: in the meantime it waits (7), what was said stays said, and a Storno is no reason to name another."""
    store.answers.answer(AN_INSURER, replace(ASKED, id="told", person=ANOTHER), NOON, waits=nothing)
    file(store, au(1, ANOTHER))
    assert [one.code for one in followed(store)] == [Code.AU]
    store.answers.answer(AN_INSURER, replace(ASKED, id="asked"), NOON, waits=nothing)
    file(store, au(2))
    for person, id in ((PERSON, "kept"), (ANOTHER, "kept-2")):
        asked = replace(ASKED, id=id, person=person)
        kept_back = store.answers.answer(AN_INSURER, asked, NOON, waits=nothing, terms=AnswerTerms(0, 0, 0))
        assert kept_back.code is Code.IN_REVIEW
    assert [one.request for one in followed(store, permille=0)] == ["told"]
    file(store, au(3, ANOTHER), storno(4, of=1))
    withdrawn = followed(store, permille=0)[-1]
    assert (withdrawn.request, withdrawn.code, withdrawn.withdrawn) == ("told", Code.IN_REVIEW, (an_id(1),))
    assert [(one.request, one.code) for one in followed(store)[2:]] == [
        (id, Code.AU) for id in ("asked", "kept", "kept-2", "told")
    ]


def test_requests_whose_eau_have_no_days_keep_nobody_waiting(store: EauStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filed before days were kept, they stay 7 for good: looked at once in a while, and nothing is written for it."""
    monkeypatch.setattr(answer_store, "AT_ONCE", 2)
    file(store, eau(1, person=PERSON, period=Period(), practice=ONE_PRACTICE))
    for number in range(5):
        store.answers.answer(AN_INSURER, replace(ASKED, id=f"a{number}"), NOON, waits=something)
    store.answers.answer(AN_INSURER, replace(ASKED, id="z", person=ANOTHER), NOON, waits=something)
    for _ in range(3):
        found = followed(store)
    assert [(one.request, one.code) for one in found] == [("z", Code.NONE)]
    written: list[str] = []
    sa.event.listen(store._engine, "before_cursor_execute", lambda *given: written.append(given[2]))
    for _ in range(3):
        assert followed(store, now=LATER + timedelta(hours=1)) == found
    assert sum("absent_from = " in one for one in written) == 3
    assert [one for one in written if one != "BEGIN" and not one.startswith("SELECT")] == []


def test_an_answer_that_was_withdrawn_is_looked_at_again_though_it_is_old(store: EauStore) -> None:
    file(store, au(1))
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=nothing)
    store.answers.answer(AN_INSURER, replace(ASKED, id="ds-2", person=ANOTHER), LATER, waits=something)
    assert [(one.request, one.code) for one in followed(store)] == [("ds-2", Code.NONE)]
    file(store, storno(2, of=1))
    assert followed(store, something)[-1].code is Code.IN_REVIEW
    for later in (LATER + answer_store.ROUND, LATER + 2 * answer_store.ROUND):
        last = followed(store, now=later)[-1]
    assert (last.request, last.code) == ("ds-1", Code.NONE)


def test_a_storno_withdraws_the_answer(store: EauStore) -> None:
    file(store, au(1))
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=nothing)
    file(store, storno(2, of=1))
    (said,) = followed(store)
    assert (said.code, said.withdrawn, said.certificates) == (Code.NONE, (an_id(1),), ())


def test_after_its_time_nothing_follows(store: EauStore) -> None:
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    file(store, au(1))
    assert followed(store, now=NOON + timedelta(days=29)) == []


def test_the_list_is_taken_over_with_a_cursor(store: EauStore) -> None:
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    followed(store)
    assert store.answers.position(AN_INSURER, "benefits") == (0, 1)
    with pytest.raises(CursorBeyondEndError):
        store.answers.ack(AN_INSURER, "benefits", 2)
    assert store.answers.ack(AN_INSURER, "benefits", 1) == (1, 1)
    assert store.answers.ack(AN_INSURER, "benefits", 0) == (1, 1)


@pytest.mark.parametrize("scope", [answering, delivering])
def test_an_answer_of_an_older_epoch_is_recorded_nowhere(store: EauStore, scope: Callable[[IK], Scope]) -> None:
    """SW-06: of deliveries, and of answers themselves."""
    store.answers.answer(AN_INSURER, ASKED, NOON, waits=something)
    store.raise_fence({scope(AN_INSURER): 5}, 5)
    stale, fresh = (AnswerTerms(*((at if one is scope else 0) for one in (answering, delivering))) for at in (4, 5))
    with pytest.raises(StaleEpochError):
        store.answers.answer(AN_INSURER, replace(ASKED, id="ds-2"), NOON, waits=nothing, terms=stale)
    with pytest.raises(StaleEpochError):
        store.answers.follow(AN_INSURER, LATER, waits=nothing, terms=stale)
    with pytest.raises(StaleEpochError):
        store.answers.ack(AN_INSURER, "benefits", 0, terms=stale)
    assert [one.id for one in store.answers.open(AN_INSURER, NOON)] == ["ds-1"]
    assert store.answers.follow(AN_INSURER, LATER, waits=nothing, terms=fresh) == 1


class DiedError(Exception):
    pass


def test_whoever_dies_before_or_after_any_statement_says_nothing_twice_and_forgets_none(
    open_eau: Callable[[], EauStore],
) -> None:
    """Kill at each step: the next process finds either all of it or nothing."""
    before = open_eau()
    for number in range(3):
        asked = replace(ASKED, id=f"ds-{number}", person=b"%d" % number * 16)
        before.answers.answer(AN_INSURER, asked, NOON, waits=something)
    file(before, au(1, b"0" * 16))
    for step in range(40):
        dying = open_eau()
        if not _die_at(dying, step):
            break
        dying.close()
        after = [decode_answer(text) for _, text in before.answers.follow_ups(AN_INSURER, 0, 10)]
        assert len(after) in (0, 3), "a part of a look was kept"
    else:
        pytest.fail("the look has no end")
    said = [decode_answer(text) for _, text in before.answers.follow_ups(AN_INSURER, 0, 10)]
    assert sorted((one.request, one.code) for one in said) == [("ds-0", 2), ("ds-1", 4), ("ds-2", 4)]


def _die_at(store: EauStore, step: int) -> bool:
    """Follow, and die before the statement with this number. Returns whether it came so far."""
    left = step

    def count(*_: object) -> None:
        nonlocal left
        if left == 0:
            raise DiedError
        left -= 1

    sa.event.listen(store._engine, "before_cursor_execute", count)
    try:
        store.answers.follow(AN_INSURER, LATER, waits=nothing)
    except DiedError:
        return True
    finally:
        sa.event.remove(store._engine, "before_cursor_execute", count)
    return False


@pytest.mark.parametrize("earliest_clear", range(32))
def test_of_many_days_in_review_few_are_asked_for(earliest_clear: int) -> None:
    """A hold of a month has thirty, at each of 80 insurers, once a second (HD-09).

    What could hold a certificate for a day could for every earlier one.
    """
    days = [date(2026, 3, 1) + timedelta(days=number) for number in range(31)]
    asked: list[date] = []

    def waits(day: date) -> bool:
        asked.append(day)
        return day < date(2026, 3, 1) + timedelta(days=earliest_clear)

    found = which_wait(days, waits)
    assert found == {day: number < earliest_clear for number, day in enumerate(days)}
    assert len(asked) <= {31: 1, 0: 2}.get(earliest_clear, 7)
    assert which_wait([], waits) == {}
