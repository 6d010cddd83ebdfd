"""Which workers of this home, and which systems that are not ours, must have followed an epoch (SW-07, SW-08)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from schleuse.config import Config
from schleuse.scopes import BadScopeError, Direction, Scope, Service, parse_scopes
from schleuse.shutdown.external import ExternalSystem
from schleuse.shutdown.probes import Workers

KIM = "kim"
DESK = "eau-desk"
VAULT = "vault"


def eau_workers(config: Config) -> list[str]:
    """Those that open, check and file."""
    return [f"eau-worker-{number}" for number in range(config.eau.workers)]


def workers_of(config: Config) -> Workers:
    """By atom; an external system is its own worker."""
    table: Mapping[tuple[str, str], Sequence[str]] = {
        (Service.EAU_INTAKE, Direction.ACCEPT): [KIM],
        (Service.EAU_INTAKE, Direction.PROCESS): [*eau_workers(config), VAULT],
        (Service.EAU_INTAKE, Direction.DELIVER): [DESK, KIM, VAULT],
        (Service.EAU_EMPLOYER_ANSWER, Direction.DELIVER): [DESK],
        (Service.KIM_MAIL, Direction.ACCEPT): [KIM],
        (Service.KIM_MAIL, Direction.DELIVER): [KIM],
        (Service.KIM_MAIL, Direction.READ): [KIM],
        (Service.KEYS, Direction.PROCESS): [VAULT],
        (Service.KEYS, Direction.ADMIN): [VAULT],
    }

    def workers(scope: Scope) -> Sequence[str]:
        return table.get((scope.service, scope.direction), [])

    return workers


def systems_of(config: Config) -> list[ExternalSystem]:
    """The systems of the configuration. Raises BadScopeError."""
    return [
        ExternalSystem(
            one.name,
            _one_scope(one.scope),
            one.stop,
            one.start,
            one.probe,
            timedelta(seconds=one.timeout_seconds),
            one.drill_window or "",
        )
        for one in config.control.external
    ]


def _one_scope(text: str) -> Scope:
    found = parse_scopes(text)
    if len(found) != 1:
        raise BadScopeError(f"control.external: {text!r} names a group; name one service")
    return found[0]
