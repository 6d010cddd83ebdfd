"""Mailboxes in memory; pass tests/mail/maildrop_contract.py like the real store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tests.mail.fake_faults import Faults

from schleuse.errors import CorruptError
from schleuse.mail.pop3 import MaildropInUseError


@dataclass(frozen=True)
class Entry:
    id: int
    uidl: str
    size: int


class MemoryMailboxes:
    """faults: open, entries, content, delete, close. opened and closed count for tests on leaks."""

    def __init__(self) -> None:
        self.mails: dict[str, dict[int, bytes]] = {}
        self.locked: set[str] = set()
        self.faults = Faults()
        self.asked = threading.Event()  # content() was called
        self.hold = threading.Event()  # content() waits for it
        self.hold.set()
        self._last_id = 0
        self._mutex = threading.Lock()

    def put(self, account: str, content: bytes) -> int:
        with self._mutex:
            self._last_id += 1
            self.mails.setdefault(account, {})[self._last_id] = content
            return self._last_id

    def open(self, account: str) -> MemoryMaildrop:
        with self._mutex, self.faults.around("open"):
            if account in self.locked:
                raise MaildropInUseError("another session has this maildrop")
            self.locked.add(account)
            return MemoryMaildrop(self, account)


class MemoryMaildrop:
    def __init__(self, boxes: MemoryMailboxes, account: str) -> None:
        self._boxes = boxes
        self._account = account
        mails = boxes.mails.get(account, {})
        self._entries = [Entry(id, f"u{id}", len(content)) for id, content in sorted(mails.items())]

    def entries(self) -> Sequence[Entry]:
        with self._boxes.faults.around("entries"):
            return self._entries

    def content(self, id: int) -> bytes:
        with self._boxes.faults.around("content"):
            self._boxes.asked.set()
            self._boxes.hold.wait(10)
            try:
                return self._boxes.mails[self._account][id]
            except KeyError:
                raise CorruptError("a listed message is gone") from None

    def delete(self, ids: Sequence[int]) -> None:
        with self._boxes.faults.around("delete"):
            for id in ids:
                self._boxes.mails[self._account].pop(id, None)

    def close(self) -> None:
        with self._boxes.faults.around("close"):
            self._boxes.locked.discard(self._account)
