"""`schleuse witness run|status|sign|follow|evidence|mirror|reconcile`: what an insurer runs by itself.

And `sheet` and `hand-in`, the operator's side of a witness on paper.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.errors import ConflictError, MalformedError, UnavailableError
from schleuse.journal.checkpoint import parse_checkpoint
from schleuse.journal.note import parse_note
from schleuse.journal.policy import parse_policy
from schleuse.journal.proof import consistency_proof
from schleuse.journal.proof_file import parse_proof_file
from schleuse.journal.tile_reader import VerifiedTiles
from schleuse.witness.alarm import Alarm, Finding
from schleuse.witness.config import WitnessConfig, read_witness_config
from schleuse.witness.decision import Conflict
from schleuse.witness.follow import proven_successor, take_over
from schleuse.witness.keys import open_memory
from schleuse.witness.monitor_store import MonitorStore
from schleuse.witness.paper import read_answer, read_sheet, sheet
from schleuse.witness.remote import HttpRemote, RemoteLog
from schleuse.witness.rules import reconcile, releases
from schleuse.witness.service import Cosigned, UnknownOriginError, Witness

app = App(name="witness", help="At an insurer: cosign the journal, watch it, keep evidence.")

ALARMED = 75  #: as for a conflict: what the log says contradicts what it said

ConfigFile = Annotated[Path, Parameter(name="--config", help="The witness's file, or the folder of witness.toml")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object")]


class NotReadYetError(UnavailableError):
    """The monitor has read fewer entries than the vault has written; ask again when it has looked."""

    code = "cli.not-read-yet"


class BadStatusError(MalformedError):
    """The file is not what `vault status --json` writes, or has nothing about this log; name the right one."""

    code = "cli.bad-status"


class NotCosignedError(ConflictError):
    """The checkpoint on the sheet does not continue what this witness has cosigned."""

    code = "cli.not-cosigned"


class OtherKeyError(ConflictError):
    """The log announces another key for its successor than the one in this witness's files; ask its operator."""

    code = "cli.other-key"


@app.command
def run(*, config: ConfigFile) -> None:
    """Cosign and watch until stopped; needs no other part of Schleuse. Makes key and database at its first start."""
    from schleuse.processes import witness
    from schleuse.processes.life import keep_private, only_instance
    from schleuse.processes.observe import configure_log

    settings = read_witness_config(config)
    keep_private()
    with only_instance(settings.home, "witness"):
        configure_log("witness")
        asyncio.run(witness.run(settings))


@app.command
def status(*, config: ConfigFile, json_output: Json = False) -> None:
    """Show the witness's keys, what it cosigned last, evidence and alarms. Exit code 75: there are some."""
    found = _status(read_witness_config(config))
    if json_output:
        print(json.dumps(found))
    else:
        _print_status(found)
    if found["evidence"] or any(log["alarms"] for log in found["logs"]):
        sys.exit(ALARMED)


@app.command
def sign(sheet: Path, *, config: ConfigFile) -> None:
    """Cosign a checkpoint that came on paper, by mail or on a stick; the lines to send back go to stdout.

    Parameters
    ----------
    sheet
        The text from the log: old size, proof, empty line, checkpoint.
    """
    settings = read_witness_config(config)
    request = read_sheet(sheet.read_bytes())
    store, cosigners = open_memory(settings)
    try:
        answer = Witness(settings.trusted, cosigners, store, utc_now, _warn).add_checkpoint(request)
    finally:
        store.close()
    match answer:
        case Cosigned(lines=lines):
            sys.stdout.buffer.write("".join(map(str, lines)).encode())
        case Conflict(size):
            raise NotCosignedError(f"the sheet begins at size {request.old}, this witness is at size {size}")
        case _:
            raise NotCosignedError(answer.reason)


@app.command(name="follow")
def follow_command(
    proof: Path,
    *,
    config: ConfigFile,
    entry: Annotated[Path | None, Parameter(help="The announcing entry [default: the .entry file beside it]")] = None,
) -> None:
    """Cosign next year's log from now on, which this year's has announced; a running witness notices by itself.

    For a witness that cannot fetch the announcement. It must stand under a checkpoint that this witness has cosigned.

    Parameters
    ----------
    proof
        The log's file successor.tlog-proof.
    """
    settings = read_witness_config(config)
    shown = parse_proof_file(proof.read_bytes())
    origin = parse_checkpoint(shown.note.text).origin
    section = next((log for log in settings.logs if log.origin == origin), None)
    if section is None:
        raise UnknownOriginError(f"{settings.file.name} names no log {origin}, so nothing can follow it")
    store, cosigners = open_memory(settings)
    try:
        witness = Witness(settings.trusted, cosigners, store, utc_now, _warn)
        key = proven_successor(section, witness, shown, (entry or proof.with_suffix(".entry")).read_bytes())
    finally:
        store.close()
    known = settings.trusted.get(key.name)
    if known is None:
        take_over(settings.home, section, key)
    elif key not in {one.key for one in known}:
        raise OtherKeyError(f"{origin} announces {key.vkey}, and another key is trusted for that log")
    print(key.vkey)


@app.command(name="sheet")
def sheet_command(
    log: str, *, old: Annotated[Path | None, Parameter(help="Checkpoint that the witness cosigned last")] = None
) -> None:
    """For the operator of the log: print what a witness without network shall cosign, to stdout.

    Parameters
    ----------
    log
        URL of the log.
    """
    remote = RemoteLog(log, HttpRemote())
    before, new = None if old is None else parse_note(old.read_bytes()), remote.note("pending")
    checkpoint, size = parse_checkpoint(new.text), 0 if before is None else parse_checkpoint(before.text).size
    proof = consistency_proof(size, checkpoint.size, VerifiedTiles(checkpoint, remote.tile)) if size else []
    sys.stdout.buffer.write(sheet(before, proof, new))


@app.command(name="hand-in")
def hand_in_command(log: str, sheet: Path, answer: Path) -> None:
    """For the operator of the log: take the lines of a witness without network; the note with them goes to stdout.

    Parameters
    ----------
    log
        URL of the log.
    sheet
        What was printed.
    answer
        What came back.
    """
    note = read_answer(answer.read_bytes(), read_sheet(sheet.read_bytes()).note)
    RemoteLog(log, HttpRemote()).add_cosignature(note)
    sys.stdout.buffer.write(note.encode())


@app.command(name="evidence")
def evidence_command(folder: Path, *, config: ConfigFile) -> None:
    """Write all evidence of misbehaviour into files that `journal verify` and anybody else can read.

    Parameters
    ----------
    folder
        Gets a folder for each piece: ours.checkpoint, theirs.checkpoint, about.json, and request.txt if we were asked.
    """
    store, _ = open_memory(read_witness_config(config))
    try:
        pieces = store.evidence()
    finally:
        store.close()
    for number, piece in enumerate(pieces, 1):
        place = folder / f"{number:06}-{piece.finding.value}"
        place.mkdir(parents=True, exist_ok=True)
        about = {"origin": piece.origin, "finding": piece.finding.value, "reason": piece.reason, "kept": piece.kept_s}
        (place / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        (place / "theirs.checkpoint").write_bytes(piece.theirs)
        if piece.request:
            (place / "request.txt").write_bytes(piece.request)
        if piece.ours is not None:
            (place / "ours.checkpoint").write_bytes(piece.ours)
        print(place)


@app.command(name="mirror")
def mirror_command(
    folder: Path | None = None,
    *,
    config: ConfigFile,
    forget_years: Annotated[
        int | None,
        Parameter(validator=Number(gte=1), help="Then delete copied entries that are older; hashes and proofs stay"),
    ] = None,
) -> None:
    """Copy each log that has a monitor, all of it checked, so that `journal verify` needs no network. Again: the rest.

    Parameters
    ----------
    folder
        Gets a folder TENANT/SHARD for each log, a static tlog-tiles directory [default: mirror beside the file].
    """
    from schleuse.processes.journal_care import years_before
    from schleuse.processes.witness import trust
    from schleuse.witness.mirror import forget, mirror

    settings = read_witness_config(config)
    remote = HttpRemote(trust(settings))
    for section in settings.logs:
        if section.monitor is None:
            continue
        tenant, shard = section.origin.split("/")[-2:]
        place = (folder or settings.home / "mirror") / tenant / shard
        rules = parse_policy(section.monitor.policy.read_bytes())
        checkpoint = mirror(RemoteLog(section.url or "", remote), rules, place)
        print(f"{place}: {checkpoint.size}")
        if forget_years is not None:
            forget(place, years_before(utc_now(), forget_years))


@app.command(name="reconcile")
def reconcile_command(
    origin: str | None = None,
    *,
    config: ConfigFile,
    status: Annotated[Path | None, Parameter(name="--status", help="What `vault status --json` wrote")] = None,
    vault: Annotated[int | None, Parameter(help="Releases that the vault counted, if there is no such file")] = None,
    hsm: Annotated[int | None, Parameter(help="Unwraps that the HSM's own audit counted")] = None,
    json_output: Json = False,
) -> None:
    """Compare the log's entries with the counters of vault and HSM. Exit code 75: something left no entry.

    Without a file or number, the vault's word is what it wrote into the log itself: its last release number.

    Parameters
    ----------
    origin
        Name of the log [default: the one that this witness monitors].
    """
    logs = {log["origin"]: log for log in _status(read_witness_config(config))["logs"]}
    if origin is None:
        monitored = [log["origin"] for log in logs.values() if log["read"] is not None]
        origin = monitored[0] if len(monitored) == 1 else None
    if origin is None or origin not in logs:
        raise NotCosignedError(f"name one of the logs that this witness watches: {', '.join(logs)}")
    log = logs[origin]
    if status is not None:
        vault = _counter(status, origin, log["read"] or 0)
    elif vault is None:
        vault = log["counter"]
    entries = releases(log["counts"])
    alarms = reconcile(origin, log["counts"], vault=vault, hsm=hsm)
    if json_output:
        found = [alarm.text for alarm in alarms]
        print(json.dumps({"entries": entries, "vault": vault, "hsm": hsm, "read": log["read"], "findings": found}))
    else:
        _print_counts(log, entries, vault, hsm)
        for alarm in alarms:
            _warn(alarm)
    if alarms:
        sys.exit(ALARMED)


def _counter(path: Path, origin: str, read: int) -> int:
    """The vault's own counter for this log. read: entries that the monitor has read."""
    try:
        log = json.loads(path.read_bytes())["logs"][origin]
        counter, size = int(log["counter"]), int(log["size"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise BadStatusError(f"{path} says nothing about {origin} ({type(cause).__name__})") from cause
    if size > read:
        raise NotReadYetError(f"the vault has written {size} entries, the monitor has read {read}; ask again later")
    return counter


def _print_counts(log: dict[str, Any], entries: int, vault: int, hsm: int | None) -> None:
    for name, count in sorted(log["counts"].items()):
        print(f"{count:>10} {name}")
    de = german()
    # All numbers are as of here: the monitor reads in its own time.
    read, size = log["read"] or 0, log["size"] or 0
    print(f"{read:>10} {f'Einträge gelesen, von {size} bezeugten' if de else f'entries read, of {size} cosigned'}")
    print(f"{entries:>10} {'Freigaben im Journal' if de else 'releases in the journal'}")
    print(f"{vault:>10} {'Freigaben nach Zählung des Tresors' if de else 'releases as the vault counts'}")
    if hsm is not None:
        print(f"{hsm:>10} {'Entschlüsselungen nach Zählung des HSM' if de else 'unwraps as the HSM counts'}")


def _warn(alarm: Alarm) -> None:
    print(f"{alarm.finding.value}: {alarm.text}", file=sys.stderr)


def _status(config: WitnessConfig) -> dict[str, Any]:
    store, cosigners = open_memory(config)
    try:
        logs = []
        for section in config.logs:
            last = store.last(section.origin)
            monitored = _monitored(section.monitor.database if section.monitor else None, section.origin)
            logs.append(
                {
                    "origin": section.origin,
                    "size": last.checkpoint.size if last else 0,
                    "root": last.checkpoint.root.hex() if last else None,
                    "time": last.time_s if last else None,
                    **monitored,
                }
            )
        evidence = [{"origin": one.origin, "finding": one.finding, "reason": one.reason} for one in store.evidence()]
        return {"keys": [cosigner.key.vkey for cosigner in cosigners], "logs": logs, "evidence": evidence}
    finally:
        store.close()


def _monitored(database: Path | None, origin: str) -> dict[str, Any]:
    if database is None or not database.exists():
        return {"read": None, "counts": {}, "counter": 0, "alarms": {}}
    store = MonitorStore(database, origin)
    try:
        memory = store.memory()
        return {
            "read": store.position().read,
            "counts": dict(memory.counts),
            "counter": max(memory.counter or 0, memory.reported or 0),
            "alarms": dict(store.alarms()),
        }
    finally:
        store.close()


def _print_status(found: dict[str, Any]) -> None:
    console, de = Console(), german()
    for key in found["keys"]:
        console.print(key, soft_wrap=True, highlight=False)
    table = Table(
        "Journal" if de else "log",
        "Einträge" if de else "entries",
        "bezeugt am" if de else "cosigned at",
        "gelesen" if de else "read",
        box=None,
        pad_edge=False,
    )
    for log in found["logs"]:
        read = "–" if log["read"] is None else str(log["read"])
        table.add_row(log["origin"], str(log["size"]), _time(log["time"]), read)
    console.print(table)
    for log in found["logs"]:
        for finding, count in sorted(log["alarms"].items()):
            console.print(f"[red]✗[/] {log['origin']}: {finding} {count}", soft_wrap=True)
    for one in found["evidence"]:
        word = "bewiesen" if one["finding"] == Finding.FORK else "unbewiesen"
        if not de:
            word = "proven" if one["finding"] == Finding.FORK else "not proven"
        console.print(f"[red]✗[/] {one['reason']} ({word})", soft_wrap=True)


def _time(time_s: int | None) -> str:
    return "–" if time_s is None else datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
