"""`schleuse vault status|import|erase|…`: orders to the vault, over its socket; no key is in this process.

An order about a person is signed with the operator's own key, and the vault judges it by itself. A person's number is
never an argument: other users of the machine see those.
"""

from __future__ import annotations

import getpass
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Column, Table

from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.up import Home, german
from schleuse.cli.vault_kek import init_hsm, retire, rotate
from schleuse.cli.vault_orders import Json, OfInsurer, Yes, client_of, insurer_of, order_of
from schleuse.cli.vault_override import override
from schleuse.config import Config, default_home, read_config
from schleuse.errors import MalformedError, RefusedError, UnavailableError
from schleuse.identifiers import KVNR, BadKVNRError

app = App(name="vault", help="The only holder of keys: what it released, and orders to it.")
app.command(rotate)
app.command(retire)
app.command(override)
app.command(init_hsm, name="init-hsm")

NOT_READY = 69  #: as for what is unavailable
HEALTH_S = 5.0

PersonFile = Annotated[
    Path | None,
    Parameter(
        name="--person-file",
        allow_leading_hyphen=True,
        help="File with the KVNR; or, without one, with family name, given name and birth date in three lines, as the "
        "documents write them. - for standard input [default: ask]",
    ),
]


class BadPersonError(MalformedError):
    """What was given is no KVNR and no three lines of a person without one; who typed it looks again."""

    code = "cli.bad-person"


class BadEventError(MalformedError):
    """What was given is no event of an entry: a UUID is."""

    code = "cli.bad-event"


class UnreadablePersonError(UnavailableError):
    """The file that names a person cannot be read."""

    code = "cli.unreadable-person"


class NoOpeningError(RefusedError):
    """The vault has no opening of this entry, or one that only its insured person's data would open."""

    code = "cli.no-opening"


@app.command
def status(*, home: Home = None, json_output: Json = False) -> None:
    """Show what the vault has counted in each log and released since its start. Exit code 69: it is not ready."""
    config = read_config(home or default_home())
    with client_of(config) as client:
        found = {**client.status(), "health": _health(config)}
    if json_output:
        print(json.dumps(found))
    else:
        _print_status(found)
    if not found["health"]["ready"]:
        sys.exit(NOT_READY)


@app.command(name="import")
def import_command(*, home: Home = None, json_output: Json = False) -> None:
    """Take key files over that were configured since the vault's start. Exit code 69: not all are in the vault."""
    config = read_config(home or default_home())
    with client_of(config) as client:
        found = client.import_keys()
    if json_output:
        print(json.dumps(found))
    else:
        de = german()
        words = _STATES_DE if de else {}
        disk = "liegt noch als Datei" if de else "still a file"
        path = Column("Datei" if de else "file", overflow="fold")
        table = Table("IK", "", path, "Stand" if de else "state", "", box=None, pad_edge=False)
        for one in found:
            state = words.get(one["state"], one["state"])
            table.add_row(one["ik"], one["kind"], one["file"], state, disk if one["on_disk"] == "yes" else "")
        Console().print(table)
        for one in found:
            if one["reason"]:
                Console().print(f"[red]✗[/] {one['ik']} {one['kind']}: {one['reason']}", soft_wrap=True)
    if any(one["state"] not in ("taken-over", "known") for one in found):
        sys.exit(NOT_READY)


@app.command
def erase(
    *,
    ik: OfInsurer,
    operator: Operator,
    operator_key: KeyFile = None,
    person_file: PersonFile = None,
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Destroy the keys of an insured person, so that nobody can ever open the person's documents again (G6)."""
    config = read_config(home or default_home())
    insurer = insurer_of(config, ik)
    shown, person = _person(person_file)
    console, de = Console(), german()
    for line in _PLAN_DE if de else _PLAN:
        console.print(line.format(person=shown, ik=insurer, operator=operator), soft_wrap=True, highlight=False)
    if not yes:
        print("--yes führt es aus" if de else "--yes does it")
        return
    token = order_of(config, insurer, operator, operator_key, "erase", ("ERASE", sha256(person).hexdigest()))
    with client_of(config) as client:
        destroyed = client.erase(insurer, token, person)
    if destroyed:
        print("vernichtet" if de else "destroyed")
    else:
        print("die Kasse hat nichts von dieser Person" if de else "the insurer has nothing of this person")


@app.command
def opening(
    event: str,
    *,
    ik: OfInsurer,
    operator: Operator,
    operator_key: KeyFile = None,
    home: Home = None,
    json_output: Json = False,
) -> None:
    """Show what an entry of the journal stands for. That you looked is an entry itself (RP-07).

    Parameters
    ----------
    event
        The entry's event, a UUID.
    """
    config = read_config(home or default_home())
    insurer = insurer_of(config, ik)
    try:
        wanted = UUID(event).bytes
    except ValueError as cause:
        raise BadEventError(f"{event!r} is no UUID; expected the event of an entry") from cause
    token = order_of(config, insurer, operator, operator_key, "opening", ("OPENING", wanted.hex()))
    with client_of(config) as client:
        found = client.opening(insurer, token, wanted)
    if found is None:
        raise NoOpeningError(f"the vault can show nothing of the event {event} at {insurer}")
    if json_output:
        print(json.dumps(found, ensure_ascii=False))
    else:
        for key, value in found.items():
            Console().print(f"{key}: {value}", soft_wrap=True, highlight=False, markup=False)


_PLAN = (
    "At the insurer {ik}, for the person {person}:",
    "  1. entry KEY_DESTROYED in the insurer's journal, in the name of {operator}, waiting for witnesses",
    "  2. all keys, openings and the pseudonym of the person are erased; documents stay, and never open again",
    "This cannot be undone.",
)
_PLAN_DE = (
    "Bei der Kasse {ik}, für die Person {person}:",
    "  1. Eintrag KEY_DESTROYED im Journal der Kasse, im Namen von {operator}; auf Zeugen wird gewartet",
    "  2. alle Schlüssel, Öffnungen und das Pseudonym der Person werden vernichtet; Dokumente bleiben, und öffnen nie "
    "wieder",
    "Das ist nicht rückgängig zu machen.",
)
_STATES_DE = {
    "taken-over": "übernommen",
    "known": "schon im Tresor",
    "missing": "fehlt",
    "unusable": "unbrauchbar",
    "waiting": "wartet auf das Journal",
}


def _person(file: Path | None) -> tuple[str, bytes]:
    """(how to show the person, the octets that the vault knows the person by)."""
    try:
        if file is None:
            text = getpass.getpass("KVNR: ")
        else:
            text = sys.stdin.read() if file == Path("-") else file.read_text(encoding="utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as cause:
        raise UnreadablePersonError(
            f"the file that names the person cannot be read ({type(cause).__name__})"
        ) from cause
    lines = [line.strip() for line in text.strip().splitlines()]
    match lines:
        case [kvnr]:
            try:
                known = KVNR(kvnr)
            except BadKVNRError:
                raise BadPersonError("the one line is no KVNR: a letter and nine digits") from None
            return repr(known), known.value.encode()
        case [family, given, born]:
            from schleuse.eau.sealing import person_without_kvnr  # brings the eau role, for this one case

            return "***", person_without_kvnr(family, given, born)
    raise BadPersonError(f"expected a KVNR, or three lines of a person without one; found {len(lines)} lines")


def _health(config: Config) -> Mapping[str, Any]:
    """What the role says of itself. That nobody answers is an answer."""
    try:
        with urllib.request.urlopen(f"http://{config.vault.metrics}/readyz", timeout=HEALTH_S) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as cause:
        with cause:
            found = json.load(cause)
    except (OSError, ValueError) as cause:
        return {"ready": False, "reason": type(cause).__name__}
    return {"ready": bool(found.get("ready")), "reason": str(found.get("reason", ""))}


def _print_status(found: Mapping[str, Any]) -> None:
    console, de = Console(), german()
    table = Table(
        Column("Journal" if de else "log", overflow="fold"),
        "letzte Freigabe" if de else "last release",
        "Einträge" if de else "entries",
        "ungewiss" if de else "in doubt",
        box=None,
        pad_edge=False,
    )
    for origin, one in sorted(found["logs"].items()):
        table.add_row(origin, str(one["counter"]), str(one["size"]), str(one["in_doubt"]))
    console.print(table)
    for one in found["overrides"]:
        line = (
            "{ik} {role}: {releases} Freigaben je Stunde bis {until}, über der Grenze der Konfiguration"
            if de
            else "{ik} {role}: {releases} releases an hour until {until}, over the configured limit"
        )
        console.print(f"[yellow]![/] {line.format(**one)}", soft_wrap=True, highlight=False)
    console.print("Seit dem Start:" if de else "Since the start:")
    for key, number in sorted(found["releases_since_start"].items()):
        console.print(f"{number:>10} {key}", highlight=False)
    for ik, number in sorted(found["denied_since_start"].items()):
        console.print(f"{number:>10} {ik} {'verweigert' if de else 'denied'}", highlight=False)
    unwraps = "Schlüssel ausgepackt" if de else "keys unwrapped"
    console.print(f"{found['unwraps_since_start']:>10} {unwraps}", highlight=False)
    health = found["health"]
    if health["ready"]:
        console.print("[green]✓[/] bereit" if de else "[green]✓[/] ready")
    else:
        console.print(f"[red]✗[/] {'nicht bereit' if de else 'not ready'}: {health['reason']}", soft_wrap=True)
