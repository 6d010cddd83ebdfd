"""`schleuse vault override`: more than a budget allows for a while, in the name of two operators (journal.md § 14.4).

The second one signs for himself, where his key is (`--sign FILE`), and the first hands both over (`--second FILE`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.up import Home, german
from schleuse.cli.vault_orders import Json, OfInsurer, Yes, client_of, insurer_of, order_of
from schleuse.config import Config, default_home, read_config
from schleuse.errors import MalformedError, UnavailableError
from schleuse.identifiers import IK
from schleuse.vault.tokens import END_OVERRIDE, LONGEST, MAX_TOKEN, override_order

OfRole = Annotated[Literal["eau", "insurer"], Parameter(name="--role", help="Whose budget")]
Releases = Annotated[int | None, Parameter(name="--releases", help="Releases in an hour, and as many persons")]
Hours = Annotated[int | None, Parameter(name="--hours", help="How long at most: 1 to 24")]
Reason = Annotated[str | None, Parameter(name="--reason", help="Why; sealed for the insurer, beside the entry")]
Sign = Annotated[Path | None, Parameter(name="--sign", help="Only sign, as the second one, into this new file")]
Second = Annotated[Path | None, Parameter(name="--second", help="What the second operator has signed")]
End = Annotated[bool, Parameter(name="--end", negative=(), help="End it now; takes one operator")]


class BadOverrideError(MalformedError):
    """The command lacks something; the message says what."""

    code = "cli.bad-override"


class OrderFileError(UnavailableError):
    """The file of the second operator's order cannot be written or read."""

    code = "cli.order-file"


def override(
    *,
    ik: OfInsurer,
    role: OfRole,
    operator: Operator,
    operator_key: KeyFile = None,
    releases: Releases = None,
    hours: Hours = None,
    reason: Reason = None,
    sign: Sign = None,
    second: Second = None,
    end: End = False,
    yes: Yes = False,
    home: Home = None,
    json_output: Json = False,
) -> None:
    """Open more in an hour than a budget allows, for a while: two operators sign the same, and it ends by itself."""
    config = read_config(home or default_home())
    insurer = insurer_of(config, ik)
    if end:
        _end(config, insurer, role, operator, operator_key, json_output)
        return
    if releases is None or hours is None or reason is None:
        raise BadOverrideError("--releases, --hours and --reason are needed, unless it is to --end")
    what, de = override_order(role, releases, hours, reason), german()
    if sign is not None:
        token = order_of(config, insurer, operator, operator_key, "override", what, LONGEST)
        _write(sign, token)
        print(_SIGNED_DE.format(file=sign) if de else _SIGNED.format(file=sign))
        return
    if not yes:
        for line in _PLAN_DE if de else _PLAN:
            shown = line.format(ik=insurer, role=role, releases=releases, hours=hours, operator=operator)
            Console().print(shown, soft_wrap=True, highlight=False, markup=False)
        return
    if second is None:
        raise BadOverrideError("--second is needed: the file in which another operator has signed the same (--sign)")
    tokens = [order_of(config, insurer, operator, operator_key, "override", what), _read(second)]
    with client_of(config) as client:
        found = client.override(insurer, role, releases, hours, reason, tokens)
    if json_output:
        print(json.dumps(found))
    else:
        print((_DONE_DE if de else _DONE).format(**found))


def _end(config: Config, ik: IK, role: str, operator: str, key: Path | None, json_output: bool) -> None:
    token = order_of(config, ik, operator, key, "override", (END_OVERRIDE, role))
    with client_of(config) as client:
        was = client.end_override(ik, role, token)
    if json_output:
        print(json.dumps({"ended": was}))
    elif was:
        print("beendet, die Grenzen der Konfiguration gelten" if german() else "ended, the configured limits hold")
    else:
        print("es galt keine Überschreitung" if german() else "no override was in force")


def _write(file: Path, token: str) -> None:
    try:
        # Never over another file, which may be a key.
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened:
            opened.write(f"{token}\n")
    except OSError as cause:
        raise OrderFileError(f"{file.name} cannot be written ({cause.strerror}); expected a new file") from cause


def _read(file: Path) -> str:
    try:
        with file.open(encoding="ascii") as opened:
            return opened.read(MAX_TOKEN + 2).strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise OrderFileError(f"{file.name} cannot be read as an order ({type(cause).__name__})") from cause


_SIGNED = "{file}: signed, good for five minutes and once; the first operator hands it over with --second"
_SIGNED_DE = "{file}: unterschrieben, gilt fünf Minuten und einmal; der erste Operator übergibt es mit --second"
_PLAN = (
    "--yes does it, with what a second operator has signed (--second FILE):",
    "  1. entry BUDGET_OVERRIDE in the journal of the insurer {ik}, in the names of {operator} and the second one,"
    " waiting for witnesses",
    "  2. {role} there may then open {releases} things an hour, for at most {hours} h; so may all of the insurer"
    " together",
    "It ends by itself, with --end, and when the vault is started again: then the configured limits hold, and what was"
    " opened in the hour before counts.",
)
_PLAN_DE = (
    "--yes führt es aus, mit der Unterschrift eines zweiten Operators (--second DATEI):",
    "  1. Eintrag BUDGET_OVERRIDE im Journal der Kasse {ik}, im Namen von {operator} und dem zweiten; auf Zeugen wird"
    " gewartet",
    "  2. {role} darf dort danach {releases} Freigaben je Stunde, höchstens {hours} h lang; ebenso alle der Kasse"
    " zusammen",
    "Es endet von selbst, mit --end und wenn der Tresor neu startet: dann gelten die Grenzen der Konfiguration, und was"
    " in der Stunde davor geöffnet wurde, zählt.",
)
_DONE = "{role} at {ik}: {releases} releases an hour until {until}, or until --end or a restart of the vault"
_DONE_DE = "{role} bei {ik}: {releases} Freigaben je Stunde bis {until}, oder bis --end oder einem Neustart des Tresors"
