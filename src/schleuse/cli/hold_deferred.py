"""`schleuse hold deferred`: which practices were told to come again, and never did (incident.md § 6.5)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import default_home, read_config
from schleuse.kim.store.deferrals import read_away


def deferred(
    *,
    since: Annotated[datetime | None, Parameter(help="Deferred after this time [default: 30 days ago]")] = None,
    home: Annotated[Path | None, Parameter(help="Folder of configuration and data")] = None,
    json_output: Annotated[bool, Parameter(name="--json", help="One JSON object a line")] = False,
) -> None:
    """List senders who were deferred and have had nothing accepted in that mailbox since.

    Whoever came back with one of several mails is not listed: a deferred mail has shown nothing but its envelope.
    """
    now = utc_now()
    begin = now - timedelta(days=30) if since is None else since if since.tzinfo else since.replace(tzinfo=UTC)
    found = read_away(read_config(home or default_home()).kim_database, begin, now + timedelta(days=1))
    if json_output:
        for one in found:
            line: dict[str, object] = {"sender": one.sender, "mailbox": one.recipient, "attempts": one.attempts}
            print(json.dumps({**line, "first_at": one.first_at.isoformat(), "last_at": one.last_at.isoformat()}))
        return
    de = german()
    table = Table(
        "Absender" if de else "sender", "Postfach" if de else "mailbox", "Versuche" if de else "attempts",
        "erster" if de else "first", "letzter" if de else "last", box=None, pad_edge=False,
    )  # fmt: skip
    for one in found:
        times = [at.strftime("%Y-%m-%d %H:%M:%S") for at in (one.first_at, one.last_at)]
        table.add_row(escape(one.sender), escape(one.recipient), str(one.attempts), *times)
    Console().print(table if found else ("niemand" if de else "nobody"))
