"""When a held letter must be spoken of: the notice within 15 minutes, and who hears after 1 h, 4 h and 24 h (HD-10).

Pure.
"""

from __future__ import annotations

from datetime import datetime, timedelta

#: HD-10 asks for a notice within 15 minutes; the rest is for the queue of reports and the way to the mailbox.
NOTICE_AFTER = timedelta(minutes=10)
STEPS = (timedelta(hours=1), timedelta(hours=4), timedelta(hours=24))


def notice_before(held_since: datetime | None, now: datetime) -> datetime | None:
    """Letters that were accepted before this moment must hear now that they are delayed; None: nobody yet.

    held_since: when the sending stopped, None if nobody knows. A letter waits since it was accepted or since then,
    whichever was later.
    """
    if held_since is not None and now - held_since < NOTICE_AFTER:
        return None
    return now - NOTICE_AFTER
