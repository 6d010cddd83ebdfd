"""Is the switch's log the one that the journal was told of? Then nobody has moved the time of an acceptance either.

The signatures of a command say nothing about when it was accepted; its file does, and each file names the digest of the
one before. `control` and each order of an operator tell the journal this digest with the epoch (SW-14), so a log in
which a time was moved, an epoch taken out or written anew contradicts the journal, also where the copies of all roles
were rewritten with it. Three records are held against each other:

    <home>/switch/log               what is believed
    <home>/trail/…-YEAR.jsonl       what was told, in clear, with the salt of its commitment
    the published journal           the commitments, under signed checkpoints

Of a home from before this check the same is believed: its orders have always named the digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from schleuse.config import Config
from schleuse.errors import Error, MalformedError
from schleuse.journal import audit
from schleuse.journal.entry import Result, parse_entry
from schleuse.journal.opening import detail_commitment
from schleuse.journal.policy import NONE
from schleuse.processes.answering import journal_health
from schleuse.processes.journal_keys import policy_file, read_policy
from schleuse.processes.trail import OUTSIDE, PLATFORM
from schleuse.switch.log import Accepted

CONTROL = "control"
#: What was told is in a published checkpoint after this time, if the journal runs (journal.md § 12).
PUBLISHED_AFTER = timedelta(minutes=10)
_ACTS = frozenset({"switch.command", "switch.order"})


@dataclass(frozen=True, slots=True)
class Told:
    """One line of a trail. role: whose trail. sent: whether the journal has taken it. commitment: of its entry."""

    role: str
    epoch: int
    sha256: str
    at: datetime
    sent: bool
    commitment: bytes


@dataclass(frozen=True, slots=True)
class Compared:
    """cases: contradictions. in_journal: lines that were found in the published journal; None: it cannot be asked."""

    cases: Sequence[str]
    told: int
    in_journal: int | None


def compare(config: Config, entries: Sequence[Accepted], now: datetime) -> Compared:
    """Raises OSError, Error: a trail cannot be read."""
    told = [one for role in (CONTROL, OUTSIDE) for one in _lines(config.home / "trail", role)]
    cases = [*_contradictions(entries, told), *_gone(config, entries, told)]
    try:
        found = _commitments(config, told)
    except (Error, OSError):
        return Compared(cases, len(told), None)
    old = [one for one in told if one.sent and now - one.at > PUBLISHED_AFTER]
    cases += [f"the journal has no entry that says of epoch {one.epoch} what the trail of {one.role} says"
              for one in old if one.commitment not in found]  # fmt: skip
    return Compared(cases, len(told), sum(one.commitment in found for one in told))


def _contradictions(entries: Sequence[Accepted], told: Sequence[Told]) -> Iterator[str]:
    seen: set[tuple[int, str]] = set()
    for one in told:
        if (one.epoch, one.sha256) in seen:
            continue
        seen.add((one.epoch, one.sha256))
        if one.epoch > len(entries):
            yield f"the journal was told of epoch {one.epoch}; the log ends at {len(entries)}"
        elif entries[one.epoch - 1].digest != one.sha256:
            yield f"epoch {one.epoch} of the log is not the one that the journal was told of at {one.at:%Y-%m-%d %H:%M}"


def _gone(config: Config, entries: Sequence[Accepted], told: Sequence[Told]) -> Iterator[str]:
    """Epochs up to the cursor of `control` of which its trail has no line any more."""
    try:
        cursor = int(json.loads((config.switch_folder / "told.json").read_bytes())["epoch"])
    except (OSError, ValueError, KeyError, TypeError):  # nothing told, or told again from the first on
        return
    mine = {one.epoch for one in told if one.role == CONTROL}
    lost = [epoch for epoch in range(1, min(cursor, len(entries)) + 1) if epoch not in mine]
    if lost:
        yield f"{len(lost)} epochs, from {lost[0]} on, were told to the journal; the trail of {CONTROL} has lost them"


def _lines(folder: Path, role: str) -> Iterator[Told]:
    year, offset = _sent(folder / f"{role}.json")
    for path in sorted(folder.glob(f"{role}-[0-9]*.jsonl")):
        of = int(path.stem.rpartition("-")[2])
        end = 0
        with path.open("rb") as file:
            for line in file:
                end += len(line)
                if b"switch." in line and line.endswith(b"\n"):
                    yield from _told(role, line, (of, end) <= (year, offset))


def _sent(path: Path) -> tuple[int, int]:
    """Up to where the journal has a trail: year, and octets of its file."""
    try:
        table = json.loads(path.read_bytes())
        return int(table["year"]), int(table["offset"])
    except FileNotFoundError:
        return 0, 0


def _told(role: str, line: bytes, sent: bool) -> Iterator[Told]:
    try:
        table: dict[str, Any] = json.loads(line)
        detail = json.loads(table["detail"])
    except ValueError:
        return
    if table["tenant"] != PLATFORM or detail.get("act") not in _ACTS or "sha256" not in detail:
        return  # an order that was refused has no epoch
    if detail["act"] == "switch.order" and table["result"] != Result.GRANTED:
        return
    commitment = detail_commitment(bytes.fromhex(table["salt"]), table["detail"].encode())
    at = datetime.fromisoformat(table["at"])
    yield Told(role, int(detail["epoch"]), str(detail["sha256"]), at, sent, commitment)


def _commitments(config: Config, told: Sequence[Told]) -> set[bytes]:
    """Of all entries of the platform's logs, of whatever year: what was told under a doubted clock is in another log
    than the time says (decision 0023). Raises Error, OSError: one of them that matters cannot be read.
    """
    found: set[bytes] = set()
    if not told:
        return found
    unread = []
    for origin, health in sorted(journal_health(config).logs.items()):
        policy = policy_file(config.home / "journal", origin)
        if origin.split("/")[1:2] != [PLATFORM] or not policy.exists():
            continue
        if not health.witnessed:  # nothing of it is served yet
            unread.append(origin)
            continue
        source = audit.from_url(f"http://{config.journal.http}/{origin.partition('/')[2]}")
        # Signed by the log; whether witnesses have cosigned it, and it only grew, is asked elsewhere (7, G-DATA).
        signed = replace(read_policy(policy), quorum=NONE)
        for raw in audit.entries_of(source, signed):
            try:
                found.add(parse_entry(raw).detail)
            except MalformedError:
                continue
    if unread and not found.issuperset(one.commitment for one in told):
        raise audit.SourceError(f"{', '.join(unread)}: nothing is witnessed yet; what is missing may be in it")
    return found
