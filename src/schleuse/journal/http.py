"""The read side of every log over HTTP: tlog-tiles, and the calls of witnesses in pull mode (journal.md § 5, § 9.2).

Below `/<tenant>/<shard>/`, the log's origin without its host. Everything but the checkpoints is immutable, and needs no
login: a tile shows hashes, and an entry names nobody (§ 4). Who fetches entries is told to `on_read` first (RP-07).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.journal.contracts import CODE, BeyondSizeError, JournalUnavailableError, QuarantinedError, UnknownLogError
from schleuse.journal.log import Log
from schleuse.journal.note import MAX_NOTE
from schleuse.journal.store import Journal
from schleuse.journal.successor import ENTRY, PROOF, Announced, read_announced
from schleuse.journal.tiles import WIDTH, Tile, is_in, parse_path
from schleuse.journal.tree import TreeRangeError

#: (origin, reader): entries of this log are about to be read. Raises UnavailableError if that cannot be journalled.
OnRead = Callable[[str, str], Awaitable[None]]

IMMUTABLE = {"Cache-Control": "public, max-age=31536000, immutable"}
FRESH = {"Cache-Control": "no-cache"}

#: One table for this edge; the more particular kinds stand first.
STATUS: Mapping[type[Error], int] = {
    UnknownLogError: 404,
    BeyondSizeError: 404,
    TreeRangeError: 404,
    MalformedError: 400,
    RefusedError: 403,
    ConflictError: 409,
    UnavailableError: 503,
    CorruptError: 503,
}


class JournalPages:
    """Answers requests from the journal's own loop; every answer is some positioned reads."""

    def __init__(self, journal: Journal, on_read: OnRead) -> None:
        self._journal = journal
        self._on_read = on_read

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/{tenant}/{shard}/checkpoint", self.checkpoint),
                Route("/{tenant}/{shard}/pending", self.pending),
                Route("/{tenant}/{shard}/add-cosignature", self.add_cosignature, methods=["POST"]),
                Route(f"/{{tenant}}/{{shard}}/{PROOF}", self.successor_proof),
                Route(f"/{{tenant}}/{{shard}}/{ENTRY}", self.successor_entry),
                Route("/{tenant}/{shard}/{tile:path}", self.tile),
            ],
            exception_handlers={Error: _refuse},
        )

    async def health(self, _request: Request) -> Response:
        """Figures of all logs (§ 13)."""
        return JSONResponse(self._journal.health(), headers=FRESH)

    async def checkpoint(self, request: Request) -> Response:
        """The newest note that satisfies the policy."""
        return _note(self._journal.checkpoint(self._log(request).origin))

    async def pending(self, request: Request) -> Response:
        """The newest note that we signed, with or without quorum."""
        return _note(self._journal.checkpoint(self._log(request).origin, pending=True))

    async def add_cosignature(self, request: Request) -> Response:
        """A checkpoint with lines of witnesses: 204, or 404 unknown size, 403 no known line (§ 9.2)."""
        log = self._log(request)
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_NOTE:
                return PlainTextResponse(f"a note has at most {MAX_NOTE} bytes\n", status_code=413)
        await self._journal.add_cosignature(log.origin, data)
        return Response(status_code=204)

    async def successor_proof(self, request: Request) -> Response:
        """Proof that this log announces the key of the next, under the newest note that satisfies the policy (§ 17)."""
        log = self._log(request)
        announced = _announced(log)
        return _note(self._journal.proof_file(log.origin, announced.index, announced.opening.encode()))

    async def successor_entry(self, request: Request) -> Response:
        """The announcing entry itself. It is made for everybody and about nobody: to fetch it is no reading (RP-07)."""
        log = self._log(request)
        index = _announced(log).index
        return Response(
            next(self._journal.read(log.origin, index, index + 1)),
            media_type="application/octet-stream",
            headers=FRESH,
        )

    async def tile(self, request: Request) -> Response:
        """A tile or an entry bundle of what is durable; in QUARANTINE of logs whose files a checkpoint confirms."""
        log, resource = self._log(request), parse_path(request.path_params["tile"])
        if log.damage is not None:
            raise log.damage
        if not is_in(resource, log.frontier.size):
            raise BeyondSizeError(f"{log.origin} has no {resource.path}")
        if isinstance(resource, Tile):
            return _octets(log.tree.tile(resource))
        if resource.index * WIDTH < log.minimum:
            raise BeyondSizeError(f"entries below {log.minimum} of {log.origin} are deleted after their period")
        await self._on_read(log.origin, request.client.host if request.client else "local")
        return _octets(log.entries.bundle(resource))

    def _log(self, request: Request) -> Log:
        path = f"/{request.path_params['tenant']}/{request.path_params['shard']}"
        for log in self._journal.logs():
            if log.origin[log.origin.find("/") :] == path:
                return log
        if self._journal.findings:  # nobody can say which logs there are
            raise QuarantinedError(self._journal.findings)
        raise UnknownLogError(f"no log is at {path}")


def _announced(log: Log) -> Announced:
    announced = read_announced(log.folder)
    if announced is None:
        raise BeyondSizeError(f"{log.origin} has not announced the log of the next year yet")
    return announced


def _note(data: bytes) -> Response:
    return Response(data, media_type="text/plain; charset=utf-8", headers=FRESH)


def _octets(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream", headers=IMMUTABLE)


async def _refuse(_request: Request, error: Exception) -> Response:
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    headers = {CODE: error.code} if isinstance(error, Error) else {}
    if isinstance(error, JournalUnavailableError):
        headers["Retry-After"] = "1"
    return PlainTextResponse(f"{error}\n", status_code=status, headers=headers)
