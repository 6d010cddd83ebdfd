"""Making the vault's entries, many at a time (journal.md § 4)."""

from __future__ import annotations

import struct

from schleuse.journal.entry import MAGIC, NOBODY, NOTHING, ExtensionType, Kind, Purpose, Result
from schleuse.vault.drawn import Drawn

_FIXED = struct.Struct(">4sBBHQ16s16s16s32s32s")
_SECOND_ACTOR = struct.Struct(">BH16s")
_COUNT = struct.Struct(">BHI")
_COUNTER = struct.Struct(">BHQ")
_VERSION = struct.Struct(">BHI")


def leaf(
    kind: Kind,
    result: Result,
    purpose: Purpose,
    at_us: int,
    event: bytes,
    *,
    actor: bytes = NOBODY,
    subject: bytes = NOBODY,
    object_: bytes = NOTHING,
    detail: bytes = NOTHING,
    second_actor: bytes | None = None,
    count: int | None = None,
    counter: int | None = None,
    version: int | None = None,
) -> bytes:
    """The same bytes as `journal.entry.Entry.encode`, without its checks: a batch makes hundreds."""
    data = _FIXED.pack(MAGIC, kind, result, purpose, at_us, event, actor, subject, object_, detail)
    if second_actor is not None:
        data += _SECOND_ACTOR.pack(ExtensionType.SECOND_ACTOR, 16, second_actor)
    if count is not None:
        data += _COUNT.pack(ExtensionType.COUNT, 4, count)
    if counter is not None:
        data += _COUNTER.pack(ExtensionType.RELEASE_COUNTER, 8, counter)
    if version is not None:
        data += _VERSION.pack(ExtensionType.SUBJECT_KEY_VERSION, 4, version)
    return data


class Events:
    """UUIDv7 (RFC 9562 § 5.7) that only grow, so that a batch's events are a range."""

    def __init__(self) -> None:
        self._last = 0
        self._random = Drawn()

    def next(self, at_us: int) -> bytes:
        """16 bytes."""
        least = (at_us // 1000) << 74
        # 48 bits of time and 74 of chance, counted up where the clock stands still or goes back.
        if self._last < least:
            value = least | int.from_bytes(self._random(10)) >> 6
        else:
            value = self._last + 1 + int.from_bytes(self._random(4))
        self._last = value
        time_, high, low = value >> 74, value >> 62 & 0xFFF, value & (1 << 62) - 1
        return (time_ << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low).to_bytes(16)
