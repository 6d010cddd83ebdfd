"""The mail role writes deferred attempts down, also after its database was away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import pytest
from tests.mail.fake_faults import Faults

from schleuse.errors import UnavailableError
from schleuse.kim.deferred import Attempts
from schleuse.kim.store.deferrals import Deferrals
from schleuse.mail.contracts import Mail, Recipient
from schleuse.mail.smtp_actions import Postponed
from schleuse.processes.kim_deferrals import DeferralDesk

NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)
PRACTICE, KASSE = "praxis@a.kim.telematik-test", "eau@kasse.kim.telematik-test"


class MemoryDeferrals:
    """faults: write, count_away."""

    def __init__(self) -> None:
        self.written: list[Attempts] = []
        self.faults = Faults()

    def write(self, attempts: Sequence[Attempts]) -> None:
        with self.faults.around("write"):
            self.written += attempts

    def count_away(self) -> int:
        with self.faults.around("count_away"):
            return len(self.written)


@pytest.fixture
def table() -> MemoryDeferrals:
    return MemoryDeferrals()


@pytest.fixture
def desk(table: MemoryDeferrals) -> DeferralDesk:
    return DeferralDesk(cast(Deferrals, table), lambda address: address, lambda: NOW)


def test_what_smtp_deferred_is_written_down(desk: DeferralDesk, table: MemoryDeferrals) -> None:
    desk.postponed(Postponed(PRACTICE, PRACTICE, KASSE, "e1"))
    desk.deferred(Mail(PRACTICE, (Recipient(KASSE),), b"", NOW))
    desk.write()
    assert [(one.sender, one.recipient, one.count) for one in table.written] == [(PRACTICE, KASSE, 2)]


def test_a_database_that_was_away_costs_no_attempt(desk: DeferralDesk, table: MemoryDeferrals) -> None:
    desk.postponed(Postponed(PRACTICE, PRACTICE, KASSE, None))
    table.faults.before("write")
    with pytest.raises(UnavailableError):
        desk.write()
    desk.write()
    assert [one.count for one in table.written] == [1]


def test_how_many_are_still_away_is_a_figure_and_no_fault_when_nobody_knows(
    desk: DeferralDesk, table: MemoryDeferrals
) -> None:
    (family,) = desk.collect()
    assert [one.value for one in family.samples] == [0]
    table.faults.before("count_away")
    (family,) = desk.collect()
    assert family.samples == []
