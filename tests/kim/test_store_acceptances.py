"""What the journal is told of accepted mail: every delivery into a mailbox, in order, the same after a rebuild."""

from __future__ import annotations

from datetime import timedelta

from tests.kim.mails import KASSE, PRAXIS, Site, a_mail, put

from schleuse.kim.store import MailStore, Take, rebuild_index


def test_every_delivery_into_a_mailbox_comes_once_in_order(store: MailStore) -> None:
    put(store, *(a_mail(number, KASSE, PRAXIS) for number in range(7)))
    seen, after = [], 0
    while part := store.acceptances(after, 4):
        seen += part
        after = part[-1].id
    assert [one.account for one in seen] == [KASSE, PRAXIS] * 7
    assert [one.id for one in seen] == sorted({one.id for one in seen})


def test_the_digest_is_that_of_the_mail(store: MailStore) -> None:
    put(store, a_mail(1))
    (one,) = store.acceptances(0, 10)
    (claimed,) = store.leases.claim([Take(KASSE)], 1, "w", one.accepted_at, timedelta(minutes=1)).mails
    assert one.digest == claimed.digest


def test_it_is_the_same_after_the_index_was_lost(embedded: Site) -> None:
    from tests.kim.mails import account_of

    with embedded.open() as store:
        put(store, a_mail(1), a_mail(2), a_mail(1))
        before = store.acceptances(0, 10)
    for path in embedded.settings.spool.parent.glob("*.sqlite*"):
        path.unlink()
    rebuild_index(embedded.settings, account_of, now=embedded.clock)
    with embedded.open() as store:
        assert store.acceptances(0, 10) == before
