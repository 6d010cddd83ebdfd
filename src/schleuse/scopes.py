"""Scopes and their states: the words of the switch that every role uses (incident.md § 1.4, appendix A).

A *scope* is service × tenant × direction × path, each of which may be a wildcard; without wildcards it is an *atom*,
and every unit of work belongs to exactly one atom. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from schleuse.errors import MalformedError

ANY = "*"
#: Tenant of an atom that concerns no insurer, such as a mail from one practice to another; path of most atoms.
NONE = ""


class BadScopeError(MalformedError):
    """Not a scope; whoever wrote it can change it."""

    code = "scope.bad"


class Service(StrEnum):
    """What may be switched; values letter for letter as in incident.md appendix A."""

    EAU_INTAKE = "eau_intake"
    EAU_EMPLOYER_ANSWER = "eau_employer_answer"
    KIM_MAIL = "kim_mail"
    EARZTBRIEF = "earztbrief"
    EPA_RIGHTS = "epa_rights"
    EPA_READ = "epa_read"
    EPA_WRITE = "epa_write"
    DIRECTORY = "directory"
    IDENTITY = "identity"
    KEYS = "keys"
    PAYMENTS_SUPPORT = "payments_support"
    STATUS = "status"
    CONTACT = "contact"


class Direction(StrEnum):
    """Values of incident.md § 1.4. maintenance: access of suppliers."""

    ACCEPT = "accept"
    PROCESS = "process"
    DELIVER = "deliver"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    MAINTENANCE = "maintenance"
    SUPPORT = "support"


class ScopeState(StrEnum):
    """Values of incident.md appendix A. Compare with `openness`, never as texts."""

    CLOSED = "CLOSED"
    DEFER = "DEFER"
    HOLD = "HOLD"
    DRAIN = "DRAIN"
    LIMITED = "LIMITED"
    OPEN = "OPEN"

    @property
    def openness(self) -> int:
        """0 for CLOSED up to 5 for OPEN: the order of appendix A."""
        return _OPENNESS[self]

    @property
    def accepts(self) -> bool:
        """Whether what arrives is taken in; in HOLD it is, and kept (HD-02)."""
        return self.openness >= ScopeState.HOLD.openness

    @property
    def begins(self) -> bool:
        """Whether a unit of work may begin. In DRAIN running ones end, and none begins."""
        return self.openness >= ScopeState.LIMITED.openness


_OPENNESS = {state: number for number, state in enumerate(ScopeState)}

#: Written for several services at once. `all` leaves out what RS-10 wants open: status and contact.
GROUPS: dict[str, tuple[Service, ...]] = {
    "eau": (Service.EAU_INTAKE, Service.EAU_EMPLOYER_ANSWER),
    "kim": (Service.KIM_MAIL, Service.EARZTBRIEF),
    "epa": (Service.EPA_RIGHTS, Service.EPA_READ, Service.EPA_WRITE),
    "all": tuple(one for one in Service if one not in (Service.STATUS, Service.CONTACT)),
}

_TENANT = re.compile(r"[0-9]{9}|\*|", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_.:@-]{0,128}|\*", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """A part of the platform. service, direction: a value of the enumeration or ANY; tenant: an IK, NONE or ANY.

    Raises BadScopeError.
    """

    service: str = ANY
    tenant: str = ANY
    direction: str = ANY
    path: str = ANY

    def __post_init__(self) -> None:
        if self.service != ANY and self.service not in _SERVICES:
            raise BadScopeError(f"no service {self.service!r}; expected * or one of {', '.join(Service)}")
        if not _TENANT.fullmatch(self.tenant):
            raise BadScopeError(f"the tenant of a scope is * or an IK of nine digits, found {self.tenant!r}")
        if self.direction != ANY and self.direction not in _DIRECTIONS:
            raise BadScopeError(f"no direction {self.direction!r}; expected * or one of {', '.join(Direction)}")
        if not _PATH.fullmatch(self.path):
            raise BadScopeError("the path of a scope is * or at most 128 letters, digits and _.:@-")

    @property
    def is_atom(self) -> bool:
        """Whether it has no wildcard."""
        return ANY not in (self.service, self.tenant, self.direction, self.path)

    def covers(self, other: Scope) -> bool:
        """Whether everything of `other` is part of this one."""
        # Written out, because the fold over all commands asks this for each of them.
        return (
            self.service in (other.service, ANY)
            and self.tenant in (other.tenant, ANY)
            and self.direction in (other.direction, ANY)
            and self.path in (other.path, ANY)
        )

    def meets(self, other: Scope) -> bool:
        """Whether the two have an atom in common."""
        return all(ANY in (mine, its) or mine == its for mine, its in zip(self._parts(), other._parts(), strict=True))

    def __str__(self) -> str:
        """The shortest text that `parse_scopes` reads as this scope; an absent tenant is written as "-"."""
        parts = [self.service, self.tenant or "-", self.direction, self.path or "-"]
        while len(parts) > 1 and parts[-1] == ANY:
            parts.pop()
        return "/".join(parts)

    def _parts(self) -> tuple[str, str, str, str]:
        return self.service, self.tenant, self.direction, self.path


_SERVICES = frozenset(Service)
_DIRECTIONS = frozenset(Direction)


def atom(service: Service, tenant: str, direction: Direction, path: str = NONE) -> Scope:
    """The scope of one unit of work. tenant: an IK or NONE."""
    return Scope(service.value, tenant, direction.value, path)


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """SERVICE[/TENANT[/DIRECTION[/PATH]]]; what is left out is a wildcard, "-" is no tenant or no path.

    SERVICE may be a name of GROUPS, which stands for several scopes; `*` alone is the same as `all`, so that nobody
    closes the status channel by mistake (RS-10). Raises BadScopeError.
    """
    parts = text.split("/")
    if not 1 <= len(parts) <= 4 or not parts[0]:
        raise BadScopeError(f"expected SERVICE[/TENANT[/DIRECTION[/PATH]]], found {text!r}")
    rest = [NONE if part == "-" else part for part in parts[1:]]
    return tuple(Scope(service, *rest) for service in _services(parts[0]))


def _services(name: str) -> Iterator[str]:
    if name == ANY:
        name = "all"
    yield from (one.value for one in GROUPS[name]) if name in GROUPS else (name,)
