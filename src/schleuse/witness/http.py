"""The witness over HTTP: push mode and the monitoring side of C2SP tlog-witness, status codes exactly (§ 9.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import sha256

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from schleuse.errors import Error, MalformedError
from schleuse.journal.note import NoteRefusedError
from schleuse.journal.witness_request import MAX_REQUEST, parse_witness_request
from schleuse.witness.decision import Conflict, Contradiction
from schleuse.witness.service import Cosigned, UnknownOriginError, Witness

log = structlog.get_logger()

SIZE_TYPE = "text/x.tlog.size"  #: of the body of a 409

#: One table for this edge; every other kind is our own trouble, and 500.
STATUS: Mapping[type[Error], int] = {MalformedError: 400, UnknownOriginError: 404, NoteRefusedError: 403}


class WitnessPages:
    """Answers logs, other witnesses and monitors. origins: the logs that are configured, now and then."""

    def __init__(self, witness: Witness, origins: Collection[str]) -> None:
        self._witness = witness
        self._origins = origins

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/add-checkpoint", self.add_checkpoint, methods=["POST"]),
                Route("/{origin_hash}/checkpoint", self.checkpoint),
            ],
            exception_handlers={Error: _refuse},
        )

    async def add_checkpoint(self, request: Request) -> Response:
        """Cosign, or say why not."""
        body = await _body(request)
        # In a thread: the commit waits for the disk.
        answer = await run_in_threadpool(lambda: self._witness.add_checkpoint(parse_witness_request(body)))
        match answer:
            case Cosigned(lines=lines):
                return PlainTextResponse("".join(map(str, lines)))
            case Conflict(size):
                return Response(f"{size}\n", 409, headers={"Content-Type": SIZE_TYPE})
            case Contradiction(reason=reason):
                return PlainTextResponse(f"{reason}\n", 422)

    async def checkpoint(self, request: Request) -> Response:
        """The latest checkpoint that we cosigned, with the log's line and ours."""
        asked = request.path_params["origin_hash"]
        origin = next((one for one in list(self._origins) if sha256(one.encode()).hexdigest() == asked), None)
        last = None if origin is None else await run_in_threadpool(self._witness.last, origin)
        if last is None:
            return PlainTextResponse("no checkpoint of this log was cosigned here\n", 404)
        return Response(
            last.note.encode(), media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache"}
        )


async def _body(request: Request) -> bytes:
    """At most one byte more than a request may have, which its parser then refuses."""
    data = b""
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_REQUEST:
                return data[: MAX_REQUEST + 1]
    except ClientDisconnect:
        return b""  # nobody hears the answer
    return data


async def _refuse(_request: Request, error: Exception) -> Response:
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    if status == 500:
        log.error("witness.failed", code=getattr(error, "code", "?"), reason=str(error))
        return PlainTextResponse("this witness cannot cosign now\n", 500)
    return PlainTextResponse(f"{error}\n", status)
