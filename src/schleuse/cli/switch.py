"""`schleuse switch`: off, at once, by one person, with or without anything that runs (SW-01, SW-05).

What opens is not here: that needs two persons and a plan (`schleuse restart`).
"""

from __future__ import annotations

import getpass
import json
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cyclopts import App, Parameter

from schleuse.cli.closing import config_for_closing, tell_damage
from schleuse.cli.switch_view import (
    print_claims,
    print_entries,
    print_findings,
    print_order,
    print_rows,
    print_workers,
    progress_json,
    row_json,
)
from schleuse.cli.up import said
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.errors import Error, MalformedError
from schleuse.journal.entry import Kind as Leaf
from schleuse.journal.entry import Result
from schleuse.journal.opening import canonical_json
from schleuse.processes.switch_checks import findings, once_switched
from schleuse.processes.switch_orders import (
    NotFreshError,
    Signer,
    accept,
    describe,
    log_trouble,
    mend,
    progress_of,
    promise,
    read_document,
    rows_of,
    runs,
    signer_of,
    speaker_of,
    tell,
    unchanged,
)
from schleuse.processes.switching import COMMAND, open_switch, switch_log
from schleuse.processes.trail import PLATFORM
from schleuse.scopes import Scope, ScopeState, parse_scopes
from schleuse.shutdown.news import BadNewsError
from schleuse.shutdown.order import ordered
from schleuse.shutdown.paper import PaperFacts, PaperOperator, fingerprint, paper
from schleuse.switch.documents import (
    Command,
    Kind,
    Limit,
    Reason,
    Role,
    SignedCommand,
    parse_signed,
    sign,
)
from schleuse.switch.log import Accepted, create_log
from schleuse.vault.tokens import read_public_key, read_token_key

app = App(name="switch", help="Off in seconds, by one person; what opens is `restart`.")
app.command("schleuse.cli.switch_policy:app", name="policy")
app.command("schleuse.cli.switch_start:start", name="start")

#: The command is in force, but --wait was asked for and something is not quiet yet.
NOT_QUIET = 75
DOES_NOT_HOLD = 70
LOOK_SECONDS = 0.02
LONGEST_TEXT = 2000

ReasonWord = Literal["security_hold", "dependency_off", "tenant_request", "authority_order", "drill"]
Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="For machines")]
Scopes = Annotated[
    tuple[str, ...],
    Parameter(help="SERVICE[/INSURER[/DIRECTION[/PATH]]], or a group: eau, kim, epa, all (all but status)"),
]


class NoScopeError(MalformedError):
    """A command of the switch names what it is about; who typed it adds it, such as `all`."""

    code = "cli.no-scope"


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Words:
    """What a command says beside its scopes (SW-14)."""

    reason: Annotated[ReasonWord, Parameter(help="Class of the reason")]
    text: Annotated[str, Parameter(help="The reason in words")] = ""
    incident: Annotated[str, Parameter(help="Id of the incident or drill")] = ""
    expected: Annotated[str, Parameter(help="What will be seen of it outside")] = ""
    told: Annotated[tuple[str, ...], Parameter(help="Who is told; may be repeated", negative=())] = ()
    policy: Annotated[str, Parameter(help="NAME@VERSION of the agreed policy that this follows")] = ""
    next_information: Annotated[
        str,
        Parameter(help="When those who wait hear more: 90m, 4h, 2026-11-25T14:00Z [default: as configured]"),
    ] = ""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Signing:
    """Who signs, where, and for how long effects are watched."""

    operator: Annotated[
        str | None, Parameter(help="Name of the operator [default: the only one whose key is here]")
    ] = None
    operator_key: Annotated[
        Path | None, Parameter(help="The operator's private key [default: operators/NAME.key of the home]")
    ] = None
    wait: Annotated[
        float | None,
        Parameter(help="Seconds to watch effects and proof; exit code 75 if not all is quiet [default: 10]"),
    ] = None
    home: Home = None
    json_output: AsJson = False


@app.command
def hold(*scopes: str, words: Words, signing: Signing | None = None) -> None:
    """Take in and keep, process and deliver nothing: the first choice (HD-02). Acts at once."""
    _order(scopes, ScopeState.HOLD, words, signing)


@app.command
def defer(*scopes: str, words: Words, signing: Signing | None = None) -> None:
    """Take nothing in and tell senders to try again later (§ 6.5). Acts at once."""
    _order(scopes, ScopeState.DEFER, words, signing)


@app.command
def close(*scopes: str, words: Words, signing: Signing | None = None) -> None:
    """Take nothing in, answer nothing. Acts at once."""
    _order(scopes, ScopeState.CLOSED, words, signing)


@app.command
def drain(*scopes: str, words: Words, signing: Signing | None = None) -> None:
    """Begin nothing new and let running work end. Acts at once."""
    _order(scopes, ScopeState.DRAIN, words, signing)


@app.command
def limit(
    *scopes: str,
    permille: Annotated[int | None, Parameter(help="Share of the units that go on")] = None,
    per_hour: Annotated[int | None, Parameter(help="At most so many an hour")] = None,
    words: Words,
    signing: Signing | None = None,
) -> None:
    """Let only a share or a rate go on. Acts at once; it never opens what is more closed."""
    _order(scopes, ScopeState.LIMITED, words, signing, Limit(permille, per_hour))


def _order(
    scopes: Sequence[str], state: ScopeState, words: Words, signing: Signing | None, limit: Limit | None = None
) -> None:
    signing = signing or Signing()
    config = config_for_closing(signing.home)
    signer = signer_of(config, signing.operator, signing.operator_key)
    if signing.operator is None:
        print(said(f"unterschrieben von {signer.operator}", f"signed by {signer.operator}"), file=sys.stderr)
    command = _command(_scopes(scopes), state, words, signer.operator, utc_now(), limit)
    signed = SignedCommand(command, (sign(command, signer.operator, signer.role, read_token_key(signer.key)),))
    accepted = accept(config, signed, utc_now())
    _cut_sessions(config)
    _tell_log_trouble(config, accepted)
    faults = _promise(config, command.scopes, words.next_information, signer)
    _follow(config, accepted, signing)
    if faults is not None:  # the closing did not wait for it
        raise faults


def _promise(config: Config, scopes: Sequence[Scope], text: str, signer: Signer) -> Error | None:
    """Say by when there is news. Returns what is wrong with it: a closing is never refused for it."""
    if not text:
        return None
    try:
        promise(config, scopes, text, signer, utc_now())
    except Error as error:
        return error
    return None


@app.command
def news(
    *scopes: str,
    next_information: str,
    operator: str,
    operator_key: Path | None = None,
    home: Home = None,
) -> None:
    """Sign that those who wait for these scopes were informed now, and by when they hear more (CM-03). Opens nothing.

    Parameters
    ----------
    next_information
        Such as 90m, 4h, 2d or 2026-11-25T14:00Z.
    operator
        Whose role is communication_lead, switch_officer, lead or analyst.
    operator_key
        The operator's private key [default: operators/NAME.key of the home]
    """
    config = read_config(home or default_home())
    given = promise(config, _scopes(scopes), next_information, speaker_of(config, operator, operator_key), utc_now())
    by = f"{given.next_by:%Y-%m-%d %H:%M}Z"
    print(said(f"Nächste Information bis {by}", f"next information by {by}"))


def _command(
    scopes: Sequence[Scope], state: ScopeState, words: Words, actor: str, now: datetime, limit: Limit | None
) -> Command:
    """Nothing that somebody types in a hurry keeps a closing back: texts are cut and cleaned, not refused."""
    return Command(
        id=f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}",
        scopes=ordered(scopes),
        state=state,
        kind=Kind.DRILL if words.reason == "drill" else Kind.MANUAL,
        reason=Reason(words.reason),
        actor=actor,
        requested_at=now,
        text=_clean(words.text)[:LONGEST_TEXT],
        incident=_clean(words.incident),
        policy=_clean(words.policy),
        expected=_clean(words.expected)[:LONGEST_TEXT],
        told=tuple(map(_clean, words.told)),
        limit=limit,
    )


def _clean(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _scopes(texts: Sequence[str]) -> tuple[Scope, ...]:
    if not texts:
        raise NoScopeError("name at least one scope, such as eau, kim/-/accept or all")
    return tuple(dict.fromkeys(scope for text in texts for scope in parse_scopes(text)))


def _cut_sessions(config: Config) -> None:
    """Supplier sessions are cut first, and not only by their own watchers (SW-09, T-26)."""
    from schleuse.processes.maintenance import cut_sessions

    try:
        for one in cut_sessions(config):
            print(said(f"Wartungssitzung {one.id} beendet", f"maintenance session {one.id} cut"), file=sys.stderr)
    except Error as error:  # the command is accepted; their own watchers cut them as well
        print(f"schleuse: {error}", file=sys.stderr)


def _tell_log_trouble(config: Config, accepted: Accepted) -> None:
    """The closing is in force; where the log is damaged, it may be more than was ordered."""
    trouble = log_trouble(config)
    if trouble:
        tell_damage(
            f"Das Protokoll des Schalters ist beschädigt ({trouble}). Epoche {accepted.epoch} gilt trotzdem; Rollen,"
            " die nicht lesen können, was vorher galt, halten alles an, bis zwei Personen öffnen. Der Betrieb stellt"
            " die Datei aus switch/copies oder der Sicherung wieder her; `schleuse switch verify` nennt alles.",
            f"the log of the switch is damaged ({trouble}). Epoch {accepted.epoch} is in force all the same; roles that"
            " cannot read what was before hold everything until two persons open. The operator of this machine restores"
            " the file from switch/copies or a backup; `schleuse switch verify` tells all.",
        )


def _follow(config: Config, accepted: Accepted, signing: Signing) -> None:
    """Tell what is in force, then each worker as it gets quiet, then what is proven (SW-17)."""
    if not signing.json_output:
        print_order(accepted, unchanged(config, accepted), runs(config))
    seconds = 10.0 if signing.wait is None else signing.wait
    until = time.monotonic() + (seconds if runs(config) else 0)
    shown: set[str] = set()
    while True:
        found = progress_of(config, accepted)
        if not signing.json_output:
            print_workers(accepted, found, shown)
        if (found.quiet and found.proven) or time.monotonic() >= until:
            break
        time.sleep(LOOK_SECONDS)
    if signing.json_output:
        same = [str(one) for one in unchanged(config, accepted)]
        print(json.dumps({**describe(accepted), "unchanged": same, **progress_json(accepted, found)}))
    else:
        print_claims(accepted, found, utc_now())
    if signing.wait is not None and not found.quiet:
        sys.exit(NOT_QUIET)


@app.command
def show(*scopes: str, home: Home = None, json_output: AsJson = False) -> None:
    """Show where each scope stands, since when, by whose command, why, and whether it is proven."""
    config = read_config(home or default_home())
    switch = open_switch(config, COMMAND)
    wanted = _scopes(scopes) if scopes else ()
    rows = rows_of(config, switch.rules(), switch.entries(), wanted, utc_now())
    if json_output:
        for one in rows:
            print(json.dumps(row_json(one, utc_now())))
        return
    if switch.safe:
        print(said("Sicherer Zustand (SW-02): ", "Safe state (SW-02): ") + switch.safe)
    print_rows(rows, switch.epoch, config.control.drill_days, utc_now())


@app.command(name="log")
def show_log(*, last: int = 20, home: Home = None, json_output: AsJson = False) -> None:
    """Show the last commands.

    Parameters
    ----------
    last
        How many.
    """
    entries = switch_log(read_config(home or default_home())).read_all()[-last:]
    if json_output:
        for one in entries:
            print(json.dumps(describe(one)))
    else:
        print_entries(entries)


@app.command
def init(*, home: Home = None) -> None:
    """Make the log for a home of an older version. Refused if this home ever had a switch: it would open everything."""
    config = read_config(home or default_home())
    found = once_switched(config)
    if found:
        raise NotFreshError(f"this home has a switch: {', '.join(found)}; `switch verify` says what is wrong with it")
    create_log(config.switch_folder / "log")
    detail = {"act": "switch.init", "user": getpass.getuser()}
    tell(config, [PLATFORM], Leaf.ADMINISTRATION, Result.GRANTED, "", detail)


@app.command
def verify(*, home: Home = None, json_output: AsJson = False) -> None:
    """Check every epoch, every copy and every database against each other. Exit code 70: something is wrong."""
    config = read_config(home or default_home())
    found = list(findings(config))
    epochs = len(switch_log(config).read_all())
    print_findings(found, epochs, json_output)
    if any(one.bad for one in found):
        sys.exit(DOES_NOT_HOLD)


@app.command(name="import")
def import_file(file: Path, *, wait: float | None = None, home: Home = None, json_output: AsJson = False) -> None:
    """Order what somebody signed elsewhere; the same file twice is one command (SW-16).

    Parameters
    ----------
    file
        Made with `switch sign` or `switch export`.
    wait
        As for `switch hold`.
    """
    signed = parse_signed(read_document(file))
    config = read_config(home or default_home()) if signed.command.opening else config_for_closing(home)
    accepted = accept(config, signed, utc_now())
    _cut_sessions(config)
    _tell_log_trouble(config, accepted)
    _follow(config, accepted, Signing(wait=wait, json_output=json_output))


@app.command(name="export")
def export_command(epoch: int, *, out: Path | None = None, home: Home = None) -> None:
    """Write the signed command of an epoch, for `switch import` on another host.

    Parameters
    ----------
    out
        File to write [default: standard output].
    """
    log = switch_log(read_config(home or default_home()))
    entry = next((one for one in log.read_all() if one.epoch == epoch), None)
    if entry is None or entry.signed is None:
        raise NoScopeError(f"epoch {epoch} is no command that can be read; `switch log` shows all")
    _write(canonical_json(entry.signed.encode()), out)


@app.command(name="sign")
def sign_command(
    *scopes: str,
    state: Literal["HOLD", "DEFER", "CLOSED", "DRAIN"],
    operator: str,
    operator_key: Path,
    role: Literal["switch_officer", "lead", "analyst"] = "lead",
    out: Path | None = None,
    words: Words,
) -> None:
    """Sign a closing on a machine that has nothing but this program and a key; `switch import` carries it out.

    Parameters
    ----------
    operator
        Name of the operator as the other machine has it configured.
    role
        One of the operator's roles there.
    out
        File to write [default: standard output].
    """
    if words.next_information:
        raise BadNewsError("a signed command takes no promise of news along; give it with `switch news` there")
    command = _command(_scopes(scopes), ScopeState(state), words, operator, utc_now(), None)
    signature = sign(command, operator, Role(role), read_token_key(operator_key))
    _write(canonical_json(SignedCommand(command, (signature,)).encode()), out)


@app.command(name="paper")
def print_paper(*, home: Home = None) -> None:
    """Print the offline procedure of this home on one page, for the safe."""
    config = read_config(home or default_home())
    mend(config, switch_log(config))
    entries = switch_log(config).read_all()
    facts = PaperFacts(
        config.home,
        config.hostname,
        _program(),
        [PaperOperator(one.name, one.roles, _fingerprint(one.public_key)) for one in config.operators],
        [(one.ik, one.name) for one in config.insurers],
        len(entries),
        entries[-1].digest if entries else "",
        utc_now(),
    )
    print(paper(facts), end="")


def _fingerprint(path: Path) -> str:
    import hashlib

    try:
        raw = read_public_key(path).public_bytes(Encoding.Raw, PublicFormat.Raw)
    except Error:
        return said("nicht lesbar", "unreadable")
    return fingerprint(hashlib.sha256(raw).digest())


def _program() -> str:
    """How this program is called again, with absolute paths: by its interpreter, because `./schleuse` may want to fetch
    what has changed, and there is no network on that day."""
    source = Path(__file__).resolve().parents[2]
    installed = source.name in ("site-packages", "dist-packages")
    return f"{'' if installed else f'env PYTHONPATH={source} '}{sys.executable} -m schleuse"


def _write(data: bytes, out: Path | None) -> None:
    if out is None:
        print(data.decode())
    else:
        out.write_bytes(data)
