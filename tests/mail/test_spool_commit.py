"""Group commit: who waits for whom, and who is told what."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from schleuse.errors import Error, UnavailableError
from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.spool import Envelope, GroupCommit
from schleuse.mail.spool.commit import MAX_BATCH, IntakeClosedError, IntakeFailedError

A_MAIL = Mail("a@b", (Recipient("c@d"),), b"x\r\n\r\n", datetime(2026, 3, 2, tzinfo=UTC))


class SlowKeep:
    """Keeps batches; each one waits for `go`. fails: what the next batches raise, in order; None: kept."""

    def __init__(self, *fails: Exception | None) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.batches: list[int] = []
        self._fails = list(fails)

    def __call__(self, batch: Sequence[tuple[Envelope, bytes]]) -> None:
        self.entered.release()
        assert self.go.acquire(timeout=30)
        self.batches.append(len(batch))
        failure = self._fails.pop(0) if self._fails else None
        if failure is not None:
            raise failure


class Answers:
    def __init__(self) -> None:
        self.given: list[Error | None] = []
        self._came = threading.Semaphore(0)

    def __call__(self, error: Error | None) -> None:
        self.given.append(error)
        self._came.release()

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self._came.acquire(timeout=30)


def test_mails_that_arrive_during_a_flush_share_the_next_one() -> None:
    keep, answers = SlowKeep(), Answers()
    commit = GroupCommit(keep)
    commit.accept(A_MAIL, answers)
    assert keep.entered.acquire(timeout=30)
    for _ in range(20):
        commit.accept(A_MAIL, answers)
    keep.go.release(2)
    answers.wait(21)
    assert keep.batches == [1, 20]
    commit.close()


def test_nobody_is_told_before_the_flush() -> None:
    """HD-20: with a mirrored disk or a synchronous standby, the flush is on two media."""
    keep, answers = SlowKeep(), Answers()
    commit = GroupCommit(keep)
    commit.accept(A_MAIL, answers)
    assert keep.entered.acquire(timeout=30)
    assert answers.given == []
    keep.go.release()
    answers.wait(1)
    assert answers.given == [None]
    commit.close()


def test_a_batch_is_bounded() -> None:
    keep, answers = SlowKeep(), Answers()
    commit = GroupCommit(keep)
    commit.accept(A_MAIL, answers)
    assert keep.entered.acquire(timeout=30)
    for _ in range(MAX_BATCH + 1):
        commit.accept(A_MAIL, answers)
    keep.go.release(3)
    answers.wait(MAX_BATCH + 2)
    assert keep.batches == [1, MAX_BATCH, 1]
    commit.close()


def test_all_of_a_failed_batch_are_told_and_the_next_is_kept() -> None:
    full, keep, answers = UnavailableError("full"), SlowKeep(), Answers()
    keep._fails = [full, ValueError("a mistake of ours"), None]
    commit = GroupCommit(keep)
    for _ in range(3):
        keep.go.release()
        commit.accept(A_MAIL, answers)
        answers.wait(1)
    assert answers.given[0] is full
    assert isinstance(answers.given[1], IntakeFailedError)
    assert answers.given[2] is None
    commit.close()


def test_a_caller_that_raises_does_not_stop_the_others() -> None:
    def gone(error: Error | None) -> None:
        raise RuntimeError("the loop is closed")

    keep, answers = SlowKeep(), Answers()
    keep.go.release(2)
    commit = GroupCommit(keep)
    commit.accept(A_MAIL, gone)
    commit.accept(A_MAIL, answers)
    answers.wait(1)
    assert answers.given == [None]
    commit.close()


def test_closing_flushes_what_was_taken_and_takes_nothing_more() -> None:
    keep, answers = SlowKeep(), Answers()
    keep.go.release(5)
    commit = GroupCommit(keep)
    commit.accept(A_MAIL, answers)
    commit.accept(A_MAIL, answers)
    commit.close()
    commit.accept(A_MAIL, answers)
    assert answers.given[:2] == [None, None]
    assert isinstance(answers.given[2], IntakeClosedError)


def test_too_much_waiting_is_refused_for_now() -> None:
    keep, answers = SlowKeep(), Answers()
    commit = GroupCommit(keep, max_waiting_bytes=1000)
    commit.accept(A_MAIL, answers)
    assert keep.entered.acquire(timeout=30)
    large = replace(A_MAIL, content=bytes(800))
    commit.accept(large, answers)
    commit.accept(large, answers)
    assert [getattr(error, "code", None) for error in answers.given] == ["spool.busy"]
    keep.go.release(2)
    answers.wait(3)
    commit.close()
