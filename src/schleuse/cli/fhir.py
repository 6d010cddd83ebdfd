"""`schleuse fhir add` and `schleuse fhir list`: official FHIR packages on this machine."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from schleuse.config import FILE_NAME, default_home, read_config
from schleuse.errors import MalformedError
from schleuse.fhir import packages
from schleuse.journal import opening
from schleuse.journal.entry import Kind, Result
from schleuse.processes.switch_orders import tell
from schleuse.processes.trail import PLATFORM

app = App(name="fhir", help="Official FHIR packages: install them, show what is installed.")

Home = Annotated[Path | None, Parameter(help="Folder of this machine [default: the user's data folder]")]
Json = Annotated[bool, Parameter(name="--json", help="One JSON object instead of text")]


class BadListError(MalformedError):
    """The options of `fhir add` contradict each other or a date is none; who typed them changes them."""

    code = "cli.bad-list"


@app.command
def add(
    *package: Path,
    config: Annotated[Path | None, Parameter(help="refv-config.yaml with lists and windows")] = None,
    list_name: Annotated[str | None, Parameter(name="--list", help="Make one list of these packages")] = None,
    valid_from: Annotated[str | None, Parameter(help="First date of that list (YYYY-MM-DD)")] = None,
    valid_till: Annotated[str | None, Parameter(help="Last date of that list; open if not given")] = None,
    home: Home = None,
    json_output: Json = False,
) -> None:
    """Install package files (.tgz) and the dates for which they judge documents.

    The dates come from --config, or from --list NAME --valid-from DATE for the packages of this call.
    """
    new = None
    if list_name is not None:
        if valid_from is None:
            raise BadListError("--list needs --valid-from: the first date of issue that these packages judge")
        new = packages.open_list(list_name, _day(valid_from), _day(valid_till) if valid_till else None)
    elif valid_from is not None or valid_till is not None:
        raise BadListError("--valid-from and --valid-till belong to --list")
    if not package and config is None:
        raise BadListError("nothing to add: name package files (.tgz), or --config FILE")
    target = folder(home)
    _tell(home or default_home(), [*package, *([config] if config else [])], list_name)
    names = packages.add(package, target, config=config, new_list=new)
    if json_output:
        print(json.dumps({"installed": names}))
        return
    for name in names:
        print(f"installed {name}")
    _show_lists(target)


@app.command(name="list")
def list_packages(*, home: Home = None, json_output: Json = False) -> None:
    """Show the installed packages and the lists with their windows."""
    target = folder(home)
    have = packages.installed(target)
    if json_output:
        registry = json.loads(packages.read_registry(target).to_json())
        print(json.dumps({"packages": have, **registry}))
        return
    if not have:
        print("no packages are installed: `schleuse fhir add PACKAGE.tgz… --config FILE`")
    for name, digest in have.items():
        print(f"{name}  sha256 {digest[:16]}…")
    _show_lists(target)


def folder(home: Path | None) -> Path:
    """Where the packages of a machine are: `eau.packages` of its configuration, without one HOME/fhir.

    Raises BadConfigError: a faulty configuration does not say where, and a guess would install beside the place.
    """
    root = home or default_home()
    return read_config(root).eau.packages if (root / FILE_NAME).is_file() else root / "fhir"


def _tell(home: Path, files: Sequence[Path], new_list: str | None) -> None:
    """What judges documents is changed: an entry first, where there is a platform."""
    if (home / FILE_NAME).is_file():
        names: list[opening.Json] = [file.name for file in files]
        detail: dict[str, opening.Json] = {
            "act": "fhir.add",
            "files": names,
            "list": new_list or "",
            "user": getpass.getuser(),
        }
        tell(read_config(home), [PLATFORM], Kind.POLICY_CHANGED, Result.GRANTED, "", detail)


def _show_lists(target: Path) -> None:
    for one in packages.read_registry(target).lists:
        till = one.valid_till.isoformat() if one.valid_till else "open"
        lacking = packages.missing(target, one)
        state = f"missing: {', '.join(lacking)}" if lacking else "complete"
        print(f"list {one.name}: {one.valid_from.isoformat()} to {till}, {state}")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as cause:
        raise BadListError(f"{text!r} is not a date (YYYY-MM-DD)") from cause
