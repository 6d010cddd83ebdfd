"""What the journal says of earlier releases: the last number, and those of the last hour (journal.md § 14.4, § 14.5).

Read over HTTP like anybody's, newest bundle first. A checkpoint may lag behind what is durable, so the size comes from
the receipt of an entry that the vault has just written: whatever was durable before it is below. The journal serves
these bundles at once; nobody has to wait for the next checkpoint.

What is checked: that every bundle holds exactly the entries it must, each well formed. What is not: hashes. There is no
checkpoint yet of what is read, and a journal host that lies to its own vault is found by the witnesses; it could as
well give its key shares without an entry. That entries are missing, the vault's own note of the counter tells (§ 14.5).
"""

from __future__ import annotations

import http.client
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from schleuse.clock import from_us, to_us
from schleuse.errors import MalformedError
from schleuse.journal.entry import ExtensionType, Kind, Result, check_layout
from schleuse.journal.tiles import MAX_ENTRY, WIDTH, Bundle, split_bundle
from schleuse.vault.contracts import VaultUnavailableError
from schleuse.vault.reflected import KeyChanges

TIMEOUT_S = 10.0
#: Bundles are served a moment after their entries are durable.
PATIENCE_S = 5.0
PAUSE_S = 0.02
MAX_BUNDLE = WIDTH * (MAX_ENTRY + 2)

#: Entries carry their writers' times, each at most 120 s from the journal's clock, so an older one may follow.
_DISORDER = timedelta(seconds=240)
#: kind, result, time, actor, subject: what is needed of an entry (§ 4); parsing all of it takes five times as long.
_FIELDS = struct.Struct(">4xBB2xQ16x16s16s")
#: A release, and the vault's report of its counter at each start (§ 14.5), which makes reading further back needless.
_NUMBERED = frozenset({Kind.KEY_RELEASED, Kind.ADMINISTRATION})
_OF_KEYS = frozenset({Kind.KEY_CREATED, Kind.KEY_RELEASED, Kind.KEY_DESTROYED})


@dataclass(frozen=True, slots=True)
class Release:
    """One granted release, as its entry says. at: UTC. actor, subject: pseudonyms of 16 bytes."""

    at: datetime
    actor: bytes
    subject: bytes


@dataclass(frozen=True, slots=True)
class History:
    """counter: the last release number, 0 if there is none. releases: since the asked moment, oldest first."""

    counter: int
    releases: tuple[Release, ...]


class HistoryReader:
    """Reads one journal's logs. url: of its HTTP side, such as `http://127.0.0.1:9480`."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        self._url = urlsplit(url)
        self._patience_s = patience_s

    def read(self, origin: str, size: int, since: datetime) -> History:
        """Of the first `size` entries of the log, `size - 1` being the index of an entry of our own; blocks.

        Reads back to `since`, and on to the last number if there is none so late; at most to where entries were
        deleted after their period. Raises VaultUnavailableError.
        """
        counter: int | None = None
        releases: list[Release] = []
        stop, oldest = to_us(since - _DISORDER), to_us(since)
        for entries in self._backwards(origin, size):
            earliest = stop
            for data in reversed(entries):
                kind, result, at_us, actor, subject = _FIELDS.unpack_from(data)
                earliest = min(earliest, at_us)
                if kind not in _NUMBERED or result != Result.GRANTED:
                    continue
                number = check_layout(data).get(ExtensionType.RELEASE_COUNTER)
                if number is not None:  # batches in flight together may stand in another order than their numbers
                    counter = max(counter or 0, int.from_bytes(number))
                if kind == Kind.KEY_RELEASED and at_us >= oldest:
                    releases.append(Release(from_us(at_us), actor, subject))
            if counter is not None and earliest < stop:
                break
        return History(counter or 0, tuple(reversed(releases)))

    def key_changes(self, origin: str, start: int, size: int) -> KeyChanges:
        """What the entries from index `start` on say of keys, of the first `size`; blocks.

        Read at most to where entries were deleted after their period. Raises VaultUnavailableError.
        """
        found, first = KeyChanges(), size
        if start >= size:
            return found
        for entries in self._backwards(origin, size):
            first -= len(entries)
            for data in entries[max(0, start - first) :]:
                _note(found, data)
            if first <= start:
                break
        return found

    def _backwards(self, origin: str, size: int) -> Iterator[list[bytes]]:
        address = (self._url.hostname or "", self._url.port or 80)
        with closing(http.client.HTTPConnection(*address, timeout=TIMEOUT_S)) as connection:
            try:
                for index in range((size - 1) // WIDTH, -1, -1):
                    bundle = Bundle(index, min(size - index * WIDTH, WIDTH))
                    data = self._bundle(connection, origin, bundle)
                    if data is None:
                        return  # deleted after their period, and so is everything before
                    yield _entries(bundle, data)
            except (OSError, http.client.HTTPException, MalformedError) as cause:
                raise VaultUnavailableError(
                    f"the entries of {origin} cannot be read ({type(cause).__name__}); the journal's operator can help"
                ) from cause

    def _bundle(self, connection: http.client.HTTPConnection, origin: str, bundle: Bundle) -> bytes | None:
        path = f"{self._url.path.rstrip('/')}{origin[origin.index('/') :]}/{bundle.path}"
        deadline = time.monotonic() + self._patience_s
        while True:
            connection.request("GET", path)
            with connection.getresponse() as answer:
                data, status = answer.read(MAX_BUNDLE + 1), answer.status
            if status == 200 and len(data) <= MAX_BUNDLE:
                return data
            if status == 404 and b"deleted after their period" in data:
                return None
            if status != 404 or time.monotonic() > deadline:
                raise VaultUnavailableError(f"the journal answers {status} for {path}; its operator can help")
            time.sleep(PAUSE_S)


def _note(found: KeyChanges, data: bytes) -> None:
    kind, result, at_us, _, subject = _FIELDS.unpack_from(data)
    if kind not in _OF_KEYS or result != Result.GRANTED:
        return
    found.last_us = max(found.last_us, at_us)
    if kind == Kind.KEY_DESTROYED:
        found.destroyed.add(subject)
        return
    version = check_layout(data).get(ExtensionType.SUBJECT_KEY_VERSION)
    if version is None:
        return
    if kind == Kind.KEY_CREATED:
        found.created[subject, int.from_bytes(version)] = at_us
    else:
        found.released.add((subject, int.from_bytes(version)))


def _entries(bundle: Bundle, data: bytes) -> list[bytes]:
    entries = split_bundle(bundle, data)
    for entry in entries:
        check_layout(entry)
    return entries
