"""Mailboxes as POP3 sees them: the contract of the mail package, and what only a real store can get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.kim.mails import KASSE, LEASE, PRAXIS, START, Site, a_mail, put
from tests.mail import maildrop_contract
from tests.mail.faulty_disk import Fault, FaultyDisk

from schleuse.errors import UnavailableError
from schleuse.holding.states import State
from schleuse.kim.store import MaildropLockedError, MailStore, Take
from schleuse.kim.store.delivery import delivery_id
from schleuse.kim.store.maildrop import uidl
from schleuse.mail.contracts import Mail, Maildrop, Recipient


@dataclass
class Mailboxes:
    store: MailStore

    def open(self, account: str) -> Maildrop:
        return self.store.maildrop(account)


class TestMaildrop(maildrop_contract.MaildropContract):
    @pytest.fixture
    def mailboxes(self, site: Site) -> Iterator[Mailboxes]:
        from schleuse.kim.store import open_mail_store

        with open_mail_store(site.settings, lambda address: address, background=False) as store:
            yield Mailboxes(store)

    def put(self, mailboxes: Any, account: str, content: bytes) -> None:
        put(mailboxes.store, Mail("", (Recipient(account),), content, START))


def test_a_uidl_is_the_same_for_ever(site: Site) -> None:
    seen: set[str] = set()
    for _ in range(3):
        with site.open() as store:
            if not seen:
                put(store, a_mail(1))
            drop = store.maildrop(KASSE)
            seen.add(drop.entries()[0].uidl)
            drop.close()
    assert len(seen) == 1


def test_the_uidl_of_a_delivery_never_changes_between_versions() -> None:
    """Practice systems remember it; changing its derivation would make them fetch everything again."""
    assert uidl(delivery_id(1 << 32 | 64, 0)) == "axun6cl7tyand6gxyrmrjzen"


def test_the_lock_of_a_process_that_died_is_free(site: Site) -> None:
    store = site.open()
    store.maildrop(KASSE)  # not closed
    store.close()
    with site.open() as store:
        store.maildrop(KASSE).close()


def test_hosts_that_share_a_database_share_the_locks(site: Site) -> None:
    if site.is_embedded:
        pytest.skip("only one process serves the mailboxes of an embedded store")
    with site.open() as one, site.open(owner="two") as two:
        drop = one.maildrop(KASSE)
        with pytest.raises(MaildropLockedError):
            two.maildrop(KASSE)
        drop.close()
        two.maildrop(KASSE).close()


def test_what_a_worker_has_is_not_deleted_and_then_nothing_is(store: MailStore) -> None:
    put(store, a_mail(1), a_mail(2))
    drop = store.maildrop(KASSE)
    (taken,) = store.leases.claim([Take(KASSE)], 1, "w", START, LEASE).mails
    with pytest.raises(UnavailableError):
        drop.delete([entry.id for entry in drop.entries()])
    assert store.counts() == {KASSE: {State.RELEASING: 1, State.HELD: 1}}
    assert store.leases.put_back([taken.id], "w", START) == 1
    drop.delete([entry.id for entry in drop.entries()])
    assert store.counts() == {KASSE: {State.DELIVERED: 2}}


def test_deleting_a_whole_large_mailbox_is_one_transaction(store: MailStore) -> None:
    put(store, *(a_mail(number) for number in range(1000)), a_mail(1, PRAXIS))
    drop = store.maildrop(KASSE)
    drop.delete([entry.id for entry in drop.entries()])
    assert store.counts() == {KASSE: {State.DELIVERED: 1000}, PRAXIS: {State.HELD: 1}}


def test_a_delete_is_done_even_when_its_mark_must_wait_for_the_disk(embedded: Site) -> None:
    disk = FaultyDisk()
    with embedded.open(disk) as store:
        put(store, a_mail(1))
        drop = store.maildrop(KASSE)
        disk.choose = lambda name: Fault() if name == "create" else None
        drop.delete([drop.entries()[0].id])
        assert store.counts() == {KASSE: {State.DELIVERED: 1}}
        disk.choose = lambda name: None
    with embedded.open() as store:
        assert store.maildrop(KASSE).entries() == []
