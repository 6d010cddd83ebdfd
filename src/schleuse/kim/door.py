"""Whether mail for an address is taken now: asked at RCPT, and once more when the mail is about to be kept.

Between the two the switch may have closed; then the whole mail is deferred, and at the next try each recipient hears
its own answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace

from schleuse.errors import Error
from schleuse.holding.capacity import Level
from schleuse.holding.placement import Deferred, Placement, Why, place
from schleuse.kim.accounts import Accounts
from schleuse.kim.switched import accepting
from schleuse.mail.contracts import AcceptedUnder, Done, Intake, Mail
from schleuse.mail.smtp_replies import ClosedError, DeferredError, NoRoomError
from schleuse.scopes import NONE, Direction, Scope, Service
from schleuse.switch.copy import Switch

#: Enters one unit of work of an atom (`processes.following.Running.unit`).
Unit = Callable[[Scope], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Door:
    """level: how full the store is (HD-28)."""

    accounts: Accounts
    switch: Switch
    level: Callable[[], Level]

    def place(self, address: str) -> Placement:
        """What becomes of mail for this address now. address: a known one, or another host's."""
        account = self.accounts.get(address)
        insurer = account.insurer if account else None
        service, tenant = (Service.KIM_MAIL, NONE) if insurer is None else (Service.EAU_INTAKE, insurer.value)
        return place(service, self.switch.standing(service, tenant, Direction.ACCEPT), self.level())

    def refusal(self, address: str) -> DeferredError | None:
        """Why mail for this address is not taken now."""
        found = self.place(address)
        return refusal(found) if isinstance(found, Deferred) else None

    def scopes(self, mail: Mail) -> frozenset[Scope]:
        """The atoms of its recipients."""
        accounts = (self.accounts.get(one.address) for one in mail.recipients)
        return frozenset(accepting(account.insurer if account else None) for account in accounts)


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
        units = ExitStack()
        for scope in self._door.scopes(mail):
            # Before the question: whoever closes now waits for us, or we hear of it (SW-06).
            units.enter_context(self._unit(scope))

        def over(error: Error | None) -> None:
            units.close()
            if error is None:
                self._kept(mail)
            done(error)

        try:
            placed = [self._door.place(one.address) for one in mail.recipients]
            error = next(map(refusal, _deferred(placed)), None)
            if error is not None:
                self._deferred(mail)
                over(error)
                return
            self._intake.accept(replace(mail, under=_under(placed)), over)
        except BaseException:
            units.close()
            raise


def _deferred(placed: Sequence[Placement]) -> Iterator[Deferred]:
    return (one for one in placed if isinstance(one, Deferred))


def _under(placed: Sequence[Placement]) -> tuple[AcceptedUnder, ...]:
    """Of recipients that are all taken."""
    return tuple(AcceptedUnder(one.epoch, one.state.value) for one in placed if not isinstance(one, Deferred))
