"""`schleuse restart …`: the way back, stage by stage, by two persons and evidence (incident.md § 9)."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.errors import MalformedError, UnavailableError
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.processes.restart_home import restarts_of
from schleuse.processes.restarting import Restarts, Signer, who_must_act
from schleuse.processes.trail import OUTSIDE, PLATFORM, Act, open_trail
from schleuse.restart.documents import Basis, Document, EvidenceStatus, sign_document
from schleuse.restart.entering import soak_left
from schleuse.restart.gates import Judged
from schleuse.restart.gates import Result as GateResult
from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import GateKind, RestartPlan, parse_plan
from schleuse.restart.progress import Progress
from schleuse.scopes import ANY, NONE, Service, parse_scopes
from schleuse.switch.documents import Role, parse_time
from schleuse.vault.tokens import read_token_key

app = App(name="restart", help="Back stage by stage: plans, gates, two persons.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object")]
Yes = Annotated[bool, Parameter(negative=(), help="Do it; without, only what it would do is shown")]
Operator = Annotated[str, Parameter(help="Name of the operator, as configured")]
KeyFile = Annotated[Path, Parameter(help="The operator's private key (Ed25519, PEM)")]
AsRole = Annotated[Role, Parameter(name="--role", help="In which of the operator's roles")]


class BadUntilError(MalformedError):
    """An end of a waiver or measure is a time such as 2026-12-01T08:00:00Z; who typed it writes it again."""

    code = "cli.bad-until"


class NoFileError(UnavailableError):
    """A file that was named cannot be read; who named it looks."""

    code = "cli.restart-file"


class BadHostError(MalformedError):
    """A host is given as NAME=STATUS of its evidence; who typed it writes it again."""

    code = "cli.bad-host"


@app.command
def plan(
    name: str | None = None,
    *,
    scopes: Annotated[list[str] | None, Parameter(help="What comes back [default: all that is closed]")] = None,
    canary: Annotated[str | None, Parameter(help="IK of the first insurer [default: the first of them]")] = None,
    file: Annotated[Path | None, Parameter(help="A plan of your own, as `restart show --json` prints one")] = None,
    incident: str = "",
    fast: Annotated[bool, Parameter(negative=(), help="A rehearsal: soaks of seconds")] = False,
    yes: Yes = False,
    home: Home = None,
    json_output: AsJson = False,
) -> None:
    """Make a plan: canary, cohorts, outbound, backlog, reads, suppliers, normal.

    Parameters
    ----------
    name
        Of the plan [default: a new one].
    """
    config = read_config(home or default_home())
    made = parse_plan(file.read_bytes()) if file else _default(config, name, scopes, canary, incident, fast)
    if json_output:
        print(made.encode().decode())
    else:
        _print_plan(made)
    if yes:
        _restarts(config).make(made, "cli")
        print(made.id)
    else:
        _hint(made.id)


@app.command
def show(name: str, *, home: Home = None, json_output: AsJson = False) -> None:
    """The plan as it is approved."""
    at = _restarts(read_config(home or default_home())).judged(name)[0]
    if at.plan is None:
        return
    if json_output:
        print(at.plan.encode().decode())
    else:
        _print_plan(at.plan)


@app.command
def status(name: str | None = None, *, home: Home = None, json_output: AsJson = False) -> None:
    """Where each restart stands, what is missing, and who must act."""
    restarts = _restarts(read_config(home or default_home()))
    names = [name] if name else list(restarts.all())
    found = {one: restarts.judged(one) for one in names}
    if json_output:
        print(json.dumps({one: _as_json(restarts, *at) for one, at in found.items()}, ensure_ascii=False, default=str))
        return
    if not found:
        print("kein Wiederanlauf geplant" if german() else "no restart is planned")
    for one, (at, judged, missing) in found.items():
        _print_status(restarts, one, at, judged, missing)


@app.command
def approve(
    name: str, *, operator: Operator, operator_key: KeyFile, role: AsRole, yes: Yes = False, home: Home = None
) -> None:
    """Approve the plan; once it is approved, sign the commands that `restart advance` has prepared.

    Two persons are needed for each: switch_officer and releaser.
    """
    config = read_config(home or default_home())
    restarts, signer = _restarts(config), Signer(operator, read_token_key(operator_key))
    at = restarts.judged(name)[0]
    if not restarts.is_approved(at):
        if at.plan is not None:
            _print_plan(at.plan)
        if yes:
            restarts.approve_plan(name, signer, role)
        _said(yes, f"Plan {name} freigegeben als {role}", f"plan {name} approved as {role}", name)
        return
    if at.offer is not None:
        for command in at.offer.commands:
            print(f"{', '.join(map(str, command.scopes))} -> {command.state}   {command.stage}   {command.hash[:16]}")
    if yes:
        restarts.sign_offer(name, signer, role)
    _said(yes, f"unterschrieben als {role}", f"signed as {role}", name)


@app.command
def advance(name: str, *, operator: Operator, yes: Yes = False, home: Home = None) -> None:
    """Prepare the exact commands of the next stage; two persons then sign them with `restart approve`.

    The control role enters the stage as soon as both signatures are there and all gates pass.

    Parameters
    ----------
    operator
        Who signs first.
    """
    restarts = _restarts(read_config(home or default_home()))
    at, judged, _ = restarts.judged(name)
    _print_status(restarts, name, at, judged, [])
    if yes:
        for command in restarts.offer(name, operator).commands:
            print(f"{', '.join(map(str, command.scopes))} -> {command.state}   {command.hash[:16]}")
    _said(yes, "vorbereitet", "prepared", name)


@app.command
def enter(name: str, *, home: Home = None) -> None:
    """Enter the next stage now, if two have signed and every gate lets in; for when the control role is away."""
    entered = _restarts(read_config(home or default_home())).enter(name)
    print(f"{'Stufe' if german() else 'stage'} {entered.place + 1}, epochs {list(entered.epochs)}")


@app.command
def abort(
    name: str, *, operator: Operator, operator_key: KeyFile, role: AsRole, reason: str, home: Home = None
) -> None:
    """Back to S0 at once, by one person (RS-06)."""
    restarts = _restarts(read_config(home or default_home()))
    epoch = restarts.abort(name, Signer(operator, read_token_key(operator_key)), role, reason)
    print(f"abgebrochen, Epoche {epoch}" if german() else f"aborted, epoch {epoch}")


@app.command
def evidence(
    name: str,
    kind: GateKind,
    *,
    text: Annotated[str, Parameter(help="What was found, in one sentence, without personal data")],
    operator: Operator,
    operator_key: KeyFile,
    role: AsRole,
    file: Annotated[list[Path] | None, Parameter(negative=(), help="What was looked at; its digest is signed")] = None,
    method: Annotated[list[str] | None, Parameter(negative=(), help="How it was found; EVID needs two")] = None,
    host: Annotated[
        list[str] | None, Parameter(negative=(), help="NAME=STATUS of its evidence, such as web-3=acquired_verified")
    ] = None,
    basis: Basis = Basis.INVESTIGATION,
    failed: Annotated[bool, Parameter(negative=(), help="It shows that the gate does not pass")] = False,
    until: Annotated[str | None, Parameter(help="When the statement ends, such as 2026-12-01T08:00:00Z")] = None,
    home: Home = None,
) -> None:
    """Sign what was found for a gate that nothing here can look at: EVID, CRED, BASE, LEGAL, PART."""
    restarts = _restarts(read_config(home or default_home()))
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
        tuple((path.name, _digest(path)) for path in file or []),
        tuple(method or []),
        tuple(_host(one) for one in host or []),
    )
    result = restarts.document(name, sign_document(document, operator, role, read_token_key(operator_key)))
    print(f"{kind}: {result.value}  {document.hash[:16]}")


@app.command
def waive(
    name: str,
    kind: GateKind,
    *,
    reason: str,
    until: Annotated[str, Parameter(help="Such as 2026-12-01T08:00:00Z")],
    operator: Operator,
    operator_key: KeyFile,
    role: AsRole,
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Let a gate be until a day; needs lead and security_officer, two persons (RS-03)."""
    restarts = _restarts(read_config(home or default_home()))
    if yes:
        signer = Signer(operator, read_token_key(operator_key))
        restarts.waive(name, kind, signer, role, reason, _until(until))
    _said(yes, f"Verzicht auf {kind} als {role}", f"waived {kind} as {role}", name)


@app.command
def note(
    name: str,
    text: str,
    *,
    operator: Operator,
    changed: Annotated[bool, Parameter(negative=(), help="Something was changed: the soak starts anew")] = False,
    owner: Annotated[str, Parameter(help="For a temporary measure: who answers for it")] = "",
    until: Annotated[str | None, Parameter(help="For a temporary measure: its end")] = None,
    home: Home = None,
) -> None:
    """A hand-over note, a change, or a temporary measure with owner and end (RS-08, RS-11, RS-12)."""
    restarts = _restarts(read_config(home or default_home()))
    if changed:
        restarts.changed(name, operator, text)
    else:
        restarts.note(name, operator, text, owner, _until(until) if until else None)


def _restarts(config: Config) -> Restarts:
    trail = open_trail(config, OUTSIDE, JournalClient(config.journal_socket))

    def tell(facts: Mapping[str, Json], granted: bool) -> None:
        result = Result.GRANTED if granted else Result.DENIED
        trail.tell(Act(PLATFORM, Kind.ADMINISTRATION, result, Purpose.INCIDENT, detail=facts))

    return restarts_of(config, tell)


def _default(
    config: Config, name: str | None, scopes: list[str] | None, canary: str | None, incident: str, fast: bool
) -> RestartPlan:
    wanted = [scope for text in scopes or ["all"] for scope in parse_scopes(text)]
    services = [one for one in Service if any(scope.service in (ANY, one.value) for scope in wanted)]
    known = [one.ik for one in config.insurers]
    insurers = [ik for ik in known if any(scope.tenant in (ANY, ik) for scope in wanted)]
    whole = any(scope.tenant in (ANY, NONE) for scope in wanted)
    now = utc_now()
    name = name or f"r{now:%Y%m%d}-{secrets.token_hex(2)}"
    first = canary or (insurers[0] if insurers else "")
    return default_plan(name, services, insurers, first, now, incident=incident, fast=fast, whole=whole)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
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


def _print_plan(made: RestartPlan) -> None:
    de = german()
    title = f"{made.id} v{made.version}  {made.hash[:16]}"
    if made.fast:
        title += "  — PROBE mit kurzen Beobachtungszeiten" if de else "  — REHEARSAL with short soaks"
    table = Table(
        "Stufe" if de else "stage", "öffnet" if de else "opens", "Tore" if de else "gates",
        "Beobachtung" if de else "soak", box=None, pad_edge=False, title=title, title_justify="left",
    )  # fmt: skip
    for stage in made.stages:
        opens = "\n".join(
            f"{_short(target.scopes)} -> {target.state}{_limit(target.limit)}" for target in stage.targets
        )
        gates = " ".join(stage.gates) + (" BACKLOG=0" if stage.drains else "")
        table.add_row(f"{stage.name} {stage.label}".strip(), opens or "·", gates, _span(stage.soak))
    Console().print(table)


def _short(scopes: Any) -> str:
    texts = [str(one) for one in scopes]
    return ", ".join(texts[:3]) + (f" … ({len(texts)})" if len(texts) > 3 else "")


def _limit(limit: Any) -> str:
    if limit is None:
        return ""
    parts = [
        f"{limit.permille} ‰" if limit.permille is not None else "",
        f"{limit.per_hour}/h" if limit.per_hour else "",
    ]
    return f" ({', '.join(part for part in parts if part)})"


def _span(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    return f"{seconds} s" if seconds < 120 else f"{seconds // 3600} h" if seconds < 172800 else f"{seconds // 86400} d"


_MARK = {
    GateResult.PASS: "[green]✓[/]",
    GateResult.WAIVED: "[yellow]✓[/]",
    GateResult.FAIL: "[red]✗[/]",
    GateResult.INCONCLUSIVE: "[yellow]?[/]",
    GateResult.EXPIRED: "[yellow]⌛[/]",
}


def _print_status(restarts: Restarts, name: str, at: Progress, judged: list[Judged], missing: list[str]) -> None:
    de = german()
    console = Console()
    now = utc_now()
    stage = f"{at.stage.name} {at.stage.label}".strip() if at.stage else "S0"
    following = f"{at.next_stage.name} {at.next_stage.label}".strip() if at.next_stage else "—"
    console.print(
        f"[bold]{name}[/]  {'Stufe' if de else 'stage'} {stage} -> {following}"
        f"   {'Beobachtung noch' if de else 'soak left'} {_span(soak_left(at, now))}"
    )
    if at.aborted is not None:
        word = "abgebrochen" if de else "aborted"
        console.print(f"[red]{word}[/] {at.aborted.at:%H:%M:%S} {at.aborted.by}: {at.aborted.reason}")
    if not restarts.is_approved(at):
        console.print("[yellow]?[/] " + ("Plan noch nicht von zwei Personen freigegeben" if de else
                                          "the plan is not approved by two persons yet"))  # fmt: skip
    for one in judged:
        console.print(f"{_MARK[one.result]} {one.kind:6} {one.result:12} {one.reason}", highlight=False)
    for waiver in restarts.waivers(at):
        word = "Verzicht" if de else "waived"
        console.print(f"  {word}: {waiver.kind} {' + '.join(waiver.by)} -> {waiver.until:%Y-%m-%d}: {waiver.reason}")
    for entry in at.notes[-5:]:
        console.print(f"  {entry.at:%Y-%m-%d %H:%M} {entry.by}: {entry.text}")
    turns = who_must_act(at, judged)
    if turns:
        console.print(("am Zug: " if de else "to act: ") + "; ".join(turns), highlight=False)
    if not missing and at.next_stage is not None:
        console.print("[green]✓[/] " + ("bereit" if de else "ready"))


def _as_json(restarts: Restarts, at: Progress, judged: list[Judged], missing: list[str]) -> dict[str, object]:
    now = utc_now()
    return {
        "stage": f"{at.stage.name} {at.stage.label}".strip() if at.stage else "S0",
        "next": f"{at.next_stage.name} {at.next_stage.label}".strip() if at.next_stage else None,
        "done": at.is_done,
        "entered_at": at.entered_at,
        "epochs": list(at.epochs),
        "plan_approved": restarts.is_approved(at),
        "plan_hash": at.plan.hash if at.plan else None,
        "fast": at.plan.fast if at.plan else False,
        "soak_left_seconds": soak_left(at, now).total_seconds(),
        "gates": [{"kind": one.kind, "result": one.result, "reason": one.reason, "until": one.until} for one in judged],
        "missing": missing,
        "to_act": who_must_act(at, judged),
        "aborted": at.aborted.reason if at.aborted else None,
        "measured": [[stage, begin, end] for stage, begin, end in at.records],
    }


def _hint(_name: str) -> None:
    print("--yes legt ihn an" if german() else "--yes makes it")


def _said(done: bool, de: str, en: str, _name: str) -> None:
    if done:
        print(de if german() else en)
    else:
        print("--yes führt es aus" if german() else "--yes does it")
