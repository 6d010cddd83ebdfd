"""The journal host's half of the subject keys: given only for a leaf that is durable (journal.md § 14.1, § 14.4)."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

from schleuse.errors import RefusedError
from schleuse.journal.contracts import UnknownLogError

HOUR_US = 3_600_000_000


class ShareLimitError(RefusedError):
    """More key shares in an hour than this log's coarse limit allows; the operator can raise it."""

    code = "journal.share-limit"


class KeyShares:
    """S_journal = HMAC-SHA256(k_J, "JS1\\n" || subject || u32 version), and how many an hour.

    keys: k_J by origin of the log, 32 random bytes each, on the journal host only; None for a log without this split. A
    vault that was taken over can journal every step it takes; the limit keeps it from taking many.
    """

    def __init__(self, keys: Mapping[str, bytes | None], per_hour: int, now_us: Callable[[], int]) -> None:
        self._keys = dict(keys)
        self._per_hour = per_hour
        self._now_us = now_us
        self._taken: dict[str, tuple[int, int]] = {}

    def add(self, origin: str, key: bytes | None) -> None:
        """The log of a new year: the insurer's k_J is the same for all of its shards, so that old documents open."""
        self._keys[origin] = key

    def take(self, origin: str) -> None:
        """Count one share before its entry is written. Raises ShareLimitError, UnknownLogError."""
        self._key(origin)
        hour = self._now_us() // HOUR_US
        since, count = self._taken.get(origin, (hour, 0))
        count = count if since == hour else 0
        if count >= self._per_hour:
            raise ShareLimitError(f"{origin} gave {count} key shares in this hour, its limit is {self._per_hour}")
        self._taken[origin] = (hour, count + 1)

    def share(self, origin: str, subject: bytes, version: int) -> bytes:
        """32 bytes; zeros for a log without this split (§ 14.1), which its first leaf says. Raises UnknownLogError."""
        key = self._key(origin)
        if key is None:
            return bytes(32)
        return hmac.digest(key, b"JS1\n" + subject + version.to_bytes(4), "sha256")

    def _key(self, origin: str) -> bytes | None:
        """Zeros for a log whose k_J is just not known would seal documents that nobody opens when it is there again."""
        try:
            return self._keys[origin]
        except KeyError:
            raise UnknownLogError(
                f"{origin} has no key share on this host; whoever runs the journal puts its policy file back"
            ) from None
