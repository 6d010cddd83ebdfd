"""Closings by rule: signed with the platform's own key, and only where an agreed policy says so (EW-06, § 5.2).

The automat can close and nothing else: it never builds an opening, and its role may sign none (`documents.OPENERS`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.clock import Now
from schleuse.errors import RefusedError
from schleuse.scopes import Scope, ScopeState
from schleuse.switch.documents import Command, Kind, Reason, Role, SignedCommand, sign
from schleuse.switch.log import Accepted, rules_of
from schleuse.switch.standing import Rule, standings

#: Before the id of an opening in an emergency: the id of the closing that ends it.
END = "ends-"


class NoMandateError(RefusedError):
    """No valid policy lets the platform close this by itself; a person closes it, or the policy is agreed anew."""

    code = "shutdown.no-mandate"


class Agreed(Protocol):
    """One valid policy, "if X then close Y". reference: "NAME@VERSION". scopes: what it may close, each bounded.

    state: the least open state that it may order. cost: what a false alarm costs, in words (EW-06). trigger: what sets
    it off, which the closing names; "" for what names it in its reference.
    """

    @property
    def reference(self) -> str: ...

    @property
    def scopes(self) -> Sequence[Scope]: ...

    @property
    def state(self) -> ScopeState: ...

    @property
    def cost(self) -> str: ...

    @property
    def trigger(self) -> str: ...


class Closing(Protocol):
    """What a mandate must cover: an order, or the command that came of it."""

    @property
    def scopes(self) -> tuple[Scope, ...]: ...

    @property
    def state(self) -> ScopeState: ...


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
    """What a rule wants closed. policy: its name. id, at: the same for the same event, which may repeat."""

    id: str
    at: datetime
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
        return self._append(
            Command(
                id=order.id,
                scopes=order.scopes,
                state=order.state,
                kind=Kind.AUTOMATIC,
                reason=Reason.SECURITY_HOLD,
                actor=self._name,
                requested_at=order.at,
                text=f"{agreed.trigger}: {order.text}".removeprefix(": ")[:2000],
                incident=order.incident,
                policy=agreed.reference,
            )
        )

    def end_emergency(self, ended: Ended) -> Accepted:
        """Close what an opening in an emergency has opened (RS-14). Raises what `append` raises.

        Its mandate is the opening itself: those who signed it have signed its end.
        """
        opening = ended.opening
        return self._append(
            Command(
                id=_end_id(opening),
                scopes=ended.scopes,
                state=ScopeState.HOLD,
                kind=Kind.AUTOMATIC,
                reason=Reason.SECURITY_HOLD,
                actor=self._name,
                requested_at=opening.closes_at or self._now(),
                text=f"the emergency opening {opening.id} has ended",
                incident=opening.incident,
                policy=opening.policy,
            )
        )

    def _append(self, command: Command) -> Accepted:
        signature = sign(command, self._name, Role.AUTOMAT, self._key())
        return self._log.append(SignedCommand(command, (signature,)), self._now())


def mandate(agreed: Agreed, order: Closing) -> str:
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


@dataclass(frozen=True, slots=True)
class Ended:
    """An opening in an emergency whose time is over. scopes: what is still open by it alone."""

    opening: Command
    scopes: tuple[Scope, ...]


def ended_emergencies(entries: Sequence[Accepted], atoms: Sequence[Scope], now: datetime) -> list[Ended]:
    """Those that nobody has closed by a command yet; what was properly opened since stays open. Pure."""
    commands = [one for entry in entries if (one := entry.command) is not None]
    ended = [one for one in commands if one.closes_at and one.closes_at <= now]
    if not ended:  # asked ten times a second, and there may be thousands of commands
        return []
    rules = rules_of(entries)
    ids = {one.id for one in commands}
    over = [one for one in ended if _end_id(one) not in ids]
    found = [Ended(one, tuple(_still_open(one, rules, atoms))) for one in over]
    return [one for one in found if one.scopes]


def _still_open(command: Command, rules: Sequence[Rule], atoms: Sequence[Scope]) -> Iterator[Scope]:
    for scope in command.scopes:
        covered = [one for one in atoms if scope.covers(one)]
        yield from (one for one, at in standings(rules, covered or [scope]).items() if at.command == command.id)


def _end_id(command: Command) -> str:
    return f"{END}{command.id}"
