"""`schleuse switch policy`: "if X then close Y", signed beforehand, so that deciding takes seconds (§ 5.2)."""

from __future__ import annotations

import getpass
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.switch_view import printable
from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.errors import Error
from schleuse.journal.entry import Kind, Result
from schleuse.journal.opening import Json
from schleuse.processes.operators import key_of, rights_of
from schleuse.processes.policies import policies_of
from schleuse.processes.switch_orders import tell, tenants_of
from schleuse.scopes import ScopeState, parse_scopes
from schleuse.shutdown.policy import (
    AGREE,
    INSURER,
    Policy,
    PolicyBook,
    PolicyNotSignedError,
    SignedPolicy,
    concerned,
    cosigners,
    missing,
)
from schleuse.vault.tokens import read_token_key

app = App(name="policy", help="Closings that were agreed beforehand.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a line")]


@app.command
def add(
    name: str,
    *scopes: str,
    trigger: str,
    cost: str,
    operator: Operator,
    operator_key: KeyFile = None,
    state: Literal["HOLD", "DEFER", "CLOSED", "DRAIN"] = "HOLD",
    text: str = "",
    cosign: Annotated[bool, Parameter(help="Each insurer concerned must cosign", negative=())] = False,
    days: int = 365,
    home: Home = None,
) -> None:
    """Write and sign the next version of a policy. It is in force once a second person has signed (`policy sign`).

    Parameters
    ----------
    name
        Small letters, digits and -.
    scopes
        What it may close.
    trigger
        Name of the warning rule or signal.
    cost
        What a false alarm costs, in words (EW-06).
    state
        How far it closes at most.
    days
        For how long it is agreed.
    """
    config = read_config(home or default_home())
    book = _book(config)
    now = utc_now()
    wanted = tuple(scope for one in scopes for scope in parse_scopes(one))
    policy = Policy(
        name=name,
        version=1 + max((one.policy.version for one in book.all()[0] if one.policy.name == name), default=0),
        trigger=trigger,
        scopes=wanted,
        state=ScopeState(state),
        insurers=concerned(wanted, [one.ik for one in config.insurers]),
        cosign=cosign,
        cost=cost,
        text=text,
        valid_from=now,
        valid_until=now + timedelta(days=days),
    )
    _agree(config, book, SignedPolicy(policy), operator, operator_key)


@app.command(name="sign")
def sign_policy(reference: str, *, operator: Operator, operator_key: KeyFile = None, home: Home = None) -> None:
    """Agree to NAME@VERSION as security officer or lead; `policy show` says what it closes."""
    config = read_config(home or default_home())
    book = _book(config)
    _agree(config, book, book.read(reference), operator, operator_key)


@app.command
def cosign(reference: str, *, insurer: str, client: str, client_key: Path, home: Home = None) -> None:
    """Cosign NAME@VERSION for an insurer, with the key of one of its feed clients.

    Parameters
    ----------
    insurer
        Its IK.
    client
        Name of the feed client, as configured.
    client_key
        Private key of the feed client (Ed25519, PEM).
    """
    config = read_config(home or default_home())
    book = _book(config)
    _keep(config, book, book.read(reference).signed(client, f"{INSURER}{insurer}", read_token_key(client_key)))


@app.command(name="list")
def list_policies(*, home: Home = None, json_output: AsJson = False) -> None:
    """Show all policies, and which of them are in force."""
    book = _book(read_config(home or default_home()))
    found, bad = book.all()
    if json_output:
        for one in found:
            print(json.dumps(_json(book, one)))
    else:
        _print(book, found)
    for name in bad:
        print(f"schleuse: {name} is no policy and permits nothing", file=sys.stderr)


@app.command
def show(reference: str, *, home: Home = None) -> None:
    """Show all that NAME@VERSION says, and who has signed it."""
    book = _book(read_config(home or default_home()))
    print(json.dumps(_json(book, book.read(reference)), indent=2, ensure_ascii=True))


def _book(config: Config) -> PolicyBook:
    return policies_of(config, rights_of(config))


def _agree(config: Config, book: PolicyBook, policy: SignedPolicy, operator: str, key_file: Path | None) -> None:
    """In the role of the pair that the operator has; both only if nobody else's signature needs one of them."""
    roles = next((one.roles for one in config.operators if one.name == operator), ())
    mine = [role for role in AGREE if role.value in roles]
    if not mine:
        raise PolicyNotSignedError(f"{operator} has neither of the roles {' and '.join(AGREE)}")
    key = key_of(config, operator, key_file)
    for role in mine:
        policy = policy.signed(operator, role.value, key)
    _keep(config, book, policy)


def _keep(config: Config, book: PolicyBook, policy: SignedPolicy) -> None:
    last = policy.signatures[-1]
    detail: dict[str, Json] = {
        "act": "switch.policy",
        "policy": policy.policy.reference,
        "hash": policy.policy.hash,
        "signed_as": last.role,
        "user": getpass.getuser(),
    }
    tenants = tenants_of(config, policy.policy.scopes)
    try:
        book.add(policy)
    except Error as error:
        tell(config, tenants, Kind.POLICY_CHANGED, Result.DENIED, last.name, {**detail, "code": error.code})
        raise
    tell(config, tenants, Kind.POLICY_CHANGED, Result.GRANTED, last.name, detail)
    still = missing(book.read(policy.policy.reference), book.rights, book.keys, utc_now())
    print(policy.policy.reference)
    for one in still:
        print(f"  {'fehlt' if german() else 'missing'}: {one}")


def _print(book: PolicyBook, found: list[SignedPolicy]) -> None:
    de = german()
    table = Table(
        "Regel" if de else "policy", "Auslöser" if de else "trigger", "schließt" if de else "closes",
        "bis" if de else "until", "mitgezeichnet" if de else "cosigned", "Stand" if de else "state",
        box=None, pad_edge=False,
    )  # fmt: skip
    for one in found:
        still = missing(one, book.rights, book.keys, utc_now())
        table.add_row(
            one.policy.reference,
            Text(printable(one.policy.trigger)),
            f"{', '.join(map(str, one.policy.scopes[:3]))} {one.policy.state}",
            f"{one.policy.valid_until:%Y-%m-%d}",
            f"{len(cosigners(one, book.rights, book.keys))}/{len(one.policy.insurers)}",
            ("fehlt: " if de else "missing: ") + "; ".join(still) if still else ("in Kraft" if de else "in force"),
        )
    Console().print(table if found else ("keine" if de else "none"))


def _json(book: PolicyBook, one: SignedPolicy) -> dict[str, object]:
    policy = one.policy
    return {
        **json.loads(policy.encode()),
        "reference": policy.reference,
        "hash": policy.hash,
        "signed_by": [f"{signature.name} as {signature.role}" for signature in one.signatures],
        "cosigned": cosigners(one, book.rights, book.keys),
        "missing": missing(one, book.rights, book.keys, utc_now()),
    }
