"""What every outbound Queue must do; subclass it with a `queue` fixture, `put` and `reports`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schleuse.errors import ConflictError
from schleuse.mail.contracts import Action, Mail, Notify, Outgoing, Queue, Recipient

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
A_MAIL = Mail(
    sender="praxis@arzt.kim.telematik-test",
    recipients=(
        Recipient(
            "eau@fremd.kim.telematik-test",
            frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY}),
            "rfc822;eau@fremd.kim.telematik-test",
        ),
    ),
    content=(
        b"Received: from a by b; Mon, 02 Mar 2026 09:00:00 +0000\r\n"
        b"Message-ID: <1@arzt.kim.telematik-test>\r\nSubject: KOM-LE-Nachricht\r\n\r\n.body\r\n"
    ),
    accepted_at=NOW,
    ret="HDRS",
    envid="QQ+1",
    user="praxis@arzt.kim.telematik-test",
)
NO_SENDER = replace(A_MAIL, sender="", user=None)


class QueueContract:
    """`queue`: an empty Queue. `put`: queue one mail. `reports`: (action, status) of each DSN recorded so far."""

    def put(self, queue: Any, mail: Mail) -> None:
        raise NotImplementedError

    def reports(self, queue: Any) -> list[tuple[Action, str]]:
        raise NotImplementedError

    def one(self, queue: Queue, mail: Mail = A_MAIL) -> Outgoing:
        self.put(queue, mail)
        (due,) = queue.due(NOW, 10)
        return due

    def test_a_mail_comes_out_as_it_went_in(self, queue: Queue) -> None:
        due = self.one(queue)
        assert (due.sender, due.recipient, due.accepted_at) == (A_MAIL.sender, A_MAIL.recipients[0], NOW)
        assert (due.ret, due.envid, due.content, due.attempts) == ("HDRS", "QQ+1", A_MAIL.content, 0)
        assert due.message_id.strip("<>") == "1@arzt.kim.telematik-test"
        assert not due.delay_reported

    def test_what_was_taken_is_ours_until_its_attempt_has_ended(self, queue: Queue) -> None:
        self.put(queue, A_MAIL)
        assert [*queue.due(NOW, 0)] == []
        (due,) = queue.due(NOW, 1)
        assert [*queue.due(NOW, 10)] == []
        queue.retry(due.id, NOW, NOW, "451 later", report_delay=False)
        assert [mail.id for mail in queue.due(NOW, 10)] == [due.id]

    def test_what_was_put_back_is_due_as_before(self, queue: Queue) -> None:
        due = self.one(queue)
        queue.put_back([due.id])
        (again,) = queue.due(NOW, 10)
        assert (again.id, again.attempts, self.reports(queue)) == (due.id, 0, [])

    def test_a_mail_that_has_left_is_not_put_back(self, queue: Queue) -> None:
        due = self.one(queue)
        queue.delivered(due.id, NOW, "250 ok", relayed_dsn=True)
        queue.put_back([due.id])
        assert [*queue.due(NOW, 10)] == []

    def test_delivered_is_not_due_again(self, queue: Queue) -> None:
        queue.delivered(self.one(queue).id, NOW, "250 ok", relayed_dsn=True)
        assert [*queue.due(NOW + timedelta(days=9), 10)] == []
        assert self.reports(queue) == []

    def test_a_host_without_dsn_makes_us_report_that_it_was_relayed(self, queue: Queue) -> None:
        queue.delivered(self.one(queue).id, NOW, "250 ok", relayed_dsn=False)
        assert [action for action, _ in self.reports(queue)] == [Action.RELAYED]

    def test_a_retry_is_due_at_its_time_and_counts(self, queue: Queue) -> None:
        due, later = self.one(queue), NOW + timedelta(minutes=5)
        queue.retry(due.id, NOW, later, "451 later", report_delay=False)
        assert [*queue.due(later - timedelta(seconds=1), 10)] == []
        (again,) = queue.due(later, 10)
        assert (again.id, again.attempts, again.content) == (due.id, 1, due.content)
        assert self.reports(queue) == []

    def test_a_delay_is_reported_once_and_remembered(self, queue: Queue) -> None:
        due = self.one(queue)
        queue.retry(due.id, NOW, NOW, "451 later", report_delay=True)
        (again,) = queue.due(NOW, 10)
        assert again.delay_reported
        assert [action for action, _ in self.reports(queue)] == [Action.DELAYED]

    def test_failed_is_reported_with_its_status(self, queue: Queue) -> None:
        queue.failed(self.one(queue).id, NOW, "550 5.1.1 unknown", "5.1.1")
        assert [*queue.due(NOW + timedelta(days=9), 10)] == []
        assert self.reports(queue) == [(Action.FAILED, "5.1.1")]

    @pytest.mark.parametrize(
        "settle",
        [
            lambda queue, id: queue.delivered(id, NOW, "250 ok", False),
            lambda queue, id: queue.failed(id, NOW, "550 no", "5.0.0"),
        ],
    )
    def test_settling_twice_has_one_effect(self, queue: Queue, settle: Callable[[Queue, int], None]) -> None:
        id = self.one(queue).id
        settle(queue, id)
        reported = self.reports(queue)
        with suppress(ConflictError):  # saying so is allowed, doing it again is not
            settle(queue, id)
        assert self.reports(queue) == reported
        assert len(reported) == 1

    @pytest.mark.parametrize(
        "settle",
        [
            lambda queue, id: queue.delivered(id, NOW, "250 ok", False),
            lambda queue, id: queue.retry(id, NOW, NOW + timedelta(hours=5), "451 later", False),
            lambda queue, id: queue.failed(id, NOW, "550 no", "5.0.0"),
        ],
    )
    def test_nobody_reports_on_a_report(self, queue: Queue, settle: Callable[[Queue, int], None]) -> None:
        settle(queue, self.one(queue, NO_SENDER).id)
        assert self.reports(queue) == []

    def test_each_recipient_is_sent_and_settled_alone(self, queue: Queue) -> None:
        both = (A_MAIL.recipients[0], replace(A_MAIL.recipients[0], address="zwei@fremd.kim.telematik-test"))
        self.put(queue, replace(A_MAIL, recipients=both))
        first, second = queue.due(NOW, 10)
        assert {first.recipient.address, second.recipient.address} == {r.address for r in both}
        queue.delivered(first.id, NOW, "250 ok", relayed_dsn=True)
        queue.retry(second.id, NOW, NOW, "451 later", report_delay=False)
        assert [mail.id for mail in queue.due(NOW, 10)] == [second.id]
