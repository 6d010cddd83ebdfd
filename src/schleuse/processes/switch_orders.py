"""What an operator's command does with the switch of this home: order, tell, and look what came of it (SW-05, SW-14).

Needs nothing that runs: the log is a folder, the journal's entries wait in the trail of commands for the `kim` role.
"""

from __future__ import annotations

import fcntl
import getpass
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import structlog

from schleuse.clock import utc_now
from schleuse.config import Config
from schleuse.errors import ConflictError, Error, RefusedError, UnavailableError
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.processes.control_workers import systems_of, workers_of
from schleuse.processes.operators import key_file
from schleuse.processes.switch_checks import once_switched
from schleuse.processes.switching import effect_book, enforced_atoms, news_book, switch_log
from schleuse.processes.trail import OUTSIDE, PLATFORM, Act, open_trail
from schleuse.scopes import ANY, Scope
from schleuse.shutdown.closure import Need, Verdict, needs, newest, proof_name, provable
from schleuse.shutdown.drill import overdue
from schleuse.shutdown.external import RecordBook, Runs, SystemStandings, needs_of
from schleuse.shutdown.news import SPEAKERS, News, parse_next, sign_news
from schleuse.shutdown.proofs import Claim, claims, last_proven
from schleuse.switch.copy import make_anew, put_back
from schleuse.switch.documents import CLOSERS, MAX_DOCUMENT, NotAuthorisedError, Role, SignedCommand, time_text
from schleuse.switch.effects import SwitchEffect
from schleuse.switch.log import Accepted, SwitchLog, rules_of
from schleuse.switch.standing import Rule, Standing, refused, standings
from schleuse.vault.tokens import read_token_key

log = structlog.get_logger()

#: Roles of a closing, the first that an operator has; the automat signs for itself only.
_SIGNS_AS = (Role.SWITCH_OFFICER, Role.LEAD, Role.ANALYST)
#: Whose locks tell that something of this home runs.
_ROLES = ("kim", "eau", "vault", "journal", "control")


class NoOperatorError(RefusedError):
    """Nobody can sign here: no operator of the configuration has its key on this machine, or more than one has."""

    code = "switch.no-operator"


@dataclass(frozen=True, slots=True)
class Signer:
    """operator: name of the credential. key: the file."""

    operator: str
    role: Role
    key: Path


def signer_of(config: Config, operator: str | None, key: Path | None) -> Signer:
    """Who signs a closing; without a name the only one who may and whose key lies in this home. Raises RefusedError."""
    roles = {one.name: _closing_role(one.roles) for one in config.operators}
    if operator is None:
        found = [name for name, role in roles.items() if role is not None and key_file(config, name).exists()]
        if len(found) != 1:
            who = ", ".join(found) or "nobody"
            raise NoOperatorError(f"{who} could sign here; name one with --operator and --operator-key")
        operator = found[0]
    elif operator not in roles:
        raise NotAuthorisedError(f"no operator {operator!r} is configured; `schleuse operator list` shows all")
    role = roles[operator]
    if role is None:
        raise NotAuthorisedError(f"{operator} has no role that closes: {', '.join(sorted(CLOSERS - {Role.AUTOMAT}))}")
    return Signer(operator, role, key or key_file(config, operator))


def speaker_of(config: Config, operator: str, key: Path | None) -> Signer:
    """Who promises news. Raises NotAuthorisedError."""
    roles = next((one.roles for one in config.operators if one.name == operator), ())
    role = next((one for one in SPEAKERS if one.value in roles), None)
    if role is None:
        raise NotAuthorisedError(f"{operator!r} has no role that speaks: {', '.join(sorted(SPEAKERS))}")
    return Signer(operator, role, key or key_file(config, operator))


def promise(config: Config, scopes: Sequence[Scope], text: str, signer: Signer, now: datetime) -> News:
    """Sign and keep by when there is news, and tell the journal. text: see `parse_next`. Raises Error."""
    given = News(f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}", tuple(scopes), parse_next(text, now), now)
    news_book(config).keep(sign_news(given, signer.operator, signer.role, read_token_key(signer.key)))
    detail: dict[str, Json] = {"act": "switch.news", "news": given.id, "next_by": time_text(given.next_by)}
    detail |= {"scopes": [str(one) for one in scopes[:50]], "scope_count": len(scopes)}
    tell(config, tenants_of(config, scopes), Kind.ADMINISTRATION, Result.GRANTED, signer.operator, detail)
    return given


def _closing_role(roles: Sequence[str]) -> Role | None:
    return next((one for one in _SIGNS_AS if one.value in roles), None)


def accept(config: Config, signed: SignedCommand, now: datetime) -> Accepted:
    """Append the command, then tell the journal: a closing waits for nothing, and a refused attempt is told as well.

    Raises what `SwitchLog.append` raises.
    """
    target = switch_log(config)
    mend(config, target, closing=not signed.command.opening)
    try:
        accepted = target.append(signed, now)
    except (RefusedError, ConflictError) as error:
        tell_order(config, signed, Result.DENIED, {"code": error.code})
        raise
    facts: dict[str, Json] = {"epoch": accepted.epoch, "sha256": accepted.digest}
    same = unchanged(config, accepted)
    tell_order(config, signed, Result.GRANTED, facts | ({"refused": [str(one) for one in same[:50]]} if same else {}))
    return accepted


def unchanged(config: Config, accepted: Accepted) -> tuple[Scope, ...]:
    """Scopes of the command that are more closed already, so that it is recorded as refused for them (SW-16)."""
    try:
        entries = switch_log(config).read_all()[: accepted.epoch]
    except Error as error:  # it is in force all the same
        log.error("switch.log-unreadable", code=error.code, reason=str(error))
        return ()
    rules = rules_of(entries)
    return refused(rules, rules[-1]) if rules and rules[-1].epoch == accepted.epoch else ()


def mend(config: Config, target: SwitchLog, *, closing: bool = False) -> None:
    """Put back what the log lost and roles still have. Never in the way of a closing.

    closing: a log that is gone altogether is made anew first. Nothing opens by it: its first epochs come from the
    copies, and where none can be read the first one closes everything, as the missing log does (SW-02).
    """
    copies = sorted((config.switch_folder / "copies").glob("*.json"))
    try:
        if closing and not target.exists and once_switched(config):
            log.error("switch.log-made-anew", copies=len(copies))
            make_anew(target, copies)
        for epoch in put_back(target, copies):
            log.error("switch.epoch-restored", epoch=epoch)
    except Error as error:
        log.error("switch.log-not-mended", code=error.code, reason=str(error))


class MendingLog:
    """The log of this home for who closes by rule (`automat.Log`): what it lost is put back first."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._log = switch_log(config)

    def append(self, signed: SignedCommand, now: datetime) -> Accepted:
        """See `SwitchLog.append`."""
        mend(self._config, self._log, closing=not signed.command.opening)
        return self._log.append(signed, now)


def log_trouble(config: Config) -> str:
    """What of the log cannot be read, or "": told after a closing, which does not wait for it."""
    try:
        bad = [one for one in switch_log(config).read_all() if one.signed is None]
    except Error as error:
        return str(error)
    return f"epoch {bad[-1].epoch}: {bad[-1].fault}" if bad else ""


def tell_order(config: Config, signed: SignedCommand, result: Result, more: Mapping[str, Json]) -> None:
    """An entry in the log of each insurer that the command concerns, and in the platform's (SW-14)."""
    command = signed.command
    detail: dict[str, Json] = {
        "act": "switch.order",
        "command": command.id,
        "hash": command.hash,
        "opening": int(command.opening),
        "state": command.state.value,
        "scopes": [str(one) for one in command.scopes[:50]],
        "scope_count": len(command.scopes),
        "reason": command.reason.value,
        "incident": command.incident,
        "policy": command.policy,
        "signed_by": [f"{one.operator} as {one.role}" for one in signed.signatures],
        "transport": "console",
        "user": getpass.getuser(),
        **more,
    }
    tell(config, tenants_of(config, command.scopes), Kind.POLICY_CHANGED, result, command.actor, detail)


def tell(
    config: Config, tenants: Sequence[str], kind: Kind, result: Result, who: str, detail: Mapping[str, Json]
) -> bool:
    """One entry each. Returns whether all were recorded; what was not is in our log, with a loud word."""
    try:
        trail = open_trail(config, OUTSIDE, JournalClient(config.journal_socket))
        for tenant in tenants:
            trail.tell(Act(tenant, kind, result, Purpose.OPERATION, who, detail))
    except (Error, OSError, ValueError) as cause:
        log.error("switch.not-told", act=str(detail.get("act")), reason=str(cause))
        return False
    return True


def tenants_of(config: Config, scopes: Sequence[Scope]) -> list[str]:
    """The insurers whom these scopes concern, and the platform."""
    known = [one.ik for one in config.insurers]
    named = {one.tenant for one in scopes}
    return [*(ik for ik in known if ANY in named or ik in named), PLATFORM]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a command is. effects: by worker, None of one that has not seen it. claims: what is proven (SW-17)."""

    effects: Mapping[str, SwitchEffect | None]
    claims: Sequence[Claim]

    @property
    def quiet(self) -> bool:
        """Whether every worker of these scopes has seen the epoch and nothing of them runs any more."""
        return all(one is not None and one.quiet_at is not None for one in self.effects.values())

    @property
    def proven(self) -> bool:
        """Whether it may be shown as off (SW-07)."""
        return all(one.verdict is Verdict.PROVEN for one in self.claims)


def progress_of(config: Config, accepted: Accepted) -> Progress:
    """Read from files: works with and without anything that runs."""
    if accepted.signed is None:
        return Progress({}, ())
    command = accepted.signed.command
    mine = [one for one in provable(enforced_atoms(config)) if any(scope.covers(one) for scope in command.scopes)]
    workers = workers_of(config)
    names = sorted({name for one in mine for name in workers(one)})
    book, log_of = effect_book(config), switch_log(config)
    head = accepted.epoch
    while log_of.has(head + 1):
        head += 1
    found = newest((one for epoch in range(accepted.epoch, head + 1) for one in book.read(epoch)), accepted.epoch)
    at = Standing(command.state, accepted.epoch, None, command.id, accepted.accepted_at)
    systems = [one for one in systems_of(config) if any(scope.covers(one.scope) for scope in command.scopes)]
    if not command.state.begins:
        names += [one.worker for one in systems]
    needed = [Need(one, command.state, accepted.epoch, command.id, accepted.accepted_at) for one in mine]
    needed += needs_of(systems, lambda _: at)
    made = claims(config.switch_folder / "proofs", needed, utc_now())
    return Progress({name: found.get(name) for name in names}, made)


def runs(config: Config) -> bool:
    """Whether any role of this home runs on this machine; their locks are the kernel's."""
    return any(_is_locked(config.home / "run" / f"{role}.lock") for role in _ROLES)


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # BlockingIOError: somebody has it; anything else: we cannot know, and wait for effects
        return True
    return False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `switch show`. scope: an atom of this home, of a system that is not ours, or what else a command ever
    named. entry: the command that it stands by. claim: None where nothing has to be proven, or nothing enforces it.

    system: name of the system, "". switched_at: when it was last closed for real and proven; None: never.
    missing: this switch counts as not present, because it was not exercised in time (SW-15).
    news_by: when the next information about it is promised; None where nothing is closed.
    unsure: only two persons start the system; ran: it was seen to run before, and was limited before it was started.
    """

    scope: Scope
    at: Standing
    entry: Accepted | None
    claim: Claim | None
    system: str = ""
    switched_at: datetime | None = None
    missing: bool = False
    news_by: datetime | None = None
    unsure: bool = False
    ran: bool = False

    @property
    def text(self) -> str:
        """As proofs name it (`Need.text`)."""
        return proof_name(self.scope, self.system)


def rows_of(
    config: Config, rules: Sequence[Rule], entries: Sequence[Accepted], wanted: Sequence[Scope], now: datetime
) -> list[Row]:
    """Where the scopes of this home stand. rules: of the copy, with the mark of a safe state. wanted: none for all."""
    atoms = provable(enforced_atoms(config))
    at = {scope: one.at(now) for scope, one in standings(rules, _shown(atoms, rules, wanted)).items()}
    entry_of = {one.id: one for one in entries if one.id is not None}
    rows = [Row(scope, one, entry_of.get(one.command), None) for scope, one in at.items()]
    systems = [one for one in systems_of(config) if not wanted or any(scope.meets(one.scope) for scope in wanted)]
    records, known = RecordBook(config.switch_folder), SystemStandings(lambda: entries, lambda: rules)
    theirs = {scope: one.at(now) for scope, one in standings(rules, [one.scope for one in systems]).items()}
    for system in systems:
        found = theirs[system.scope]
        record = records.read(system.name)
        unsure, ran = record.waits(found, known.cause(found)), record.before is Runs.RUNNING
        rows.append(Row(system.scope, found, entry_of.get(found.command), None, system.name, unsure=unsure, ran=ran))
    folder = config.switch_folder / "proofs"
    needed = [one for one in needs(at) if one.scope in atoms]
    needed += needs_of(systems, lambda scope: theirs[scope])
    made = {one.need.text: one for one in claims(folder, needed, now)}
    news = {one.need.text: one.by for one in news_book(config).due(needed)}
    last = last_proven(folder, [row.text for row in rows if row.system or row.scope in atoms])
    late = set(overdue(last, config.control.drill_days, now))
    return [
        replace(
            row,
            claim=made.get(row.text),
            switched_at=last.get(row.text),
            missing=row.text in late,
            news_by=news.get(row.text),
        )
        for row in rows
    ]


def _shown(atoms: Sequence[Scope], rules: Sequence[Rule], wanted: Sequence[Scope]) -> Iterator[Scope]:
    named = {scope for rule in rules if rule.command for scope in rule.command.scopes}
    others = sorted(one for one in named if not any(one.covers(atom) for atom in atoms))
    for one in (*atoms, *others):
        if not wanted or any(scope.meets(one) for scope in wanted):
            yield one


class NotFreshError(ConflictError):
    """This home has or had a switch; an empty log in its place would open what is closed."""

    code = "switch.not-fresh"


class NoDocumentError(UnavailableError):
    """The file of a signed command cannot be read; whoever brought it looks."""

    code = "switch.no-document"


def read_document(path: Path) -> bytes:
    """A signed command that was brought here, or as much of it as shows that it is too long. Raises NoDocumentError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT + 1)
    except OSError as cause:
        raise NoDocumentError(f"{path} cannot be read ({cause.strerror})") from cause


def describe(accepted: Accepted) -> dict[str, Json]:
    """One epoch, for machines."""
    found: dict[str, Json] = {
        "epoch": accepted.epoch,
        "accepted_at": time_text(accepted.accepted_at),
        "sha256": accepted.digest,
        "fault": accepted.fault,
        "remark": accepted.remark,
    }
    if accepted.signed is not None:
        command = accepted.signed.command
        found |= {
            "command": command.id,
            "state": command.state.value,
            "scopes": [str(one) for one in command.scopes],
            "opening": int(command.opening),
            "reason": command.reason.value,
            "text": command.text,
            "incident": command.incident,
            "policy": command.policy,
            "signed_by": [one.operator for one in accepted.signed.signatures],
        }
    return found
