"""Versions of the eAU: until when each may be sent, and in which one an answer is written (eau.md § 10, § 13.4).

Bounds are data with a period of validity, because the next version of the Technische Anlage moves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

#: The calendar day of the KIM Date is taken in German local time (eau.md § 19 no. 12).
GERMAN_TIME = ZoneInfo("Europe/Berlin")


class Answer(StrEnum):
    """Version that a Fehlernachricht's `meta.profile` carries after the bar; "1.2" stands for 1.2.0 and 1.2.1."""

    V1_1_0 = "1.1.0"
    V1_2 = "1.2"


@dataclass(frozen=True, slots=True)
class Transition:
    """Last day on which a profile version may be sent, by the Date of the KIM mail; None: no end known."""

    last_day: Mapping[str, date | None]

    def allows(self, version: str, sent_at: datetime) -> bool:
        """Whether a document of this version may have been sent at that moment (HD-48: sending, not processing).

        A version that is not listed is not ours to judge here; the profile check knows whether it exists.
        """
        last = self.last_day.get(version)
        return last is None or _german_day(sent_at) <= last


def _german_day(moment: datetime) -> date:
    try:
        return moment.astimezone(GERMAN_TIME).date()
    except OverflowError:  # a Date in the first or last hours that a calendar has: the day as written
        return moment.date()


#: Technische Anlage 1.26: 1.1.0 may be sent until 31.03.2026; 1.0.2 ended with 2023 (eau.md § 10).
#: Only ends are bounds: a practice's clock that is late must not cost anyone a valid certificate.
TRANSITION_TA_1_26 = Transition({"1.0.2": date(2023, 12, 31), "1.1.0": date(2026, 3, 31), "1.2": None})

_NEW, _OLD = Answer.V1_2, Answer.V1_1_0

#: (version of the payload or None if not readable, version of the Dienstkennung or None if unknown)
#: -> (version of the answer, version of its Dienstkennung). The matrix of eau.md § 13.4, row by row.
_MATRIX: Mapping[tuple[Answer | None, str | None], tuple[Answer, str]] = {
    (_NEW, "V1.2"): (_NEW, "V1.2"),
    (_NEW, "V1.1"): (_NEW, "V1.1"),
    (_OLD, "V1.1"): (_OLD, "V1.1"),
    (_OLD, "V1.2"): (_OLD, "V1.1"),
    (_NEW, None): (_NEW, "V1.2"),
    (_OLD, None): (_OLD, "V1.1"),
    (None, None): (_NEW, "V1.2"),
    (None, "V1.2"): (_NEW, "V1.2"),
    (None, "V1.1"): (_OLD, "V1.1"),
}


def answer_version(payload: str | None, dienstkennung: str | None) -> tuple[Answer, str]:
    """Versions of the Fehlernachricht and of its Dienstkennung.

    payload: version after the bar of the payload's profile, None if it could not be read or is none of ours.
    dienstkennung: version part of the bad mail's Dienstkennung ("V1.2"), None if missing.
    """
    known = dienstkennung.strip().upper() if dienstkennung else None
    return _MATRIX[_readable(payload), known if known in ("V1.1", "V1.2") else None]


def _readable(payload: str | None) -> Answer | None:
    if payload is None:
        return None
    if payload in ("1.1.0", "1.0.2"):  # 1.0.2 is older than any answer we can write
        return Answer.V1_1_0
    return Answer.V1_2 if payload == "1.2" else None
