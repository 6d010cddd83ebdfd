"""`schleuse eau feed IK`: what the insurer's own system fetches."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from schleuse.cli.up import said
from schleuse.clock import utc_now
from schleuse.config import Config, default_home, read_config
from schleuse.eau.feed_client import FeedAccess, FeedConnection, Signature
from schleuse.eau.feed_views import EventView
from schleuse.errors import UnavailableError
from schleuse.identifiers import IK
from schleuse.vault.tokens import TokenKeyError, audience, read_token_key


class UnreadableAccessError(UnavailableError):
    """The key of this client, its name or the trust anchor of the feed cannot be read."""

    code = "cli.unreadable-access"


@Parameter(name="*")
@dataclass(frozen=True)
class Given:
    """How an insurer's system reaches the feed. None: as the configuration of the home says."""

    home: Annotated[Path | None, Parameter(help="Folder of the configuration [default: the user's]")] = None
    url: Annotated[str | None, Parameter(help="https://HOST:PORT of the feed [default: as configured]")] = None
    key_file: Annotated[
        Path | None, Parameter(help="Ed25519 key that signs the requests [default: insurers/IK/feed.key of the home]")
    ] = None
    client: Annotated[str | None, Parameter(help="Name of this client [default: the first as configured]")] = None
    platform: Annotated[str | None, Parameter(help="Host name of the platform [default: as configured]")] = None
    ca_file: Annotated[Path | None, Parameter(help="Trust anchor of the server [default: as configured]")] = None

    @property
    def folder(self) -> Path:
        """The home."""
        return self.home or default_home()

    @cached_property
    def config(self) -> Config:
        """Read only if it is needed: an insurer has none."""
        return read_config(self.folder)


def feed(
    ik: Annotated[str, Parameter(help="Institutionskennzeichen of the insurer")],
    *,
    given: Given | None = None,
    after: Annotated[int | None, Parameter(help="Cursor [default: what this client has acknowledged]")] = None,
    get: Annotated[str | None, Parameter(help="Fetch this document instead of the list")] = None,
    form: Annotated[Literal["xml", "p7s"], Parameter(name="--format", help="Of the document")] = "xml",
    output: Annotated[Path | None, Parameter(help="Write the document to this file")] = None,
    ack: Annotated[bool, Parameter(negative="", help="Acknowledge what was listed, so that it is not again")] = False,
    json_lines: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object per line")] = False,
) -> None:
    """List an insurer's eAU and Storno in acceptance order, fetch one, acknowledge them."""
    insurer = IK(ik)
    with FeedConnection(access_of(insurer, given or Given()), insurer) as connection:
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
            print(f"{said('bestätigt bis', 'acknowledged up to')} {cursor}", file=sys.stderr)


def access_of(ik: IK, given: Given) -> FeedAccess:
    key_file = given.key_file or given.folder / "insurers" / ik.value / "feed.key"
    try:
        signature = Signature(
            given.client or _client_name(ik, given.config),
            read_token_key(key_file),
            audience(given.platform or given.config.hostname),
            utc_now,
        )
        tls = ssl.create_default_context(cafile=given.ca_file or given.config.eau.submit_ca)
    except (OSError, ValueError, TokenKeyError) as cause:
        raise UnreadableAccessError(
            f"the key or the trust anchor of the feed cannot be read ({cause or type(cause).__name__}); "
            "see --key-file and --ca-file"
        ) from cause
    return FeedAccess(given.url or f"https://{given.config.eau.feed}", signature, tls)


def _client_name(ik: IK, config: Config) -> str:
    for insurer in config.insurers:
        if insurer.ik == ik.value and insurer.feed_clients:
            return insurer.feed_clients[0].name
    raise UnreadableAccessError(f"the configuration has no client of the feed of {ik}; see --client")


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
    title = said(f"{len(events)} Ereignisse für {ik}", f"{len(events)} events for {ik}")
    table = Table(title=title, title_justify="left")
    table.add_column("#", justify="right")
    for column in (said("angenommen", "accepted"), said("Art", "kind"), said("Dokumenten-ID", "document id")):
        table.add_column(column, no_wrap=True)
    table.add_column(said("Hinweis", "note"))
    for event in events:
        accepted = event.accepted_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        kind = "eAU" if event.kind == "eau" else "Storno"
        table.add_row(str(event.seq), accepted, kind, event.document_id.removeprefix("urn:uuid:"), _note(event))
    return table


def _note(event: EventView) -> str:
    if event.cancels:
        return f"{said('storniert', 'cancels')} {event.cancels.removeprefix('urn:uuid:')}"
    if event.state == "cancelled":
        return said("storniert", "cancelled")
    if event.possibly_same_as:
        return said("vielleicht dieselbe wie ", "maybe the same as ") + event.possibly_same_as
    if event.possibly_on_paper:
        return said("vielleicht auf Papier: ", "maybe on paper: ") + event.possibly_on_paper
    return ""
