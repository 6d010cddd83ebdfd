"""The outbound queue behind the switch: `kim_mail//deliver` (HD-10, HD-12, HD-24)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from schleuse.kim.door import Unit
from schleuse.kim.store import Under
from schleuse.kim.store.outbound import Outbound
from schleuse.kim.switched import SENDING
from schleuse.mail.contracts import Outgoing
from schleuse.scopes import Scope
from schleuse.switch.copy import Switch, standing_of
from schleuse.switch.standing import Standing

#: (scope, since, until) -> for how long nothing of it might begin.
HeldBetween = Callable[[Scope, datetime, datetime], timedelta]


def sending(switch: Switch) -> Standing:
    """Where the outbound queue stands now."""
    return standing_of(switch, SENDING)


class SendingGate:
    """Satisfies `contracts.Gate`."""

    def __init__(self, switch: Switch, unit: Unit, held: HeldBetween) -> None:
        self._switch = switch
        self._unit = unit
        self._held = held

    def may_begin(self) -> bool:
        return sending(self._switch).state.begins

    def unit(self) -> AbstractContextManager[object]:
        return self._unit(SENDING)

    def held_between(self, since: datetime, until: datetime) -> timedelta:
        return self._held(SENDING, since, until)


class GatedQueue:
    """Satisfies `contracts.Queue`: takes from the queue under the epoch of the switch (SW-06).

    What became of a mail that was sent is recorded whatever the switch says: it has happened.
    """

    def __init__(self, queue: Outbound, switch: Switch) -> None:
        self._switch = switch
        self._queue = queue
        self.delivered = queue.delivered
        self.retry = queue.retry
        self.failed = queue.failed
        self.put_back = queue.put_back

    def due(self, now: datetime, limit: int) -> Sequence[Outgoing]:
        """Nothing while nothing may begin. Raises StaleEpochError."""
        at = sending(self._switch)
        if not at.state.begins:
            return []
        return self._queue.due(now, limit, Under(SENDING, at.epoch), at.limit)
