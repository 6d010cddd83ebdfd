"""`schleuse invariants check`: what must hold at any moment, asked of records (incident.md appendix B)."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import default_home, read_config
from schleuse.processes.control_offline import offline
from schleuse.processes.invariants import Answer, check_invariants

app = App(name="invariants", help="What must hold at any moment.")

#: Exit codes: one is violated; one cannot be asked now and none is violated.
VIOLATED, UNKNOWN = 70, 75

_MARKS = {Answer.HOLDS: "[green]✓[/]", Answer.VIOLATED: "[red]✗[/]", Answer.UNKNOWN: "[yellow]?[/]"}


@app.command
def check(
    *,
    home: Annotated[Path | None, Parameter(help="Folder of configuration and data")] = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object")] = False,
) -> None:
    """Ask every invariant. Exit code 0: all hold; 70: one is violated; 75: one cannot be asked now."""
    config = read_config(home or default_home())
    with offline(config) as tools:
        found = check_invariants(config, tools.closings, utc_now)
    if json_output:
        print(
            json.dumps([{**asdict(one), "name": one.name.en, "text": one.text.en} for one in found], ensure_ascii=False)
        )
    else:
        console = Console()
        for one in found:
            name, text = (one.name.de, one.text.de) if german() else (one.name.en, one.text.en)
            console.print(f"{_MARKS[one.answer]} {one.number:>2}  {escape(f'{name}: {text}')}", highlight=False)
            for case in one.findings:
                console.print(f"       {escape(case)}", highlight=False)
    answers = {one.answer for one in found}
    if Answer.VIOLATED in answers:
        sys.exit(VIOLATED)
    if Answer.UNKNOWN in answers:
        sys.exit(UNKNOWN)
