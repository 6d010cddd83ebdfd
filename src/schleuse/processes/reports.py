"""The DSNs that the mail store has recorded: build them, accept them like any mail, mark them (docs/tour.md § 5).

A crash between the two last steps makes the same DSN again, octet for octet under the same Message-ID, and the
store links it to the first.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from schleuse.errors import Error
from schleuse.kim.store import MailStore, PendingReport
from schleuse.mail import dsn

BATCH = 256
#: The store answers each mail; this bounds how long a dying disk may keep us from stopping.
ACCEPT_SECONDS = 60.0


def send_reports(store: MailStore) -> int:
    """One round. Returns how many DSNs are durable now. Raises UnavailableError if the store cannot be asked."""
    pending = store.pending_reports(BATCH)
    if not pending:
        return 0
    kept = _accept(store, pending)
    store.report_accepted(kept)
    return len(kept)


def _accept(store: MailStore, pending: Sequence[PendingReport]) -> list[PendingReport]:
    kept: list[PendingReport] = []
    left = threading.Semaphore(0)
    for item in pending:

        def done(error: Error | None, item: PendingReport = item) -> None:
            if error is None:
                kept.append(item)
            left.release()

        store.accept(dsn.envelope(item.report), done)
    for _ in pending:
        if not left.acquire(timeout=ACCEPT_SECONDS):
            break
    return list(kept)
