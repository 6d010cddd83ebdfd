"""Which workers of this home must have seen an epoch before a closing is proven (SW-07)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schleuse.config import Config
from schleuse.scopes import Direction, Scope, Service
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
        (Service.KIM_MAIL, Direction.ACCEPT): [KIM],
        (Service.KIM_MAIL, Direction.DELIVER): [KIM],
        (Service.KIM_MAIL, Direction.READ): [KIM],
        (Service.KEYS, Direction.PROCESS): [VAULT],
        (Service.KEYS, Direction.ADMIN): [VAULT],
    }

    def workers(scope: Scope) -> Sequence[str]:
        return table.get((scope.service, scope.direction), [])

    return workers
