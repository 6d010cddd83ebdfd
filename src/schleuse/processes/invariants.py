"""What must hold at any moment, asked of the records of a running platform (incident.md appendix B).

Each invariant is one question with its number; its answer is a query over records that do not know each other. What
cannot be asked now is unknown, and unknown is never "holds" (RS-04). Invariants about evidence, data statements,
duties and the status page (9, 10, 11, 12) follow with what they are about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

import sqlalchemy as sa

from schleuse.clock import Now, to_us
from schleuse.config import Config
from schleuse.database import asking
from schleuse.errors import CorruptError, Error
from schleuse.identifiers import IK
from schleuse.kim.store import HoldWindow, open_leases
from schleuse.processes.answering import journal_health
from schleuse.processes.conservation import check_conservation
from schleuse.processes.control import is_exempt, known_exemptions
from schleuse.processes.control_closing import Closings, late_claims
from schleuse.processes.control_drills import Freshness
from schleuse.processes.journal_keys import origin_of
from schleuse.processes.switching import switch_log
from schleuse.scopes import Direction, Scope, Service, atom
from schleuse.shutdown.order import PROOF
from schleuse.switch.copy import CopyDamagedError, read_copy
from schleuse.switch.documents import OPENERS, Kind, Role
from schleuse.switch.log import Accepted
from schleuse.vault.client import VaultClient
from schleuse.vault.history import HistoryReader

#: An effect may be under way for so long after an order (§ 5.2, SW-10).
UNDER_WAY = PROOF.limit


class Answer(StrEnum):
    """Of one question."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Invariant:
    """number: of appendix B. text: what was found, in one sentence. findings: single cases, at most some."""

    number: int
    name: str
    answer: Answer
    text: str
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a question found: the cases that contradict it, and what it looked at. unknown: why it cannot be asked."""

    cases: Sequence[str]
    text: str
    unknown: str = ""


def check_invariants(config: Config, closings: Closings, now: Now) -> list[Invariant]:
    """All that can be asked today, in the order of appendix B."""
    checks = Checks(config, closings, now)
    questions: list[tuple[int, str, Callable[[], Found]]] = [
        (1, "conservation", checks.conservation),
        (2, "no effect under an older epoch", checks.epochs),
        (3, "two persons for every opening", checks.openings),
        (4, "a proof or an exception for every closing", checks.closings),
        (5, "no timer opens", checks.timers),
        (6, "no Fehlernachricht because something is off", checks.letters),
        (7, "journal without a gap, witnessed", checks.journal),
        (8, "as many openings as entries", checks.openings_of_the_vault),
        (14, "every scope was switched for real", checks.drills),
    ]
    return [_asked(number, name, question) for number, name, question in questions]


def _asked(number: int, name: str, question: Callable[[], Found]) -> Invariant:
    try:
        found = question()
    except CorruptError as error:
        return Invariant(number, name, Answer.VIOLATED, str(error), (error.code,))
    except (Error, OSError, sa.exc.DBAPIError) as error:
        return Invariant(number, name, Answer.UNKNOWN, f"cannot be asked now: {type(error).__name__}: {error}"[:300])
    if found.unknown:
        return Invariant(number, name, Answer.UNKNOWN, found.unknown)
    cases = tuple(found.cases)
    return Invariant(number, name, Answer.VIOLATED if cases else Answer.HOLDS, found.text, cases[:20])


class Checks:
    """The questions, one method each."""

    def __init__(self, config: Config, closings: Closings, now: Now) -> None:
        self._config = config
        self._closings = closings
        self._now = now

    def conservation(self) -> Found:
        """1: accepted = accounted."""
        found = check_conservation(self._config)
        return Found(found.findings, f"{found.accepted} accepted, {found.accounted} accounted for")

    def epochs(self) -> Found:
        """2: after all workers were quiet, nothing was finished under an older epoch than that of the closing."""
        cases: list[str] = []
        asked = 0
        for insurer in self._config.insurers:
            scope = atom(Service.EAU_INTAKE, insurer.ik, Direction.PROCESS)
            closed = self._last_closing(scope)
            if closed is None:
                continue
            quiet = self._closings.progress([scope], closed.epoch).quiet_at
            if quiet is None:
                continue
            asked += 1
            values = {"account": insurer.address.lower(), "epoch": closed.epoch, "quiet": to_us(quiet)}
            late = self._number(self._config.kim_database, _LATE, values)
            if late:
                cases.append(f"{insurer.ik}: {late} deliveries were finished under an epoch before {closed.epoch}")
        return Found(cases, f"{asked} closings were looked at, with all effects after them")

    def openings(self) -> Found:
        """3: every opening that counts has two persons in different roles, before its end; every copy says the same."""
        cases: list[str] = []
        opened = 0
        for entry in self._log:
            command = entry.command
            if entry.signed is None or command is None or not command.opening:
                continue
            opened += 1
            roles = {one.role for one in entry.signed.signatures}
            if not (set(OPENERS) <= roles or roles == {Role.BREAK_GLASS}):
                cases.append(f"epoch {entry.epoch} was opened by {', '.join(sorted(roles))}")
            if command.expires_at is None or entry.accepted_at > command.expires_at:
                cases.append(f"epoch {entry.epoch} was opened after its approval had ended")
        cases += self._copies()
        return Found(cases, f"{opened} openings, each signed by two persons")

    def closings(self) -> Found:
        """4: every closing is proven, or somebody answers for it."""
        now, known = self._now(), known_exemptions(self._config)
        claims = self._closings.claims(now)
        late = late_claims(claims, lambda scope: is_exempt(scope, known, now))
        cases = [f"{one.need.text}: {one.text}" for one in late]
        return Found(cases, f"{len(claims)} scopes are ordered closed")

    def timers(self) -> Found:
        """5: what opens was never made by a rule."""
        cases = [
            f"epoch {entry.epoch} was opened by a rule"
            for entry in self._log
            if entry.signed is not None
            and entry.command is not None
            and entry.command.opening
            and (
                entry.command.kind is Kind.AUTOMATIC or any(one.role is Role.AUTOMAT for one in entry.signed.signatures)
            )
        ]
        return Found(cases, "no opening of the log was made by a rule")

    def letters(self) -> Found:
        """6: no Fehlernachricht was made while its insurer was held, when nothing was looked at (HD-01)."""
        cases: list[str] = []
        windows = self._windows()
        for window in windows:
            insurer = next((one for one in self._config.insurers if one.address.lower() == window.account), None)
            if insurer is None:
                continue
            begun = window.began_at + UNDER_WAY  # a batch that ran may have ended after the order (SW-10)
            values = {"ik": insurer.ik, "begun": begun, "ended": window.ended_at or self._now()}
            made = self._number(self._config.eau_database, _LETTERS, values)
            if made:
                cases.append(f"{insurer.ik}: {made} Fehlernachrichten were made while it was held")
        return Found(cases, f"{len(windows)} holds, and no Fehlernachricht in any of them")

    def journal(self) -> Found:
        """7: the journal runs, found nothing wrong with itself, and witnesses have read what is published."""
        health = journal_health(self._config)
        cases = [f"the journal is in state {health.state}"] if health.state != "RUNNING" else []
        cases += health.findings
        if health.behind and not cases:
            return Found([], "", f"{len(health.behind)} logs are being witnessed; ask again")
        return Found(cases, f"{len(health.logs)} logs, all witnessed up to their published end")

    def openings_of_the_vault(self) -> Found:
        """8: the vault's own counter of releases is the last number in the journal, for each insurer."""
        with VaultClient(self._config.vault_socket) as vault:
            logs = vault.status()["logs"]
        reader = HistoryReader(f"http://{self._config.journal.http}")
        sizes = journal_health(self._config).logs
        cases: list[str] = []
        total = 0
        for insurer in self._config.insurers:
            origin = origin_of(self._config.hostname, IK(insurer.ik), self._now().year)
            if origin not in logs:
                continue
            counted = logs[origin]["counter"]
            if origin not in sizes:
                if counted:
                    cases.append(f"{origin}: the vault counted {counted} releases, the journal has no such log")
                continue
            published = sizes[origin].published
            written = reader.read(origin, published, self._now()).counter
            total += counted
            if counted != written and published >= logs[origin]["size"]:
                cases.append(f"{origin}: the vault counted {counted} releases, the journal has {written}")
        return Found(cases, f"{total} releases, as many in the journal")

    def drills(self) -> Found:
        """14: each scope was switched for real within its time; a home that is younger has not failed yet (SW-15)."""
        limit = timedelta(days=self._config.control.drill_days)
        made = datetime.fromtimestamp((self._config.home / "directory.json").stat().st_ctime, self._now().tzinfo)
        stale = Freshness(self._closings, self._config.control.drill_days).stale(self._now())
        if stale and self._now() - made < limit:
            return Found(
                [], "", f"{len(stale)} scopes were never switched; this home is younger than {limit.days} days"
            )
        return Found([f"{one} was not switched for {limit.days} days" for one in stale], "every scope was switched")

    def _last_closing(self, scope: Scope) -> Accepted | None:
        found = [
            one
            for one in self._log
            if one.command is not None
            and not one.command.opening
            and any(mine.covers(scope) for mine in one.command.scopes)
        ]
        return found[-1] if found else None

    @cached_property
    def _log(self) -> list[Accepted]:
        """Read and verified once, so that all questions are about the same epochs."""
        return switch_log(self._config).read_all()

    def _copies(self) -> Iterator[str]:
        """Copies of processes that say something else than the log, where both have the epoch."""
        log = [one.digest for one in self._log]
        for path in sorted((self._config.switch_folder / "copies").glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                seen = read_copy(path)
            except CopyDamagedError:
                yield f"the copy {path.stem} cannot be read"
                continue
            if any(hashlib.sha256(mine).hexdigest() != theirs for mine, theirs in zip(seen, log, strict=False)):
                yield f"the copy {path.stem} has other commands than the log"

    def _windows(self) -> list[HoldWindow]:
        days = timedelta(days=self._config.kim.retention_days)
        with open_leases(self._config.kim_database, self._config.kim.spool, days) as leases:
            return leases.holds.windows()

    @staticmethod
    def _number(url: str, query: sa.TextClause, values: dict[str, object]) -> int:
        with asking(url) as connection:
            return int(connection.execute(query, values).scalar_one() or 0)


_LATE = sa.text(
    "SELECT count(*) FROM kim_delivery WHERE account = :account AND changed_us > :quiet AND epoch < :epoch"
    " AND state IN ('DELIVERED', 'RETURNED', 'QUARANTINED', 'DUPLICATE_LINKED')"
)
_LETTERS = sa.text(
    "SELECT count(*) FROM eau_letter WHERE ik = :ik AND created_at > :begun AND created_at < :ended"
).bindparams(sa.bindparam("begun", type_=sa.DateTime(timezone=True)), sa.bindparam("ended", type_=sa.DateTime(True)))
