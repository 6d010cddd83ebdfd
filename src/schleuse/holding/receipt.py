"""The hold receipt: what a sender is told of his mail, and what he must do or not do (incident.md § 6.4). Pure.

It says what the record says at this moment, and imitates no DSN, no Fehlernachricht and no read receipt (HD-30).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from schleuse.holding.states import State
from schleuse.scopes import Service

#: Deadlines of practices are those of their calendar.
GERMANY = ZoneInfo("Europe/Berlin")
#: A practice without DSN is warned after so long, and posts paper at the end of that day (incident.md § 2.2, HD-04).
WITHOUT_DSN = timedelta(hours=24)

#: States that a sender may have to do something about; all others are ours to finish.
_BACK_AT_THE_SENDER = frozenset({State.RETURNED, State.WITHDRAWN})


class Action(StrEnum):
    """Values of "action needed" in § 6.4."""

    NONE = "none"
    PAPER = "paper_if_not_released_by"
    OTHER_CHANNEL = "use_other_channel_if_urgent"
    SEE_ANSWER = "see_answer"  # returned: a Fehlernachricht or DSN with its own reason was sent


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a mail does not go on. reason: hold reason class of appendix A, no details of an attack (CM-11).

    news_by: when we have promised the next information, also if that has passed (CM-03); None if nobody has.
    """

    reason: str
    since: datetime | None
    news_by: datetime | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One delivery. insurer: IK of an insurer's mailbox, "" for all others. told: a DSN that it arrived was sent.

    hold: None while nothing holds it, such as a letter that its recipient has not fetched yet.
    """

    service: Service
    insurer: str
    state: State
    accepted_at: datetime
    told: bool
    hold: Hold | None


@dataclass(frozen=True, slots=True)
class Deadline:
    """A deadline outside of the platform that the hold may touch (§ 6.3). unless: when it does not apply."""

    what: str
    until: datetime
    whom: str
    unless: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What a receipt says of one delivery. next_information_by: None when nothing more is to come."""

    case: Case
    do_not_resend: bool
    action: Action
    action_by: datetime | None
    next_information_by: datetime | None
    deadlines: Sequence[Deadline]

    @property
    def is_held(self) -> bool:
        """Whether the switch holds it now."""
        return self.case.hold is not None


def entry(case: Case) -> Entry:
    """Judge one delivery."""
    action, by = _action(case)
    news = case.hold.news_by if case.hold else None
    return Entry(case, case.state not in _BACK_AT_THE_SENDER, action, by, news, _deadlines(case))


def paper_by(accepted_at: datetime) -> datetime:
    """The end of the day, in Germany, on which a practice without DSN is warned."""
    day = (accepted_at + WITHOUT_DSN).astimezone(GERMANY).date()
    return datetime.combine(day, time(23, 59, 59), GERMANY).astimezone(accepted_at.tzinfo)


def _action(case: Case) -> tuple[Action, datetime | None]:
    if case.state in _BACK_AT_THE_SENDER:
        return Action.SEE_ANSWER, None
    if case.hold is None:
        return Action.NONE, None
    if not case.insurer:
        return Action.OTHER_CHANNEL, None
    # With a DSN the practice's duty is done: it need not resend and not print (HD-02).
    return (Action.NONE, None) if case.told else (Action.PAPER, paper_by(case.accepted_at))


def _deadlines(case: Case) -> Sequence[Deadline]:
    if case.hold is None or not case.insurer:
        return ()
    return (
        Deadline(
            "paper_copy_for_the_insurer", paper_by(case.accepted_at), "practice", "a DSN says that it was delivered"
        ),
    )
