"""What every Mailboxes/Maildrop must do; subclass it with a `mailboxes` fixture and `put`."""

from __future__ import annotations

from typing import Any

import pytest

from schleuse.errors import ConflictError
from schleuse.mail.pop3_listener import Mailboxes

ACCOUNT = "kasse@kim.example"
FIRST = b"Subject: 1\r\n\r\n.first\r\n"
SECOND = b"Subject: 2\r\n\r\nsecond\r\n"


class MaildropContract:
    """`mailboxes`: an empty Mailboxes. `put(mailboxes, account, content)`: keep one mail for the account."""

    def put(self, mailboxes: Any, account: str, content: bytes) -> None:
        raise NotImplementedError

    def test_messages_come_oldest_first_with_their_size_and_content(self, mailboxes: Mailboxes) -> None:
        self.put(mailboxes, ACCOUNT, FIRST)
        self.put(mailboxes, ACCOUNT, SECOND)
        drop = mailboxes.open(ACCOUNT)
        assert [drop.content(entry.id) for entry in drop.entries()] == [FIRST, SECOND]
        assert [entry.size for entry in drop.entries()] == [len(FIRST), len(SECOND)]
        drop.close()

    def test_a_locked_maildrop_is_a_conflict_until_it_is_closed(self, mailboxes: Mailboxes) -> None:
        drop = mailboxes.open(ACCOUNT)
        with pytest.raises(ConflictError):
            mailboxes.open(ACCOUNT)
        drop.close()
        mailboxes.open(ACCOUNT).close()

    def test_what_arrives_during_a_session_is_seen_by_the_next(self, mailboxes: Mailboxes) -> None:
        drop = mailboxes.open(ACCOUNT)
        self.put(mailboxes, ACCOUNT, FIRST)
        assert len(drop.entries()) == 0
        drop.close()
        drop = mailboxes.open(ACCOUNT)
        assert len(drop.entries()) == 1
        drop.close()

    def test_deleted_is_gone_and_the_others_keep_their_uidl(self, mailboxes: Mailboxes) -> None:
        self.put(mailboxes, ACCOUNT, FIRST)
        self.put(mailboxes, ACCOUNT, SECOND)
        drop = mailboxes.open(ACCOUNT)
        first, second = drop.entries()
        drop.delete([first.id])
        drop.close()
        drop = mailboxes.open(ACCOUNT)
        assert [entry.uidl for entry in drop.entries()] == [second.uidl]
        drop.close()

    def test_closing_without_deleting_deletes_nothing(self, mailboxes: Mailboxes) -> None:
        self.put(mailboxes, ACCOUNT, FIRST)
        mailboxes.open(ACCOUNT).close()
        drop = mailboxes.open(ACCOUNT)
        assert len(drop.entries()) == 1
        drop.close()

    def test_a_uidl_is_what_rfc_1939_allows(self, mailboxes: Mailboxes) -> None:
        self.put(mailboxes, ACCOUNT, FIRST)
        drop = mailboxes.open(ACCOUNT)
        uidl = drop.entries()[0].uidl
        assert 1 <= len(uidl) <= 70
        assert all(0x21 <= ord(c) <= 0x7E for c in uidl)
        drop.close()

    def test_one_account_does_not_lock_another(self, mailboxes: Mailboxes) -> None:
        one, other = mailboxes.open(ACCOUNT), mailboxes.open("praxis@kim.example")
        one.close()
        other.close()
