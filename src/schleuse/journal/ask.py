"""Before its first append a journal asks every witness what it cosigned last (journal.md § 9.1, § 12.3).

Our disk alone cannot know that all of it was set back to an older copy; whoever remembers more can.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Mapping
from hashlib import sha256

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import Checkpoint, open_checkpoint
from schleuse.journal.note import MAX_NOTE, NoteRefusedError, parse_note
from schleuse.journal.policy import Policy, Witness
from schleuse.journal.push import TIMEOUT_S, Alarm
from schleuse.journal.recovery import contradictions
from schleuse.journal.store import Journal

#: GET of a URL: status and body of the answer. Raises OSError if there is none.
Get = Callable[[str], Awaitable[tuple[int, bytes]]]


async def ask_witnesses(journal: Journal, policies: Mapping[str, Policy], get: Get, alarm: Alarm) -> list[str]:
    """Why this journal must not go on, naming witness and sizes; nothing if no witness contradicts it.

    policies: by origin. alarm: "witness-silent" for one that does not answer, or with what no log of ours signed; the
    start goes on without it, for the push asks it again.
    """
    logs: dict[str, list[tuple[str, Policy, Witness]]] = {}
    for origin, policy in policies.items():
        for witness in policy.witnesses:
            if witness.url is not None:
                logs.setdefault(witness.url, []).append((origin, policy, witness))
    found = await asyncio.gather(*(_ask_one(journal, url, ones, get, alarm) for url, ones in logs.items()))
    return [finding for findings in found for finding in findings]


async def _ask_one(
    journal: Journal, url: str, ones: Iterable[tuple[str, Policy, Witness]], get: Get, alarm: Alarm
) -> list[str]:
    """All logs that this witness knows, one after the other; the first silence ends it, for it will not be the last."""
    findings: list[str] = []
    for origin, policy, witness in ones:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, body = await get(f"{url.rstrip('/')}/{sha256(origin.encode()).hexdigest()}/checkpoint")
        except (OSError, TimeoutError):
            alarm("witness-silent", origin, witness.name)
            break
        if status == 404:  # it has never cosigned this log
            continue
        try:
            if status != 200:
                raise MalformedError(f"status {status}")
            # Our own signature is what counts: nobody else can make us stop with a larger number.
            checkpoint = open_checkpoint(parse_note(body), policy.log_keys)
        except (MalformedError, NoteRefusedError):
            alarm("witness-silent", origin, witness.name)
            continue
        if checkpoint.origin == origin:
            findings += _contradictions(journal, checkpoint, f"what {witness.name} cosigned")
    return findings


def _contradictions(journal: Journal, checkpoint: Checkpoint, source: str) -> list[str]:
    log = next((log for log in journal.logs() if log.origin == checkpoint.origin), None)
    if log is not None:
        return list(contradictions(log, checkpoint, source))
    if checkpoint.size == 0:
        return []
    return [f"{checkpoint.origin}: {source} has size {checkpoint.size}, the disk has no such log"]


async def get(url: str) -> tuple[int, bytes]:
    """A `Get` over HTTP(S), one thread for a request."""
    if not url.startswith(("http://", "https://")):
        raise OSError(f"no witness is reached at {url}")
    return await asyncio.to_thread(_get, url)


def _get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return answer.status, answer.read(MAX_NOTE + 1)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, b""
