"""What `schleuse switch` prints: states, commands, workers, proofs.

A scope without proof is never shown as off (SW-17).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from schleuse.cli.numbers import signed
from schleuse.cli.up import german, said
from schleuse.journal.opening import Json
from schleuse.processes.switch_checks import Finding
from schleuse.processes.switch_orders import Progress, Row
from schleuse.scopes import ANY, NONE, Scope, ScopeState
from schleuse.shutdown.closure import Verdict
from schleuse.shutdown.german import reason_text, span_text, state_text
from schleuse.shutdown.order import DRAIN, STATE
from schleuse.switch.documents import Command, time_text
from schleuse.switch.effects import SwitchEffect
from schleuse.switch.log import Accepted


def print_order(accepted: Accepted, unchanged: Sequence[Scope], something_runs: bool) -> None:
    """What is in force now. unchanged: where it changes nothing, because it is more closed already (SW-16)."""
    command = accepted.signed.command if accepted.signed else None
    if command is None:
        return
    print(
        said(
            f"Epoche {accepted.epoch} angeordnet: {_state(command)}",
            f"epoch {accepted.epoch} ordered: {_state(command)}",
        )
    )
    for scope in command.scopes[:20]:
        closed = said("  ist schon geschlossener", "  is more closed already") if scope in unchanged else ""
        print(f"  {scope}{closed}")
    if len(command.scopes) > 20:
        print(said(f"  … und {len(command.scopes) - 20} weitere", f"  … and {len(command.scopes) - 20} more"))
    if not something_runs:
        print(
            said(
                "hier läuft gerade nichts: es gilt für jeden Prozess ab seinem Start",
                "nothing runs here now: it is in force for each process from its start",
            )
        )


def _state(command: Command) -> str:
    limit = f" ({_limit(command.limit.permille, command.limit.per_hour)})" if command.limit else ""
    return f"{command.state}{limit}, {state_text(command.state, german())}"


def print_workers(accepted: Accepted, found: Progress, shown: set[str]) -> None:
    """Each worker once, as soon as it is quiet."""
    for name, effect in found.effects.items():
        if name not in shown and effect is not None and effect.quiet_at is not None:
            shown.add(name)
            print(f"  {name:16} {_worker(accepted, effect)}")


def _worker(accepted: Accepted, effect: SwitchEffect) -> str:
    seen = effect.seen_at - accepted.accepted_at
    quiet = (effect.quiet_at or effect.seen_at) - accepted.accepted_at
    counts = [
        (effect.finished, "beendet", "finished"),
        (effect.cut, "abgebrochen", "cut"),
        (len(effect.uncertain), "ungewiss", "uncertain"),
    ]
    words = "".join(f", {number} {said(de, en)}" for number, de, en in counts if number)
    late = "" if STATE.judge(seen) is not False and DRAIN.judge(quiet) is not False else said("  ZU SPÄT", "  TOO LATE")
    return said(
        f"gesehen {_ms(seen)}, ruhig {_ms(quiet)}{words}{late}", f"seen {_ms(seen)}, quiet {_ms(quiet)}{words}{late}"
    )


def print_claims(accepted: Accepted, found: Progress, now: datetime) -> None:
    """Which workers are missing, and how far the proof is."""
    missing = [name for name, one in found.effects.items() if one is None or one.quiet_at is None]
    if missing:
        print(said(f"noch nicht ruhig: {', '.join(missing)}", f"not quiet yet: {', '.join(missing)}"))
    waiting = [one for one in found.claims if one.verdict is not Verdict.PROVEN]
    age = span_text(max((now - accepted.accepted_at).total_seconds(), 0), german())
    if not found.claims:
        print(
            said(
                "kein Prozess dieser Plattform setzt diese Bereiche durch: angeordnet, nicht beweisbar",
                "no process of this platform enforces these scopes: commanded, cannot be proven",
            )
        )
    elif waiting:
        print(
            said(
                f"angeordnet, nicht bewiesen seit {age}: {len(waiting)} von {len(found.claims)} Bereichen",
                f"commanded, not proven for {age}: {len(waiting)} of {len(found.claims)} scopes",
            )
        )
    else:
        took = max((one.proven_at or now) for one in found.claims) - accepted.accepted_at
        print(
            said(
                f"bewiesen nach {_ms(took)}: {len(found.claims)} Bereiche",
                f"proven after {_ms(took)}: {len(found.claims)} scopes",
            )
        )


def progress_json(accepted: Accepted, found: Progress) -> dict[str, object]:
    """The same for machines."""
    return {
        "quiet": found.quiet,
        "proven": bool(found.claims) and found.proven,
        "workers": {name: None if one is None else _effect_json(accepted, one) for name, one in found.effects.items()},
        "claims": {one.need.text: one.verdict.value for one in found.claims},
    }


def _effect_json(accepted: Accepted, effect: SwitchEffect) -> dict[str, Json | float | None]:
    quiet = None if effect.quiet_at is None else (effect.quiet_at - accepted.accepted_at).total_seconds()
    return {
        "epoch": effect.epoch,
        "seen_seconds": (effect.seen_at - accepted.accepted_at).total_seconds(),
        "quiet_seconds": quiet,
        "finished": effect.finished,
        "cut": effect.cut,
        "uncertain": list(effect.uncertain),
        "safe": effect.safe,
    }


def print_rows(rows: Sequence[Row], epoch: int, days: int, now: datetime) -> None:
    """The table of `switch show`; insurers that stand alike are one line. Below, whose commands they were.

    days: after which a switch that nobody used counts as not present.
    """
    table = Table(box=None, pad_edge=False)
    firm = (("Bereich", "scope"), ("Stand", "state"), ("seit (UTC)", "since (UTC)"), ("Epoche", "epoch"))
    for de, en in firm:
        table.add_column(said(de, en), no_wrap=True)
    table.add_column(said("Beweis", "proof"))
    table.add_column(said("nächste Information (UTC)", "next information (UTC)"))
    orders: dict[int, str] = {}
    for scope, row in merged(rows):
        since = "" if row.at.since is None or row.at.since.year < 1000 else f"{row.at.since:%m-%d %H:%M:%S}"
        limit = f" {_limit(row.at.limit.permille, row.at.limit.per_hour)}" if row.at.limit else ""
        name = str(scope).removesuffix("/-") if scope.path == NONE else str(scope)
        table.add_row(
            escape(f"{name} [{row.system}]") if row.system else name,
            f"{row.at.state}{limit}",
            since,
            str(row.at.epoch or ""),
            _proof(row, now),
            _news(row, now),
        )
        if row.at.epoch:  # the command that counts may be older than the last one that concerned the scope (SW-16)
            orders[row.entry.epoch if row.entry else row.at.epoch] = f"{_signers(row)}  {_reason(row)}"
    Console().print(table)
    for number, text in sorted(orders.items()):
        print(said(f"Epoche {number}: {text}", f"epoch {number}: {text}").rstrip())
    print(said(f"Letzte Epoche: {epoch}", f"last epoch: {epoch}"))
    print_missing([one.text for one in rows if one.missing], days)
    for row in rows:
        if row.unsure:
            print(_unsure(row))


def _unsure(row: Row) -> str:
    """Only people start it, and nothing opens by itself (SW-01)."""
    if row.ran and row.at.state.begins:
        return said(
            f"{row.system}: lief vor der Abschaltung; bevor es wieder lief, wurde {row.scope} eingeschränkt (Epoche"
            f" {row.at.epoch}); es steht, bis zwei Personen es starten: switch start {row.system}",
            f"{row.system}: ran before it was closed; {row.scope} was limited (epoch {row.at.epoch}) before it ran"
            f" again; it stays stopped until two persons start it: switch start {row.system}",
        )
    waits = row.at.state.begins
    return said(
        f"{row.system}: unsicher, ob es vor der Abschaltung lief; "
        + ("es steht, bis zwei Personen es starten: " if waits else "öffnen startet es nicht, erst zwei Personen: ")
        + f"switch start {row.system}",
        f"{row.system}: unsure whether it ran before it was closed; "
        + ("it stays stopped until two persons start it: " if waits else "opening starts nothing, two persons do: ")
        + f"switch start {row.system}",
    )


def print_missing(stale: Sequence[str], days: int) -> None:
    """An unexercised switch counts as not present (SW-15)."""
    if not stale:
        return
    print(
        said(
            f"{len(stale)} Schalter gelten als nicht vorhanden, länger als {days} Tage nicht geübt (SW-15):",
            f"{len(stale)} switches count as not present, not exercised for more than {days} days (SW-15):",
        )
    )
    for text in stale[:20]:
        print(f"  {text}")
    if len(stale) > 20:
        print("  …")


def merged(rows: Sequence[Row]) -> Iterator[tuple[Scope, Row]]:
    """One line for all insurers of a service and direction if all of them stand alike. Pure."""

    def kind(row: Row) -> tuple[str, str, str, str]:
        return row.scope.service, row.scope.direction, row.scope.path, row.system

    for _, group in groupby(sorted(rows, key=kind), key=kind):
        found = list(group)
        alike = {(one.at, one.claim.verdict if one.claim else None, one.news_by) for one in found}
        if len(found) > 1 and len(alike) == 1:
            first = found[0]
            yield Scope(first.scope.service, ANY, first.scope.direction, first.scope.path), first
        else:
            yield from ((one.scope, one) for one in found)


def _signers(row: Row) -> str:
    if row.entry is None or row.entry.signed is None:
        return said("Zweifel (SW-02)", "doubt (SW-02)") if row.at.epoch and not row.at.command else ""
    return ", ".join(one.operator for one in row.entry.signed.signatures)


def _reason(row: Row) -> str:
    if row.at.state is ScopeState.OPEN:
        return ""
    text = row.entry.signed.command.text if row.entry and row.entry.signed else ""
    return f"{reason_text(row.at.reason, german())}{': ' if text else ''}{printable(text)[:60]}"


def _proof(row: Row, now: datetime) -> str:
    if row.at.state is ScopeState.OPEN:
        return ""
    if row.claim is None:
        return said("niemand setzt es durch", "nobody enforces it")
    if row.claim.verdict is Verdict.PROVEN:
        at = f" {row.claim.proven_at:%H:%M:%S}Z" if row.claim.proven_at else ""
        return said(f"bewiesen{at}", f"proven{at}")
    age = "" if row.at.since is None else span_text(max((now - row.at.since).total_seconds(), 0), german())
    return said(f"angeordnet, nicht bewiesen ({age})", f"commanded, not proven ({age})")


def _news(row: Row, now: datetime) -> str:
    if row.news_by is None:
        return ""
    late = said("  ÜBERFÄLLIG", "  OVERDUE") if row.news_by < now else ""
    return f"{row.news_by:%m-%d %H:%M}{late}"


def row_json(row: Row, now: datetime) -> dict[str, object]:
    """One line of `switch show --json`."""
    at = row.at
    return {
        "scope": str(row.scope),
        "state": at.state.value,
        "since": None if at.since is None else time_text(at.since),
        "epoch": at.epoch,
        "command": at.command,
        "reason": at.reason,
        "limit": None if at.limit is None else {"permille": at.limit.permille, "per_hour": at.limit.per_hour},
        "closes_at": None if at.closes_at is None else time_text(at.closes_at),
        "signed_by": _signer_names(row),
        "verdict": row.claim.verdict.value if row.claim else None,
        "system": row.system,
        "switched_at": None if row.switched_at is None else time_text(row.switched_at),
        "next_information_by": None if row.news_by is None else time_text(row.news_by),
        "next_information_overdue": row.news_by is not None and row.news_by < now,
        "switch_counts_as_present": not row.missing,
        "unsure": row.unsure,
    }


def _signer_names(row: Row) -> list[str]:
    return [one.operator for one in row.entry.signed.signatures] if row.entry and row.entry.signed else []


def print_entries(entries: Sequence[Accepted]) -> None:
    """One line a command."""
    table = Table(
        said("Epoche", "epoch"), said("angenommen", "accepted"), said("Befehl", "command"), said("von", "by"),
        said("Bereich", "scope"), said("Anmerkung", "remark"), box=None, pad_edge=False,
    )  # fmt: skip
    for one in entries:
        if one.signed is None:
            table.add_row(str(one.epoch), "", said("nicht lesbar", "unreadable"), "", "*", Text(printable(one.fault)))
            continue
        command = one.signed.command
        scopes = ", ".join(map(str, command.scopes[:3])) + (" …" if len(command.scopes) > 3 else "")
        table.add_row(
            str(one.epoch),
            f"{one.accepted_at:%Y-%m-%d %H:%M:%S}Z",
            f"{said('öffnen', 'open') if command.opening else said('schließen', 'close')} {command.state}",
            Text(", ".join(signature.operator for signature in one.signed.signatures)),
            scopes,
            Text(printable(one.fault or one.remark)),
        )
    Console().print(table)


def print_findings(found: Sequence[Finding], epochs: int, json_output: bool) -> None:
    """Of `switch verify`."""
    if json_output:
        bad = any(one.bad for one in found)
        lines = [{"what": one.what, "where": one.where, "text": one.text, "bad": one.bad} for one in found]
        print(json.dumps({"holds": not bad, "epochs": epochs, "findings": lines}))
        return
    for one in found:
        print(f"{'✗' if one.bad else '•'} {one.where}: {printable(one.text)}")
    if not any(one.bad for one in found):
        print(said(f"✓ {epochs} Epochen, lückenlos und unverändert", f"✓ {epochs} epochs, whole and unchanged"))


def printable(text: str) -> str:
    """Without what moves the cursor or changes colours: a command's text is written by somebody else."""
    return "".join(one if one.isprintable() else " " for one in text)


def _limit(permille: int | None, per_hour: int | None) -> str:
    parts = ["" if permille is None else f"{permille} ‰", "" if per_hour is None else f"{per_hour}/h"]
    return ", ".join(one for one in parts if one)


def _ms(span: timedelta) -> str:
    return f"{signed(span.total_seconds(), 2)} s"
