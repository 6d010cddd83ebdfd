"""The first of the four locks of the one door: does the switch let this insurer's content be opened (design.md § 2)?

A closed scope's keys are not released, whoever asks and whatever he was told (SW-04); making, importing, rotating and
destroying keys is a scope, too (SW-13). The state is asked before the
entry is written and again before the key is used: a closing in between wins, and the entry then says more than
happened, never less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from schleuse.identifiers import IK
from schleuse.journal.entry import Purpose
from schleuse.scopes import Direction, Scope, Service, atom
from schleuse.switch.copy import Switch
from schleuse.vault.contracts import ScopeClosedError

#: What a release for this purpose is a part of. Every other purpose is an order about keys.
_RELEASES: Mapping[Purpose, tuple[Service, Direction]] = {
    Purpose.EAU_INTAKE: (Service.EAU_INTAKE, Direction.PROCESS),
    Purpose.EAU_DELIVERY: (Service.EAU_INTAKE, Direction.DELIVER),
    Purpose.FEHLERNACHRICHT: (Service.EAU_INTAKE, Direction.DELIVER),
}
_ORDERS = (Service.KEYS, Direction.ADMIN)


class Gate:
    """switch: the vault's own copy; None where there is no switch, as in tests of keys alone."""

    def __init__(self, switch: Switch | None = None) -> None:
        self._switch = switch

    def release(self, ik: IK, purpose: Purpose) -> None:
        """Raises ScopeClosedError unless keys may be used for this purpose at this insurer now."""
        self._require(ik, *_RELEASES.get(purpose, _ORDERS))
        self._require(ik, Service.KEYS, Direction.PROCESS)

    def filing(self, ik: IK) -> None:
        """Raises ScopeClosedError unless new content may be sealed for this insurer now."""
        self._require(ik, Service.EAU_INTAKE, Direction.PROCESS)
        self._require(ik, Service.KEYS, Direction.PROCESS)

    def order(self, ik: IK) -> None:
        """Raises ScopeClosedError unless orders about this insurer's keys may be carried out now."""
        self._require(ik, *_ORDERS)

    def _require(self, ik: IK, service: Service, direction: Direction) -> None:
        if self._switch is None:
            return
        at = self._switch.standing(service, ik.value, direction)
        if not at.state.begins:
            scope = atom(service, ik.value, direction)
            raise ScopeClosedError(f"{scope} is {at.state} since epoch {at.epoch}; two persons open it again")


def gated(insurers: Iterable[IK]) -> Iterator[Scope]:
    """Every atom that the vault enforces."""
    for ik in insurers:
        for service, direction in dict.fromkeys([*_RELEASES.values(), _ORDERS, (Service.KEYS, Direction.PROCESS)]):
            yield atom(service, ik.value, direction)
