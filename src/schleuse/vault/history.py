"""What the journal says about earlier releases: the last number, and those of the last hour (§ 14.4, § 14.5).

Read over HTTP like anybody's, newest bundle first. The size comes from the receipt of an entry that the vault has just
written, so that everything durable before it is seen. The hashes are not checked: a journal host that lies to its own
vault is found by the witnesses, and could withhold its key shares anyway.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from schleuse.errors import MalformedError
from schleuse.journal.entry import Entry, Kind, Result, parse_entry
from schleuse.journal.tiles import WIDTH, Bundle, split_bundle
from schleuse.vault.contracts import VaultUnavailableError

TIMEOUT_S = 10.0
#: Bundles are served a moment after their entries are durable.
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Release:
    """One granted release, as its entry says."""

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

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def read(self, origin: str, size: int, since: datetime) -> History:
        """Of the first `size` entries of the log. Raises VaultUnavailableError."""
        counter: int | None = None
        releases: list[Release] = []
        for entry in self._backwards(origin, size):
            granted = entry.kind is Kind.KEY_RELEASED and entry.result is Result.GRANTED
            if counter is None and granted and entry.release_counter is not None:
                counter = entry.release_counter
            if entry.at < since and counter is not None:
                break
            if granted and entry.at >= since:
                releases.append(Release(entry.at, entry.actor, entry.subject))
        return History(counter or 0, tuple(reversed(releases)))

    def _backwards(self, origin: str, size: int) -> Iterator[Entry]:
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port or 80, timeout=TIMEOUT_S)
        try:
            for index in range((size - 1) // WIDTH, -1, -1):
                bundle = Bundle(index, min(size - index * WIDTH, WIDTH))
                entries = self._bundle(connection, origin, bundle)
                if entries is None:
                    return  # deleted after their period; so is everything before
                for data in reversed(entries):
                    yield parse_entry(data)
        except (OSError, http.client.HTTPException, MalformedError) as cause:
            raise VaultUnavailableError(f"the journal's entries cannot be read ({type(cause).__name__})") from cause
        finally:
            connection.close()

    def _bundle(self, connection: http.client.HTTPConnection, origin: str, bundle: Bundle) -> list[bytes] | None:
        path = f"{origin[origin.index('/') :]}/{bundle.path}"
        deadline = time.monotonic() + PATIENCE_S
        while True:
            connection.request("GET", path)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status == 200:
                return split_bundle(bundle, data)
            if answer.status == 404 and b"deleted" in data:
                return None
            if answer.status != 404 or time.monotonic() > deadline:
                raise VaultUnavailableError(f"the journal answers {answer.status} for {path}")
            time.sleep(0.02)
