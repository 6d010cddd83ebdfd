"""`schleuse eau feed IK`: what the insurer's own system fetches."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from schleuse.config import default_home, read_config
from schleuse.eau.feed_client import FeedAccess, FeedConnection
from schleuse.eau.feed_views import EventView
from schleuse.errors import UnavailableError
from schleuse.identifiers import IK


class UnreadableAccessError(UnavailableError):
    """The token or the trust anchor cannot be read."""

    code = "cli.unreadable-access"


def feed(
    ik: Annotated[str, Parameter(help="Institutionskennzeichen of the insurer")],
    *,
    home: Annotated[Path | None, Parameter(help="Folder of the configuration [default: the user's]")] = None,
    url: Annotated[str | None, Parameter(help="https://HOST:PORT of the feed [default: as configured]")] = None,
    token_file: Annotated[Path | None, Parameter(help="[default: insurers/IK/feed.token of the home]")] = None,
    ca_file: Annotated[Path | None, Parameter(help="Trust anchor of the server [default: as configured]")] = None,
    after: Annotated[int | None, Parameter(help="Cursor [default: what this client has acknowledged]")] = None,
    get: Annotated[str | None, Parameter(help="Fetch this document instead of the list")] = None,
    form: Annotated[Literal["xml", "p7s"], Parameter(name="--format", help="Of the document")] = "xml",
    output: Annotated[Path | None, Parameter(help="Write the document to this file")] = None,
    ack: Annotated[bool, Parameter(negative="", help="Acknowledge what was listed, so that it is not again")] = False,
    json_lines: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object per line")] = False,
) -> None:
    """List an insurer's eAU and Storno in acceptance order, fetch one, acknowledge them."""
    insurer = IK(ik)
    with FeedConnection(_access(insurer, home or default_home(), url, token_file, ca_file), insurer) as connection:
        if get is not None:
            _write(connection.document(get, form), output)
            return
        events = list(connection.events(after))
        if json_lines:
            _print_lines(events)
        else:
            Console().print(_table(events, insurer))
        if ack and events:
            cursor = connection.ack(events[-1].seq)
            print(f"{_word('bestätigt bis', 'acknowledged up to')} {cursor}", file=sys.stderr)


def _access(ik: IK, home: Path, url: str | None, token_file: Path | None, ca_file: Path | None) -> FeedAccess:
    if url is None or ca_file is None:
        config = read_config(home)
        url = url or f"https://{config.eau.feed}"
        ca_file = ca_file or config.eau.submit_ca
    token_file = token_file or home / "insurers" / ik.value / "feed.token"
    try:
        return FeedAccess(url, token_file.read_text("ascii").strip(), ssl.create_default_context(cafile=ca_file))
    except (OSError, ValueError) as cause:
        raise UnreadableAccessError(
            f"the token or the trust anchor of the feed cannot be read ({type(cause).__name__}); "
            "see --token-file and --ca-file"
        ) from cause


def _write(document: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(document)
        sys.stdout.buffer.flush()
    else:
        output.write_bytes(document)


def _print_lines(events: Iterable[EventView]) -> None:
    for event in events:
        print(event.model_dump_json())


def _table(events: list[EventView], ik: IK) -> Table:
    title = _word(f"{len(events)} Ereignisse für {ik}", f"{len(events)} events for {ik}")
    table = Table(title=title, title_justify="left")
    table.add_column("#", justify="right")
    for column in (_word("angenommen", "accepted"), _word("Art", "kind"), _word("Dokumenten-ID", "document id")):
        table.add_column(column, no_wrap=True)
    table.add_column(_word("Hinweis", "note"))
    for event in events:
        accepted = event.accepted_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        kind = "eAU" if event.kind == "eau" else "Storno"
        table.add_row(str(event.seq), accepted, kind, event.document_id.removeprefix("urn:uuid:"), _note(event))
    return table


def _note(event: EventView) -> str:
    if event.cancels:
        return f"{_word('storniert', 'cancels')} {event.cancels.removeprefix('urn:uuid:')}"
    if event.state == "cancelled":
        return _word("storniert", "cancelled")
    if event.possibly_same_as:
        return _word("vielleicht dieselbe wie ", "maybe the same as ") + event.possibly_same_as
    return ""


def _word(german: str, english: str) -> str:
    return english if os.environ.get("SCHLEUSE_LANG", "de").lower() == "en" else german
