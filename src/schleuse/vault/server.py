"""The vault's socket: who is at the other end, says the kernel; what he may, says the configuration."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from schleuse.errors import Error
from schleuse.identifiers import IK, BadIKError
from schleuse.journal.server import peer_uid
from schleuse.vault.actors import Caller
from schleuse.vault.contracts import BadRequestError, Document, Named, SealedMail, VaultUnavailableError, WrappedKey
from schleuse.vault.service import VaultService
from schleuse.vault.wire import (
    DONE,
    MAX_BODY,
    REFUSED,
    REPLY,
    REQUEST,
    Ask,
    Erase,
    Fetch,
    File,
    Insurer,
    Letter,
    Names,
    Nothing,
    Opening,
    OpenMails,
    Pseudonym,
    Sign,
    decode,
    encode,
    refusal,
)

log = structlog.get_logger()

#: Requests of one connection that are worked on at once; more stay in the socket.
IN_FLIGHT = 32

Roles = Mapping[int, str]


class _Desk:
    """From the bytes of a request to those of its answer."""

    def __init__(self, service: VaultService) -> None:
        self._service = service
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
        }

    async def answer(self, caller: Caller, operation: int, body: bytes) -> tuple[int, bytes]:
        """(status, body). Never raises: a mistake of ours is said as unavailable, and nothing of it is quoted."""
        try:
            work = self._operations.get(operation)
            if work is None:
                raise BadRequestError(f"the vault has no operation {operation}")
            return DONE, encode(await work(caller, body))
        except Error as error:
            return REFUSED, encode(refusal(error))
        except Exception as fault:
            log.error("vault.mistake", operation=operation, error=type(fault).__name__)
            return REFUSED, encode(refusal(VaultUnavailableError(f"the vault failed ({type(fault).__name__})")))

    async def _certificates(self, caller: Caller, body: bytes) -> Any:
        return await self._service.certificates(caller, _ik(decode(body, Insurer).ik))

    async def _signature_certificate(self, caller: Caller, body: bytes) -> Any:
        return await self._service.signature_certificate(caller, _ik(decode(body, Insurer).ik))

    async def _open_mails(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, OpenMails)
        mails = [
            SealedMail(one.delivery, WrappedKey(one.recipient, one.algorithm, one.encrypted_key)) for one in asked.mails
        ]
        found = await self._service.open_mails(caller, _ik(asked.ik), mails)
        return [refusal(one) if isinstance(one, Error) else one for one in found]

    async def _pseudonyms(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, Names)
        named = [Named(one.person, one.content, one.practice) for one in asked.named]
        found = await self._service.pseudonyms(caller, _ik(asked.ik), named)
        return [Pseudonym(one.subject, one.content, one.practice) for one in found]

    async def _file(self, caller: Caller, body: bytes) -> Any:
        asked = decode(body, File)
        documents = [Document(one.subject, one.name, one.form, one.plaintext) for one in asked.documents]
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


def _ik(text: str) -> IK:
    try:
        return IK(text)
    except BadIKError as cause:
        raise BadRequestError("the request names no Institutionskennzeichen") from cause


class _Server:
    def __init__(self, service: VaultService, roles: Roles) -> None:
        self._desk = _Desk(service)
        self._roles = roles
        self.connections: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until its end."""
        uid = peer_uid(writer.get_extra_info("socket"))
        role = self._roles.get(uid)
        if role is None:
            log.error("vault.stranger", uid=uid)
            writer.transport.abort()
            return
        self.connections.add(writer)
        places = asyncio.Semaphore(IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    while True:
                        head = REQUEST.unpack(await reader.readexactly(REQUEST.size))
                        if head[0] > MAX_BODY:
                            log.error("vault.oversized", octets=head[0])
                            break
                        body = await reader.readexactly(head[0])
                        await places.acquire()
                        work = self._answer(writer, Caller(role, uid), head[1], head[2], body)
                        group.create_task(work).add_done_callback(lambda _task: places.release())
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, caller: Caller, operation: int, request_id: int, body: bytes
    ) -> None:
        status, answer = await self._desk.answer(caller, operation, body)
        with suppress(ConnectionError, RuntimeError):
            writer.write(REPLY.pack(len(answer), status, request_id) + answer)
            await writer.drain()


@asynccontextmanager
async def listen(path: Path, service: VaultService, roles: Roles, *, mode: int = 0o660) -> AsyncIterator[None]:
    """Serve until the block is left. roles: by user id. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    server = _Server(service, roles)
    listening = await asyncio.start_unix_server(server.serve, str(path), limit=1 << 20)
    os.chmod(path, mode)
    try:
        yield
    finally:
        listening.close()
        for writer in list(server.connections):
            writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await listening.wait_closed()
        path.unlink(missing_ok=True)
