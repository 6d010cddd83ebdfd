"""Whom we tell what happened to the switch, and the box in which it waits until they know (§ 10, RS-14).

    <home>/switch/informing/since.json          events before this are not told: nobody had asked for them
    <home>/switch/informing/waits/ID.json       an event and who is to hear it
    <home>/switch/informing/heard/ID/RECEIVER   this receiver has taken it
    <home>/switch/informing/told/ID.json        all have

An event is recorded before anybody is told, and a receiver's answer afterwards: after a crash in between he hears it
once more, with the same id. What an event is comes from records (`events_of`), so none is lost while nobody looks. It
has no words that somebody typed and no names of persons.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from schleuse.errors import UnavailableError
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.opening import Json, canonical_json
from schleuse.shutdown.drill import DrillResult, Outcome
from schleuse.shutdown.news import Due
from schleuse.shutdown.proofs import Claim
from schleuse.switch.documents import parse_time, time_text
from schleuse.switch.log import Accepted

#: What reading a damaged file of an event raises.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)
#: An event names so many scopes; the count stands beside them.
MOST_SCOPES = 20


class InformingNotKeptError(UnavailableError):
    """What somebody is to be told could not be written; its operator looks at the disk. Closings are in force."""

    code = "shutdown.informing-not-kept"


class What(StrEnum):
    """Kinds of events, as receivers choose them."""

    CLOSED = "closed"  #: something was ordered closed, or nobody can read what was ordered
    NOT_PROVEN = "not_proven"  #: a closing has no proof beyond its limit, and nobody answers for it
    OPENED = "opened"  #: two persons opened something
    EMERGENCY_OPENED = "emergency_opened"  #: the pair of an emergency did (RS-14)
    DRILL_FAILED = "drill_failed"  #: a switch is not usable (T-22)
    RESTART_ABORTED = "restart_aborted"  #: a stage was left towards S0 (RS-06, RS-07)
    NEWS_OVERDUE = "news_overdue"  #: the time of the next information passed without any (CM-03)


@dataclass(frozen=True, slots=True)
class Event:
    """id: the same whenever it is told; receivers use it to hear nothing twice."""

    id: str
    what: What
    at: datetime
    facts: Mapping[str, Json]

    def body(self, platform: str) -> bytes:
        """What receivers get: canonical JSON, the same at each attempt. platform: our host name."""
        table: dict[str, Json] = {
            "type": "schleuse-event",
            "version": 1,
            "id": f"{platform}/{self.id}",
            "platform": platform,
            "event": self.what.value,
            "at": time_text(self.at),
            "facts": dict(self.facts),
        }
        return canonical_json(table)


@dataclass(frozen=True, slots=True)
class Abort:
    """A restart that went back to S0. plan: its name."""

    plan: str
    at: datetime
    epoch: int


def of_command(entry: Accepted) -> Event:
    """What an accepted command is to those outside. Pure."""
    facts: dict[str, Json] = {"epoch": entry.epoch}
    command = entry.command
    if command is None:
        return Event(f"closed-{entry.epoch}", What.CLOSED, entry.accepted_at, facts | {"state": "HOLD", "doubt": 1})
    facts |= {
        "command": command.id,
        "state": command.state.value,
        "kind": command.kind.value,
        "reason": command.reason.value,
        "scopes": [str(one) for one in command.scopes[:MOST_SCOPES]],
        "scope_count": len(command.scopes),
    }
    if not command.opening:
        return Event(f"closed-{entry.epoch}", What.CLOSED, entry.accepted_at, facts)
    if command.closes_at is None:
        return Event(f"opened-{entry.epoch}", What.OPENED, entry.accepted_at, facts)
    facts["closes_at"] = time_text(command.closes_at)
    return Event(f"emergency-{entry.epoch}", What.EMERGENCY_OPENED, entry.accepted_at, facts)


def of_claims(late: Iterable[Claim], now: datetime) -> Iterator[Event]:
    """One for each epoch whose closing is commanded and not proven. Pure."""
    by_epoch: dict[int, list[Claim]] = {}
    for one in late:
        by_epoch.setdefault(one.need.epoch, []).append(one)
    for epoch, claims in by_epoch.items():
        scopes: list[Json] = [one.need.text for one in claims[:MOST_SCOPES]]
        facts: dict[str, Json] = {"epoch": epoch, "scopes": scopes, "scope_count": len(claims)}
        yield Event(f"not-proven-{epoch}", What.NOT_PROVEN, now, facts)


def of_drill(result: DrillResult) -> Event | None:
    """None: it passed. Pure."""
    if result.outcome is Outcome.PASSED:
        return None
    scopes: list[Json] = [*result.scopes[:MOST_SCOPES]]
    facts: dict[str, Json] = {"drill": result.id, "outcome": result.outcome.value, "epoch": result.epoch}
    ended = result.started_at + (result.closed_for or result.to_proof or timedelta(0))
    return Event(f"drill-{result.id}", What.DRILL_FAILED, ended, facts | {"scopes": scopes})


def of_abort(abort: Abort) -> Event:
    """Pure."""
    facts: dict[str, Json] = {"plan": abort.plan, "epoch": abort.epoch}
    return Event(f"aborted-{abort.plan}-{abort.epoch}", What.RESTART_ABORTED, abort.at, facts)


def of_news(overdue: Iterable[Due]) -> Iterator[Event]:
    """One for each promise that was not kept. Pure."""
    by_promise: dict[tuple[int, datetime], list[Due]] = {}
    for one in overdue:
        by_promise.setdefault((one.need.epoch, one.by), []).append(one)
    for (epoch, by), mine in by_promise.items():
        scopes: list[Json] = [one.need.text for one in mine[:MOST_SCOPES]]
        facts: dict[str, Json] = {"epoch": epoch, "news_by": time_text(by), "scopes": scopes, "scope_count": len(mine)}
        yield Event(f"news-overdue-{epoch}-{int(by.timestamp())}", What.NEWS_OVERDUE, by, facts)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event and who has not taken it yet. receivers: names."""

    event: Event
    receivers: tuple[str, ...]


class Outbox:
    """folder: `<home>/switch/informing`. One process writes; commands look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = {path.stem for name in ("waits", "told") for path in (folder / name).glob("*.json")}
        self.forget()

    def since(self, now: datetime) -> datetime:
        """From when on events are told; begins with the first question. Raises InformingNotKeptError."""
        path = self._folder / "since.json"
        try:
            return parse_time(json.loads(path.read_bytes())["since"])
        except FileNotFoundError:
            self._write(path, {"since": time_text(now)})
            return now
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise InformingNotKeptError(f"{path} cannot be read ({type(cause).__name__})") from cause

    def record(self, event: Event, receivers: Sequence[str]) -> bool:
        """Returns whether it is new. Raises InformingNotKeptError."""
        if event.id in self._known:
            return False
        place = "waits" if receivers else "told"
        self._write(self._folder / place / f"{event.id}.json", _table(event, receivers))
        self._known.add(event.id)
        return True

    def waiting(self) -> list[Waiting]:
        """Oldest first. What cannot be read is left out, and is in `unreadable`."""
        found: list[Waiting] = []
        for path in self._waits():
            with suppress(*_UNREADABLE):
                event, receivers = _read(path)
                left = tuple(one for one in receivers if not self._heard(event.id, one).exists())
                found.append(Waiting(event, left))
        return sorted(found, key=lambda one: (one.event.at, one.event.id))

    def unreadable(self) -> list[str]:
        """Ids of events that wait and that nobody can read."""
        found: list[str] = []
        for path in self._waits():
            try:
                _read(path)
            except FileNotFoundError:
                continue  # put away meanwhile
            except _UNREADABLE:
                found.append(path.stem)
        return found

    def forget(self) -> bool:
        """What cannot be read counts as not recorded, so that records make it again. Returns whether there is any."""
        damaged = self.unreadable()
        self._known.difference_update(damaged)
        return bool(damaged)

    def _waits(self) -> Iterator[Path]:
        return (self._folder / "waits").glob("*.json")

    def heard(self, event: Event, receiver: str) -> None:
        """This one has taken it. Raises InformingNotKeptError."""
        self._write(self._heard(event.id, receiver), {"event": event.id})
        self.settle()

    def settle(self) -> None:
        """Put away what all have taken. Raises InformingNotKeptError."""
        for one in self.waiting():
            if not one.receivers:
                name = f"{one.event.id}.json"
                try:
                    (self._folder / "told").mkdir(parents=True, exist_ok=True)
                    (self._folder / "waits" / name).rename(self._folder / "told" / name)
                except FileNotFoundError:
                    continue  # another thread was faster
                except OSError as cause:
                    raise InformingNotKeptError(f"{name} cannot be put away ({cause.strerror})") from cause

    def _heard(self, id: str, receiver: str) -> Path:
        return self._folder / "heard" / id / receiver

    def _write(self, path: Path, table: Mapping[str, Json]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(OsDisk(), path, canonical_json(dict(table)))
        except OSError as cause:
            raise InformingNotKeptError(f"{path.name} cannot be written ({cause.strerror})") from cause


def _table(event: Event, receivers: Sequence[str]) -> dict[str, Json]:
    return {
        "id": event.id,
        "what": event.what.value,
        "at": time_text(event.at),
        "facts": dict(event.facts),
        "receivers": list(receivers),
    }


def _read(path: Path) -> tuple[Event, tuple[str, ...]]:
    """Raises one of _UNREADABLE."""
    return _event(json.loads(path.read_bytes()))


def _event(table: Mapping[str, object]) -> tuple[Event, tuple[str, ...]]:
    facts, receivers = table["facts"], table["receivers"]
    if not isinstance(facts, dict) or not isinstance(receivers, list):
        raise TypeError("expected facts and receivers")
    return Event(str(table["id"]), What(str(table["what"])), parse_time(str(table["at"])), facts), tuple(
        map(str, receivers)
    )
