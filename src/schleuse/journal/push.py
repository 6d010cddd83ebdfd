"""Asking witnesses for cosignatures: in parallel, one request at a time per witness and log (journal.md § 9.4).

Appends never wait for a witness. A witness that knows a larger log than ours stops ours: history was lost.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from functools import partial

from schleuse.errors import Error, MalformedError
from schleuse.journal.log import Log
from schleuse.journal.note import parse_lines
from schleuse.journal.policy import Policy, Witness
from schleuse.journal.store import Journal
from schleuse.journal.text import decode_decimal
from schleuse.journal.witness_request import WitnessRequest

TIMEOUT_S = 2.0
_TRIES = 3  #: the first to learn the witness's size, the second to be cosigned, one more if it changed in between

#: POST of a body to a URL: status and body of the answer. Raises OSError if there is none.
Post = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
#: Told what an operator should see: event, origin, witness.
Alarm = Callable[[str, str, str], None]


class WitnessPush:
    """Sends each newly signed checkpoint to the witnesses of its policy that have a URL.

    alarm: "history-lost" (the journal is stopped), "refused-as-inconsistent" (the witness keeps evidence against us),
    "witness-silent" (no answer, or one that nobody understands).
    """

    def __init__(self, journal: Journal, post: Post, alarm: Alarm) -> None:
        self._journal = journal
        self._post = post
        self._alarm = alarm
        self._old: dict[tuple[str, str], int] = {}
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}

    def signed(self, log: Log, policy: Policy) -> None:
        """The log has a new signed note; ask whoever has no request of ours at the moment."""
        for witness in policy.witnesses:
            key = (log.origin, witness.name)
            if witness.url is not None and key not in self._running:
                task = asyncio.create_task(self._submit(log, witness, witness.url))
                self._running[key] = task
                task.add_done_callback(partial(self._done, key))

    def _done(self, key: tuple[str, str], _task: asyncio.Task[None]) -> None:
        self._running.pop(key, None)

    async def idle(self) -> None:
        """Return when no request is under way."""
        while self._running:
            await asyncio.wait(self._running.values())
            await asyncio.sleep(0)

    async def _submit(self, log: Log, witness: Witness, url: str) -> None:
        try:
            for _ in range(_TRIES):
                if await self._ask(log, witness, url):
                    return
        except (OSError, TimeoutError, MalformedError):
            self._alarm("witness-silent", log.origin, witness.name)
        except Error:  # the journal stopped, or refuses the lines; both are said elsewhere
            return

    async def _ask(self, log: Log, witness: Witness, url: str) -> bool:
        """One request; whether there is nothing more to ask now."""
        signed, key = log.signed, (log.origin, witness.name)
        if signed is None:
            return True
        size, old = signed.checkpoint.size, self._old.get(key, 0)
        proof = self._journal.consistency(log.origin, old, size)
        body = WitnessRequest(old, tuple(proof), signed.checkpoint, signed.note).encode()
        async with asyncio.timeout(TIMEOUT_S):
            status, answer = await self._post(f"{url.rstrip('/')}/add-checkpoint", body)
        if status == 409:
            known = decode_decimal(answer.decode("ascii", "replace").rstrip("\n"))
            if known > size:
                self._alarm("history-lost", log.origin, witness.name)
                self._journal.stop([f"{log.origin}: {witness.name} cosigned size {known}, the disk has {size} entries"])
                return True
            self._old[key] = known
            return False
        if status == 200:
            note = signed.note.with_lines(parse_lines(answer.decode("utf-8", "replace")))
            await self._journal.add_cosignature(log.origin, note.encode())
            self._old[key] = size
            return True
        self._alarm("refused-as-inconsistent" if status == 422 else "witness-silent", log.origin, witness.name)
        return True


async def post(url: str, body: bytes) -> tuple[int, bytes]:
    """A `Post` over HTTP(S), one thread for a request."""
    if not url.startswith(("http://", "https://")):
        raise OSError(f"no witness is reached at {url}")
    return await asyncio.to_thread(_post, url, body)


def _post(url: str, body: bytes) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {"Content-Type": "text/plain; charset=utf-8"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return answer.status, answer.read(64 * 1024)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read(64 * 1024)
