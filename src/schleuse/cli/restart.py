"""`schleuse restart …`: the way back, stage by stage, by two persons and evidence (incident.md § 9).

What opens shows what it would do and needs --yes; `abort` closes at once. Operators of this home sign with the key that
lies in it, others name their file.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from schleuse.cli import exit_code
from schleuse.cli.closing import config_for_closing, tell_damage, tell_undone
from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.restart_view import name_of, print_plan, print_status, status_json
from schleuse.cli.up import said
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.errors import ConflictError, Error, MalformedError, UnavailableError
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Purpose
from schleuse.processes.operators import key_of
from schleuse.processes.restart_home import restarts_of, take_back
from schleuse.processes.restarting import Abort, Restarts, RoleMissingError, Signer, Tell
from schleuse.processes.switch_orders import mend
from schleuse.processes.switching import switch_log
from schleuse.processes.trail import OUTSIDE, open_trail, outside_teller, teller
from schleuse.restart.documents import SIGNERS, Basis, Document, EvidenceStatus, sign_document
from schleuse.restart.entering import WAIVERS, missing_roles
from schleuse.restart.gates import Result as GateResult
from schleuse.restart.ladder import closed_scopes, default_plan
from schleuse.restart.plan import GateKind, RestartPlan, StageName, next_version, parse_plan
from schleuse.scopes import ANY, NONE, Service, parse_scopes
from schleuse.switch.documents import CLOSERS, OPENERS, Role, parse_time
from schleuse.switch.log import rules_of

app = App(name="restart", help="Back stage by stage: plans, gates, two persons.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object")]
Yes = Annotated[bool, Parameter(negative=(), help="Do it; without, only what it would do is shown")]
AsRole = Annotated[Role | None, Parameter(name="--role", help="In which role [default: the one that fits]")]
Until = Annotated[str, Parameter(help="Such as 2026-12-01T08:00:00Z")]


class BadUntilError(MalformedError):
    """An end of a waiver, statement or measure is a time such as 2026-12-01T08:00:00Z; who typed it writes it again."""

    code = "cli.bad-until"


class NoFileError(UnavailableError):
    """A file that was named cannot be read; who named it looks."""

    code = "cli.restart-file"


class BadHostError(MalformedError):
    """A host is given as NAME=STATUS of its evidence; who typed it writes it again."""

    code = "cli.bad-host"


class BadNeedError(MalformedError):
    """A dependency is given as PLAN:STAGE, such as keys:S1; who typed it writes it again."""

    code = "cli.bad-need"


class NothingClosedError(ConflictError):
    """Nothing of these scopes is closed, so there is nothing to bring back."""

    code = "cli.nothing-closed"


@app.command
def plan(
    name: str | None = None,
    *,
    scopes: Annotated[
        list[str] | None, Parameter(negative=(), help="What comes back [default: all that is closed]")
    ] = None,
    canary: Annotated[str | None, Parameter(help="IK of the first insurer [default: the first of them]")] = None,
    needs: Annotated[list[str] | None, Parameter(negative=(), help="PLAN:STAGE that must be reached before")] = None,
    file: Annotated[Path | None, Parameter(help="A plan of your own, as `restart show --json` prints one")] = None,
    again: Annotated[bool, Parameter(negative=(), help="A new version of the plan NAME, which takes note of what was"
                                                      " closed since; it is approved anew")] = False,
    incident: str = "",
    fast: Annotated[bool, Parameter(negative=(), help="A rehearsal: soaks of seconds")] = False,
    yes: Yes = False,
    home: Home = None,
    json_output: AsJson = False,
) -> None:  # fmt: skip
    """Make a plan: trust base, canary, cohorts, outbound, backlog, reads, writes, suppliers, normal.

    Parameters
    ----------
    name
        Of the plan [default: a new one].
    """
    config = read_config(home or default_home())
    restarts = _restarts(config)
    if file is not None:
        made = parse_plan(_read(file))
    elif again:
        made = next_version(_plan_of(restarts, name or ""), utc_now())
    else:
        made = _default(config, name, scopes, canary, incident, fast)
    if needs:
        made = replace(made, needs=tuple(_need(one) for one in needs))
    if json_output:
        print(made.encode().decode())
    else:
        print_plan(made, _achieved(restarts))
    if yes:
        restarts.make(made, "cli")
        print(made.id)
    elif not json_output:
        print(said("--yes legt ihn an", "--yes makes it"))


@app.command
def show(name: str, *, home: Home = None, json_output: AsJson = False) -> None:
    """The plan as it is approved."""
    restarts = _restarts(read_config(home or default_home()))
    made = _plan_of(restarts, name)
    if json_output:
        print(made.encode().decode())
    else:
        print_plan(made, _achieved(restarts))


@app.command
def status(name: str | None = None, *, home: Home = None, json_output: AsJson = False) -> None:
    """Where each restart stands, what is missing, and who must act."""
    config = read_config(home or default_home())
    restarts = _restarts(config)
    names = [name] if name else restarts.names()
    if json_output:
        found = {one: status_json(config, restarts, one, utc_now()) for one in names}
        print(json.dumps(found, ensure_ascii=False, default=str))
        return
    if not names:
        print(said("kein Wiederanlauf geplant", "no restart is planned"))
    for one in names:
        print_status(config, restarts, one, utc_now())


@app.command
def gate(name: str, kind: GateKind | None = None, *, home: Home = None, json_output: AsJson = False) -> None:
    """All that was ever found about the gates of a plan: when, by what or whom, with which digest.

    Parameters
    ----------
    kind
        Only this one.
    """
    at = _restarts(read_config(home or default_home())).read(name)
    rows: list[dict[str, object]] = [
        {
            "gate": one.kind,
            "at": one.at,
            "result": one.result,
            "by": one.source,
            "text": str(one.text) if json_output else said(*one.text),
            "sha256": one.digest,
        }
        for one in at.evidence
    ]
    rows += [
        {
            "gate": one.document.document.kind,
            "at": one.at,
            "result": one.document.document.result,
            "by": one.by,
            "text": one.document.document.text,
            "sha256": one.document.document.hash,
        }
        for one in at.documents
    ]
    for row in sorted((one for one in rows if kind in (None, one["gate"])), key=lambda one: str(one["at"])):
        if json_output:
            print(json.dumps(row, ensure_ascii=False, default=str))
        else:
            when = f"{row['at']:%Y-%m-%d %H:%M:%S}"
            print(f"{when}  {row['gate']:6} {row['result']:12} {row['by']}: {row['text']}  {str(row['sha256'])[:16]}")


@app.command
def approve(
    name: str,
    *,
    operator: Operator,
    operator_key: KeyFile = None,
    role: AsRole = None,
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Approve the plan; once it is approved, sign the commands that `restart advance` has prepared.

    Two persons are needed for each: switch_officer and releaser.
    """
    config = read_config(home or default_home())
    restarts = _restarts(config)
    at = restarts.read(name)
    if not restarts.is_approved(at):
        done = {one.role for one in at.approvals}
        chosen = role or _role(config, operator, [one for one in OPENERS if one not in done] or OPENERS)
        print_plan(_plan_of(restarts, name))
        if yes:
            restarts.approve_plan(name, _signer(config, operator, operator_key), chosen)
        _done(yes, f"Plan {name} freigegeben als {chosen}", f"plan {name} approved as {chosen}")
        return
    chosen = role or _role(config, operator, missing_roles(at) or OPENERS)
    for command in at.offer.commands if at.offer is not None else ():
        print(f"{', '.join(map(str, command.scopes))} -> {command.state}   {command.stage}   {command.hash[:16]}")
    if yes:
        restarts.sign_offer(name, _signer(config, operator, operator_key), chosen)
    _done(yes, f"unterschrieben als {chosen}", f"signed as {chosen}")


@app.command
def advance(name: str, *, operator: Operator, yes: Yes = False, home: Home = None) -> None:
    """Prepare the exact commands of the next stage; two persons then sign them with `restart approve`.

    The control role enters the stage as soon as both signatures are there and all gates pass.

    Parameters
    ----------
    operator
        Who signs first.
    """
    config = read_config(home or default_home())
    restarts = _restarts(config)
    print_status(config, restarts, name, utc_now())
    if yes:
        for command in restarts.offer(name, operator).commands:
            print(f"{', '.join(map(str, command.scopes))} -> {command.state}   {command.hash[:16]}")
    _done(yes, "vorbereitet", "prepared")


@app.command
def enter(name: str, *, yes: Yes = False, home: Home = None) -> None:
    """Enter the next stage now, if two have signed and every gate lets in; for when the control role is away."""
    config = read_config(home or default_home())
    restarts = _restarts(config)
    if not yes:
        print_status(config, restarts, name, utc_now())
        _done(yes, "", "")
        return
    entered = restarts.enter(name)
    print(f"{name_of(_plan_of(restarts, name).stages[entered.place])}  {list(entered.epochs)}")


@app.command
def abort(
    name: str, *, reason: str, operator: Operator, operator_key: KeyFile = None, role: AsRole = None, home: Home = None
) -> None:
    """Back to S0 at once, by one person (RS-06). No damaged file of the restart or of the switch keeps it back."""
    config = config_for_closing(home)
    chosen = role or _role(config, operator, sorted(CLOSERS - {Role.AUTOMAT}))
    mend(config, switch_log(config), closing=True)
    tell = outside_teller(config, Purpose.INCIDENT)
    done = restarts_of(config, tell).abort(name, _signer(config, operator, operator_key), chosen, reason)
    if done.scopes:
        print(said(f"abgebrochen, Epoche {done.epoch}", f"aborted, epoch {done.epoch}"))
    if done.fault is not None:
        _end_by_hand(config, tell, name, done, done.fault)


def _end_by_hand(config: Config, tell: Tell, name: str, done: Abort, fault: Error) -> None:
    """Nothing can be recorded in this book, so the control role does not see the abort: its other half is done here."""
    closed = ", ".join(map(str, done.scopes))
    if not closed:
        tell_damage(
            f"Der Wiederanlauf {name} ist beschädigt ({fault}) und hat nach dem Protokoll des Schalters nichts"
            " geöffnet: es ist nichts zu schließen. Der Betrieb stellt switch/restart wieder her.",
            f"the restart {name} is damaged ({fault}) and has opened nothing by the log of the switch: nothing is to be"
            " closed. The operator of this machine restores switch/restart.",
        )
        sys.exit(exit_code(fault))
    tell_damage(
        f"Der Wiederanlauf {name} ist beschädigt ({fault}). Geschlossen ist: {closed}; vermerken lässt es sich dort"
        f" nicht. Der Betrieb stellt switch/restart/{name} aus der Sicherung wieder her; weiter geht es mit einem"
        " neuen Plan.",
        f"the restart {name} is damaged ({fault}). Closed is: {closed}; it cannot be recorded there. The operator of"
        f" this machine restores switch/restart/{name} from a backup; a new plan goes on.",
    )
    try:
        take_back(config, tell, name, done.scopes)
    except Error as error:
        tell_undone(
            error,
            "Was ein Rückstand schon freigegeben hatte, bleibt freigegeben, bis `schleuse hold release stop` gelingt;"
            " solange geschlossen ist, holt es niemand.",
            "What a release has let go stays so until `schleuse hold release stop` works; nobody takes it while it is"
            " closed.",
        )
        sys.exit(exit_code(error))


@app.command
def evidence(
    name: str,
    kind: GateKind,
    *,
    text: Annotated[str, Parameter(help="What was found, in one sentence, without personal data")],
    operator: Operator,
    operator_key: KeyFile = None,
    role: AsRole = None,
    file: Annotated[list[Path] | None, Parameter(negative=(), help="What was looked at; its digest is signed")] = None,
    method: Annotated[list[str] | None, Parameter(negative=(), help="How it was found; EVID needs two")] = None,
    host: Annotated[
        list[str] | None, Parameter(negative=(), help="NAME=STATUS of its evidence, such as web-3=acquired_verified")
    ] = None,
    basis: Basis = Basis.INVESTIGATION,
    failed: Annotated[bool, Parameter(negative=(), help="It shows that the gate does not pass")] = False,
    until: Until | None = None,
    home: Home = None,
) -> None:
    """Sign what was found for a gate that nothing here can look at: EVID, CRED, BASE, LEGAL, PART."""
    config = read_config(home or default_home())
    now = utc_now()
    document = Document(
        f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
        name,
        kind,
        GateResult.FAIL if failed else GateResult.PASS,
        now,
        text,
        _until(until) if until else None,
        basis,
        tuple((path.name, hashlib.sha256(_read(path)).hexdigest()) for path in file or []),
        tuple(method or []),
        tuple(_host(one) for one in host or []),
    )
    chosen = role or _role(config, operator, sorted(SIGNERS[kind]))
    key = _signer(config, operator, operator_key).key
    result = _restarts(config).document(name, sign_document(document, operator, chosen, key))
    print(f"{kind}: {result.value}  {document.hash[:16]}")


@app.command
def waive(
    name: str,
    kind: GateKind,
    *,
    reason: str,
    until: Until,
    operator: Operator,
    operator_key: KeyFile = None,
    role: AsRole = None,
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Let a gate be until a day; lead and security_officer, two persons, sign the same reason and end (RS-03)."""
    config = read_config(home or default_home())
    chosen = role or _role(config, operator, WAIVERS)
    print(f"{kind}  -> {_until(until):%Y-%m-%d %H:%M:%S}  {reason}")
    if yes:
        _restarts(config).waive(name, kind, _signer(config, operator, operator_key), chosen, reason, _until(until))
    _done(yes, f"Verzicht auf {kind} als {chosen}", f"waived {kind} as {chosen}")


@app.command
def note(
    name: str,
    text: str,
    *,
    operator: Operator,
    changed: Annotated[bool, Parameter(negative=(), help="Something was changed: the soak starts anew")] = False,
    home: Home = None,
) -> None:
    """A hand-over note, or a change that starts the soak anew (RS-08, RS-11)."""
    restarts = _restarts(read_config(home or default_home()))
    if changed:
        restarts.changed(name, operator, text)
    else:
        restarts.note(name, operator, text)


@app.command
def measure(
    name: str,
    text: str,
    *,
    operator: Operator,
    owner: Annotated[str, Parameter(help="Who answers for it")],
    until: Until | None = None,
    ended: Annotated[bool, Parameter(negative=(), help="It is taken away")] = False,
    home: Home = None,
) -> None:
    """A temporary opening or workaround with owner and end, listed at every stage until it is ended (RS-12)."""
    if (until is None) != ended:
        raise BadUntilError("a temporary measure has an end (--until), or is ended (--ended)")
    restarts = _restarts(read_config(home or default_home()))
    restarts.note(name, operator, text, owner, _until(until) if until else None)


def _restarts(config: Config) -> Restarts:
    trail = open_trail(config, OUTSIDE, JournalClient(config.journal_socket))
    return restarts_of(config, teller(trail, Purpose.INCIDENT))


def _default(
    config: Config, name: str | None, scopes: list[str] | None, canary: str | None, incident: str, fast: bool
) -> RestartPlan:
    """What of these scopes is closed now."""
    known, now = [one.ik for one in config.insurers], utc_now()
    wanted = [scope for text in scopes or ["all"] for scope in parse_scopes(text)]
    rules = rules_of(switch_log(config).read_all())
    closed = [one for one in closed_scopes(rules, known, now) if any(scope.meets(one) for scope in wanted)]
    if not closed:
        raise NothingClosedError(f"nothing of {', '.join(scopes or ['all'])} is closed")
    services = [one for one in Service if any(scope.service == one.value for scope in closed)]
    tenants = {one.tenant for one in closed} - {NONE}
    insurers = [ik for ik in known if ik in tenants] or known
    whole = insurers == known and all(scope.tenant == ANY for scope in wanted)
    name = name or f"r{now:%Y%m%d}-{secrets.token_hex(2)}"
    return default_plan(
        name, services, insurers, canary or insurers[0], now,
        incident=incident, fast=fast, whole=whole, closed=closed,
    )  # fmt: skip


def _achieved(restarts: Restarts) -> Mapping[str, timedelta]:
    """How long each stage took when a plan of this home last left it (RS-15)."""
    records = [record for at in restarts.all().values() for record in at.records]
    return {stage: end - begin for stage, begin, end in sorted(records, key=lambda one: one[2])}


def _plan_of(restarts: Restarts, name: str) -> RestartPlan:
    made = restarts.read(name).plan
    if made is None:
        raise NothingClosedError(f"{name} has no plan")
    return made


def _signer(config: Config, operator: str, key: Path | None) -> Signer:
    return Signer(operator, key_of(config, operator, key))


def _role(config: Config, operator: str, roles: Collection[Role]) -> Role:
    """The first of these roles that the operator has. Raises RoleMissingError."""
    mine = next((one.roles for one in config.operators if one.name == operator), ())
    found = next((one for one in roles if one.value in mine), None)
    if found is None:
        raise RoleMissingError(f"{operator} has none of the roles {', '.join(roles)}; `schleuse operator list`")
    return found


def _need(text: str) -> tuple[str, StageName]:
    name, _, stage = text.rpartition(":")
    try:
        return name, StageName(stage)
    except ValueError as cause:
        raise BadNeedError(f"{text!r}: expected PLAN:STAGE, such as keys:S1") from cause


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise NoFileError(f"{path} cannot be read ({cause.strerror})") from cause


def _host(text: str) -> tuple[str, EvidenceStatus]:
    host, _, status = text.partition("=")
    try:
        return host, EvidenceStatus(status)
    except ValueError as cause:
        raise BadHostError(f"{text!r}: expected NAME= and one of {', '.join(EvidenceStatus)}") from cause


def _until(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as cause:
        raise BadUntilError(f"{text!r} is no time such as 2026-12-01T08:00:00Z") from cause


def _done(done: bool, de: str, en: str) -> None:
    print(said(de, en) if done else said("--yes führt es aus", "--yes does it"))
