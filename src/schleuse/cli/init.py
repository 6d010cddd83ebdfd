"""`schleuse init` and `schleuse check-config`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from schleuse.clock import utc_now
from schleuse.config import FILE_NAME, BadConfigError, default_home, missing_files, read_config
from schleuse.environment import Environment
from schleuse.errors import MalformedError
from schleuse.identifiers import IK
from schleuse.processes.home import NewHome, NewInsurer, NewPractice, create_home

Home = Annotated[Path | None, Parameter(help="Folder to write to [default: the user's data folder]")]


class BadNameError(MalformedError):
    """A name that cannot be written into the configuration; who typed it chooses another."""

    code = "cli.bad-name"


def init(
    *,
    home: Home = None,
    environment: Environment = Environment.TEST,
    hostname: str = "kim.example.kim.telematik-test",
    insurer: Annotated[tuple[str, ...], Parameter(help="IK:SLUG:NAME, may be repeated")] = (),
    practice: Annotated[tuple[str, ...], Parameter(help="SLUG:NAME, may be repeated")] = (),
    first_port: int | None = None,
) -> None:
    """Write a configuration with a development PKI, accounts and a directory."""
    folder = home or default_home()
    new = NewHome(
        environment, hostname, [_insurer(text) for text in insurer], [_practice(text) for text in practice], first_port
    )
    create_home(folder, new, utc_now(), lambda line: print(f"  {line}", file=sys.stderr))
    print(folder / FILE_NAME)


def check_config(*, home: Home = None, json_output: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Read the configuration and all files that it names as the roles do, report all mistakes, and start nothing."""
    from schleuse.processes.rehearsal import rehearse  # brings both roles

    try:
        config = read_config(home or default_home())
        mistakes = missing_files(config) or rehearse(config)
    except BadConfigError as error:
        mistakes = error.mistakes
    if json_output:
        print(json.dumps({"valid": not mistakes, "mistakes": mistakes}))
    elif not mistakes:
        print("the configuration is valid")
    if mistakes:
        if json_output:
            sys.exit(BAD_CONFIG)
        raise BadConfigError(mistakes)


BAD_CONFIG = 65


def _insurer(text: str) -> NewInsurer:
    ik, _, rest = text.partition(":")
    slug, _, name = rest.partition(":")
    return NewInsurer(IK(ik), _plain(name), _slug(slug))


def _practice(text: str) -> NewPractice:
    slug, _, name = text.partition(":")
    return NewPractice(_slug(slug), _plain(name))


def _slug(text: str) -> str:
    if not text or not all(sign.isascii() and (sign.isalnum() or sign == "-") for sign in text):
        raise BadNameError(f"{text!r} cannot be part of an address: letters, digits and hyphens are (kim.md § 3)")
    return text.lower()


def _plain(text: str) -> str:
    if not text or not text.isprintable() or '"' in text or "\\" in text:
        raise BadNameError(f"{text!r} is no name: printable signs without quotes and backslashes are expected")
    return text
