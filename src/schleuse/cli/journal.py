"""`schleuse journal status|key|clock|verify|prove|export`: what is in the log, and what it shows, by files alone."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from schleuse.cli import exit_code
from schleuse.cli.up import german
from schleuse.clock import machine_uptime, utc_now
from schleuse.config import FILE_NAME, default_home, read_config
from schleuse.errors import ConflictError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.journal import audit, believed
from schleuse.journal.believed import BadMarkError
from schleuse.journal.note import parse_note
from schleuse.journal.opening import parse_opening
from schleuse.journal.policy import Policy, parse_policy
from schleuse.journal.proof_file import SUFFIX, Proven, parse_proof_file, verify
from schleuse.processes.journal_clock import NoMarkError, give_order, read_mark, reading
from schleuse.processes.journal_keys import ANNOUNCE, known_vkey, log_signer, origin_of
from schleuse.processes.life import keep_private
from schleuse.processes.trail import PLATFORM

app = App(name="journal", help="The provable record of every opening.")

NOT_RUNNING = 69
DEFAULT_URL = "http://127.0.0.1:9480"

PolicyFile = Annotated[Path, Parameter(name="--policy", help="Policy file: whose signatures count (tlog-policy)")]
Json = Annotated[bool, Parameter(name="--json", help="One JSON object")]


class NothingToVerifyError(RefusedError):
    """The files that were named are no proof, log or pair of checkpoints; the caller can name others."""

    code = "cli.nothing-to-verify"


class UnreadableError(UnavailableError):
    """A file that the caller named is not there or cannot be read; he can name another."""

    code = "cli.unreadable"


class NoJournalError(MalformedError):
    """What answers under the address is no journal; the caller can name another."""

    code = "cli.no-journal"


class NoKeyYetError(UnavailableError):
    """The logs of that year have no key yet; the journal makes it some weeks ahead."""

    code = "cli.no-key-yet"


class NotNextYearError(RefusedError):
    """Keys are made for the next year only; the others are there, or their time has not come."""

    code = "cli.not-next-year"


class YesAloneError(RefusedError):
    """--yes without the order that it confirms; the caller names both."""

    code = "cli.yes-alone"


class NotOursError(RefusedError):
    """The journal's folder is another user's, whose role could not read what we make; run the command as him."""

    code = "cli.not-ours"


@app.command
def status(*, url: str | None = None, home: Path | None = None, json_output: Json = False) -> None:
    """How far each log is: durable, published, witnessed. Exit code 0: it takes entries; 69: it does not.

    Parameters
    ----------
    url
        Address of the journal role's HTTP port [default: as the home is configured].
    home
        Folder of the configuration [default: the user's].
    """
    health = _health(url or _configured(home or default_home()))
    if json_output:
        print(json.dumps(health))
    else:
        _print_health(health)
    if health["state"] != "RUNNING":
        sys.exit(NOT_RUNNING)


@app.command(name="key")
def key_command(
    *,
    year: Annotated[int | None, Parameter(help="Calendar year of the logs [default: the next]")] = None,
    make: Annotated[bool, Parameter(name="--make", negative="", help="Make those of the next year now")] = False,
    home: Path | None = None,
    json_output: Json = False,
) -> None:
    """Print the keys (vkeys) of a year's logs, one for each insurer and the platform, for whoever configures a witness.

    Parameters
    ----------
    home
        Folder of the configuration [default: the user's].
    """
    config, now = read_config(home or default_home()), utc_now()
    folder, year = config.home / "journal", year or now.year + 1
    keys: dict[str, str] = {}
    for tenant in (*(insurer.ik for insurer in config.insurers), PLATFORM):
        origin = origin_of(config.hostname, tenant, year)
        vkey = known_vkey(folder, origin)
        if vkey is None and make:
            vkey = _make(folder, origin, this_year=now.year)
        if vkey is None:
            raise NoKeyYetError(
                f"{origin} has no key yet; the journal makes it {ANNOUNCE.days} days ahead, --make makes it now"
            )
        keys[tenant] = vkey
    print(json.dumps(keys) if json_output else "\n".join(keys.values()))


@app.command(name="clock")
def clock_command(
    *,
    believe: Annotated[
        bool, Parameter(name="--believe", negative="", help="This machine's clock is right now")
    ] = False,
    yes: Annotated[
        bool, Parameter(name="--yes", negative="", help="Do it; without, only show what would be done")
    ] = False,
    home: Path | None = None,
    json_output: Json = False,
) -> None:
    """Which time the journal believes. --believe: a person vouches for the clock, for instance after a long stop.

    Exit code 0: the clock is believed; 69: it is not.

    Parameters
    ----------
    home
        Folder of the configuration [default: the user's].
    """
    config, now = read_config(home or default_home()), utc_now()
    folder = config.home / "journal"
    if yes and not believe:
        raise YesAloneError("found --yes alone; it goes with --believe")
    at = reading(now, machine_uptime())
    try:
        known = believed.looked(read_mark(folder), at)
    except (NoMarkError, BadMarkError) as error:
        if not believe:
            raise
        print(f"schleuse: {error}", file=sys.stderr)  # exactly then a person must say what time it is
        known = believed.unknown(at)
    facts = {
        "clock": now.isoformat(),
        "taken_for": known.now.isoformat(),
        "certain": known.certain.isoformat(),
        "believed": not known.is_doubted,
        "ordered": believe and yes,
    }
    if believe and yes:
        _check_owner(folder)
        give_order(folder, now, _caller())
    print(json.dumps(facts) if json_output else _clock_text(known, now, believe=believe, ordered=believe and yes))
    if known.is_doubted and not (believe and yes):
        sys.exit(NOT_RUNNING)


def _caller() -> str:
    """User name of whoever runs this command, behind sudo too; what he says he is, for the entry about his word."""
    if name := os.environ.get("SUDO_USER"):
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _clock_text(known: believed.Belief, now: datetime, *, believe: bool, ordered: bool) -> str:
    clock, taken, certain = (f"{at:%Y-%m-%d %H:%M:%S} UTC" for at in (now, known.now, known.certain))
    if german():
        state = f"nicht geglaubt, das Journal rechnet mit {taken}" if known.is_doubted else "geglaubt"
        text = f"Uhr: {clock}, {state}. Sicher ist es mindestens {certain}."
        plan = (
            "Mit --yes gilt diese Uhr als richtig: Jahre, die nach ihr vorbei sind, werden geschlossen, und Einträge, "
            "deren Frist nach ihr vorbei ist, werden gelöscht. Wer es sagt, steht im Eintrag darüber."
        )
        done = "Das Journal übernimmt diese Uhr binnen einer Minute und vermerkt es als Eintrag."
    else:
        state = f"not believed, the journal counts with {taken}" if known.is_doubted else "believed"
        text = f"Clock: {clock}, {state}. It is certain to be no earlier than {certain}."
        plan = (
            "With --yes this clock counts as right: years that are over by it are closed, and entries whose period is "
            "over by it are deleted. Who says so is in the entry about it."
        )
        done = "The journal takes this clock over within a minute and leaves an entry about it."
    return "\n".join([text, *([done] if ordered else [plan] if believe else [])])


def _make(folder: Path, origin: str, *, this_year: int) -> str:
    if int(origin.rpartition("/")[2]) != this_year + 1:
        raise NotNextYearError(f"only keys of {this_year + 1} are made ahead, not that of {origin}")
    _check_owner(folder)
    keep_private()
    return log_signer(folder, origin).key.vkey


def _check_owner(folder: Path) -> None:
    owner = folder.stat().st_uid if folder.exists() else os.getuid()
    if owner != os.getuid():
        raise NotOursError(
            f"{folder} belongs to the user {owner}, who must be able to read what we write; run this as him"
        )


@app.command(name="verify")
def verify_command(
    *paths: Path,
    policy: PolicyFile,
    entry: Annotated[Path | None, Parameter(help="Bytes of the entry that a proof file is about")] = None,
    log: Annotated[Path | None, Parameter(help="Folder of the log, to compare two checkpoints")] = None,
    json_output: Json = False,
) -> None:
    """Check a proof file, a whole exported log, or two checkpoints, without network.

    Says in one sentence what is known now and what is not. Exit code 0: it holds.

    Parameters
    ----------
    paths
        One .tlog-proof file (with --entry, or the .entry file beside it), one folder, or two checkpoint files.
    """
    try:
        known, unknown, facts = _verified(paths, parse_policy(_read(policy)), entry, log)
    except NothingToVerifyError:
        raise  # nothing was looked at
    except (MalformedError, RefusedError, ConflictError) as error:
        _not_confirmed(error, json_output=json_output)
    if json_output:
        print(json.dumps({"known": known, "unknown": unknown, **facts}))
    else:
        console = Console()
        console.print(f"[green]✓[/] {known}", soft_wrap=True)
        console.print(f"• {unknown}", soft_wrap=True)


def _verified(
    paths: Sequence[Path], rules: Policy, entry: Path | None, log: Path | None
) -> tuple[str, str, dict[str, object]]:
    match paths:
        case (folder,) if folder.is_dir():
            return _whole_log(folder, rules)
        case (proof,):
            return _proof(proof, entry or proof.with_suffix(".entry"), rules)
        case (old, new):
            return _two_checkpoints(old, new, rules, log)
        case _:
            raise NothingToVerifyError("name one proof file, one folder, or two checkpoint files")


def _not_confirmed(error: Error, *, json_output: bool) -> NoReturn:
    """Say why, and that nothing of what was shown is known now."""
    if german():
        unknown = "Bestätigt ist damit nichts: weder ein Stand noch ein Eintrag. Die Dateien aufheben, als Beweis."
    else:
        unknown = (
            "So nothing is confirmed: neither this state nor an entry in it. Keep the files; they may be evidence."
        )
    if json_output:
        print(json.dumps({"known": None, "unknown": unknown, "error": str(error), "code": error.code}))
    else:
        for line in (*str(error).splitlines(), unknown):
            print(f"schleuse: {line}", file=sys.stderr)
    sys.exit(exit_code(error))


@app.command(name="prove")
def prove_command(
    index: int,
    *,
    log: Annotated[str, Parameter(help="URL or folder of the log")],
    policy: PolicyFile,
    to: Annotated[Path, Parameter(help="Folder for the two files")] = Path(),
    opening: Annotated[Path | None, Parameter(help="Opening to put in: salt and detail record (personal data)")] = None,
) -> None:
    """Write a proof file and the entry that it is about."""
    extra = _read(opening) if opening else None
    proof, entry = audit.prove(_source(log), parse_policy(_read(policy)), index, extra)
    to.mkdir(parents=True, exist_ok=True)
    for suffix, data in ((SUFFIX, proof), (".entry", entry)):
        path = to / f"entry-{index}{suffix}"
        path.write_bytes(data)
        print(path)


@app.command(name="export")
def export_command(log: str, folder: Path) -> None:
    """Copy a served log into a folder that any tlog-tiles client reads; again for what is new.

    Parameters
    ----------
    log
        URL of the log, such as http://127.0.0.1:9480/109905003/2027.
    """
    checkpoint = audit.export(_source(log), folder)
    print(f"{checkpoint.origin}: {checkpoint.size}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise UnreadableError(
            f"{path} cannot be read ({cause.strerror}); expected a file that was named here"
        ) from cause


def _health(url: str) -> dict[str, Any]:
    """What a journal says of itself. Raises NoJournalError."""
    with suppress(ValueError):
        health = json.loads(audit.from_url(url)("health"))
        if isinstance(health, dict) and {"state", "findings", "spare_segments", "logs"} <= health.keys():
            return health
    raise NoJournalError(f"{url} answers, and is no journal; --url names the HTTP port of the journal role")


def _configured(home: Path) -> str:
    """Where the journal of a home is, or would be if nothing is configured: an auditor has no home."""
    return f"http://{read_config(home).journal.http}" if (home / FILE_NAME).exists() else DEFAULT_URL


def _source(log: str) -> audit.Source:
    return audit.from_url(log) if "://" in log else audit.from_folder(Path(log))


def _proof(path: Path, entry: Path, policy: Policy) -> tuple[str, str, dict[str, object]]:
    proof = parse_proof_file(_read(path))
    proven = verify(proof, _read(entry), policy, parse_opening(proof.extra) if proof.extra else None)
    facts = {"origin": proven.origin, "index": proven.index, "size": proven.size, "since": proven.since_s}
    kind = proven.entry.kind.name if proven.entry else "?"
    if german():
        known = (
            f"Dieses Ereignis ({kind}) steht als Eintrag {proven.index} im Journal {proven.origin}{_since(proven)}; "
            "wer es ändert oder entfernt, wird von jedem Zeugen bemerkt."
        )
        unknown = "Nicht gezeigt ist, was außerhalb dieses Journals geschah und ob der Schreiber die Wahrheit sagte."
    else:
        known = (
            f"This event ({kind}) is entry {proven.index} of the journal {proven.origin}{_since(proven)}; "
            "changing or removing it would be noticed by every witness."
        )
        unknown = "Not shown is what happened outside this journal, or whether its writer told the truth."
    return known, unknown, facts


def _since(proven: Proven) -> str:
    if proven.since_s is None:
        return ", ohne Zeugen" if german() else ", without witnesses"
    at = datetime.fromtimestamp(proven.since_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f", spätestens seit {at}" if german() else f", not later than {at}"


def _whole_log(folder: Path, policy: Policy) -> tuple[str, str, dict[str, object]]:
    found = audit.audit_log(audit.from_folder(folder), policy)
    checkpoint, names = found.judged.checkpoint, ", ".join(sorted(found.judged.times))
    facts = {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "minimum": found.minimum,
        "witnesses": sorted(found.judged.times),
        "kinds": dict(found.kinds),
        "repeated_events": found.repeated_events,
        "foreign_entries": found.foreign,
    }
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(found.kinds.items()))
    first, left = found.minimum, checkpoint.size - found.minimum
    if german():
        which = f"Die {left} Einträge ab Nummer {first}" if first else f"Alle {left} Einträge"
        gone = f"; die {first} Einträge davor fehlen hier, ihre Prüfsummen stimmen mit dem Stand überein"
        known = (
            f"{which} von {checkpoint.origin} sind vollständig und unverändert gegenüber dem "
            f"signierten Stand (Zeugen: {names or 'keine'}){gone if first else ''}; "
            f"{kinds}; doppelte Ereignisse {found.repeated_events}."
        )
        unknown = "Nicht gezeigt ist, was danach kam, und ohne Zeugen nicht, dass alle denselben Stand sehen."
        if first:
            unknown += " Auch nicht, ob die fehlenden Einträge nach ihrer Frist gelöscht oder nur nicht kopiert wurden."
    else:
        which = f"The {left} entries from number {first} on" if first else f"All {left} entries"
        gone = f"; the {first} entries before are not here, and their hashes agree with the state"
        known = (
            f"{which} of {checkpoint.origin} are complete and unchanged against the signed "
            f"state (witnesses: {names or 'none'}){gone if first else ''}; "
            f"{kinds}; repeated events {found.repeated_events}."
        )
        unknown = "Not shown is what came after, nor, without witnesses, that everybody sees the same state."
        if first:
            unknown += " Nor whether the missing entries were deleted after their period, or just not copied."
    return known, unknown, facts


def _two_checkpoints(old: Path, new: Path, policy: Policy, log: Path | None) -> tuple[str, str, dict[str, object]]:
    source = audit.from_folder(log) if log else None
    first, second, holds = audit.compare(parse_note(_read(old)), parse_note(_read(new)), policy, source)
    facts: dict[str, object] = {"origin": first.origin, "old": first.size, "new": second.size, "consistent": holds}
    if holds is None:
        if german():
            known = f"Beide Stände ({first.size} und {second.size}) sind von {first.origin} signiert."
            unknown = "Ob der spätere den früheren fortsetzt, zeigen erst die Kacheln (--log ORDNER)."
        else:
            known = f"Both states ({first.size} and {second.size}) are signed by {first.origin}."
            unknown = "Whether the later continues the earlier one, only the tiles show (--log FOLDER)."
    elif german():
        known = f"Der Stand {second.size} von {first.origin} setzt den Stand {first.size} unverändert fort."
        unknown = "Nicht geprüft ist der Inhalt der Einträge."
    else:
        known = f"State {second.size} of {first.origin} continues state {first.size} unchanged."
        unknown = "The content of the entries was not checked."
    return known, unknown, facts


def _print_health(health: dict[str, Any]) -> None:
    console, de = Console(), german()
    table = Table(
        "Journal" if de else "log",
        "dauerhaft" if de else "durable",
        "signiert" if de else "published",
        "bezeugt" if de else "witnessed",
        box=None,
        pad_edge=False,
    )
    for origin, sizes in health["logs"].items():
        table.add_row(origin, *(str(sizes[level]) for level in ("durable", "published", "witnessed")))
    console.print(table)
    console.print(f"{health['state']}, {'Segmente bereit' if de else 'spare segments'}: {health['spare_segments']}")
    for finding in [*health["findings"], *filter(None, [health.get("clock")])]:
        console.print(f"[red]✗[/] {finding}", soft_wrap=True)
