"""Closings by rule: signed with the platform's own key, and only where an agreed policy says so (EW-06, § 5.2).

The automat can close and nothing else: it never builds an opening, and its role may sign none (`documents.OPENERS`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.clock import Now
from schleuse.errors import RefusedError
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.documents import Command, Kind, Reason, Role, SignedCommand, sign
from schleuse.switch.log import Accepted


class NoMandateError(RefusedError):
    """No valid policy lets the platform close this by itself; a person closes it, or the policy is agreed anew."""

    code = "shutdown.no-mandate"


class Agreed(Protocol):
    """One valid policy, "if X then close Y". reference: "NAME@VERSION". scopes: what it may close, each bounded.

    state: the least open state that it may order. cost: what a false alarm costs, in words (EW-06).
    """

    @property
    def reference(self) -> str: ...

    @property
    def scopes(self) -> Sequence[Scope]: ...

    @property
    def state(self) -> ScopeState: ...

    @property
    def cost(self) -> str: ...


class Policies(Protocol):
    """The policies of this home, verified."""

    def valid(self, name: str, now: datetime) -> Agreed | None:
        """The policy of this name that is in force now; None if there is none whose signatures suffice."""
        ...


class Log(Protocol):
    """The part of `SwitchLog` that is needed."""

    def append(self, signed: SignedCommand, now: datetime) -> Accepted:
        """See `SwitchLog.append`."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a rule wants closed. policy: its name. id: the same for the same event, so that repeating is harmless."""

    id: str
    policy: str
    scopes: tuple[Scope, ...]
    state: ScopeState
    text: str
    incident: str = ""


class Automat:
    """name: of the credential in the configuration, whose only role is `automat`."""

    def __init__(self, log: Log, name: str, key: Callable[[], Ed25519PrivateKey], policies: Policies, now: Now) -> None:
        self._log = log
        self._name = name
        self._key = key
        self._policies = policies
        self._now = now

    def close(self, order: Order) -> Accepted:
        """Raises NoMandateError, and what `SwitchLog.append` raises."""
        agreed = self._policies.valid(order.policy, self._now())
        if agreed is None:
            raise NoMandateError(f"no policy {order.policy!r} is in force; see `schleuse switch policies`")
        fault = mandate(agreed, order)
        if fault:
            raise NoMandateError(f"policy {agreed.reference}: {fault}")
        return self._append(order.id, order.scopes, order.state, order.text, order.incident, agreed.reference)

    def end_emergency(self, opening: Accepted) -> Accepted | None:
        """Close what an opening in an emergency has opened, when its time is over (RS-14); None before.

        Its mandate is the opening itself: those who signed it have signed its end. Raises what `append` raises.
        """
        command = opening.signed.command if opening.signed else None
        if command is None or opening.fault or command.closes_at is None or self._now() < command.closes_at:
            return None
        text = f"the emergency opening {command.id} of epoch {opening.epoch} has ended"
        return self._append(
            f"ends-{command.id}"[:128], command.scopes, ScopeState.HOLD, text, command.incident, command.policy
        )

    def _append(
        self, id: str, scopes: tuple[Scope, ...], state: ScopeState, text: str, incident: str, policy: str
    ) -> Accepted:
        command = Command(
            id=id,
            scopes=scopes,
            state=state,
            kind=Kind.AUTOMATIC,
            reason=Reason.SECURITY_HOLD,
            actor=self._name,
            requested_at=self._now(),
            text=text[:2000],
            incident=incident,
            policy=policy,
        )
        signature = sign(command, self._name, Role.AUTOMAT, self._key())
        return self._log.append(SignedCommand(command, (signature,)), self._now())


def mandate(agreed: Agreed, order: Order) -> str:
    """Why this policy does not cover the order, or "" (EW-06)."""
    if not agreed.cost.strip():
        return "it does not say what a false alarm costs"
    outside = [str(one) for one in order.scopes if not any(known.covers(one) for known in agreed.scopes)]
    if outside:
        return f"it does not cover {', '.join(outside)}"
    if not order.scopes:
        return "the order names no scope"
    if order.state.openness < agreed.state.openness:
        return f"it closes down to {agreed.state} at most, not to {order.state}"
    if order.state.begins:
        return f"{order.state} closes nothing"
    return ""


def ended_emergencies(entries: Sequence[Accepted], now: datetime) -> list[Accepted]:
    """Openings whose time is over and whose closing nobody has written yet."""
    ids = {one.signed.command.id for one in entries if one.signed}
    return [
        one
        for one in entries
        if one.signed
        and not one.fault
        and one.signed.command.closes_at is not None
        and one.signed.command.closes_at <= now
        and f"ends-{one.signed.command.id}"[:128] not in ids
    ]
