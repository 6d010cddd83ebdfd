"""What `schleuse restart` shows: plans, where they stand, what is missing, who must act. German, or English."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schleuse.cli.up import german, said
from schleuse.config import Config
from schleuse.processes.restarting import Restarts
from schleuse.restart.entering import is_over, soak_left, who_must_act
from schleuse.restart.gates import Judged, Result
from schleuse.restart.plan import RestartPlan, Stage
from schleuse.restart.progress import Progress
from schleuse.scopes import Scope
from schleuse.switch.documents import Limit

_MARK: Mapping[Result, str] = {
    Result.PASS: "[green]✓[/]",
    Result.WAIVED: "[yellow]✓[/]",
    Result.FAIL: "[red]✗[/]",
    Result.INCONCLUSIVE: "[yellow]?[/]",
    Result.EXPIRED: "[yellow]⌛[/]",
}
_WORDS: Mapping[Result, str] = {
    Result.PASS: "erfüllt",
    Result.WAIVED: "verzichtet",
    Result.FAIL: "nicht erfüllt",
    Result.INCONCLUSIVE: "unklar",
    Result.EXPIRED: "abgelaufen",
}


def print_plan(made: RestartPlan, achieved: Mapping[str, timedelta] | None = None) -> None:
    """achieved: how long each stage took when it was last left (RS-15)."""
    de = german()
    title = f"{made.id} v{made.version}  {made.hash[:16]}"
    if made.fast:
        title += "  — PROBE mit kurzen Beobachtungszeiten" if de else "  — REHEARSAL with short soaks"
    table = Table(
        "Stufe" if de else "stage", "öffnet" if de else "opens", "Tore" if de else "gates",
        "Beobachtung" if de else "soak", "zuletzt" if de else "last time",
        box=None, pad_edge=False, title=title, title_justify="left",
    )  # fmt: skip
    for stage in made.stages:
        opens = "\n".join(f"{_short(one.scopes)} -> {one.state}{_limit(one.limit)}" for one in stage.targets)
        gates = " ".join(stage.gates) + ((" Rückstand=0" if de else " backlog=0") if stage.drains else "")
        took = (achieved or {}).get(name_of(stage))
        table.add_row(name_of(stage), opens or "·", gates, span(stage.soak), span(took) if took is not None else "–")
    Console().print(table)
    for name, needed in made.needs:
        print(said(f"wartet auf {name} bis {needed}", f"waits for {name} to reach {needed}"))
    print(
        said(
            f"bricht selbst ab ab {made.abort.error_permille} ‰ Fehlern (ab {made.abort.at_least} Entscheidungen)",
            f"aborts by itself above {made.abort.error_permille} ‰ errors (of {made.abort.at_least} decisions or more)",
        )
    )


def print_status(config: Config, restarts: Restarts, name: str, now: datetime) -> None:
    """Where it stands, each gate with its reason, and whose turn it is."""
    at, judged, missing = restarts.judged(name)
    de, console = german(), Console()
    console.print(_headline(name, at, now), highlight=False)
    if at.plan is not None and at.plan.fast:
        console.print(said("[yellow]PROBE[/]: kurze Beobachtungszeiten", "[yellow]REHEARSAL[/]: short soaks"))
    if at.aborted is not None:
        text = f"{at.aborted.at:%Y-%m-%d %H:%M:%S} {at.aborted.by}: {at.aborted.reason}"
        console.print(f"[red]{said('abgebrochen', 'aborted')}[/] {escape(text)}", highlight=False)
        console.print(said("weiter mit: restart plan --again", "go on with: restart plan --again"))
    if not restarts.is_approved(at):
        console.print("[yellow]?[/] " + said(
            "Plan noch nicht von zwei Personen freigegeben", "the plan is not approved by two persons yet"
        ))  # fmt: skip
    for one in judged:
        word = _WORDS[one.result] if de else one.result.value
        until = f"  [dim]-> {moment(one.until, now)}[/]" if one.until else ""
        console.print(f"{_MARK[one.result]} {one.kind:6} {word:13} {escape(said(*one.reason))}{until}", highlight=False)
    for line in _lasting(restarts, at, now):
        console.print("  " + escape(line), highlight=False)
    turns = list(named_turns(config, at, judged, approved=restarts.is_approved(at)))
    if turns:
        console.print(said("am Zug:", "to act:"), highlight=False)
        for turn in turns:
            console.print("  " + turn, highlight=False)
    if not missing:
        console.print("[green]✓[/] " + said("bereit für die nächste Stufe", "ready for the next stage"))


def _headline(name: str, at: Progress, now: datetime) -> str:
    stage = name_of(at.stage) if at.stage else "S0"
    following = name_of(at.next_stage) if at.next_stage else said("Normalbetrieb", "normal")
    if is_over(at, now):
        return f"[bold]{name}[/]  {said('abgeschlossen, Normalbetrieb', 'over, normal')}"
    left = soak_left(at, now)
    soak = f"   {said('Beobachtung noch', 'soak left')} {span(left)}" if left else ""
    return f"[bold]{name}[/]  {said('Stufe', 'stage')} {stage} -> {following}{soak}"


def _lasting(restarts: Restarts, at: Progress, now: datetime) -> Iterator[str]:
    """What is shown at every stage: waivers ever given, temporary measures, the last notes (RS-03, RS-08, RS-12)."""
    valid = {(one.kind, one.until) for one in restarts.waivers(at)}
    for one in at.waived_ever:
        over = "" if (one.waiver_of, one.until) in valid else said(" (gilt nicht)", " (not in force)")
        word = said("Verzicht", "waived")
        yield f"{word}: {one.waiver_of} {one.by} ({one.role}) -> {one.until:%Y-%m-%d %H:%M}: {one.reason}{over}"
    for measure in at.measures:
        late = measure.until is not None and measure.until <= now
        end = said(" ÜBERFÄLLIG", " OVERDUE") if late else ""
        yield f"{said('befristet', 'temporary')}: {measure.text} ({measure.owner}, -> {measure.until:%Y-%m-%d}){end}"
    for entry in [one for one in at.notes if not one.owner][-3:]:
        yield f"{entry.at:%Y-%m-%d %H:%M} {entry.by}: {entry.text}"


def named_turns(config: Config, at: Progress, judged: Sequence[Judged], *, approved: bool) -> Iterator[str]:
    """Whose turn it is, by name: those who have the role, or that nobody has it (RO-02)."""
    if at.plan is not None and not approved:
        done = {one.role.value for one in at.approvals}
        for role in ("switch_officer", "releaser"):
            if role not in done:
                yield f"{said('Plan freigeben', 'approve the plan')}: {_holders(config, role)}"
        return
    for turn in who_must_act(at, judged):
        kind, _, roles = turn.partition(": ")
        yield f"{kind}: " + said(" und ", " and ").join(_holders(config, role) for role in roles.split(", "))


def _holders(config: Config, role: str) -> str:
    if role == "control":
        return said("die Rolle control misst", "the control role measures")
    names = [one.name for one in config.operators if role in one.roles and one.disabled_at is None]
    return f"{role} ({', '.join(names) or said('NIEMAND', 'NOBODY')})"


def status_json(config: Config, restarts: Restarts, name: str, now: datetime) -> dict[str, object]:
    """The same for machines."""
    at, judged, missing = restarts.judged(name)
    approved = restarts.is_approved(at)
    return {
        "plan": name,
        "version": at.plan.version if at.plan else None,
        "plan_hash": at.plan.hash if at.plan else None,
        "plan_approved": approved,
        "fast": at.plan.fast if at.plan else False,
        "stage": name_of(at.stage) if at.stage else "S0",
        "next": name_of(at.next_stage) if at.next_stage else None,
        "done": at.is_done,
        "entered_at": at.entered_at,
        "epochs": list(at.epochs),
        "soak_left_seconds": soak_left(at, now).total_seconds(),
        "gates": [
            {"kind": one.kind, "result": one.result, "reason": str(one.reason), "until": one.until} for one in judged
        ],
        "missing": missing,
        "to_act": list(named_turns(config, at, judged, approved=approved)),
        "offered": [one.hash for one in at.offer.commands] if at.offer else [],
        "signed_by": [one.by for one in at.signed],
        "waived": [
            {"gate": one.waiver_of, "by": one.by, "role": one.role, "until": one.until, "reason": one.reason}
            for one in at.waived_ever
        ],
        "measures": [{"text": one.text, "owner": one.owner, "until": one.until} for one in at.measures],
        "aborted": at.aborted.reason if at.aborted else None,
        "measured": [[stage, begin, end] for stage, begin, end in at.records],
    }


def name_of(stage: Stage) -> str:
    """Such as "S4 25 %"."""
    return f"{stage.name} {stage.label}".strip()


def _short(scopes: Sequence[Scope]) -> str:
    texts = [str(one) for one in scopes]
    return ", ".join(texts[:3]) + (f" … ({len(texts)})" if len(texts) > 3 else "")


def _limit(limit: Limit | None) -> str:
    if limit is None:
        return ""
    parts = [f"{limit.permille} ‰"] if limit.permille is not None else []
    parts += [f"{limit.per_hour}/h"] if limit.per_hour is not None else []
    return f" ({', '.join(parts)})"


def moment(at: datetime, now: datetime) -> str:
    """Such as "08:00:00", with the day if it is another one."""
    return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S}"


def span(time: timedelta) -> str:
    """Such as "90 s", "24 h", "7 d"."""
    seconds = int(time.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} d"
