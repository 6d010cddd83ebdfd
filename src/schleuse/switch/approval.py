"""An approval: a person stands for exactly one object, in one role, for a time (RO-04, RO-05). Pure.

Signed is what is approved (by its hash and its purpose), by whom, in which role, from when and until when; so that an
approval of one thing is never one of another, and any change of the object voids it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.errors import MalformedError
from schleuse.journal.opening import Json, canonical_json
from schleuse.switch.documents import Person, Rights, Role, differ, parse_time, time_text

_DOMAIN = b"schleuse approval v1\n"
#: G-HUMAN of incident.md § 9.3.
LIFETIME = timedelta(hours=4)


class BadApprovalError(MalformedError):
    """Not an approval; whoever made it can change it."""

    code = "switch.bad-approval"


@dataclass(frozen=True, slots=True)
class Approval:
    """purpose: what kind of object, such as "restart-plan". hash: of the object, SHA-256 in hex."""

    purpose: str
    hash: str
    operator: str
    role: Role
    at: datetime
    until: datetime
    signature: bytes = b""

    @property
    def is_brief(self) -> bool:
        """Whether it ends within hours (§ 9.3); who signs writes the end himself."""
        return self.until - self.at <= LIFETIME

    def encode(self) -> dict[str, Json]:
        """As it is kept."""
        return {**_said(self), "signature": self.signature.hex()}


def approve(
    purpose: str,
    hash: str,
    operator: str,
    role: Role,
    key: Ed25519PrivateKey,
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> Approval:
    """Sign."""
    unsigned = Approval(purpose, hash, operator, role, now, now + lifetime)
    signature = key.sign(_DOMAIN + canonical_json(_said(unsigned)))
    return Approval(purpose, hash, operator, role, now, now + lifetime, signature)


def parse_approval(table: Mapping[str, Any]) -> Approval:
    """From the JSON value of `Approval.encode`. Raises BadApprovalError."""
    try:
        return Approval(
            purpose=str(table["purpose"]),
            hash=str(table["hash"]),
            operator=str(table["operator"]),
            role=Role(table["role"]),
            at=parse_time(str(table["at"])),
            until=parse_time(str(table["until"])),
            signature=bytes.fromhex(table["signature"]),
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise BadApprovalError(f"not an approval: {type(cause).__name__}") from cause


def valid(approval: Approval, purpose: str, hash: str, rights: Rights, now: datetime) -> Person | None:
    """Who approves this object now, or None: another object, another time, a role he has not, no known identity, or a
    credential that was disabled before it was given (RO-05)."""
    person = rights.people().get(approval.operator)
    if person is None or approval.role not in person.roles:
        return None
    if person.is_disabled(approval.at):
        return None
    if (approval.purpose, approval.hash) != (purpose, hash) or not approval.at <= now < approval.until:
        return None
    return person if person.has_signed(approval.signature, _DOMAIN + canonical_json(_said(approval))) else None


def approved_by_two(
    approvals: Iterable[Approval],
    purpose: str,
    hash: str,
    first: frozenset[Role],
    second: frozenset[Role],
    rights: Rights,
    now: datetime,
) -> bool:
    """Whether two different persons approve, one in a role of each side (RO-01)."""
    found = [(person, one.role) for one in approvals if (person := valid(one, purpose, hash, rights, now))]
    return any(
        mine in first and theirs in second and differ(person, other)
        for person, mine in found
        for other, theirs in found
    )


def _said(approval: Approval) -> dict[str, Json]:
    return {
        "purpose": approval.purpose,
        "hash": approval.hash,
        "operator": approval.operator,
        "role": approval.role.value,
        "at": time_text(approval.at),
        "until": time_text(approval.until),
    }
