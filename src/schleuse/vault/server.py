"""The vault's socket: who is at the other end, says the kernel; what he may, says the configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from schleuse.errors import Error
from schleuse.identifiers import IK, BadIKError
from schleuse.journal.peer import peer_uid
from schleuse.vault.actors import Caller, Operation, require
from schleuse.vault.contracts import BadRequestError, Document, Named, SealedMail, VaultUnavailableError, WrappedKey
from schleuse.vault.overrides import More, Overrides
from schleuse.vault.rotation import Rotation
from schleuse.vault.service import VaultService
from schleuse.vault.wire import (
    MAX_REQUEST,
    REQUEST,
    Ask,
    EndOverride,
    Erase,
    Fetch,
    File,
    Generation,
    Insurer,
    Letter,
    Names,
    Nothing,
    Opening,
    OpenMails,
    Override,
    Pseudonym,
    Sign,
    decode,
    error_reply,
    refusal,
    reply,
)

log = structlog.get_logger()

#: Requests of one connection that are worked on at once; more stay in the socket.
IN_FLIGHT = 32
#: Octets of requests that are worked on at once, of all connections together, of each size (`SMALL`): memory that is
#: not swapped is dear.
OCTETS_IN_FLIGHT = 4 * MAX_REQUEST
#: Requests up to this pass beside larger ones, in as much room of their own: a large one may be slow to come.
SMALL = 4 << 20
#: A peer that began a request and sends nothing of it for so long is hung up on.
PROGRESS_S = 5.0
#: Of one batch.
MAX_ITEMS = 4096
#: A peer that began a request ends it by then, and takes its replies by then, or is hung up on.
PATIENCE_S = 30.0

Roles = Mapping[int, str]
Imports = Callable[[], Awaitable[list[dict[str, str]]]]


@dataclass(slots=True)
class Door:
    """Counted since the start. strangers: connections of users that have no role. refused: requests answered no.

    stranger: told the user id of each.
    """

    strangers: int = 0
    connections: int = 0
    requests: int = 0
    refused: int = 0
    stranger: Callable[[int], None] = lambda _uid: None


class Desk:
    """From the bytes of a request to those of its reply."""

    def __init__(
        self,
        service: VaultService,
        imports: Imports,
        rotation: Rotation | None = None,
        overrides: Overrides | None = None,
    ) -> None:
        self._service = service
        self._imports = imports
        self._rotation = rotation
        self._overrides = overrides
        self._operations: Mapping[int, Callable[[Caller, bytes], Awaitable[Any]]] = {
            Ask.CERTIFICATES: self._certificates,
            Ask.SIGNATURE_CERTIFICATE: self._signature_certificate,
            Ask.OPEN_MAILS: self._open_mails,
            Ask.PSEUDONYMS: self._pseudonyms,
            Ask.FILE: self._file,
            Ask.FETCH: self._fetch,
            Ask.SEAL_LETTER: self._seal_letter,
            Ask.OPEN_LETTER: self._open_letter,
            Ask.SIGN: self._sign,
            Ask.ERASE: self._erase,
            Ask.OPENING: self._opening,
            Ask.STATUS: self._status,
            Ask.IMPORT: self._import,
            Ask.ROTATE: self._rotate,
            Ask.RETIRE: self._retire,
            Ask.GENERATIONS: self._generations,
            Ask.OVERRIDE: self._override,
            Ask.END_OVERRIDE: self._end_override,
        }

    async def reply(self, caller: Caller, operation: int, request_id: int, body: bytes) -> tuple[bool, bytes]:
        """(granted, frame). Never raises: a mistake of ours is said as unavailable, and nothing of it is quoted."""
        try:
            work = self._operations.get(operation)
            if work is None:
                raise BadRequestError(f"the vault has no operation {operation}")
            return True, reply(request_id, await work(caller, body))
        except Error as error:
            return False, error_reply(request_id, error)
        except Exception as fault:  # its message may quote what it was about
            log.error("vault.mistake", operation=operation, error=type(fault).__name__, where=_where(fault))
            return False, error_reply(
                request_id, VaultUnavailableError(f"the vault failed ({type(fault).__name__}); its log says where")
            )

    async def _certificates(self, caller: Caller, body: bytes) -> Any:
        return await self._service.certificates(caller, _ik(decode(body, Insurer).ik))

    async def _signature_certificate(self, caller: Caller, body: bytes) -> Any:
        return await self._service.signature_certificate(caller, _ik(decode(body, Insurer).ik))

    async def _open_mails(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, OpenMails)
        mails = [
            SealedMail(one.delivery, WrappedKey(one.recipient, one.algorithm, one.encrypted_key))
            for one in _bounded(asked.mails)
        ]
        found = await self._service.open_mails(caller, _ik(asked.ik), mails)
        return [refusal(one) if isinstance(one, Error) else one for one in found]

    async def _pseudonyms(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Names)
        named = [Named(one.person, one.content, one.practice) for one in _bounded(asked.named)]
        found = await self._service.pseudonyms(caller, _ik(asked.ik), named)
        return [Pseudonym(one.subject, one.content, one.practice) for one in found]

    async def _file(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, File)
        documents = [Document(one.subject, one.name, one.form, one.plaintext) for one in _bounded(asked.documents)]
        return await self._service.file(caller, _ik(asked.ik), documents)

    async def _fetch(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Fetch)
        return await self._service.fetch(caller, _ik(asked.ik), asked.token, asked.name, asked.form, asked.container)

    async def _seal_letter(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Letter)
        return await self._service.seal_letter(caller, _ik(asked.ik), asked.name, asked.content)

    async def _open_letter(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Letter)
        return await self._service.open_letter(caller, _ik(asked.ik), asked.name, asked.content)

    async def _sign(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Sign)
        return await self._service.sign(caller, _ik(asked.ik), asked.data)

    async def _erase(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Erase)
        return await self._service.erase(caller, _ik(asked.ik), asked.token, asked.person)

    async def _opening(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Opening)
        return await self._service.opening(caller, _ik(asked.ik), asked.token, asked.event)

    async def _status(self, caller: Caller, body: bytes) -> Any:
        decode(body, Nothing)
        return await self._service.status(caller)

    async def _import(self, caller: Caller, body: bytes) -> Any:
        decode(body, Nothing)
        require(caller, Operation.IMPORT)
        return await self._imports()

    async def _rotate(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Generation)
        return await self._turning().renew(caller, asked.tokens, asked.generation)

    async def _retire(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Generation)
        return await self._turning().retire(caller, asked.tokens, asked.generation)

    async def _generations(self, caller: Caller, body: bytes) -> Any:
        decode(body, Nothing)
        return await self._turning().status(caller)

    async def _override(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Override)
        more = More(asked.role, asked.releases, asked.hours, asked.reason)
        return await self._overriding().begin(caller, _ik(asked.ik), more, asked.tokens)

    async def _end_override(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, EndOverride)
        return await self._overriding().end(caller, _ik(asked.ik), asked.role, asked.token)

    def _overriding(self) -> Overrides:
        if self._overrides is None:
            raise BadRequestError("nobody can exceed a budget at this vault")
        return self._overrides

    def _turning(self) -> Rotation:
        if self._rotation is None:
            raise BadRequestError("this vault's key encryption key has no generations")
        return self._rotation


def _ik(text: str) -> IK:
    try:
        return IK(text)
    except BadIKError as cause:
        raise BadRequestError("the request names no Institutionskennzeichen") from cause


def _bounded(items: list[Any]) -> list[Any]:
    if len(items) > MAX_ITEMS:
        raise BadRequestError(f"found {len(items)} in one request; the vault takes {MAX_ITEMS} at a time")
    return items


def _where(fault: BaseException) -> str:
    """The line of ours that failed."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


class _Room:
    """How many octets of requests are in memory. One request always fits."""

    def __init__(self, octets: int) -> None:
        self._limit = octets
        self._taken = 0
        self._changed = asyncio.Condition()

    async def take(self, octets: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._taken or self._taken + octets <= self._limit)
            self._taken += octets

    async def give(self, octets: int) -> None:
        async with self._changed:
            self._taken -= octets
            self._changed.notify_all()


@dataclass(slots=True)
class _Ended:
    """How a connection ends: its reading, then what it is still owed."""

    reading: asyncio.Task[None] | None = None
    whole: asyncio.Event = field(default_factory=asyncio.Event)


class _Server:
    def __init__(self, desk: Desk, roles: Roles, door: Door, octets: int, progress_s: float) -> None:
        self._desk = desk
        self._roles = roles
        self._door = door
        self._large, self._small = _Room(octets), _Room(octets)
        self._progress_s = progress_s
        self._open_ones: dict[asyncio.StreamWriter, _Ended] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until its end."""
        uid = peer_uid(writer.get_extra_info("socket"))
        role = self._roles.get(uid)
        if role is None:
            self._door.strangers += 1
            log.error("vault.stranger", uid=uid)
            writer.transport.abort()
            self._door.stranger(uid)
            return
        self._door.connections += 1
        ended = self._open_ones[writer] = _Ended()
        try:
            async with asyncio.TaskGroup() as group:  # what was asked is done, though nobody may hear of it any more
                ended.reading = group.create_task(self._read(reader, writer, Caller(role, uid), group))
        finally:
            self._door.connections -= 1
            del self._open_ones[writer]
            writer.close()
            ended.whole.set()

    async def close(self, patience_s: float) -> None:
        """Read no more requests, and end those that are worked on, as far as patience goes."""
        waiting = list(self._open_ones.values())
        for one in waiting:
            if one.reading is not None:
                one.reading.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                for one in waiting:
                    await one.whole.wait()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller, group: asyncio.TaskGroup
    ) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            await self._requests(reader, writer, caller, group)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller, group: asyncio.TaskGroup
    ) -> None:
        places = asyncio.Semaphore(IN_FLIGHT)
        while True:
            length, operation, request_id = REQUEST.unpack(await reader.readexactly(REQUEST.size))
            if length > MAX_REQUEST:  # whatever follows, it is not the next request
                log.error("vault.oversized", octets=length, uid=caller.uid)
                error = BadRequestError(f"found a request of {length} octets; the vault takes {MAX_REQUEST} at a time")
                self._door.refused += 1
                await _send(writer, error_reply(request_id, error))
                return
            await places.acquire()
            room = self._small if length <= SMALL else self._large
            await room.take(length)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    body = await self._body(reader, length)
            except BaseException:
                await room.give(length)
                raise
            task = group.create_task(self._answer(writer, caller, operation, request_id, body))
            task.add_done_callback(lambda _task: places.release())

    async def _body(self, reader: asyncio.StreamReader, length: int) -> bytes:
        """Raises TimeoutError if it stops coming, IncompleteReadError."""
        body = bytearray()
        while len(body) < length:
            async with asyncio.timeout(self._progress_s):
                some = await reader.read(length - len(body))
            if not some:
                raise asyncio.IncompleteReadError(b"", length)
            body += some
        return bytes(body)

    async def _answer(
        self, writer: asyncio.StreamWriter, caller: Caller, operation: int, request_id: int, body: bytes
    ) -> None:
        self._door.requests += 1
        try:
            granted, frame = await self._desk.reply(caller, operation, request_id, body)
            self._door.refused += not granted
            await _send(writer, frame)
        finally:
            await (self._small if len(body) <= SMALL else self._large).give(len(body))


async def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(frame)
            await writer.drain()
    except (ConnectionError, TimeoutError, RuntimeError):
        writer.transport.abort()


@asynccontextmanager
async def listen(
    path: Path,
    desk: Desk,
    roles: Roles,
    door: Door | None = None,
    *,
    mode: int = 0o660,
    octets: int = OCTETS_IN_FLIGHT,
    progress_s: float = PROGRESS_S,
    patience_s: float = 3.0,
) -> AsyncIterator[None]:
    """Serve until the block is left; what is worked on then is ended first. roles: by user id. Raises OSError.

    A socket file that a dead process left behind is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    server = _Server(desk, roles, door or Door(), octets, progress_s)
    listening = await asyncio.start_unix_server(server.serve, str(path), limit=1 << 20, backlog=128)
    os.chmod(path, mode)
    try:
        yield
    finally:
        listening.close()
        path.unlink(missing_ok=True)
        await server.close(patience_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await listening.wait_closed()
