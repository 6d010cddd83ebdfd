"""How a role uses the vault: over its socket, without any key. Satisfies `contracts.Vault`."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.vault.contracts import (
    BadRequestError,
    Document,
    Named,
    Pseudonyms,
    SealedMail,
    Signer,
    VaultUnavailableError,
)
from schleuse.vault.wire import (
    DONE,
    MAX_REPLY,
    REPLY,
    Ask,
    EndOverride,
    Erase,
    Fetch,
    File,
    Generation,
    Insurer,
    Letter,
    Mail,
    Name,
    Names,
    Nothing,
    Opening,
    OpenMails,
    Override,
    Plain,
    Pseudonym,
    Refusal,
    Sign,
    decode,
    error_of,
    request,
)

#: A batch waits for a flush of the journal and some private key operations, far less than this.
ANSWER_S = 30.0
#: Octets of documents in one request; more are filed in several. A document has at most 16 MiB (`ve1`).
FILE_AT_ONCE = 32 << 20

_T = TypeVar("_T")


@dataclass(slots=True)
class _Connection:
    """To one life of the vault. certificates: what it said; its configuration is as old as its process."""

    socket: socket.socket
    certificates: dict[IK, tuple[bytes, ...]] = field(default_factory=dict)

    def is_alive(self) -> bool:
        """Whether the vault still holds its end. Between two requests it has nothing to say."""
        self.socket.settimeout(0)  # MSG_DONTWAIT alone: a socket with a timeout waits for it all the same
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        with suppress(OSError):
            self.socket.close()


class VaultClient:
    """Thread-safe: each request in flight has a connection of its own, kept for the next one. May live on in a fork.

    Every method raises VaultUnavailableError when the vault does not answer; nobody then knows what it did, and the
    entries that it may have written say "may have been read". Nothing is sent twice by itself.

    answer_s: for the whole of one request.
    """

    def __init__(self, path: Path, *, answer_s: float = ANSWER_S) -> None:
        self._path = path
        self._answer_s = answer_s
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._pid = os.getpid()

    def certificates(self, ik: IK) -> tuple[bytes, ...]:
        """See `Vault.certificates`. Asked once of each life of the vault."""
        connection = self._take()
        known = connection.certificates.get(ik)
        if known is None:
            known = self._ask_on(connection, Ask.CERTIFICATES, Insurer(ik.value), tuple[bytes, ...])
            connection.certificates[ik] = known
        else:
            self._give(connection)
        return known

    def open_mails(self, ik: IK, mails: Sequence[SealedMail]) -> Sequence[bytes | Error]:
        """See `Vault.open_mails`."""
        asked = [
            Mail(one.delivery, one.wrapped.recipient, one.wrapped.algorithm, one.wrapped.encrypted_key) for one in mails
        ]
        found = self._ask(Ask.OPEN_MAILS, OpenMails(ik.value, asked), list[bytes | Refusal])
        return [error_of(one) if isinstance(one, Refusal) else one for one in _as_many(found, mails)]

    def pseudonyms(self, ik: IK, named: Sequence[Named]) -> Sequence[Pseudonyms]:
        """See `Vault.pseudonyms`."""
        asked = Names(ik.value, [Name(one.person, one.content, one.practice) for one in named])
        found = self._ask(Ask.PSEUDONYMS, asked, list[Pseudonym])
        return [Pseudonyms(one.subject, one.content, one.practice) for one in _as_many(found, named)]

    def file(self, ik: IK, documents: Sequence[Document]) -> Sequence[bytes]:
        """See `Vault.file`. What does not fit into one request is filed in several."""
        containers: list[bytes] = []
        for some in _portions(documents):
            asked = [Plain(one.subject, one.name, one.form, one.plaintext) for one in some]
            containers += _as_many(self._ask(Ask.FILE, File(ik.value, asked), list[bytes]), some)
        return containers

    def fetch(self, ik: IK, token: str, name: str, form: str, container: bytes) -> bytes:
        """See `Vault.fetch`."""
        return self._ask(Ask.FETCH, Fetch(ik.value, token, name, form, container), bytes)

    def seal_letter(self, ik: IK, name: str, draft: bytes) -> bytes:
        """See `Vault.seal_letter`."""
        return self._ask(Ask.SEAL_LETTER, Letter(ik.value, name, draft), bytes)

    def open_letter(self, ik: IK, name: str, container: bytes) -> bytes:
        """See `Vault.open_letter`."""
        return self._ask(Ask.OPEN_LETTER, Letter(ik.value, name, container), bytes)

    def signer(self, ik: IK) -> Signer:
        """See `Vault.signer`."""
        return _RemoteSigner(self, ik, self._ask(Ask.SIGNATURE_CERTIFICATE, Insurer(ik.value), bytes))

    def sign(self, ik: IK, data: bytes) -> tuple[bytes, bytes]:
        """(DER of the AlgorithmIdentifier, signature) with the insurer's signature key."""
        return self._ask(Ask.SIGN, Sign(ik.value, data), tuple[bytes, bytes])

    def erase(self, ik: IK, token: str, person: bytes) -> bool:
        """See `VaultService.erase`."""
        return self._ask(Ask.ERASE, Erase(ik.value, token, person), bool)

    def opening(self, ik: IK, token: str, event: bytes) -> dict[str, Any] | None:
        """See `VaultService.opening`."""
        return self._ask(Ask.OPENING, Opening(ik.value, token, event), dict[str, Any] | None)  # type: ignore[arg-type]

    def status(self) -> dict[str, Any]:
        """See `VaultService.status`."""
        return self._ask(Ask.STATUS, Nothing(), dict[str, Any])

    def import_keys(self) -> list[dict[str, str]]:
        """What became of each configured key file: "ik", "kind", "file", "state"."""
        return self._ask(Ask.IMPORT, Nothing(), list[dict[str, str]])

    def rotate(self, generation: int, tokens: Mapping[IK, str]) -> dict[str, Any]:
        """See `Rotation.renew`."""
        return self._ask(Ask.ROTATE, _generation(generation, tokens), dict[str, Any])

    def retire(self, generation: int, tokens: Mapping[IK, str]) -> dict[str, Any]:
        """See `Rotation.retire`."""
        return self._ask(Ask.RETIRE, _generation(generation, tokens), dict[str, Any])

    def generations(self) -> dict[str, Any]:
        """See `Rotation.status`."""
        return self._ask(Ask.GENERATIONS, Nothing(), dict[str, Any])

    def override(
        self, ik: IK, role: str, releases: int, hours: int, reason: str, tokens: Sequence[str]
    ) -> dict[str, Any]:
        """See `Overrides.begin`."""
        return self._ask(Ask.OVERRIDE, Override(ik.value, role, releases, hours, reason, list(tokens)), dict[str, Any])

    def end_override(self, ik: IK, role: str, token: str) -> bool:
        """See `Overrides.end`."""
        return self._ask(Ask.END_OVERRIDE, EndOverride(ik.value, role, token), bool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. The next request connects again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, operation: Ask, body: Any, kind: type[_T]) -> _T:
        return self._ask_on(self._take(), operation, body, kind)

    def _ask_on(self, connection: _Connection, operation: Ask, body: Any, kind: type[_T]) -> _T:
        number = next(self._numbers)
        try:
            status, answer = self._exchanged(connection.socket, request(operation, number, body), number)
        except OSError as cause:
            connection.close()
            raise VaultUnavailableError(f"the vault does not answer ({_reason(cause)})") from cause
        except BaseException:
            connection.close()  # an answer that nobody waits for any more must not be taken for the next one's
            raise
        self._give(connection)
        try:
            if status == DONE:
                return decode(answer, kind)
            refused = decode(answer, Refusal)
        except BadRequestError:
            raise VaultUnavailableError(
                f"the vault's answer to {operation.name} cannot be read; it may be of another version"
            ) from None
        raise error_of(refused)

    def _exchanged(self, connection: socket.socket, data: bytes, number: int) -> tuple[int, bytearray]:
        until = time.monotonic() + self._answer_s
        connection.settimeout(self._answer_s)
        connection.sendall(data)
        answered, status, length = REPLY.unpack(_exactly(connection, REPLY.size, until))
        if length > MAX_REPLY or answered != number:
            raise OSError("its replies are out of step")
        return status, _exactly(connection, length, until)

    def _take(self) -> _Connection:
        while True:
            with self._lock:
                if self._pid != os.getpid():  # the parent's connections are not ours to talk on
                    for one in self._idle:
                        one.close()
                    self._idle, self._pid = [], os.getpid()
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connected()
            if connection.is_alive():
                return connection
            connection.close()

    def _give(self, connection: _Connection) -> None:
        with self._lock:
            self._idle.append(connection)

    def _connected(self) -> _Connection:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._answer_s)
        try:
            connection.connect(str(self._path))
        except OSError as cause:
            connection.close()
            raise VaultUnavailableError(f"no vault answers at {self._path.name} ({_reason(cause)})") from cause
        return _Connection(connection)


class _RemoteSigner:
    def __init__(self, client: VaultClient, ik: IK, certificate: bytes) -> None:
        self._client = client
        self._ik = ik
        self._certificate = certificate

    @property
    def certificate(self) -> bytes:
        return self._certificate

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        return self._client.sign(self._ik, data)


def _exactly(connection: socket.socket, size: int, until: float) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        got = connection.recv_into(view[at:])
        if not got:
            raise OSError("the connection ended")
        at += got
    return data


def _portions(documents: Sequence[Document]) -> Iterator[list[Document]]:
    some: list[Document] = []
    octets = 0
    for one in documents:
        if some and octets + len(one.plaintext) > FILE_AT_ONCE:
            yield some
            some, octets = [], 0
        some.append(one)
        octets += len(one.plaintext)
    if some:
        yield some


def _generation(generation: int, tokens: Mapping[IK, str]) -> Generation:
    return Generation(generation, {ik.value: token for ik, token in tokens.items()})


def _as_many(found: list[_T], asked: Sequence[object]) -> list[_T]:
    if len(found) != len(asked):
        raise VaultUnavailableError(f"the vault answered {len(found)} things where {len(asked)} were asked")
    return found


def _reason(cause: OSError) -> str:
    return cause.strerror or str(cause) or type(cause).__name__
