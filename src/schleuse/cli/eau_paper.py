"""`schleuse eau paper IK`: an insurer tells what came on paper, and sees which eAU may be the same (HD-05)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from schleuse.cli.eau_feed import Given, access_of
from schleuse.cli.up import said
from schleuse.eau.feed_client import FeedConnection
from schleuse.eau.feed_views import PaperView
from schleuse.errors import Error, MalformedError, UnavailableError
from schleuse.identifiers import IK


class UnreadablePaperError(UnavailableError):
    """The file with certificates on paper cannot be read; who typed the command names another."""

    code = "cli.unreadable-paper"


class BadPaperLineError(MalformedError):
    """A line is no JSON object with a `reference`; whoever made the file changes it. The lines before it were told."""

    code = "cli.bad-paper-line"


def paper(
    ik: Annotated[str, Parameter(help="Institutionskennzeichen of the insurer")],
    file: Annotated[Path | None, Parameter(help="JSON Lines to tell, - for standard input [default: list all]")] = None,
    *,
    given: Given | None = None,
    json_lines: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object per line")] = False,
) -> None:
    """Tell which certificates came on paper, or list those that were told, each with the eAU that may be the same.

    A line has what the barcode says: reference (the insurer's own name of the scan), kvnr, practice (BSNR), starts_on,
    ends_on, kind (ERST, FOLGE, ERST_END, FOLGE_END) and diagnoses. Nothing but a pseudonym of it is kept.
    """
    insurer = IK(ik)
    with FeedConnection(access_of(insurer, given or Given()), insurer) as connection:
        found = connection.papers() if file is None else _told(connection, file)
        if json_lines:
            for one in found:
                print(one.model_dump_json())
        else:
            Console().print(_table(list(found), insurer))


def _told(connection: FeedConnection, file: Path) -> Iterator[PaperView]:
    for number, line in enumerate(_lines(file), 1):
        try:
            table = json.loads(line)
            reference = str(table.pop("reference"))
        except (ValueError, KeyError, AttributeError, TypeError) as cause:
            raise BadPaperLineError(f"line {number} is no JSON object with a reference") from cause
        try:
            yield connection.tell_paper(reference, json.dumps(table).encode())
        except Error as error:
            raise type(error)(f"line {number}: {error}") from error


def _lines(file: Path) -> Iterable[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise UnreadablePaperError(f"{file} cannot be read ({type(cause).__name__})") from cause
    return (line for line in text.splitlines() if line.strip())


def _table(papers: list[PaperView], ik: IK) -> Table:
    title = said(f"{len(papers)} auf Papier für {ik}", f"{len(papers)} on paper for {ik}")
    table = Table(title=title, title_justify="left")
    for column in ("#", said("Zeichen", "reference"), said("vielleicht dieselbe wie", "maybe the same as")):
        table.add_column(column)
    for one in papers:
        same = "\n".join(id.removeprefix("urn:uuid:") for id in one.possibly_same_as)
        table.add_row(str(one.number), one.reference, same or "–")
    return table
