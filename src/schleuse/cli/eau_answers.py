"""`schleuse eau answers IK`: what followed employers' requests, and which of them still wait for an answer."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from schleuse.cli.eau_feed import Given, access_of
from schleuse.cli.up import said
from schleuse.eau.feed_client import FeedConnection
from schleuse.identifiers import IK


def answers(
    ik: Annotated[str, Parameter(help="Institutionskennzeichen of the insurer")],
    *,
    given: Given | None = None,
    after: Annotated[int | None, Parameter(help="Cursor [default: what this client has acknowledged]")] = None,
    waiting: Annotated[bool, Parameter(name="--open", negative="", help="Requests with an interim answer")] = False,
    json_lines: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object per line")] = False,
) -> None:
    """List the answers that followed employers' requests by themselves, or the requests that still wait for one."""
    insurer = IK(ik)
    with FeedConnection(access_of(insurer, given or Given()), insurer) as connection:
        if waiting:
            for request in connection.open_requests():
                until = request.until.isoformat(timespec="minutes")
                line = f"{request.request}  {request.code}  {said('bis', 'until')} {until}"
                print(request.model_dump_json() if json_lines else line)
            return
        for one in connection.follow_ups(after):
            answer = one.answer
            documents = " ".join(each.document_id for each in answer.certificates)
            line = f"{one.seq}  {answer.request}  {answer.code} {answer.meaning}  {documents}"
            print(one.model_dump_json() if json_lines else line)
