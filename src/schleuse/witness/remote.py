"""Asking other machines over HTTP, none of which is trusted: bounded in bytes and time, and only http(s)."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from hashlib import sha256
from typing import Protocol

from schleuse.errors import UnavailableError
from schleuse.journal.contracts import CODE, QuarantinedError
from schleuse.journal.note import MAX_NOTE, Note, parse_note
from schleuse.journal.proof_file import MAX_PROOF_FILE, ProofFile, parse_proof_file
from schleuse.journal.successor import ENTRY, PROOF
from schleuse.journal.tiles import MAX_ENTRY, WIDTH, Bundle, Tile

TIMEOUT_S = 5.0  #: until the next bytes come; a role that is told to stop has 8 s

MAX_TILE = WIDTH * 32
MAX_WORDS = 1000  #: octets of an explanation
MAX_BUNDLE = WIDTH * (MAX_ENTRY + 2)


class RemoteError(UnavailableError):
    """A log or another witness cannot be reached or answers what it must not; its operator can help."""

    code = "witness.remote"


class NotThereError(RemoteError):
    """The other side has nothing at this address (404)."""

    code = "witness.not-there"


class LogQuarantinedError(RemoteError):
    """The log says of itself that its records contradict each other; its operator compares them with a copy."""

    code = "witness.log-quarantined"


class Remote(Protocol):
    """The other side of HTTP. Raises RemoteError."""

    def get(self, url: str, limit: int) -> bytes:
        """At most `limit` bytes of the answer to a GET."""
        ...

    def post(self, url: str, body: bytes) -> None:
        """Post a body; the answer says no more than that it was taken."""
        ...


class HttpRemote:
    """HTTP with the standard library. tls: whom to trust, for https."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._closed = False
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=tls),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):  # no redirects, no proxies, no files: the log is asked where the insurer's file says
            self._opener.add_handler(handler)

    def close(self) -> None:
        """Ask nothing any more: whoever is in the middle of a long reading gets RemoteError. From any thread."""
        self._closed = True

    def get(self, url: str, limit: int) -> bytes:
        """See `Remote`."""
        return self._ask(urllib.request.Request(url), limit)  # noqa: S310

    def post(self, url: str, body: bytes) -> None:
        """See `Remote`."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        self._ask(urllib.request.Request(url, body, headers), MAX_NOTE)  # noqa: S310

    def _ask(self, request: urllib.request.Request, limit: int) -> bytes:
        if self._closed:
            raise RemoteError(f"{request.full_url} is not asked: this witness is stopping")
        if request.type not in {"http", "https"}:
            raise RemoteError(f"{request.full_url} is neither http nor https")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                data: bytes = answer.read(limit + 1)
        except urllib.error.HTTPError as cause:
            with cause:
                if cause.headers.get(CODE) == QuarantinedError.code:
                    raise LogQuarantinedError(_words(cause)) from cause
            kind = NotThereError if cause.code == 404 else RemoteError
            raise kind(f"{request.full_url} answers {cause.code}") from cause
        except (OSError, http.client.HTTPException, ValueError) as cause:
            raise RemoteError(f"{request.full_url} cannot be asked ({type(cause).__name__})") from cause
        if len(data) > limit:
            raise RemoteError(f"{request.full_url} answers more than {limit} bytes")
        return data


def _words(answer: urllib.error.HTTPError) -> str:
    """What the other side says to people, cut and without what a terminal would obey."""
    try:
        text = answer.read(MAX_WORDS).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        text = ""
    return "".join(one if one.isprintable() else " " for one in text).strip() or "the journal is in QUARANTINE"


class RemoteLog:
    """A log at its URL. Raises RemoteError, and MalformedError for what is no note."""

    def __init__(self, url: str, remote: Remote) -> None:
        self._url = url.rstrip("/")
        self._remote = remote

    def note(self, name: str) -> Note:
        """name: "checkpoint", which satisfies the policy, or "pending", the newest that the log signed (§ 9.2)."""
        return parse_note(self._remote.get(f"{self._url}/{name}", MAX_NOTE))

    def tile(self, tile: Tile) -> bytes:
        """Content of a tile."""
        return self._remote.get(f"{self._url}/{tile.path}", MAX_TILE)

    def bundle(self, bundle: Bundle) -> bytes:
        """Content of an entry bundle."""
        return self._remote.get(f"{self._url}/{bundle.path}", MAX_BUNDLE)

    def successor(self) -> tuple[ProofFile, bytes]:
        """How it announces the log of the next year, and the entry. Raises NotThereError if it has not yet."""
        proof = parse_proof_file(self._remote.get(f"{self._url}/{PROOF}", MAX_PROOF_FILE))
        return proof, self._remote.get(f"{self._url}/{ENTRY}", MAX_ENTRY)

    def add_cosignature(self, note: Note) -> None:
        """Hand a cosigned note over (§ 9.2)."""
        self._remote.post(f"{self._url}/add-cosignature", note.encode())


def cosigned_by_peer(url: str, origin: str, remote: Remote) -> Note:
    """The latest note that another witness cosigned (§ 9.1). Raises NotThereError if there is none."""
    return parse_note(remote.get(f"{url.rstrip('/')}/{sha256(origin.encode()).hexdigest()}/checkpoint", MAX_NOTE))
