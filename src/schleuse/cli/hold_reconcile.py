"""`schleuse hold reconcile`: for each practice and insurer, does anything have to be sent again (incident.md § 6.8)?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import default_home, read_config
from schleuse.holding.resend import Account, statement, totals
from schleuse.kim.receipts import sign
from schleuse.processes.receipts import receipt_key
from schleuse.processes.reconciling import reconcile_senders


def reconcile(
    *,
    practice: Annotated[str, Parameter(help="KIM address of one practice [default: all]")] = "",
    insurer: Annotated[str, Parameter(help="IK of one insurer [default: all]")] = "",
    since: Annotated[datetime | None, Parameter(help="Accepted after this time [default: 30 days ago]")] = None,
    until: Annotated[datetime | None, Parameter(help="and before this [default: now]")] = None,
    signed: Annotated[bool, Parameter(name="--sign", negative=(), help="A signed statement (JWS) for each")] = False,
    home: Annotated[Path | None, Parameter(help="Folder of configuration and data")] = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a line")] = False,
) -> None:
    """Say for each practice and insurer: resend these, or nothing.

    A mail is named by the digest of its Message-ID, as the address of receipts takes it.
    """
    config = read_config(home or default_home())
    now = utc_now()
    begin = _utc(since) or now - timedelta(days=30)
    end = _utc(until) or now + timedelta(seconds=1)
    found = reconcile_senders(config, begin, end, practice=practice, ik=insurer)
    if signed or json_output:
        key = receipt_key(config.home) if signed else None
        for one in found:
            said = statement(one, config.hostname, begin, end, now)
            print(json.dumps({"statement": said, "signature": sign(said, key)} if key else said, ensure_ascii=False))
        return
    _print(found)


def _utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _print(found: list[Account]) -> None:
    de = german()
    table = Table(
        "Praxis" if de else "practice", "Kasse" if de else "insurer", "angenommen" if de else "accepted",
        "gehalten" if de else "held", "offen" if de else "open", "erneut senden?" if de else "resend?",
        box=None, pad_edge=False,
    )  # fmt: skip
    for one in found:
        numbers = one.numbers
        answer = _answer(one, de)
        table.add_row(one.sender, one.ik, str(numbers["accepted"]), str(numbers["held"]), str(one.open or "·"), answer)
    console = Console()
    console.print(table)
    sums = totals(found)
    accepted, again = sums.get("accepted", 0), sums.get("must_resend", 0)
    console.print(
        f"{accepted} angenommen; {again} Praxen müssen etwas erneut senden"
        if de
        else f"{accepted} accepted; {again} practices have to resend something"
    )


def _answer(one: Account, de: bool) -> str:
    if not one.must_resend:
        return "nein" if de else "no"
    parts = [f"{reference[:16]} ({reason})" for reference, reason in sorted(one.resend)[:5]]
    if len(one.resend) > 5:
        parts.append(f"… {len(one.resend)}")
    if one.deferred:
        parts.append("vertagt und nicht wiedergekommen" if de else "deferred and never came back")
    return ("ja: " if de else "yes: ") + ", ".join(parts)
