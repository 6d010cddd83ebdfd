"""Two persons, two roles, one object: whether signed approvals of it suffice (RO-01 to RO-05, T-12). Pure.

An approval is verified whenever it is used, so whoever can write where it is kept can take it away and make none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta

from schleuse.journal.opening import canonical_json
from schleuse.restart.plan import GateKind
from schleuse.switch.approval import LIFETIME, Approval, valid
from schleuse.switch.documents import Person, Rights, Role, differ, time_text

#: What kinds of objects are approved here.
PLAN = "restart-plan"
WAIVER = "restart-waiver"


def waiver_hash(plan_hash: str, kind: GateKind, reason: str, until: datetime) -> str:
    """What a waiver is bound to: this gate of this version of the plan, for this reason, until then. Hex."""
    said = canonical_json({"plan": plan_hash, "gate": kind.value, "reason": reason, "until": time_text(until)})
    return hashlib.sha256(said).hexdigest()


def approver(
    one: Approval, purpose: str, hash: str, rights: Rights, longest: timedelta | None = LIFETIME
) -> Person | None:
    """Who gave it, if it was valid when it was given. longest: an approval that claims to hold longer is none."""
    if longest is not None and one.until - one.at > longest:
        return None
    return valid(one, purpose, hash, rights, one.at)


def pair(
    given: Iterable[Approval],
    purpose: str,
    hash: str,
    roles: tuple[Role, Role],
    rights: Rights,
    longest: timedelta | None = LIFETIME,
) -> tuple[Approval, Approval] | None:
    """The first two of these that suffice: one in each role, two persons with two keys, both in force at one moment."""
    found = [(one, person) for one in given if (person := approver(one, purpose, hash, rights, longest)) is not None]
    for one, person in found:
        for other, second in found:
            together = max(one.at, other.at) < min(one.until, other.until)
            if (one.role, other.role) == roles and together and differ(person, second):
                return one, other
    return None
