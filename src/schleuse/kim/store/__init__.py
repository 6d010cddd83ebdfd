"""The durable mail store of the platform: every accepted mail, and what became of it for each recipient.

with open_mail_store(Settings(url=…, spool=…, host=…), account_of) as store:   # the kim role
    store.accept(mail, done)            done(None) comes when the mail is durable, and not before
    store.maildrop(account)             one POP3 session's exclusive view of a mailbox
    store.queue.due(now, limit)         what leaves for other hosts
    store.pending_reports(limit)        DSNs to build and to accept

with open_leases(url=…, spool=…) as leases:                                    # the eau role
    leases.claim(takes, 64, owner, now, lease)         then finish, put_back, confirm
    leases.holds                                       when mailboxes were held, and what of it is released
"""

from schleuse.kim.store.audit import read_books, read_deliveries
from schleuse.kim.store.delivery import (
    BACKLOG_PERMILLE,
    DAMAGED,
    OUTBOUND,
    Acceptance,
    Claimed,
    Claims,
    Finished,
    LeaseLostError,
    MaildropLockedError,
    Outcome,
    PendingReport,
    Take,
    Under,
    Waiting,
)
from schleuse.kim.store.holds import Began, Change, Changes, Ended, Holds, HoldWindow, Released
from schleuse.kim.store.leases import Leases, open_leases
from schleuse.kim.store.parts import IndexMissingError, Settings
from schleuse.kim.store.store import AccountOf, MailStore, open_mail_store, rebuild_index

__all__ = [
    "BACKLOG_PERMILLE",
    "DAMAGED",
    "OUTBOUND",
    "Acceptance",
    "AccountOf",
    "Began",
    "Change",
    "Changes",
    "Claimed",
    "Claims",
    "Ended",
    "Finished",
    "HoldWindow",
    "Holds",
    "IndexMissingError",
    "LeaseLostError",
    "Leases",
    "MailStore",
    "MaildropLockedError",
    "Outcome",
    "PendingReport",
    "Released",
    "Settings",
    "Take",
    "Under",
    "Waiting",
    "open_leases",
    "open_mail_store",
    "read_books",
    "read_deliveries",
    "rebuild_index",
]
