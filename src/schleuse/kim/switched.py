"""Which scopes of the switch a mailbox belongs to (incident.md § 1.4).

eau_intake/IK/accept    mail for an insurer's mailbox        kim_mail//accept    all other mail
eau_intake/IK/deliver   an insurer's mailbox over POP3       kim_mail//read      a practice's mailbox over POP3
                                                             kim_mail//deliver   mail for other hosts
"""

from __future__ import annotations

from collections.abc import Iterable

from schleuse.identifiers import IK
from schleuse.scopes import NONE, Direction, Scope, Service, atom

SENDING = atom(Service.KIM_MAIL, NONE, Direction.DELIVER)


def accepting(insurer: IK | None) -> Scope:
    """Taking mail in. insurer: whose mailbox it is; None for a practice's, and for other hosts'."""
    if insurer is None:
        return atom(Service.KIM_MAIL, NONE, Direction.ACCEPT)
    return atom(Service.EAU_INTAKE, insurer.value, Direction.ACCEPT)


def reading(insurer: IK | None) -> Scope:
    """Fetching from a mailbox over POP3."""
    if insurer is None:
        return atom(Service.KIM_MAIL, NONE, Direction.READ)
    return atom(Service.EAU_INTAKE, insurer.value, Direction.DELIVER)


def enforced(insurers: Iterable[IK]) -> list[Scope]:
    """Every atom that the mail role enforces."""
    owners = [None, *insurers]
    return [scope(owner) for owner in owners for scope in (accepting, reading)] + [SENDING]
