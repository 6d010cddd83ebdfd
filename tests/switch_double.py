"""A switch for tests of services: states that a test sets, atom by atom, with rising epochs."""

from __future__ import annotations

from schleuse.scopes import NONE, Direction, Scope, ScopeState, Service, atom, parse_scopes
from schleuse.switch.documents import Limit
from schleuse.switch.standing import Standing


class FakeSwitch:
    """Open until `set`; satisfies `schleuse.switch.copy.Switch`."""

    def __init__(self) -> None:
        self.epoch = 0
        self._set: list[tuple[Scope, Standing]] = []

    def set(self, scopes: str, state: ScopeState, limit: Limit | None = None) -> int:
        """All atoms of these scopes stand there from now on. Returns the new epoch."""
        self.epoch += 1
        at = Standing(state, self.epoch, limit, command=f"c{self.epoch}", reason="security_hold")
        self._set += [(scope, at) for scope in parse_scopes(scopes)]
        return self.epoch

    def standing(self, service: Service, tenant: str, direction: Direction, path: str = NONE) -> Standing:
        one = atom(service, tenant, direction, path)
        return next((at for scope, at in reversed(self._set) if scope.covers(one)), Standing())
