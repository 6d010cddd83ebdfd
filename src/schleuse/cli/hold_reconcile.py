"""`schleuse hold reconcile`: for each practice and insurer, does anything have to be sent again (incident.md § 6.8)?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schleuse.cli.up import german, said
from schleuse.clock import utc_now
from schleuse.config import default_home, read_config
from schleuse.holding.resend import Account, statement, totals
from schleuse.kim.receipts import sign
from schleuse.processes.receipts import receipt_key
from schleuse.processes.reconciling import STATEMENT, reconcile_senders

#: Mails named for each practice; who asks for one practice sees all.
_FEW, _ALL = 5, 1_000_000


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

    A mail is named by its Message-ID; once its content is purged, by the SHA-256 of it.
    """
    config = read_config(home or default_home())
    now = utc_now()
    begin = _utc(since) or now - timedelta(days=30)
    end = _utc(until) or now + timedelta(seconds=1)
    found = reconcile_senders(config, begin, end, practice=practice, ik=insurer)
    if signed or json_output:
        key = receipt_key(config.home) if signed else None
        for one in found:
            made = statement(one, config.hostname, begin, end, now)
            shown = {"statement": made, "signature": sign(made, key, STATEMENT)} if key else made
            print(json.dumps(shown, ensure_ascii=False))
        return
    if practice and not found:  # no mail is no answer "nothing": what was sent is not here
        de = german()
        print(
            f"{practice}: in dieser Zeit ist nichts angekommen; was gesendet wurde, erneut senden"
            if de
            else f"{practice}: nothing arrived in this time; what was sent has to be sent again"
        )
        return
    _print(found, _ALL if practice else _FEW)


def _utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _print(found: list[Account], shown: int) -> None:
    de = german()
    table = Table(
        "Praxis" if de else "practice", "Kasse" if de else "insurer", "angenommen" if de else "accepted",
        "gehalten" if de else "held", "offen" if de else "open", "Antwort" if de else "answer",
        box=None, pad_edge=False,
    )  # fmt: skip
    for one in found:
        sender = one.sender or ("(ohne Absender)" if de else "(no sender)")
        numbers = (str(one.numbers["accepted"]), str(one.numbers["held"]), str(one.open or "·"))
        table.add_row(escape(sender), one.ik, *numbers, escape(answer(one.as_json(), shown)))
    console = Console()
    console.print(table)
    sums = totals(found)
    accepted, again = sums.get("accepted", 0), len({one.sender for one in found if one.must_resend})
    console.print(
        f"{accepted} angenommen; {again} Praxen müssen etwas erneut senden"
        if de
        else f"{accepted} accepted; {again} practices have to resend something"
    )


def answer(account: Mapping[str, Any], shown: int = _ALL) -> str:
    """What the practice has to do. account: as `Account.as_json` and statements have it. shown: mails at most."""
    if account["must_resend"] == "no":
        return said("nichts erneut zu senden", "nothing to resend")
    parts = [f"{one['reference']} ({one['reason']})" for one in account["resend"][:shown]]
    if len(account["resend"]) > shown:
        parts.append(f"… {len(account['resend'])}")
    told = [said("diese erneut senden: ", "resend these: ") + ", ".join(parts)] if parts else []
    if account["deferred_without_success"]:
        told.append(said("vertagt und nicht wiedergekommen", "deferred and never came back"))
    return "; ".join(told)
