"""The fake mailboxes keep the same contract as the store."""

from __future__ import annotations

import pytest
from tests.mail.fake_maildrop import MemoryMailboxes
from tests.mail.maildrop_contract import MaildropContract


class TestMemoryMailboxes(MaildropContract):
    @pytest.fixture
    def mailboxes(self) -> MemoryMailboxes:
        return MemoryMailboxes()

    def put(self, mailboxes: MemoryMailboxes, account: str, content: bytes) -> None:
        mailboxes.put(account, content)
