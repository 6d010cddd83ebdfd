"""The release of a backlog (HD-40 … HD-44): seen before it is done, small first, stopped by what it meets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.holding.release import (
    BadReleasePlanError,
    HeldMail,
    Mailbox,
    MailboxDone,
    Patience,
    Release,
    ReleasePlan,
    Seen,
    Stop,
    at_once,
    batch_sizes,
    dry_run,
    next_step,
    next_steps,
    plan_from,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PLAN = ReleasePlan("r1", 7, NOW, (Mailbox("eau@eins.example", "109900011", 1000, 400),))
MAIL = HeldMail(1, "eau@eins.example", NOW - timedelta(hours=2), "eAU;Lieferung;V1.2")
NOTHING = Seen(0, 0, 0, 0, 400)


def test_the_first_batch_is_small_and_each_next_one_five_times_larger() -> None:
    """HD-42."""
    assert batch_sizes(400, PLAN) == [10, 50, 250, 90]


@given(st.integers(0, 200_000), st.integers(1, 50), st.integers(1, 9))
def test_the_batches_are_all_that_is_held_and_none_is_too_large(count: int, first: int, growth: int) -> None:
    plan = replace(PLAN, first=first, growth=growth, largest=5000)
    sizes = batch_sizes(count, plan)
    assert sum(sizes) == count
    assert all(0 < size <= 5000 for size in sizes)


def test_a_dry_run_counts_and_touches_nothing() -> None:
    """HD-41: counts, duplicates, old ones, formats that nobody knows, senders that are gone."""
    held = [
        MAIL,
        replace(MAIL, id=2, known_twin=True, accepted_at=NOW - timedelta(hours=54)),
        replace(MAIL, id=3, label="Neu;Unbekannt;V9.9", sender_known=False),
        replace(MAIL, id=1001),  # came after the plan: live traffic
    ]
    found = dry_run(PLAN, held, frozenset({MAIL.label}), NOW)
    assert (found.count, found.duplicates, found.older_than_a_day) == (3, 1, 1)
    assert (found.unknown_formats, found.unreachable_senders) == (1, 1)
    assert found.oldest == NOW - timedelta(hours=54)
    assert found.clear


def test_a_broken_seal_is_seen_before_anything_is_released() -> None:
    """HD-45."""
    found = dry_run(PLAN, [replace(MAIL, whole=False)], frozenset(), NOW)
    assert found.damaged == (1,)
    assert not found.clear


def test_the_next_batch_waits_until_the_last_is_finished() -> None:
    assert next_step(PLAN, 0, NOTHING) == Release(10)
    assert next_step(PLAN, 1, Seen(10, 3, 0, 0, 390)) == Patience(3)
    assert next_step(PLAN, 1, Seen(10, 0, 0, 0, 390)) == Release(50)
    assert next_step(PLAN, 4, Seen(90, 0, 0, 0, 0)) == MailboxDone()


def test_more_than_one_percent_of_errors_stops_at_once() -> None:
    """T-23: while the batch is still running, not at its end."""
    assert isinstance(next_step(PLAN, 3, Seen(250, 200, 3, 0, 90)), Stop)
    assert next_step(PLAN, 3, Seen(250, 0, 2, 0, 90)) == Release(90)


def test_one_faulty_eau_does_not_stop_a_batch_of_ten() -> None:
    assert next_step(PLAN, 1, Seen(10, 0, 1, 0, 390)) == Release(50)
    assert isinstance(next_step(PLAN, 1, Seen(10, 0, 2, 0, 390)), Stop)


def test_any_integrity_failure_stops() -> None:
    assert isinstance(next_step(PLAN, 3, Seen(250, 0, 0, 1, 90)), Stop)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60),
    st.integers(1, 3000),
)
def test_nothing_is_released_beyond_what_is_left_and_never_after_a_stop(
    outcomes: list[tuple[int, bool]], count: int
) -> None:
    left, batches, last = count, 0, Seen(0, 0, 0, 0, count)
    for errors, finished in outcomes:
        step = next_step(PLAN, batches, last)
        match step:
            case Release(size):
                assert 0 < size <= left
                left, batches = left - size, batches + 1
                last = Seen(size, size, 0, 0, left)
            case Patience(waiting):
                assert waiting == last.waiting > 0
                last = replace(last, waiting=0 if finished else last.waiting, errors=min(errors, last.released))
            case Stop():
                assert last.errors * 100 > last.released
                return
            case MailboxDone():
                assert left == 0
                return


def test_a_plan_is_its_canonical_form_and_nothing_more() -> None:
    """RO-04: an approval is bound to the hash, so two texts of one plan must not exist."""
    assert plan_from(json.loads(PLAN.encode())) == PLAN
    assert replace(PLAN, first=11).hash != PLAN.hash


@pytest.mark.parametrize(
    "change",
    [{"first": "10"}, {"mailboxes": []}, {"extra": 1}, {"version": 2}, {"growth": 0}, {"mailboxes": [{"account": 1}]}],
)
def test_what_is_no_plan_is_refused_with_a_sentence(change: dict[str, object]) -> None:
    with pytest.raises(BadReleasePlanError):
        plan_from({**json.loads(PLAN.encode()), **change})


def test_together_mailboxes_have_no_more_out_than_five_times_what_has_passed() -> None:
    """HD-42: over the whole release as in a mailbox."""
    assert [at_once(PLAN, passed) for passed in (0, 9, 10, 60, 10**6)] == [10, 10, 50, 300, 20_000]


def test_who_has_had_least_goes_first_and_nobody_is_passed_over() -> None:
    seen = {
        "a": Seen(10, 0, 0, 0, 90, batches=1),
        "b": Seen(10, 10, 0, 0, 90, batches=1),
        "c": Seen(0, 0, 0, 0, 45),
        "d": Seen(0, 0, 0, 0, 45, barred=True),
        "e": Seen(0, 0, 0, 0, 45),
    }
    assert next_steps(PLAN, seen, 20, 0) == {
        "a": Patience(0),  # 50 may be out, and b, c and e have 30 of them
        "b": Patience(10),
        "c": Release(10),
        "d": Patience(0),
        "e": Release(10),
    }


def test_before_a_whole_batch_has_passed_one_mailbox_alone_has_something_out() -> None:
    """HD-42: "10 messages of one tenant"."""
    small = {one: Seen(0, 0, 0, 0, 2) for one in "abc"}
    assert next_steps(PLAN, small, 0, 0) == {"a": Release(2), "b": Patience(0), "c": Patience(0)}
    out = {**small, "a": Seen(2, 1, 0, 0, 1, batches=1)}
    assert next_steps(PLAN, out, 2, 0) == {"a": Patience(1), "b": Patience(0), "c": Patience(0)}
    passed = {**small, "a": Seen(2, 0, 0, 0, 0, batches=1)}
    assert next_steps(PLAN, passed, 2, 0) == {"a": MailboxDone(), "b": Release(2), "c": Release(2)}


def test_what_was_held_again_goes_again_where_it_fits() -> None:
    seen = {
        "a": Seen(10, 10, 0, 0, 10, batches=1, back=True),
        "b": Seen(10, 10, 0, 0, 10, batches=1, back=True),
        "c": Seen(10, 10, 0, 0, 10, batches=1, barred=True, back=True),
    }
    assert next_steps(PLAN, seen, 30, 0) == {"a": Release(10), "b": Patience(10), "c": Patience(10)}
    passed = {**seen, "d": Seen(10, 0, 0, 0, 0, batches=1)}
    steps = next_steps(PLAN, passed, 40, 0)
    assert steps == {"a": Release(10), "b": Release(10), "c": Patience(10), "d": MailboxDone()}


@given(st.data(), st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_a_whole_release_ends_and_never_has_more_out_than_it_may(data: st.DataObject, counts: list[int]) -> None:
    """Whatever is slow. counts: of each mailbox."""
    left = {str(number): count for number, count in enumerate(counts)}
    seen = {one: Seen(0, 0, 0, 0, max(count, 1)) for one, count in left.items()}
    released = looks = 0
    while seen:
        out = sum(one.waiting for one in seen.values())
        may = max(out, min(5 * (released - out), 20_000) if released - out >= 10 else 10)
        steps = next_steps(PLAN, seen, released, 0)
        assert not isinstance(steps, Stop)
        for account, step in steps.items():
            one = seen[account]
            if isinstance(step, Release):
                size = min(step.count, left[account])
                left[account] -= size
                released += size
                seen[account] = replace(one, released=size, waiting=size, left=left[account], batches=one.batches + 1)
                if not size:
                    del seen[account]
            elif isinstance(step, MailboxDone):
                assert not left.pop(account)
                del seen[account]
        assert out <= sum(one.waiting for one in seen.values()) <= may
        slow = data.draw(st.sampled_from(sorted(seen))) if seen else ""
        for account, one in seen.items():
            if account != slow or looks % 3 == 0:
                seen[account] = replace(one, waiting=0)
        looks += 1
        assert looks < 500
    assert released == sum(counts)
