"""`schleuse practice send` and `schleuse practice status`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random, SystemRandom
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Table

from schleuse.cli.up import german
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.errors import MalformedError, UnavailableError
from schleuse.kim.directory import DirectoryFile
from schleuse.mail.smime.trust import TrustStore
from schleuse.practice.documents import Insurer
from schleuse.practice.faults import FAULTS, Fault
from schleuse.practice.identity import Identity, load_practice
from schleuse.practice.inbox import note, read_answer
from schleuse.practice.ledger import Ledger, Progress
from schleuse.practice.mailing import Addressee
from schleuse.practice.outbox import Order, Prepared, fault_names, hand_over, prepare
from schleuse.practice.transport import Server, mailbox, submission

app = App(name="practice", help="A practice: send real eAU, see what became of them.")

Home = Annotated[Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")]
Json = Annotated[bool, Parameter(name="--json", help="One JSON object a line")]
Name = Annotated[str | None, Parameter(help="Which practice of the home [default: the first]")]


class UnknownFaultError(MalformedError):
    """No fault of that name; `practice send --faulty list` shows them."""

    code = "cli.unknown-fault"


class NotAllAcceptedError(UnavailableError):
    """The mail server did not take all mails; `practice status` says which, and they can be sent again."""

    code = "cli.not-all-accepted"


@app.command
def send(
    *,
    count: int = 1,
    faulty: Annotated[
        str | None, Parameter(help="Send one broken mail on top; `--faulty list` shows what can break")
    ] = None,
    to: Annotated[str | None, Parameter(help="IK of the insurer [default: the first]")] = None,
    storno: Annotated[int, Parameter(help="How many of them to cancel again")] = 0,
    version: Literal["1.2", "1.1.0"] = "1.2",
    seed: Annotated[int | None, Parameter(help="Makes the documents repeatable")] = None,
    practice: Name = None,
    home: Home = None,
    json_output: Json = False,
) -> None:
    """Build, sign, encrypt and send eAU as a practice does."""
    if faulty == "list":
        _list_faults()
        return
    config = read_config(home or default_home())
    identity = load_practice(config, practice)
    order = _order(config, count, to, storno, version, _fault(faulty))
    # Invented documents are no secret; a seed makes a run repeatable.
    rng: Random = SystemRandom() if seed is None else Random(seed)  # noqa: S311
    accepted = asyncio.run(_send(config, identity, order, rng, json_output))
    total = count + min(storno, count) + (order.fault is not None)
    if not json_output:
        print(
            f"{accepted} von {total} Mails angenommen. Quittungen und Fehler: schleuse practice status"
            if german()
            else f"{accepted} of {total} mails accepted. Receipts and errors: schleuse practice status"
        )
    if accepted < total:
        raise NotAllAcceptedError(f"{total - accepted} of {total} mails were not accepted; `practice status` says why")


@app.command
def status(*, practice: Name = None, home: Home = None, json_output: Json = False, keep: bool = False) -> None:
    """Fetch the mailbox, match receipts (DSN) and errors, and show what became of each mail.

    Parameters
    ----------
    keep
        Leave the fetched mails in the mailbox.
    """
    config = read_config(home or default_home())
    identity = load_practice(config, practice)
    ledger = _ledger(config, identity)
    trust = TrustStore.from_files(config.eau.trust)
    with mailbox(_server(config, identity)) as client:
        for number in range(1, client.stat()[0] + 1):
            raw = b"\r\n".join(client.retr(number)[1]) + b"\r\n"
            note(read_answer(raw, identity, trust, utc_now()), ledger)
            if not keep:
                client.dele(number)
    if json_output:
        for sent in ledger.mails.values():
            print(json.dumps(asdict(sent), ensure_ascii=False))
        return
    Console().print(_table(ledger))
    print(_summary(ledger))


async def _send(config: Config, identity: Identity, order: Order, rng: Random, json_output: bool) -> int:
    ledger = _ledger(config, identity)
    accepted = 0
    total = order.count + min(order.stornos, order.count) + (order.fault is not None)
    mails: Any = prepare(identity, order, rng, utc_now)
    if not json_output:
        mails = track(mails, "eAU …", total=total, console=Console(stderr=True), transient=True)
    async with submission(_server(config, identity)) as session:
        mail: Prepared
        for mail in mails:
            reply = await hand_over(session, identity, mail, ledger)
            accepted += reply.accepted
            if json_output:
                print(json.dumps(asdict(ledger.mails[mail.sent.message_id]), ensure_ascii=False))
            elif not reply.accepted:
                print(f"{mail.sent.document_id}: {reply.code} {reply.text}", file=sys.stderr)
    return accepted


def _order(
    config: Config, count: int, ik: str | None, stornos: int, version: Literal["1.2", "1.1.0"], fault: Fault | None
) -> Order:
    directory = DirectoryFile(config.kim.directory).current()
    chosen = next((one for one in config.insurers if ik in (None, one.ik)), None)
    name = chosen.name if chosen else "Krankenkasse"
    number = chosen.ik if chosen else str(ik)
    address = directory.insurer_address(number)
    to = Addressee(address, directory.certificates(address)[0])
    prefix: Literal["E", "T"] = "E" if config.environment.prefix == "E" else "T"
    return Order(count, Insurer(number, name), to, prefix, version, stornos, fault)


def _fault(name: str | None) -> Fault | None:
    if name is None:
        return None
    if name not in FAULTS:
        raise UnknownFaultError(f"--faulty {name}: expected one of {', '.join(fault_names())}")
    return FAULTS[name]


def _list_faults() -> None:
    table = Table("--faulty", "Fehlercode" if german() else "code", "was" if german() else "what", box=None)
    for name in fault_names():
        fault = FAULTS[name]
        table.add_row(name, str(fault.code or "-"), fault.german if german() else fault.english)
    Console().print(table)


def _server(config: Config, identity: Identity) -> Server:
    return Server(config.kim.smtp_tls, config.kim.pop3_tls, config.eau.submit_ca, identity.address, identity.password)


def _ledger(config: Config, identity: Identity) -> Ledger:
    return Ledger(config.home / "practices" / identity.name / "sent.jsonl")


_WORDS = {
    Progress.SENDING: ("unterwegs", "sending", "white"),
    Progress.SENT: ("angenommen", "accepted", "cyan"),
    Progress.DEFERRED: ("aufgeschoben", "deferred", "yellow"),
    Progress.DELIVERED: ("✓ im Postfach der Kasse", "✓ in the insurer's mailbox", "green"),
    Progress.FAILED: ("✗ unzustellbar", "✗ undeliverable", "red"),
    Progress.FAULTY: ("✗ Fehlernachricht", "✗ error message", "red"),
}


def _word(progress: Progress) -> str:
    return _WORDS[progress][0 if german() else 1]


def _table(ledger: Ledger) -> Table:
    de = german()
    table = Table(
        "gesendet (UTC)" if de else "sent (UTC)", "Art" if de else "kind", "Dokumenten-ID", "Stand" if de else "state",
        "Code", box=None, pad_edge=False,
    )  # fmt: skip
    for sent in ledger.mails.values():
        style = _WORDS[sent.progress][2]
        table.add_row(
            sent.sent_at[:19].replace("T", " "),
            sent.kind + (f" ({sent.fault})" if sent.fault else ""),
            sent.document_id.removeprefix("urn:uuid:"),
            f"[{style}]{_word(sent.progress)}[/]",
            (sent.code or "") if sent.progress is not Progress.DELIVERED else "",
        )
    return table


def _summary(ledger: Ledger) -> str:
    counts = Counter(sent.progress for sent in ledger.mails.values())
    return " · ".join(f"{number} {_word(progress)}" for progress, number in counts.items()) or (
        "noch nichts gesendet" if german() else "nothing sent yet"
    )
