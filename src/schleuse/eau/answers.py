"""Answers to employers: which certificates a request meets, and what may be said about it (eau.md § 17). Pure.

The rule that a hold turns on (HD-09, T-08): held mail is sealed, and nobody knows whose eAU is in it. So while anything
of the insurer waits that could hold the certificate, "nothing found" is 7 and never 4; a wrong 4 can cost a person the
wage. The final answer follows by itself.

Schleuse says 2, 4 and 7, from the eAU that it has; all other codes rest on what only the insurer knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import IntEnum, StrEnum

from schleuse.eau.document import DocumentId, Period


class Code(IntEnum):
    """Kennzeichen_der_Rueckmeldung (eau.md § 17.4); 10 has no source."""

    NOT_RESPONSIBLE = 1
    AU = 2
    HOSPITAL = 3
    NONE = 4
    REHA = 5
    PARTIAL_HOSPITAL = 6
    IN_REVIEW = 7
    OTHER_PROOF = 8
    FORWARDED = 9


class Follows(StrEnum):
    """Whether another answer comes by itself."""

    FINAL = "final"
    INTERIM = "interim"
    PROOF = "proof"  #: the actual end follows


@dataclass(frozen=True, slots=True)
class CodeRule:
    """watched: how long the insurer goes on looking, counted from `from_request` or from this answer.

    from_request: from the employer's first request. ours: whether Schleuse gives it.
    """

    meaning: str
    follows: Follows
    watched: timedelta | None = None
    from_request: bool = False
    ours: bool = False


#: A Storno is possible within 120 working days (incident.md § 2.2): half a year with its holidays. Until then an answer
#: is withdrawn when its eAU is.
STORNO_POSSIBLE = timedelta(days=183)
#: eau.md § 17.4; the figures are calendar days.
CODES: Mapping[Code, CodeRule] = {
    Code.NOT_RESPONSIBLE: CodeRule("Unzuständige Krankenkasse / unbekannte Person", Follows.FINAL),
    Code.AU: CodeRule("AU", Follows.FINAL, STORNO_POSSIBLE, ours=True),
    Code.HOSPITAL: CodeRule("Krankenhaus", Follows.PROOF),
    Code.NONE: CodeRule("Nachweis liegt nicht vor", Follows.INTERIM, timedelta(days=14), ours=True),
    Code.REHA: CodeRule("Reha/Vorsorge", Follows.PROOF),
    Code.PARTIAL_HOSPITAL: CodeRule("Teilstationäre Krankenhausbehandlung", Follows.FINAL),
    Code.IN_REVIEW: CodeRule("In Prüfung", Follows.INTERIM, timedelta(days=28), from_request=True, ours=True),
    Code.OTHER_PROOF: CodeRule("Anderer Nachweis liegt vor", Follows.FINAL),
    Code.FORWARDED: CodeRule("Weiterleitungsverfahren", Follows.INTERIM, timedelta(days=14)),
}

#: A certificate that begins so soon after the requested day still meets it (eau.md § 17.5).
SOON_AFTER = timedelta(days=5)
#: A Folge belongs to the certificate before it if that one ended at most so long before the Folge was issued.
SAME_CASE = timedelta(days=7)
#: How far before its issue a Folge may begin of which the certificate before it is not there [own note].
OPEN_START = timedelta(days=31)

_FOLGE = frozenset({"FOLGE", "FOLGE_END"})


@dataclass(frozen=True, slots=True)
class Certificate:
    """One accepted eAU of the person, not cancelled. period.starts_on: of a Folge as `with_starts` finds it."""

    delivery: int
    document_id: DocumentId
    accepted_at: datetime
    period: Period


@dataclass(frozen=True, slots=True)
class Match:
    """found: those that answer the request, all of them. unclear: those of which their days do not say it."""

    found: tuple[Certificate, ...] = ()
    unclear: tuple[Certificate, ...] = ()


def with_starts(certificates: Iterable[Certificate]) -> list[Certificate]:
    """In order of their ends; a Folge begins on the day after the end of the one before it (eau.md § 15)."""
    ordered = sorted(certificates, key=lambda one: (one.period.ends_on or date.max, one.delivery))
    known: list[Certificate] = []
    for one in ordered:
        period = one.period
        if period.starts_on is None and period.au_type in _FOLGE and period.ends_on and period.issued_on:
            ends = [other.period.ends_on for other in known if other.period.ends_on]
            before = max((end for end in ends if end < period.ends_on), default=None)
            if before is not None and period.issued_on - before <= SAME_CASE:
                period = replace(period, starts_on=before + timedelta(days=1))
        known.append(replace(one, period=period))
    return known


def match(certificates: Iterable[Certificate], day: date) -> Match:
    """What the person's certificates say about an absence from this day on; the first rule that hits (§ 17.5).

    Dates are what insurers and practices wrote, up to the ends of the calendar, so they are only ever subtracted.
    """
    known = with_starts(certificates)
    unclear = tuple(one for one in known if _is_unclear(one.period, day))
    rules = (
        [one for one in known if one.period.starts_on == day],
        [one for one in known if _runs(one.period, day)],
        [one for one in known if one.period.starts_on and timedelta(0) < one.period.starts_on - day <= SOON_AFTER],
    )
    return Match(next((tuple(found) for found in rules if found), ()), unclear)


def within(found: Match, is_open: Callable[[int], bool]) -> Match:
    """The same, unless the switch keeps back one of those found, by its delivery: then it is as good as not opened."""
    if all(is_open(one.delivery) for one in found.found):
        return found
    return Match((), found.found + found.unclear)


def _runs(period: Period, day: date) -> bool:
    begins = period.starts_on or (period.issued_on if period.au_type in _FOLGE else None)
    return begins is not None and period.ends_on is not None and begins <= day <= period.ends_on


def _is_unclear(period: Period, day: date) -> bool:
    """Whether it may cover the day, and nobody can say it without opening it."""
    if period.ends_on is None:
        return True  # filed before days were kept
    if period.starts_on is not None or day > period.ends_on:
        return False
    return period.issued_on is None or timedelta(0) < period.issued_on - day <= OPEN_START


def decide(found: Match, *, waits: bool) -> Code:
    """waits: whether anything that could hold the certificate is accepted and not opened, or deferred (HD-09)."""
    if found.found:
        return Code.AU
    return Code.IN_REVIEW if waits or found.unclear else Code.NONE


def watched_until(code: Code, asked_at: datetime, answered_at: datetime) -> datetime:
    """Up to when another answer follows by itself; afterwards the employer asks anew."""
    rule = CODES[code]
    assert rule.watched is not None  # noqa: S101 -- of ours, all have it
    return (asked_at if rule.from_request else answered_at) + rule.watched


@dataclass(frozen=True, slots=True)
class Answered:
    """What was said last. deliveries: of the certificates in it."""

    code: Code
    deliveries: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What must be said now. withdrawn: deliveries of the answer before, which have been cancelled since."""

    code: Code
    found: tuple[Certificate, ...] = ()
    withdrawn: tuple[int, ...] = ()


def follow_up(
    last: Answered,
    certificates: Sequence[Certificate],
    day: date,
    *,
    waits: bool,
    is_open: Callable[[int], bool] = lambda _delivery: True,
) -> FollowUp | None:
    """What follows the last answer now, None if it still stands. certificates: all of the person, as for `match`.
    is_open: see `within`."""
    standing = {one.delivery for one in certificates}
    withdrawn = tuple(one for one in last.deliveries if one not in standing)
    if last.code is Code.AU and not withdrawn:
        return None
    found = within(match(certificates, day), is_open)
    code = decide(found, waits=waits)
    if last.code is code and not withdrawn:
        return None
    if last.code is Code.NONE and code is Code.IN_REVIEW:
        return None  # it is still true that there is none, and an eAU that comes is said anyway
    return FollowUp(code, found.found, withdrawn)
