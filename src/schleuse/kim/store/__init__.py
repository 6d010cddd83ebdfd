"""The durable mail store of the platform: every accepted mail, and what became of it for each recipient.

with open_mail_store(Settings(url=…, spool=…, host=…), account_of) as store:   # the kim role
    store.accept(mail, done)            done(None) comes when the mail is durable, and not before
    store.maildrop(account)             one POP3 session's exclusive view of a mailbox
    store.queue.due(now, limit)         what leaves for other hosts
    store.pending_reports(limit)        DSNs to build and to accept

with open_leases(url=…, spool=…) as leases:                                    # the eau role
    leases.claim(accounts, 64, owner, now, lease)      then finish, put_back, confirm
"""

from schleuse.kim.store.audit import read_books, read_deliveries
from schleuse.kim.store.delivery import (
    DAMAGED,
    OUTBOUND,
    Acceptance,
    Claimed,
    LeaseLostError,
    MaildropLockedError,
    Outcome,
    PendingReport,
    Waiting,
)
from schleuse.kim.store.leases import Leases, open_leases
from schleuse.kim.store.parts import IndexMissingError, Settings
from schleuse.kim.store.store import AccountOf, MailStore, open_mail_store, rebuild_index

__all__ = [
    "DAMAGED",
    "OUTBOUND",
    "Acceptance",
    "AccountOf",
    "Claimed",
    "IndexMissingError",
    "LeaseLostError",
    "Leases",
    "MailStore",
    "MaildropLockedError",
    "Outcome",
    "PendingReport",
    "Settings",
    "Waiting",
    "open_leases",
    "open_mail_store",
    "read_books",
    "read_deliveries",
    "rebuild_index",
]
