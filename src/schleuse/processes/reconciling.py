"""Does a practice have to resend anything? Read from the records of the mail store at this moment (incident.md § 6.8).

Nothing is kept of it: who asks again gets what is true then. A statement is signed with the key of receipts, in a form
of its own (`receipts.Form`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from schleuse.clock import from_us, to_us
from schleuse.config import Config
from schleuse.database import asking
from schleuse.holding.resend import Account, Deferred, Received, accounts
from schleuse.holding.states import WAITING, State
from schleuse.kim.receipts import Form
from schleuse.kim.store import HoldWindow, open_leases
from schleuse.kim.store.deferrals import read_away

STATEMENT = Form("hold-reconciliation+jwt", "statement")

# 1024 = 1 << RECIPIENT_BITS. Mail without a sender or a Message-ID has no origin; it counts all the same.
_RECEIVED = sa.text(
    "SELECT o.sender, o.reference, d.accepted_us, d.id, d.account, d.state, d.reason, d.changed_us"
    " FROM kim_delivery AS d LEFT JOIN kim_origin AS o ON o.position = d.id / 1024"
    " WHERE d.account IN :accounts AND d.accepted_us >= :since AND d.accepted_us < :until"
    " AND (:sender = '' OR o.sender = :sender) ORDER BY d.id"
).bindparams(sa.bindparam("accounts", expanding=True))


def reconcile_senders(
    config: Config, since: datetime, until: datetime, *, practice: str = "", ik: str = ""
) -> list[Account]:
    """One for each practice and insurer with mail or deferred attempts in the interval. Raises UnavailableError.

    A mail that has to be sent again is named by its Message-ID, or, once its content is purged, by the digest of it,
    as the address of receipts takes it. Attempts that were deferred show nothing but their envelope, so those of a
    sender who came back with anything count as come back.
    """
    insurers = {one.address.lower(): one.ik for one in config.insurers if ik in ("", one.ik)}
    if not insurers:
        return []
    deferred = [
        Deferred(one.sender, insurers[one.recipient], one.last_at, one.attempts, came_back=False)
        for one in read_away(config.kim_database, since, until)
        if one.recipient in insurers and practice.lower() in ("", one.sender)
    ]
    return accounts(_received(config, insurers, since, until, practice.lower()), deferred)


def uncertain_deliveries(folder: Path) -> frozenset[int]:
    """Deliveries that any worker of the eAU intake listed when it was cut (SW-10). folder: `<home>/switch/effects`."""
    found: set[int] = set()
    for path in folder.glob("[0-9]*/eau-*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found |= {int(one) for one in json.loads(path.read_bytes())["uncertain"]}
    return frozenset(found)


def _received(
    config: Config, insurers: Mapping[str, str], since: datetime, until: datetime, sender: str
) -> list[Received]:
    uncertain = uncertain_deliveries(config.switch_folder / "effects")
    rows = _rows(config.kim_database, insurers, since, until, sender)
    returned = [row.id for row in rows if row.state == State.RETURNED]
    windows: defaultdict[str, list[HoldWindow]] = defaultdict(list)
    with open_leases(config.kim_database, config.kim.spool, timedelta(days=config.kim.retention_days)) as leases:
        for window in leases.holds.windows(list(insurers)):
            windows[window.account].append(window)
        names = {one.id: one.message_id for one in leases.release_view.peek(returned)}
    return [
        Received(
            row.sender or "",
            insurers[row.account],
            names.get(row.id) or (f"sha256:{bytes(row.reference).hex()}" if row.reference else str(row.id)),
            from_us(row.accepted_us),
            State(row.state),
            row.reason or "",
            held=any(_holds(window, row) for window in windows[row.account]),
            uncertain=row.id in uncertain and State(row.state) in WAITING,  # when it is taken again, it is known
        )
        for row in rows
    ]


def _rows(url: str, insurers: Mapping[str, str], since: datetime, until: datetime, sender: str) -> list[sa.Row[Any]]:
    values = {"since": to_us(since), "until": to_us(until), "accounts": list(insurers), "sender": sender}
    with asking(url) as connection:
        return list(connection.execute(_RECEIVED, values))


def _holds(window: HoldWindow, row: sa.Row[Any]) -> bool:
    """Also what waited when it began; never what was done by then."""
    is_after_begin = State(row.state) in WAITING or row.changed_us >= to_us(window.began_at)
    return is_after_begin and (window.to_id is None or row.id <= window.to_id)
