"""`schleuse hold capacity`: how many days of hold the store lasts, and how fast its backlog would drain (RS-20)."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from schleuse.cli.numbers import number, short
from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import default_home, read_config
from schleuse.errors import RefusedError
from schleuse.holding.capacity import (
    DEFER_PERCENT,
    PLANNED_DRAIN,
    PLANNED_HOLD,
    REPEATS,
    SCALE_OUT_PERCENT,
    WARN_PERCENT,
    Arrival,
    HoldPlan,
    Room,
    lasts,
)
from schleuse.processes.hold_capacity import Measured, measured

TOO_SMALL = 70
GIB = 1 << 30
_POSITIVE = Number(gt=0)


class NothingMeasuredError(RefusedError):
    """The records have no mail yet; say with --per-day and --kib what is expected."""

    code = "cli.nothing-measured"


@dataclass(frozen=True)
class _Answer:
    seen: Measured
    arrival: Arrival
    plan: HoldPlan
    room: Room | None

    @property
    def until(self) -> dict[str, timedelta | None]:
        """By step of the ladder."""
        steps = {"70": WARN_PERCENT, "85": SCALE_OUT_PERCENT, "95": DEFER_PERCENT, "100": 100}
        if self.room is None:
            return {}
        return {name: lasts(self.room, self.arrival, percent) for name, percent in steps.items()}

    @property
    def enough(self) -> bool | None:
        """Whether the planned hold fits; None where nobody knows the room."""
        if self.room is None:
            return None
        whole = lasts(self.room, self.arrival)
        return whole is None or whole >= self.plan.hold

    @property
    def fast_enough(self) -> bool | None:
        """Whether the fastest minute so far would do. None: not known, for what came slowly was filed slowly."""
        return True if self.seen.fastest >= self.plan.capacity(self.arrival) else None


def capacity(
    *,
    days: Annotated[float, Parameter(validator=_POSITIVE, help="Planned longest hold")] = PLANNED_HOLD.days,
    drain_hours: Annotated[float, Parameter(validator=_POSITIVE, help="Wished time to drain")] = (
        PLANNED_DRAIN / timedelta(hours=1)
    ),
    per_day: Annotated[
        float | None, Parameter(validator=_POSITIVE, help="Mails a day [default: the busiest of 35 days]")
    ] = None,
    kib: Annotated[
        float | None, Parameter(validator=_POSITIVE, help="KiB of store for each mail [default: as it is now]")
    ] = None,
    repeats: Annotated[
        float, Parameter(validator=Number(gte=0), help="Mails on top of each one, sent again by practices (HD-08)")
    ] = REPEATS,
    store_gib: Annotated[
        float | None, Parameter(validator=_POSITIVE, help="Room of the store [default: its disk; PostgreSQL: unknown]")
    ] = None,
    home: Annotated[Path | None, Parameter(help="Folder of configuration and data")] = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object")] = False,
) -> None:
    """How long a hold the store lasts, from measured arrivals and sizes, and how fast its backlog would drain.

    Exit code 70: the planned hold does not fit. The fastest minute so far is what the roles can do at least.
    """
    seen = measured(read_config(home or default_home()), utc_now())
    arrival = Arrival(
        seen.per_second if per_day is None else per_day / 86_400,
        seen.octets if kib is None else kib * 1024,
        repeats,
    )
    if not arrival.per_second or not arrival.octets:
        raise NothingMeasuredError("no mail was seen yet: say with --per-day and --kib what is expected")
    room = seen.room if store_gib is None else Room(int(store_gib * GIB), int(store_gib * GIB), 0)
    answer = _Answer(seen, arrival, HoldPlan(timedelta(days=days), timedelta(hours=drain_hours)), room)
    if json_output:
        print(json.dumps(_as_json(answer)))
    else:
        _print(answer)
    if answer.enough is False:
        sys.exit(TOO_SMALL)


def _as_json(answer: _Answer) -> dict[str, object]:
    arrival, plan, seen = answer.arrival, answer.plan, answer.seen
    drained = plan.drained_in(arrival, seen.fastest)
    return {
        "measured": {
            "busiest_day": seen.busiest_day,
            "day": seen.day and seen.day.date().isoformat(),
            "octets_per_mail": round(seen.octets),
            "fastest_per_second": round(seen.fastest, 3),
            "room": seen.room and asdict(seen.room),
        },
        "assumed": {
            "per_second": round(arrival.per_second, 6),
            "octets_per_mail": round(arrival.octets),
            "repeats": arrival.repeats,
            "hold_days": plan.hold / timedelta(days=1),
            "drain_hours": plan.drain / timedelta(hours=1),
        },
        "backlog": round(plan.backlog(arrival)),
        "octets_needed": round(plan.octets(arrival)),
        "capacity_needed_per_second": round(plan.capacity(arrival), 3),
        "lasts_days": {step: _in(timedelta(days=1), at) for step, at in answer.until.items()},
        "drained_in_hours": _in(timedelta(hours=1), drained),
        "enough": answer.enough,
        "fast_enough": answer.fast_enough,
    }


def _in(unit: timedelta, time: timedelta | None) -> float | None:
    return None if time is None else round(time / unit, 2)


def _print(answer: _Answer) -> None:
    de, arrival, plan, seen = german(), answer.arrival, answer.plan, answer.seen
    table = Table(box=None, show_header=False, pad_edge=False)
    day = f" ({seen.day:%Y-%m-%d})" if seen.day and arrival.per_second == seen.per_second else ""
    rows = [
        (
            "Mails am vollsten Tag" if de else "mails on the busiest day",
            f"{number(arrival.per_second * 86_400)}{day}, {number(arrival.per_second, 2)}/s",
        ),
        ("Speicher je Mail" if de else "store for each mail", f"{number(arrival.octets / 1024, 1)} KiB"),
        (
            "geplant" if de else "planned",
            f"{_days(plan.hold, de)}, × {short(1 + arrival.repeats)} "
            + ("für Wiederholungen: " if de else "for repeated sendings: ")
            + f"{number(plan.backlog(arrival))} Mails, {number(plan.octets(arrival) / GIB, 1)} GiB",
        ),
        ("Speicher reicht" if de else "the store lasts", _ladder(answer, de)),
        (
            ("Abbau in" if de else "drained in") + f" {short(plan.drain / timedelta(hours=1))} h",
            ("braucht" if de else "needs") + f" {number(plan.capacity(arrival), 2)} eAU/s; {_fastest(answer, de)}",
        ),
    ]
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(_verdict(answer, de))


def _ladder(answer: _Answer, de: bool) -> str:
    if answer.room is None:
        return "unbekannt (PostgreSQL); --store-gib nennt den Platz" if de else "unknown (PostgreSQL); say --store-gib"
    words = {"70": "70 %", "85": "85 %", "95": "95 %", "100": "voll" if de else "full"}
    return ", ".join(f"{words[step]}: {_days(at, de)}" for step, at in answer.until.items())


def _fastest(answer: _Answer, de: bool) -> str:
    if not answer.seen.fastest:
        return "noch keine verarbeitet" if de else "none was processed yet"
    drained = answer.plan.drained_in(answer.arrival, answer.seen.fastest)
    speed = f"{'schnellste Minute' if de else 'fastest minute'} {number(answer.seen.fastest, 2)}/s"
    if drained is None:
        return speed
    return f"{speed}: {number(drained / timedelta(hours=1), 1)} h"


def _days(time: timedelta | None, de: bool) -> str:
    if time is None:
        return "∞"
    return f"{number(time / timedelta(days=1), 1)} {'Tage' if de else 'days'}"


def _verdict(answer: _Answer, de: bool) -> str:
    if answer.enough is False:
        return (
            "[red]✗[/] der Speicher ist zu klein für das geplante Halten" if de else "[red]✗[/] the store is too small"
        )
    if answer.enough is None:
        return "[yellow]•[/] Platz des Speichers unbekannt" if de else "[yellow]•[/] the room of the store is not known"
    if answer.fast_enough is None:
        return (
            "[yellow]•[/] der Speicher reicht; ob der Abbau so schnell geht, wurde nie gemessen"
            if de
            else "[yellow]•[/] the store is enough; whether it can be drained so fast was never measured"
        )
    return "[green]✓[/] reicht" if de else "[green]✓[/] enough"
