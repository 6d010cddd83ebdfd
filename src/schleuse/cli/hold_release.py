"""`schleuse hold release …`: a backlog goes by a plan that two persons approve, small first (incident.md § 6.6)."""

from __future__ import annotations

import getpass
import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from schleuse.cli import exit_code
from schleuse.cli.closing import config_for_closing, tell_damage, tell_undone
from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.errors import Error, RefusedError
from schleuse.holding.release import FIRST_BATCH, DryRun, ReleasePlan
from schleuse.journal.entry import Purpose
from schleuse.processes.operators import key_of
from schleuse.processes.release_book import ReleaseBook, ReleaseDamagedError, ReleaseNotKeptError, StopOrder
from schleuse.processes.releasing import LOOK_SECONDS, PURPOSE, Releases, StillHeldError, open_releases, releases_of
from schleuse.processes.trail import outside_teller
from schleuse.switch.approval import approve as sign_approval
from schleuse.switch.documents import Role

app = App(name="release", help="Let a backlog go: plan, two approvals, growing batches, a stop.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object")]
Yes = Annotated[bool, Parameter(negative=(), help="Do it; without, only what it would do is shown")]

STOPPED = 75


class UnknownInsurerError(RefusedError):
    """The IK is not in the configuration; the operator names one that is."""

    code = "release.unknown-insurer"


@app.command
def plan(
    *,
    insurer: Annotated[tuple[str, ...], Parameter(help="IK; may be repeated [default: all]", negative=())] = (),
    first: Annotated[int, Parameter(help="Mails of the first batch; each next one is five times larger")] = FIRST_BATCH,
    yes: Yes = False,
    home: Home = None,
    json_output: AsJson = False,
) -> None:
    """Plan the release of what waits now, and look at all of it without opening anything (HD-40, HD-41)."""
    config = read_config(home or default_home())
    unknown = set(insurer) - {one.ik for one in config.insurers}
    if unknown:
        raise UnknownInsurerError(f"no insurer here has the IK {', '.join(sorted(unknown))}")
    mailboxes = {one.address.lower(): one.ik for one in config.insurers if not insurer or one.ik in insurer}
    with _releases(config) as releases:
        made = releases.plan(
            f"f{utc_now():%Y%m%d}-{secrets.token_hex(2)}",
            mailboxes,
            first=first,
            backlog_permille=config.control.backlog_permille,
        )
        looked = releases.look(made)
        if yes:
            releases.keep(made)
    if json_output:
        print(
            json.dumps({"plan": json.loads(made.encode()), "hash": made.hash, "dry_run": asdict(looked)}, default=str)
        )
        return
    _print(made, looked)
    print(made.id if yes else ("--yes legt ihn an" if german() else "--yes makes it"))


@app.command
def approve(
    id: str,
    *,
    operator: Operator,
    operator_key: KeyFile = None,
    role: Annotated[Role, Parameter(help="switch-officer, or service-owner or tenant-delegate")],
    yes: Yes = False,
    home: Home = None,
) -> None:
    """Approve exactly this plan; two different persons, in different roles, have to."""
    config = read_config(home or default_home())
    with _releases(config) as releases:
        made = releases.book.read(id)
        _print(made, releases.look(made))
        if not yes:
            print("--yes gibt frei" if german() else "--yes approves")
            return
        key = key_of(config, operator, operator_key)
        releases.approve(made, sign_approval(PURPOSE, made.hash, operator, role, key, utc_now()))
        word = ("freigegeben" if german() else "approved") if releases.is_approved(made) else "1/2"
        print(f"{id}: {word}")


@app.command
def run(id: str, *, home: Home = None) -> None:
    """Carry an approved plan out, batch by batch; what was begun before a crash goes on. Exit code 75: it stopped.

    Ctrl-C ends the display; the control role goes on with what was begun. `hold release stop` stops it.
    """
    config = read_config(home or default_home())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _releases(config) as releases, Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        made = releases.book.read(id)
        task = bar.add_task(id, total=made.count)
        at = releases.step(id)
        while not (at.stopped or at.finished):
            bar.update(task, completed=at.released)
            try:
                moved = releases.step(id)
            except StillHeldError as held:
                bar.update(task, description=str(held))
                moved = at
            if moved == at:
                time.sleep(LOOK_SECONDS)
            at = moved
    if at.stopped:
        print(f"{'angehalten' if german() else 'stopped'}: {at.stopped}")
        sys.exit(STOPPED)
    print(f"{at.released} {'Mails freigegeben und verarbeitet' if german() else 'mails released and processed'}")


@app.command
def stop(id: str, *, reason: str, operator: str, home: Home = None) -> None:
    """Release nothing more, at once; what nobody has taken is held again. One person suffices.

    Its order needs nothing but a file: no damaged plan, store or configuration keeps it back.
    """
    folder = home or default_home()
    book = ReleaseBook(releases_of(folder))
    book.require(id)
    known = book.known(id)
    if known is not None and known.finished:
        print(f"{id}: {'war schon fertig' if german() else 'was done already'}")
        return
    ordered = _order_stop(book, id, reason, operator)
    try:
        with _releases(config_for_closing(folder)) as releases:
            releases.stop(id, reason, operator)
    except Error as fault:
        if ordered:
            tell_undone(
                fault,
                f"{id} ist angehalten, kein weiteres Los geht. Was schon freigegeben und noch nicht verarbeitet war,"
                " hält die Rolle control wieder an und vermerkt es, sobald der Betrieb den Schaden behoben hat;"
                f" bis dahin hält es sicher an: {_SURE}",
                f"{id} is stopped, no further batch goes. What was let go and not processed yet is held again, and"
                " recorded, by the control role once the operator of this machine has mended the damage; until then"
                f" this holds it for sure: {_SURE}",
            )
        sys.exit(exit_code(fault))
    finally:
        _tell_damaged(book, id)


#: Holds whatever a release lets go, and needs neither its files nor a store.
_SURE = "schleuse switch hold eau_intake --reason security_hold"


def _order_stop(book: ReleaseBook, id: str, reason: str, operator: str) -> bool:
    """Whether the order is durable: then no step of any process lets anything go."""
    try:
        book.order_stop(id, StopOrder(reason, operator, utc_now().isoformat()))
    except ReleaseNotKeptError as fault:
        tell_undone(
            fault,
            f"Die Anordnung, {id} anzuhalten, ist nicht gespeichert; der Betrieb schafft Platz oder Rechte."
            f" Sicher hält jetzt an: {_SURE}",
            f"the order to stop {id} is not kept; the operator of this machine makes room or gives rights."
            f" This holds for sure now: {_SURE}",
        )
        return False
    return True


def _tell_damaged(book: ReleaseBook, id: str) -> None:
    try:
        book.read(id)
        book.progress(id)
    except ReleaseDamagedError as damaged:
        tell_damage(
            f"Die Dateien von {id} sind beschädigt ({damaged}); angehalten wird es trotzdem. Was noch wartet, geht mit"
            " einem neuen Plan: schleuse hold release plan. Der Betrieb hebt den Ordner für die Untersuchung auf.",
            f"files of {id} are damaged ({damaged}); it is stopped all the same. What still waits goes by a new plan:"
            " schleuse hold release plan. The operator of this machine keeps the folder for the investigation.",
        )


@app.command
def status(id: str | None = None, *, home: Home = None, json_output: AsJson = False) -> None:
    """How far each release is."""
    with _releases(read_config(home or default_home())) as releases:
        for one in [id] if id else releases.book.ids():
            try:
                made, at = releases.book.read(one), releases.book.progress(one)
            except ReleaseDamagedError as damaged:
                if id:
                    raise
                print(json.dumps({"id": one, "damaged": str(damaged)}) if json_output else f"{one}  {damaged}")
                continue
            if json_output:
                print(json.dumps({"id": one, "approved": releases.is_approved(made), **asdict(at)}))
                continue
            word = at.stopped or ("fertig" if german() else "done") if at.finished or at.stopped else ""
            state = word or (("läuft" if german() else "runs") if at.released else ("wartet" if german() else "waits"))
            print(f"{one}  {at.released}/{made.count}  {state}")


@contextmanager
def _releases(config: Config) -> Iterator[Releases]:
    with open_releases(config, outside_teller(config, Purpose.INCIDENT, user=getpass.getuser())) as releases:
        yield releases


def _print(made: ReleasePlan, looked: DryRun) -> None:
    de = german()
    for mailbox in made.mailboxes:
        print(f"{mailbox.account}  {mailbox.count}")
    sizes = [*map(str, looked.batches[:8]), *(["…"] if len(looked.batches) > 8 else [])]
    print(f"{'Lose' if de else 'batches'}: {' + '.join(sizes)}   {made.hash[:16]}")
    rows = [
        ("älteste" if de else "oldest", looked.oldest and looked.oldest.isoformat(timespec="seconds")),
        ("mehrfach gesendet" if de else "sent again", looked.duplicates),
        ("älter als ein Tag" if de else "older than a day", looked.older_than_a_day),
        ("Siegel verletzt" if de else "broken seals", len(looked.damaged)),
        ("unbekannte Formate" if de else "unknown formats", looked.unknown_formats),
        *((label, count) for label, count in sorted(looked.by_label.items())),
    ]
    for name, value in rows:
        print(f"  {name}: {value}")
    if not looked.clear:
        print(
            "nicht freigeben: erst die verletzten Mails klären" if de else "do not approve: look at the damaged first"
        )
