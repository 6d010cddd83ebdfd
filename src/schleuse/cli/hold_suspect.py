"""`schleuse hold suspect …`: mail of a suspected period or sender is kept aside, and back by two persons (HD-47)."""

from __future__ import annotations

import getpass
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.holding.suspicion import Fate, Order, Suspicion, sign_suspicion
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Purpose
from schleuse.processes.operators import key_of
from schleuse.processes.suspecting import PURPOSE, Suspecting, open_suspecting
from schleuse.processes.trail import OUTSIDE, open_trail, teller
from schleuse.switch.approval import approve as sign_approval
from schleuse.switch.documents import Role, parse_time

app = App(name="suspect", help="Keep suspected mail aside: a signed document; back by two persons.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a line")]
Yes = Annotated[bool, Parameter(negative=(), help="Do it; without, only what it would do is shown")]
Moment = Annotated[str | None, Parameter(help="Such as 2026-12-01T08:00:00Z")]
Many = Annotated[tuple[str, ...], Parameter(negative=(), help="May be repeated")]


@app.command
def add(
    *,
    text: Annotated[str, Parameter(help="Why, in one sentence without personal data")],
    operator: Operator,
    operator_key: KeyFile = None,
    role: Annotated[Role, Parameter(help="forensic-lead, custodian or security-officer")],
    since: Moment = None,
    until: Moment = None,
    sender: Many = (),
    insurer: Many = (),
    id: Annotated[str | None, Parameter(help="Name of the document [default: made]")] = None,
    home: Home = None,
) -> None:
    """Sign what is suspected and keep it aside at once: accepted between two times, or from senders, or both.

    One person suffices, because nothing is opened by it. What was opened before is shown by `opened`.
    """
    now = utc_now()
    one = Suspicion(
        id or f"q{now:%Y%m%d}-{secrets.token_hex(2)}",
        now,
        text,
        None if since is None else parse_time(since),
        None if until is None else parse_time(until),
        sender,
        insurer,
    )
    config = _config(home)
    key = key_of(config, operator, operator_key)
    with _suspecting(config) as suspecting:
        kept = suspecting.hand_in(sign_suspicion(one, operator, role, key))
    print(f"{one.id}: {kept} {'Mails in Quarantäne' if german() else 'mails quarantined'}")


@app.command(name="list")
def list_all(*, home: Home = None, json_output: AsJson = False) -> None:
    """What is suspected, by whom, and how many mails are kept aside for it."""
    with _suspecting(_config(home)) as suspecting:
        for id in suspecting.ids():
            signed, kept = suspecting.read(id), len(suspecting.quarantined(id))
            if json_output:
                print(json.dumps({**signed.encode(), "quarantined": kept}, ensure_ascii=False))
                continue
            one = signed.suspicion
            period = f"{one.since or ''}..{one.until or ''}"
            print(f"{id}  {kept}  {period}  {' '.join(one.senders)}  {signed.custodian}: {one.text}")


@app.command
def opened(id: str, *, home: Home = None, json_output: AsJson = False) -> None:
    """Mail that matches and was opened before it was suspected: for each insurer, which judges it."""
    with _suspecting(_config(home)) as suspecting:
        found = suspecting.opened(id)
    for gone in sorted(name for name in found if "@" in name):
        hint = (
            f"die Kasse von {gone} steht nicht mehr in schleuse.toml; sie erfährt es auf anderem Weg"
            if german()
            else f"the insurer of {gone} is not in schleuse.toml any more; tell it by other means"
        )
        print(f"schleuse: {hint}", file=sys.stderr)
    for ik, mails in sorted(found.items()):
        for one in mails:
            if json_output:
                print(json.dumps({"ik": ik, **asdict(one), "accepted_at": one.accepted_at.isoformat()}))
            else:
                print(f"{ik}  {one.id}  {one.state.value}  {one.accepted_at:%Y-%m-%d %H:%M:%S}")


@app.command
def order(
    suspicion: str,
    *ids: int,
    fate: Annotated[Fate, Parameter(help="HELD: goes on as usual; RETURNED: the sender is told the reason")],
    reason: Annotated[str, Parameter(help="ASCII; of RETURNED the sender reads it")],
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Order what becomes of quarantined mail; two persons approve it, then `carry-out`.

    Parameters
    ----------
    ids
        Numbers of `hold list`; none: all of it, and the suspicion ends.
    """
    made = Order(f"o{utc_now():%Y%m%d}-{secrets.token_hex(2)}", suspicion, fate, reason, ids)
    with _suspecting(_config(home)) as suspecting:
        count = len(ids) or len(suspecting.quarantined(suspicion))
        print(f"{suspicion}: {count} Mails QUARANTINED -> {fate.value}   {made.hash[:16]}")
        if yes:
            suspecting.order(made)
    print(made.id if yes else ("--yes legt ihn an" if german() else "--yes makes it"))


@app.command
def approve(
    suspicion: str,
    order: str,
    *,
    operator: Operator,
    operator_key: KeyFile = None,
    role: Annotated[Role, Parameter(help="HELD: switch-officer, service-owner; RETURNED: service-owner, releaser")],
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Approve exactly this order; two different persons, in different roles, have to."""
    config = _config(home)
    with _suspecting(config) as suspecting:
        made = suspecting.read_order(suspicion, order)
        print(f"{made.fate.value}  {len(made.deliveries) or '*'}  {made.reason}   {made.hash[:16]}")
        if not yes:
            print("--yes gibt frei" if german() else "--yes approves")
            return
        key = key_of(config, operator, operator_key)
        suspecting.approve(made, sign_approval(PURPOSE, made.hash, operator, role, key, utc_now()))
        word = ("freigegeben" if german() else "approved") if suspecting.is_approved(made) else "1/2"
    print(f"{order}: {word}")


@app.command(name="carry-out")
def carry_out(suspicion: str, order: str, *, home: Home = None) -> None:
    """Do what two persons ordered; again after a crash, it does what is left."""
    with _suspecting(_config(home)) as suspecting:
        moved = suspecting.carry_out(suspecting.read_order(suspicion, order))
    print(f"{moved} Mails")


def _config(home: Path | None) -> Config:
    return read_config(home or default_home())


@contextmanager
def _suspecting(config: Config) -> Iterator[Suspecting]:
    trail = open_trail(config, OUTSIDE, JournalClient(config.journal_socket))
    tell = teller(trail, Purpose.INCIDENT, user=getpass.getuser())
    with open_suspecting(config, tell) as suspecting:
        yield suspecting
