"""How a role uses the vault: over its socket, without any key. Satisfies `contracts.Vault`."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.vault.contracts import Document, Named, Pseudonyms, SealedMail, Signer, VaultUnavailableError
from schleuse.vault.wire import (
    DONE,
    MAX_BODY,
    REPLY,
    REQUEST,
    Ask,
    Erase,
    Fetch,
    File,
    Insurer,
    Letter,
    Mail,
    Name,
    Names,
    Nothing,
    Opening,
    OpenMails,
    Plain,
    Pseudonym,
    Refusal,
    Sign,
    decode,
    encode,
    error_of,
)

#: A batch waits for a flush of the journal and some private key operations, far less than this.
ANSWER_S = 30.0

_T = TypeVar("_T")


class VaultClient:
    """Thread-safe: each thread has a connection of its own. Make it after a fork.

    Every method raises VaultUnavailableError when the vault does not answer; nobody then knows what it did, and the
    entries that it may have written say "may have been read".
    """

    def __init__(self, path: Path, *, answer_s: float = ANSWER_S) -> None:
        self._path = path
        self._answer_s = answer_s
        self._local = threading.local()
        self._numbers = itertools.count(1)
        self._certificates: dict[IK, tuple[bytes, ...]] = {}

    def certificates(self, ik: IK) -> tuple[bytes, ...]:
        """See `Vault.certificates`. Remembered: they change with the vault's configuration only."""
        known = self._certificates.get(ik)
        if known is None:
            known = self._certificates[ik] = self._ask(Ask.CERTIFICATES, Insurer(ik.value), tuple[bytes, ...])
        return known

    def open_mails(self, ik: IK, mails: Sequence[SealedMail]) -> Sequence[bytes | Error]:
        """See `Vault.open_mails`."""
        asked = [
            Mail(one.delivery, one.wrapped.recipient, one.wrapped.algorithm, one.wrapped.encrypted_key) for one in mails
        ]
        found = self._ask(Ask.OPEN_MAILS, OpenMails(ik.value, asked), list[bytes | Refusal])
        if len(found) != len(mails):
            raise VaultUnavailableError("the vault answered another number of mails than was asked")
        return [error_of(one) if isinstance(one, Refusal) else one for one in found]

    def pseudonyms(self, ik: IK, named: Sequence[Named]) -> Sequence[Pseudonyms]:
        """See `Vault.pseudonyms`."""
        asked = Names(ik.value, [Name(one.person, one.content, one.practice) for one in named])
        found = self._ask(Ask.PSEUDONYMS, asked, list[Pseudonym])
        return [Pseudonyms(one.subject, one.content, one.practice) for one in found]

    def file(self, ik: IK, documents: Sequence[Document]) -> Sequence[bytes]:
        """See `Vault.file`."""
        asked = [Plain(one.subject, one.name, one.form, one.plaintext) for one in documents]
        return self._ask(Ask.FILE, File(ik.value, asked), list[bytes])

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

    def close(self) -> None:
        """Hang up this thread's connection."""
        connection: socket.socket | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            with suppress(OSError):
                connection.close()

    def _ask(self, operation: Ask, body: Any, kind: type[_T]) -> _T:
        number = next(self._numbers)
        data = encode(body)
        try:
            connection = self._connected()
            connection.sendall(REQUEST.pack(len(data), operation, number) + data)
            length, status, answered = REPLY.unpack(_exactly(connection, REPLY.size))
            if length > MAX_BODY or answered != number:
                raise OSError("out of step")
            answer = _exactly(connection, length)
        except OSError as cause:
            self.close()
            raise VaultUnavailableError(f"the vault does not answer ({cause or type(cause).__name__})") from cause
        except BaseException:
            self.close()  # an answer that nobody waits for any more must not be taken for the next one's
            raise
        if status != DONE:
            raise error_of(decode(answer, Refusal))
        return decode(answer, kind)

    def _connected(self) -> socket.socket:
        connection: socket.socket | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self._answer_s)
            try:
                connection.connect(str(self._path))
            except OSError:
                connection.close()
                raise
            self._local.connection = connection
        return connection


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


def _exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = connection.recv_into(view[at:])
        if not got:
            raise OSError("the connection ended")
        at += got
    return data
