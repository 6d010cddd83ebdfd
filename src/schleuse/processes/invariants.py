"""What must hold at any moment, asked of the records of a running platform (incident.md appendix B).

Each invariant is one question with its number; its answer is a query over records that do not know each other. What
cannot be asked now is unknown, and unknown is never "holds" (RS-04). Invariants about evidence, data statements,
duties and the status page (9, 10, 11, 12) follow with what they are about. Sentences are in German and English; single
cases and errors are English, as they are everywhere.
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
from schleuse.kim.store import HoldWindow, open_leases
from schleuse.processes import switch_told
from schleuse.processes.answering import journal_health
from schleuse.processes.conservation import check_conservation
from schleuse.processes.control import is_exempt, known_exemptions
from schleuse.processes.control_closing import Closings, late_claims
from schleuse.processes.control_drills import Freshness
from schleuse.processes.operators import rights_of
from schleuse.processes.switching import switch_log
from schleuse.said import Said
from schleuse.scopes import Direction, Scope, Service, atom
from schleuse.shutdown.exceptions import exemptions
from schleuse.shutdown.order import PROOF
from schleuse.switch.copy_file import CopyDamagedError, read_copy
from schleuse.switch.documents import OPENERS, Kind, Role, time_text
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
    name: Said
    answer: Answer
    text: Said
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a question found: the cases that contradict it, and what it looked at. known: whether it could be asked."""

    cases: Sequence[str]
    text: Said
    known: bool = True


def check_invariants(config: Config, closings: Closings, now: Now) -> list[Invariant]:
    """All that can be asked today, in the order of appendix B."""
    checks = Checks(config, closings, now)
    questions: list[tuple[int, Said, Callable[[], Found]]] = [
        (1, Said("nichts verloren, nichts doppelt", "conservation"), checks.conservation),
        (2, Said("keine Wirkung unter einer älteren Epoche", "no effect under an older epoch"), checks.epochs),
        (3, Said("jede Öffnung von zwei Personen", "two persons for every opening"), checks.openings),
        (
            4,
            Said("jede Schließung bewiesen oder mit Ausnahme", "a proof or an exception for every closing"),
            checks.closings,
        ),
        (5, Said("keine Öffnung durch eine Regel oder Uhr", "no timer opens"), checks.timers),
        (
            6,
            Said("keine Fehlernachricht, weil etwas aus ist", "no Fehlernachricht because something is off"),
            checks.letters,
        ),
        (7, Said("Journal lückenlos und bezeugt", "journal without a gap, witnessed"), checks.journal),
        (8, Said("so viele Öffnungen wie Einträge", "as many openings as entries"), checks.openings_of_the_vault),
        (13, Said("jede Ausnahme hat Person und Ende", "an owner and an end for every exception"), checks.exceptions),
        (14, Said("jeder Bereich wurde geübt", "every scope was switched for real"), checks.drills),
    ]
    return [_asked(number, name, question) for number, name, question in questions]


def _asked(number: int, name: Said, question: Callable[[], Found]) -> Invariant:
    try:
        found = question()
    except CorruptError as error:
        return Invariant(number, name, Answer.VIOLATED, Said(str(error), str(error)), (error.code,))
    except (Error, OSError, sa.exc.DBAPIError) as error:
        why = f"{type(error).__name__}: {error}"[:300]
        said = Said(f"kann jetzt nicht gefragt werden: {why}", f"cannot be asked now: {why}")
        return Invariant(number, name, Answer.UNKNOWN, said)
    cases = tuple(found.cases)
    answer = Answer.VIOLATED if cases else Answer.HOLDS if found.known else Answer.UNKNOWN
    return Invariant(number, name, answer, found.text, cases[:20])


class Checks:
    """The questions, one method each."""

    def __init__(self, config: Config, closings: Closings, now: Now) -> None:
        self._config = config
        self._closings = closings
        self._now = now

    def conservation(self) -> Found:
        """1: accepted = accounted."""
        found = check_conservation(self._config)
        return Found(
            found.findings,
            _numbers(
                "{} angenommen, {} nachgewiesen", "{} accepted, {} accounted for", found.accepted, found.accounted
            ),
        )

    def epochs(self) -> Found:
        """2: after all workers were quiet, nothing was finished under an older epoch than that of the closing.

        Of every closing of the log, up to the moment when the next one was quiet: older epochs are older for that, too.
        """
        cases: list[str] = []
        asked = known = 0
        for insurer in self._config.insurers:
            scope = atom(Service.EAU_INTAKE, insurer.ik, Direction.PROCESS)
            until = _FOR_EVER
            for closed in reversed(self._closings_of(scope)):
                known += 1
                quiet = self._closings.quiet_at([scope], closed.epoch)
                if quiet is None or to_us(quiet) >= until:  # a worker came later, or went on to the next at once
                    continue
                asked += 1
                values = {
                    "account": insurer.address.lower(),
                    "epoch": closed.epoch,
                    "quiet": to_us(quiet),
                    "until": until,
                }
                late = self._number(self._config.kim_database, _LATE, values)
                if late:
                    cases.append(f"{insurer.ik}: {late} deliveries were finished under an epoch before {closed.epoch}")
                until = to_us(quiet)
        return Found(
            cases,
            _numbers(
                "{} von {} Schließungen mit allen Wirkungen danach angesehen",
                "{} of {} closings were looked at, with all effects after them",
                asked,
                known,
            ),
        )

    def openings(self) -> Found:
        """3: every opening that counts has two persons in different roles, before its end; every copy says the same.

        So does the journal: no time of an acceptance was moved.
        """
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
        told = switch_told.compare(self._config, self._log, self._now())
        de, en = "das Journal selbst ist jetzt nicht zu fragen", "the journal itself cannot be asked now"
        if told.in_journal is not None:
            de = f"{told.in_journal} von {told.told} Meldungen über Epochen stehen im veröffentlichten Journal"
            en = f"{told.in_journal} of {told.told} lines about epochs are in the published journal"
        found = Said(
            f"{opened} Öffnungen, jede von zwei Personen unterschrieben; {de}",
            f"{opened} openings, each signed by two persons; {en}",
        )
        return Found([*cases, *told.cases], found)

    def closings(self) -> Found:
        """4: every closing is proven, or somebody answers for it."""
        now, known = self._now(), known_exemptions(self._config)
        claims = self._closings.claims(now)
        late = late_claims(claims, lambda scope: is_exempt(scope, known, now))
        cases = [f"{one.need.text}: {one.text}" for one in late]
        return Found(cases, _numbers("{} Bereiche sollen zu sein", "{} scopes are ordered closed", len(claims)))

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
        return Found(
            cases, Said("keine Öffnung im Protokoll stammt von einer Regel", "no opening of the log was made by a rule")
        )

    def letters(self) -> Found:
        """6: no Fehlernachricht was made while its insurer was held, when nothing was looked at (HD-01)."""
        cases: list[str] = []
        windows = self._windows()
        for window in windows:
            insurer = next((one for one in self._config.insurers if one.address.lower() == window.account), None)
            if insurer is None:
                continue
            begun = window.began_at + UNDER_WAY  # a batch that ran may have ended after the order (SW-10)
            values = {"ik": insurer.ik, "begun": to_us(begun), "ended": to_us(window.ended_at or self._now())}
            made = self._number(self._config.eau_database, _LETTERS, values)
            if made:
                cases.append(f"{insurer.ik}: {made} Fehlernachrichten were made while it was held")
        return Found(
            cases,
            _numbers(
                "{} Haltezeiten, in keiner eine Fehlernachricht",
                "{} holds, and no Fehlernachricht in any of them",
                len(windows),
            ),
        )

    def journal(self) -> Found:
        """7: the journal runs, found nothing wrong with itself, and witnesses have read what is published."""
        health = journal_health(self._config)
        cases = [f"the journal is in state {health.state}"] if health.state != "RUNNING" else []
        cases += health.findings
        if health.behind and not cases:
            return Found(
                [],
                _numbers(
                    "{} Protokolle werden gerade bezeugt; bitte erneut fragen",
                    "{} logs are being witnessed; ask again",
                    len(health.behind),
                ),
                known=False,
            )
        return Found(
            cases,
            _numbers(
                "{} Protokolle, alle bis zum veröffentlichten Ende bezeugt",
                "{} logs, all witnessed up to their published end",
                len(health.logs),
            ),
        )

    def openings_of_the_vault(self) -> Found:
        """8: the vault's own counter of releases is the last number in the journal, for each log that the vault uses.

        That may be one of another year than the clock's (decision 0023).
        """
        with VaultClient(self._config.vault_socket) as vault:
            logs = vault.status()["logs"]
        reader = HistoryReader(f"http://{self._config.journal.http}")
        sizes = journal_health(self._config).logs
        cases: list[str] = []
        total = 0
        for origin, figures in logs.items():
            counted = figures["counter"]
            if origin not in sizes:
                if counted:
                    cases.append(f"{origin}: the vault counted {counted} releases, the journal has no such log")
                continue
            published = sizes[origin].published
            written = reader.read(origin, published, self._now()).counter
            total += counted
            if counted != written and published >= figures["size"]:
                cases.append(f"{origin}: the vault counted {counted} releases, the journal has {written}")
        return Found(
            cases, _numbers("{} Freigaben, ebenso viele im Journal", "{} releases, as many in the journal", total)
        )

    def exceptions(self) -> Found:
        """13: whoever signed that something stays open answers for it until a day that has not passed."""
        now = self._now()
        known, bad = exemptions(self._config.switch_folder / "exceptions", rights_of(self._config))
        cases = [f"{name} is no valid exception, so nobody answers for it" for name in bad]
        cases += [
            f"{one.exemption.scope}: the exception {one.exemption.id} of {one.exemption.owner} had to be looked at by"
            f" {time_text(one.exemption.review_at)}"
            for one in known
            if one.overdue(now)
        ]
        running = sum(not one.exemption.ended for one in known)
        return Found(cases, _numbers("{} Ausnahmen", "{} exceptions", running))

    def drills(self) -> Found:
        """14: each scope was switched for real within its time; a home that is younger has not failed yet (SW-15)."""
        limit = timedelta(days=self._config.control.drill_days)
        made = datetime.fromtimestamp((self._config.home / "directory.json").stat().st_ctime, self._now().tzinfo)
        stale = Freshness(self._closings, self._config.control.drill_days).stale(self._now())
        if stale and self._now() - made < limit:
            return Found(
                [],
                _numbers(
                    "{} Bereiche wurden noch nie geschaltet; dieses Haus ist jünger als {} Tage",
                    "{} scopes were never switched; this home is younger than {} days",
                    len(stale),
                    limit.days,
                ),
                known=False,
            )
        return Found(
            [f"{one} was not switched for {limit.days} days" for one in stale],
            Said("jeder Bereich wurde geschaltet", "every scope was switched"),
        )

    def _closings_of(self, scope: Scope) -> list[Accepted]:
        return [
            one
            for one in self._log
            if one.command is not None
            and not one.command.opening
            and any(mine.covers(scope) for mine in one.command.scopes)
        ]

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
                seen = read_copy(path).raws
            except (CopyDamagedError, FileNotFoundError):
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


def _numbers(de: str, en: str, *numbers: int) -> Said:
    return Said(de.format(*numbers), en.format(*numbers))


_FOR_EVER = 2**63 - 1  # microseconds
#: changed_us of what is CONFIRMED is still when it was finished.
_LATE = sa.text(
    "SELECT count(*) FROM kim_delivery WHERE account = :account AND changed_us > :quiet AND changed_us <= :until"
    " AND epoch < :epoch AND state IN ('DELIVERED', 'CONFIRMED', 'RETURNED', 'QUARANTINED', 'DUPLICATE_LINKED')"
)
_LETTERS = sa.text("SELECT count(*) FROM eau_letter WHERE ik = :ik AND created_at > :begun AND created_at < :ended")
