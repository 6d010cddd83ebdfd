"""Orders to start a system of which nobody knows whether it ran before a closing: two persons sign (SW-01, RO-01)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from schleuse.config import Config
from schleuse.errors import ConflictError, MalformedError
from schleuse.journal.entry import Kind, Result
from schleuse.journal.opening import Json
from schleuse.processes.control_workers import systems_of
from schleuse.processes.operators import key_of, rights_of
from schleuse.processes.switch_orders import tell, tenants_of
from schleuse.shutdown.external import Cause, RecordBook, SystemStandings
from schleuse.shutdown.external_start import PURPOSE, StartBook, StartOrder, order_of
from schleuse.switch.approval import approve
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.documents import NotAuthorisedError


class NoSuchSystemError(MalformedError):
    """No system of this name is configured; `control.external` of the configuration has them all."""

    code = "control.no-such-system"


class NotUnsureError(ConflictError):
    """The system does not wait for two persons; `switch show` says where it stands."""

    code = "control.not-unsure"


def start_order(config: Config, switch: LocalSwitch, name: str, now: datetime) -> StartOrder:
    """What is to be signed so that it starts. Raises NoSuchSystemError, NotUnsureError."""
    system = next((one for one in systems_of(config) if one.name == name), None)
    if system is None:
        known = ", ".join(one.name for one in config.control.external) or "none"
        raise NoSuchSystemError(f"no system {name!r} is configured; there is {known}")
    standings = SystemStandings.of(switch)
    at = standings.at(system.scope, now)
    cause = standings.cause(at)
    if not at.state.begins or cause is Cause.NOBODY:
        raise NotUnsureError(f"{name} is {at.state} and nobody has opened it; `restart` opens {system.scope} first")
    if not RecordBook(config.switch_folder).read(name).waits(at, cause):
        raise NotUnsureError(f"{name} does not wait for anybody: it was seen before it was stopped, or has an order")
    return order_of(system, at)


def start_book(config: Config) -> StartBook:
    """Of this home."""
    return StartBook(config.switch_folder, rights_of(config))


def sign_start(
    config: Config, book: StartBook, order: StartOrder, operator: str, key: Path | None, now: datetime
) -> Sequence[str]:
    """Sign in each role that the operator has of the two, and tell the journal. Returns all whose signatures count.

    Raises NotAuthorisedError, StartNotKeptError, and what reading a key raises.
    """
    mine = next((one.roles for one in config.operators if one.name == operator), ())
    roles = sorted({role for pair in order.pairs for role in pair if role.value in mine})
    if not roles:
        wanted = " or ".join(f"{one} and {other}" for one, other in order.pairs)
        raise NotAuthorisedError(f"{operator!r} has none of the roles {wanted}")
    secret = key_of(config, operator, key)
    for role in roles:
        book.keep(approve(PURPOSE, order.hash, operator, role, secret, now))
    detail: dict[str, Json] = {
        "act": "external.start-signed",
        "name": order.name,
        "scope": str(order.scope),
        "epoch": order.epoch,
        "hash": order.hash,
        "roles": [one.value for one in roles],
    }
    tell(config, tenants_of(config, [order.scope]), Kind.POLICY_CHANGED, Result.GRANTED, operator, detail)
    return book.signers(order, now)
