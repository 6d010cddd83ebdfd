"""Who may do what at the vault: a closed table. The kernel says which user asks, the configuration in which role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from schleuse.vault.contracts import NotAllowedError


class Operation(StrEnum):
    """Everything that can be asked of the vault."""

    CERTIFICATES = "certificates"
    OPEN_MAILS = "open_mails"
    PSEUDONYMS = "pseudonyms"
    FILE = "file"
    FETCH = "fetch"
    SEAL_LETTER = "seal_letter"
    OPEN_LETTER = "open_letter"
    SIGN = "sign"
    STATUS = "status"
    ERASE = "erase"
    OPENING = "opening"
    IMPORT = "import"
    ROTATE = "rotate"
    OVERRIDE = "override"


#: Orders of persons (ERASE, OPENING, ROTATE, OVERRIDE) come through a role and are judged by the tokens with them.
_MAY: Mapping[str, frozenset[Operation]] = {
    "eau": frozenset(Operation),
    "operator": frozenset(
        {
            Operation.STATUS,
            Operation.ERASE,
            Operation.OPENING,
            Operation.IMPORT,
            Operation.ROTATE,
            Operation.OVERRIDE,
        }
    ),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """A connected process. role: by its user. uid: as the kernel says."""

    role: str
    uid: int

    @property
    def name(self) -> str:
        """How the journal's detail records call it."""
        return f"role {self.role}"


def require(caller: Caller, operation: Operation) -> None:
    """Raises NotAllowedError."""
    if operation not in _MAY.get(caller.role, frozenset()):
        raise NotAllowedError(f"the role {caller.role} may not {operation.value}; the vault's table says who may")
