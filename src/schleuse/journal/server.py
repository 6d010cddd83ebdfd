"""The journal's socket: one pipelined connection per client, one write for all replies of a group (journal.md § 13)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, cast

from schleuse.errors import Error
from schleuse.journal.admission import RESERVED, is_for_journal_only, share_request
from schleuse.journal.contracts import BadRequestError, Level, NotAllowedError
from schleuse.journal.entry import FIXED, BadEntryError, ExtensionType, check_layout
from schleuse.journal.peer import peer_uid
from schleuse.journal.shares import KeyShares
from schleuse.journal.store import Journal
from schleuse.journal.wire import QUESTION, REPLY, REQUEST, WAIT, WAIT_FIELDS, WHICH_NUMBER, WHICH_TAKES, error_reply

MAX_WAIT_MS = 60_000
LAST_ID = 2**64 - 1  #: the largest request id (§ 13)
MAX_NAME = 255  #: bytes; the length of what a reply carries is one byte (§ 13)


@dataclass(frozen=True, slots=True)
class Peers:
    """Which users may connect, and which of them is the vault: only it may write kinds 0x2* and gets key shares."""

    writers: frozenset[int]
    vaults: frozenset[int]


class Connection(asyncio.Protocol):
    """One client; a `log.Sink` whose tokens are request ids, or above all of those for entries that earn a share: a
    client may give one id twice, and must not hear the share of one entry when another is durable.
    """

    def __init__(
        self,
        journal: Journal,
        peers: Peers,
        shares: KeyShares | None,
        open_ones: set[Connection],
        refused: Callable[[int], None],
    ) -> None:
        self._journal = journal
        self._peers = peers
        self._shares = shares
        self._open = open_ones
        self._refused = refused
        self._uid = -1
        self._transport: asyncio.Transport | None = None
        self._is_vault = False
        self._rest = b""
        self._earned: dict[int, tuple[int, tuple[str, bytes, int]]] = {}
        self._last = LAST_ID
        self._waits: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        uid = self._uid = peer_uid(transport.get_extra_info("socket"))
        self._is_vault = uid in self._peers.vaults
        if uid not in self._peers.writers and not self._is_vault:
            self._transport.abort()
            self._refused(uid)
            return
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._open.discard(self)
        for task in self._waits:
            task.cancel()

    def pause_writing(self) -> None:
        if self._transport is not None:  # a client that reads no replies may send no more requests
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end, unpack = 0, len(data), REQUEST.unpack_from
        log_number, submit, reserved = self._journal.log_number, self._journal.submit, RESERVED
        while end - at >= 12:
            length, number, request_id = unpack(data, at)
            if end - at - 12 < length:
                break
            entry = data[at + 12 : at + 12 + length]
            at += 12 + length
            token = request_id
            try:
                if number == QUESTION:
                    self._question(request_id, entry)
                    continue
                log = log_number(number)
                if length > 4 and entry[4] in reserved:
                    token = self._reserved(request_id, log.origin, entry)
                elif length > FIXED and not self._is_vault:
                    _check_unnumbered(entry)
                submit(log, entry, self, token)
            except Error as error:
                self._earned.pop(token, None)
                self._write(error_reply(request_id, error))
                if isinstance(error, NotAllowedError):
                    self._refused(self._uid)
        self._rest = data[at:]

    def resolve(self, tokens: Sequence[Any], indexes: Sequence[int]) -> None:
        """See `log.Sink`."""
        if self._earned and self._shares is not None:
            self._write(b"".join(map(self._reply, tokens, indexes)))
            return
        self._write(b"".join(map(REPLY.pack, tokens, indexes, repeat(0))))

    def reject(self, tokens: Sequence[Any], error: Error) -> None:
        """See `log.Sink`."""
        earned = [self._earned.pop(token, None) for token in tokens]
        ids = [token if one is None else one[0] for token, one in zip(tokens, earned, strict=True)]
        self._write(b"".join([error_reply(request_id, error) for request_id in ids]))

    def close(self) -> None:
        """Hang up when what is written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def _reply(self, token: int, index: int) -> bytes:
        earned = self._earned.pop(token, None)
        if earned is None or self._shares is None:
            return REPLY.pack(token, index, 0)
        request_id, about = earned
        share = self._shares.share(*about)
        return REPLY.pack(request_id, index, len(share)) + share

    def _reserved(self, request_id: int, origin: str, entry: bytes) -> int:
        """The token of an entry that not everybody may write."""
        if is_for_journal_only(entry):
            raise NotAllowedError("only the journal itself opens and closes a shard")
        if not self._is_vault:
            raise NotAllowedError("only the vault's user may write entries about keys")
        if self._shares is None:
            return request_id
        # Judged before admission, so a malformed entry may reach this; the journal says what is wrong with it.
        asked = None
        with suppress(Error, KeyError, IndexError):
            asked = share_request(entry)
        if asked is None:
            return request_id
        self._shares.take(origin)
        self._last += 1
        self._earned[self._last] = request_id, (origin, *asked)
        return self._last

    def _question(self, request_id: int, data: bytes) -> None:
        if data[:1] == bytes([WHICH_NUMBER]):
            log = self._journal.log(data[1:].decode(errors="replace"))
            self._write(REPLY.pack(request_id, log.number, 0))
        elif data[:1] == bytes([WHICH_TAKES]):
            log = self._journal.taking(data[1:].decode(errors="replace"))
            name = log.origin.encode()
            if len(name) > MAX_NAME:
                raise BadRequestError(f"the name of a log that is told here has at most {MAX_NAME} bytes")
            self._write(REPLY.pack(request_id, log.number, len(name)) + name)
        elif data[:1] == bytes([WAIT]) and len(data) == WAIT_FIELDS.size:
            _, number, size, level, ms = WAIT_FIELDS.unpack(data)
            if level not in set(Level):
                raise BadRequestError(f"there is no level {level}")
            origin = self._journal.log_number(number).origin
            task = asyncio.create_task(self._wait(request_id, origin, size, Level(level), min(ms, MAX_WAIT_MS)))
            self._waits.add(task)
            task.add_done_callback(self._waits.discard)
        else:
            raise BadRequestError("found a question that this journal does not know")

    async def _wait(self, request_id: int, origin: str, size: int, level: Level, ms: int) -> None:
        try:
            await self._journal.wait(origin, size, level, ms / 1000)
        except Error as error:
            self._write(error_reply(request_id, error))
        else:
            self._write(REPLY.pack(request_id, size, 0))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _check_unnumbered(entry: bytes) -> None:
    """Which release was the last, only the vault says (§ 14.5): it would go on from a number that others made up."""
    with suppress(BadEntryError):  # which the journal refuses itself
        if ExtensionType.RELEASE_COUNTER in check_layout(entry):
            raise NotAllowedError("only the vault's user may write numbers of releases")


@asynccontextmanager
async def listen(
    path: Path,
    journal: Journal,
    peers: Peers,
    *,
    shares: KeyShares | None = None,
    mode: int = 0o660,
    refused: Callable[[int], None] = lambda _uid: None,
) -> AsyncIterator[None]:
    """Serve the socket until the block is left; then every connection is closed. Raises OSError.

    refused: told the user id of whoever tried what he may not.

    A socket file that a dead process left behind is replaced.
    """
    open_ones: set[Connection] = set()
    loop = asyncio.get_running_loop()
    path.unlink(missing_ok=True)
    server = await loop.create_unix_server(
        lambda: Connection(journal, peers, shares, open_ones, refused), str(path), backlog=128
    )
    os.chmod(path, mode)
    try:
        yield
    finally:
        server.close()
        for connection in list(open_ones):
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await server.wait_closed()
        path.unlink(missing_ok=True)
