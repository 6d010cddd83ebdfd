"""`schleuse operator`: who may order what. Prints what the configuration needs; a person puts it there (§ 10)."""

from __future__ import annotations

import getpass
import hashlib
import json
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cyclopts import App, Parameter
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import BadConfigError, Config, Operator, OperatorRole, default_home, read_config
from schleuse.errors import ConflictError, Error
from schleuse.journal.entry import Kind, Result
from schleuse.journal.opening import Json
from schleuse.kim.pki import write_private
from schleuse.processes.operators import key_file
from schleuse.processes.switch_orders import tell
from schleuse.processes.trail import PLATFORM
from schleuse.shutdown.paper import fingerprint
from schleuse.switch.documents import CLOSERS, OPENERS, Role, time_text
from schleuse.vault.tokens import read_public_key

app = App(name="operator", help="Operators, their keys and roles.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a line")]


class OperatorExistsError(ConflictError):
    """An operator of this name is configured, or a key file of this name is there; choose another name."""

    code = "operator.exists"


class NoSuchOperatorError(ConflictError):
    """No operator of this name is configured; `operator list` shows all."""

    code = "operator.unknown"


@app.command
def add(
    name: str,
    *,
    role: Annotated[list[OperatorRole], Parameter(help="May be repeated", negative=())],
    person: Annotated[str | None, Parameter(help="Whose credential it is, if not only this one's")] = None,
    key_folder: Annotated[Path | None, Parameter(help="Where the private key is written, such as a USB stick")] = None,
    home: Home = None,
) -> None:
    """Make a key pair and print what belongs into the configuration. Nobody has rights until it stands there."""
    config = read_config(home or default_home())
    keys = config.home / "operators"
    public, private = keys / f"{name}.pub.pem", (key_folder or keys) / f"{name}.key"
    # Checked as the configuration will be, before anything is written.
    try:
        made = Operator(name=name, public_key=public, person=person, roles=tuple(role))
    except ValidationError as cause:
        raise BadConfigError([f"{one['loc'][0]}: {one['msg']}" for one in cause.errors()]) from cause
    taken = [str(path) for path in (public, private) if path.exists()]
    if taken or any(one.name == name for one in config.operators):
        raise OperatorExistsError(f"{name} exists: {', '.join(taken) or 'it is configured'}; choose another name")
    key = Ed25519PrivateKey.generate()
    write_private(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_private(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    _tell(config, "operator.key-made", name, {"roles": list(made.roles), "fingerprint": _fingerprint(made)})
    print(snippet(made))
    print(f"# {private}  (0600)  {_fingerprint(made)}")
    print(f"# {_next(config)}")


@app.command(name="list")
def list_operators(*, home: Home = None, json_output: AsJson = False) -> None:
    """Show who may order what, and which of the pairs of § 10 is not filled."""
    config = read_config(home or default_home())
    if json_output:
        for one in config.operators:
            print(json.dumps(_json(one)))
        return
    de = german()
    table = Table(
        "Name", "Person", "Rollen" if de else "roles", "Fingerabdruck" if de else "fingerprint",
        "Schlüssel hier" if de else "key here", "gesperrt ab" if de else "disabled at", box=None, pad_edge=False,
    )  # fmt: skip
    for one in config.operators:
        here = key_file(config, one.name).exists()
        ended = time_text(one.disabled_at) if one.disabled_at else ""
        table.add_row(one.name, one.person or one.name, ", ".join(one.roles), _fingerprint(one), _yes(here), ended)
    Console().print(table)
    for text in unfilled([one for one in config.operators if not _ended(one)]):
        print(f"{'nicht besetzt' if de else 'not filled'} (RO-02): {text}")


@app.command
def disable(name: str, *, home: Home = None) -> None:
    """Print what ends a credential. It must stay in the configuration, or what it ordered loses its signer (SW-03)."""
    config = read_config(home or default_home())
    found = next((one for one in config.operators if one.name == name), None)
    if found is None:
        raise NoSuchOperatorError(f"no operator {name!r} is configured; `operator list` shows all")
    ended = found.model_copy(update={"disabled_at": found.disabled_at or utc_now()})
    rest = unfilled([one for one in config.operators if one.name != name and not _ended(one)])
    _tell(config, "operator.disable-prepared", name, {"at": time_text(ended.disabled_at or utc_now())})
    print(snippet(ended))
    print(f"# {_next(config)}")
    for text in rest:
        print(f"# {'danach nicht besetzt' if german() else 'not filled then'} (RO-02): {text}")


def snippet(one: Operator) -> str:
    """The section of an operator, as TOML."""
    lines = [
        "[[operators]]",
        f"name = {json.dumps(one.name)}",
        f'public_key = "operators/{one.public_key.name}"',
        f"roles = {json.dumps(list(one.roles))}",
    ]
    if one.person:
        lines.insert(2, f"person = {json.dumps(one.person, ensure_ascii=True)}")
    if one.disabled_at:
        lines.append(f"disabled_at = {time_text(one.disabled_at)}")
    return "\n".join(lines)


def unfilled(operators: list[Operator]) -> list[str]:
    """What nobody, or nobody but one person, could do. Pure."""
    people = {role: {one.person or one.name for one in operators if role.value in one.roles} for role in Role}
    found = []
    if not any(people[role] for role in CLOSERS - {Role.AUTOMAT}):
        found.append("closing: analyst, lead or switch_officer")
    for first, second, what in ((*OPENERS, "opening"), (Role.SECURITY_OFFICER, Role.LEAD, "policies and waivers")):
        if not any(a != b for a in people[first] for b in people[second]):
            found.append(f"{what}: {first} and {second}, two persons")
    return found


def _ended(one: Operator) -> bool:
    return one.disabled_at is not None and one.disabled_at <= utc_now()


def _fingerprint(one: Operator) -> str:
    try:
        raw = read_public_key(one.public_key).public_bytes(Encoding.Raw, PublicFormat.Raw)
    except Error:
        return "nicht lesbar" if german() else "unreadable"
    return fingerprint(hashlib.sha256(raw).digest())


def _next(config: Config) -> str:
    file = config.home / "schleuse.toml"
    if german():
        return f"nach {file} übernehmen, prüfen (check-config), Rollen neu starten; dann `switch paper` neu drucken"
    return f"put it into {file}, check it (check-config), restart the roles; then print `switch paper` again"


def _yes(value: bool) -> str:
    words = ("ja", "nein") if german() else ("yes", "no")
    return words[0 if value else 1]


def _json(one: Operator) -> dict[str, object]:
    return {
        "name": one.name,
        "person": one.person or one.name,
        "roles": list(one.roles),
        "fingerprint": _fingerprint(one),
        "disabled_at": time_text(one.disabled_at) if one.disabled_at else None,
    }


def _tell(config: Config, act: str, name: str, more: dict[str, Json]) -> None:
    detail: dict[str, Json] = {"act": act, "operator": name, "user": getpass.getuser(), **more}
    tell(config, [PLATFORM], Kind.POLICY_CHANGED, Result.GRANTED, "", detail)
