"""Whether mail for an address is taken now: asked at RCPT, and once more when the mail is about to be kept.

Between the two the switch may have closed; then the whole mail is deferred, and at the next try each recipient hears
its own answer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace

from schleuse.errors import Error
from schleuse.holding.capacity import Level
from schleuse.holding.placement import Deferred, Placement, Why, place
from schleuse.kim.accounts import Accounts
from schleuse.kim.switched import accepting
from schleuse.mail.contracts import AcceptedUnder, Done, Intake, Mail
from schleuse.mail.smtp_replies import ClosedError, DeferredError, NoRoomError
from schleuse.scopes import Direction, Scope, Service
from schleuse.switch.copy import Switch

_SERVICES = {one.value: one for one in Service}

#: Enters one unit of work of an atom (`processes.following.Running.unit`).
Unit = Callable[[Scope], AbstractContextManager[object]]


class Door:
    """level: how full the store is (HD-28)."""

    def __init__(self, accounts: Accounts, switch: Switch, level: Callable[[], Level]) -> None:
        self._switch = switch
        self._level = level
        # Made once: each mail asks twice, and a scope checks its parts when it is made.
        self._scopes = {one.address.lower(): accepting(one.insurer) for one in accounts.of_insurers()}
        self._letters = accepting(None)

    def scope(self, address: str) -> Scope:
        """The atom of mail for this address: a known one, or another host's."""
        return self._scopes.get(address.lower(), self._letters)

    def place(self, scope: Scope) -> Placement:
        """What becomes of mail of this atom now."""
        service = _SERVICES[scope.service]
        return place(service, self._switch.standing(service, scope.tenant, Direction.ACCEPT), self._level())

    def refusal(self, address: str) -> DeferredError | None:
        """Why mail for this address is not taken now."""
        found = self.place(self.scope(address))
        return refusal(found) if isinstance(found, Deferred) else None


def refusal(deferred: Deferred) -> DeferredError:
    """As SMTP is told."""
    if deferred.why is Why.SWITCH:
        return ClosedError("the switch has closed the intake of this recipient; two persons open it again")
    return NoRoomError("letters wait until the store has more room; the operator makes some")


class GuardedIntake:
    """Satisfies `contracts.Intake`: asks the door once more, notes under which epoch, and counts units of work.

    deferred: hears of a mail that was deferred as a whole, kept: of one that is durable; both return at once.
    """

    def __init__(
        self,
        intake: Intake,
        door: Door,
        *,
        unit: Unit = nullcontext,
        deferred: Callable[[Mail], None] = lambda _: None,
        kept: Callable[[Mail], None] = lambda _: None,
    ) -> None:
        self._intake = intake
        self._door = door
        self._unit = unit
        self._deferred = deferred
        self._kept = kept

    def accept(self, mail: Mail, done: Done) -> None:
        """As `Intake.accept`; done gets ClosedError or NoRoomError when the answer has changed since RCPT."""
        scopes = [self._door.scope(one.address) for one in mail.recipients]
        units = ExitStack()
        for scope in {*scopes}:
            # Before the question: whoever closes now waits for us, or we hear of it (SW-06).
            units.enter_context(self._unit(scope))

        def over(error: Error | None) -> None:
            units.close()
            if error is None:
                self._kept(mail)
            done(error)

        try:
            placed = {scope: self._door.place(scope) for scope in {*scopes}}
            deferred = next((one for one in placed.values() if isinstance(one, Deferred)), None)
            if deferred is not None:
                self._deferred(mail)
                over(refusal(deferred))
                return
            under = tuple(_under(placed[scope]) for scope in scopes)
            self._intake.accept(replace(mail, under=under), over)
        except BaseException:
            units.close()
            raise


def _under(placed: Placement) -> AcceptedUnder:
    return AcceptedUnder(placed.epoch, "" if isinstance(placed, Deferred) else placed.state.value)
