"""Two persons start a system of which nobody knows whether it ran before a closing (SW-01, RO-01, RO-04).

    <home>/switch/external/starts/HASH/OPERATOR.ROLE.json     one approval of the order whose hash this is

An order is good for one system and one opening: a closing that comes between ends it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from schleuse.errors import UnavailableError
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.opening import Json, canonical_json
from schleuse.scopes import Scope
from schleuse.shutdown.external import ExternalSystem
from schleuse.switch.approval import Approval, BadApprovalError, approved_by_two, parse_approval, valid
from schleuse.switch.documents import BREAKERS, OPENERS, Rights, Role
from schleuse.switch.standing import Standing

#: What an approval of this kind says that it approves.
PURPOSE = "external-start"


class StartNotKeptError(UnavailableError):
    """The signature of a start could not be written; its operator looks at the disk."""

    code = "shutdown.start-not-kept"


@dataclass(frozen=True, slots=True)
class StartOrder:
    """What the two sign. epoch: of the opening. emergency: whether that was one of the pair of an emergency (RS-14)."""

    name: str
    scope: Scope
    epoch: int
    emergency: bool

    @property
    def hash(self) -> str:
        """SHA-256, in hex."""
        table: dict[str, Json] = {
            "type": PURPOSE,
            "version": 1,
            "name": self.name,
            "scope": str(self.scope),
            "epoch": self.epoch,
            "emergency": int(self.emergency),
        }
        return hashlib.sha256(canonical_json(table)).hexdigest()

    @property
    def pairs(self) -> Sequence[tuple[Role, Role]]:
        """Who together: whoever may open, as for commands; the pair of an emergency within one."""
        return (OPENERS, BREAKERS) if self.emergency else (OPENERS,)


def order_of(system: ExternalSystem, at: Standing) -> StartOrder:
    """The order that would start it where it stands now."""
    return StartOrder(system.name, system.scope, at.epoch, at.closes_at is not None)


class StartBook:
    """folder: `<home>/switch`."""

    def __init__(self, folder: Path, rights: Rights) -> None:
        self._folder = folder / "external" / "starts"
        self._rights = rights

    def keep(self, approval: Approval) -> None:
        """Whether it counts is seen when it is read. Raises StartNotKeptError."""
        place = self._folder / approval.hash
        try:
            place.mkdir(parents=True, exist_ok=True)
            path = place / f"{approval.operator}.{approval.role}.json"
            replace(OsDisk(), path, json.dumps(approval.encode(), indent=1).encode())
        except OSError as cause:
            raise StartNotKeptError(f"the signature cannot be written ({cause.strerror})") from cause

    def signers(self, order: StartOrder, now: datetime) -> list[str]:
        """Whose approvals of it count now: "NAME as ROLE"."""
        rights = self._rights.trusted(now)
        found = self._approvals(order)
        return [f"{one.operator} as {one.role}" for one in found if valid(one, PURPOSE, order.hash, rights, now)]

    def suffices(self, order: StartOrder, now: datetime) -> bool:
        """Whether two persons have ordered it (RO-01)."""
        rights, found = self._rights.trusted(now), self._approvals(order)
        return any(
            approved_by_two(found, PURPOSE, order.hash, frozenset({one}), frozenset({other}), rights, now)
            for one, other in order.pairs
        )

    def _approvals(self, order: StartOrder) -> list[Approval]:
        """All that are kept; what is none approves nothing, and one of longer than hours is none either (§ 9.3)."""
        found = []
        for path in sorted((self._folder / order.hash).glob("*.json")):
            try:
                found.append(parse_approval(json.loads(path.read_bytes())))
            except (OSError, ValueError, BadApprovalError):
                continue
        return [one for one in found if one.is_brief]
