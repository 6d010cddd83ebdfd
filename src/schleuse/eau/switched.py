"""Which scopes of the switch an insurer's eAU belong to (incident.md § 1.4)."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from schleuse.identifiers import IK
from schleuse.scopes import Direction, Scope, ScopeState, Service, atom
from schleuse.switch import fence
from schleuse.switch.copy import Switch
from schleuse.switch.standing import Standing


def processing(ik: IK) -> Scope:
    """Taking, opening, filing."""
    return atom(Service.EAU_INTAKE, ik.value, Direction.PROCESS)


def delivering(ik: IK) -> Scope:
    """Feed, acknowledgements and Fehlernachrichten."""
    return atom(Service.EAU_INTAKE, ik.value, Direction.DELIVER)


def may_process(switch: Switch, ik: IK) -> Standing | None:
    """The standing under which a batch of this insurer may begin now; None: it may not.

    With its keys closed nothing could be opened, so nothing is taken.
    """
    keys = switch.standing(Service.KEYS, ik.value, Direction.PROCESS)
    at = switch.standing(Service.EAU_INTAKE, ik.value, Direction.PROCESS)
    return at if at.state.begins and keys.state.begins else None


def require_delivering(connection: sa.Connection, ik: IK, epoch: int | None) -> None:
    """In the transaction of what goes out to this insurer. None: nothing is asked. Raises StaleEpochError (SW-06)."""
    if epoch is not None:
        fence.require(connection, delivering(ik), epoch)


def delivery(switch: Switch, ik: IK) -> Standing:
    """The standing of what goes out to this insurer and to its practices."""
    return switch.standing(Service.EAU_INTAKE, ik.value, Direction.DELIVER)


def delivered_share(at: Standing) -> int | None:
    """How much of it may go out, in permille; None where no share bounds it (RS-06, canary and cohorts of § 9.2)."""
    return at.limit.permille if at.limit is not None and at.state is ScopeState.LIMITED else None


def delivered_rate(at: Standing) -> int | None:
    """How many an hour may go out, each way by itself: so many in the feed, and so many letters; None: no rate."""
    return at.limit.per_hour if at.limit is not None and at.state is ScopeState.LIMITED else None


def answering(ik: IK) -> Scope:
    """Answers to employers. They go out to the insurer's system as well, so `delivering` must be open, too."""
    return atom(Service.EAU_EMPLOYER_ANSWER, ik.value, Direction.DELIVER)


def answers(switch: Switch, ik: IK) -> Standing:
    """The standing of answers to employers."""
    return switch.standing(Service.EAU_EMPLOYER_ANSWER, ik.value, Direction.DELIVER)


@dataclass(frozen=True, slots=True)
class AnswerTerms:
    """On what answers to employers stand: the epochs of `answering` and of `delivering`, under which they are said.

    None: no switch rules. permille: of which share of the eAU they may speak; None: of all.
    """

    answering: int | None
    delivering: int | None
    permille: int | None = None


#: Where no switch rules.
UNSWITCHED = AnswerTerms(None, None)


def answer_terms(answered: Standing, delivered: Standing) -> AnswerTerms:
    """From where both atoms stand, while answers may go out."""
    return AnswerTerms(answered.epoch, delivered.epoch, answered_share(delivered))


def require_answering(connection: sa.Connection, ik: IK, terms: AnswerTerms) -> None:
    """As `require_delivering`, of what is said to employers: an older epoch of either atom is refused (SW-06)."""
    if terms.answering is not None:
        fence.require(connection, answering(ik), terms.answering)
    require_delivering(connection, ik, terms.delivering)


def answers_begin(at: Standing) -> bool:
    """Whether answers may go out. Nobody counts them, so while they are LIMITED they are deferred (RS-06)."""
    return at.state.begins and at.state is not ScopeState.LIMITED


def answered_share(at: Standing) -> int | None:
    """Of which share of the eAU an answer may speak, at: of `delivery`. With a rate it is none, which is what can be
    kept without counting; see `delivered_share`."""
    return delivered_share(at) if delivered_rate(at) is None else 0


def accepts(switch: Switch, ik: IK) -> bool:
    """Whether mail to this insurer's mailbox is taken in now; what is deferred is at its sender (HD-09)."""
    return switch.standing(Service.EAU_INTAKE, ik.value, Direction.ACCEPT).state.accepts
