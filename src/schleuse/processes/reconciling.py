"""Does a practice have to resend anything? Asked of the mail store at this moment (incident.md § 6.8)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from schleuse.clock import from_us, to_us
from schleuse.config import Config
from schleuse.database import create_engine, reading
from schleuse.holding.resend import Account, Deferred, Received, accounts
from schleuse.holding.states import State
from schleuse.kim.store import HoldWindow, open_leases
from schleuse.kim.store.deferrals import read_away

_RECEIVED = sa.text(
    "SELECT o.sender, o.reference, o.accepted_us, d.id, d.account, d.state, d.reason"
    " FROM kim_origin AS o JOIN kim_delivery AS d ON d.id >= o.position * 1024 AND d.id < (o.position + 1) * 1024"
    " WHERE o.accepted_us >= :since AND o.accepted_us < :until AND d.account IN :accounts"
    " AND (:sender = '' OR o.sender = :sender) ORDER BY d.id"
).bindparams(sa.bindparam("accounts", expanding=True))


def reconcile_senders(
    config: Config, since: datetime, until: datetime, *, practice: str = "", ik: str = ""
) -> list[Account]:
    """One for each practice and insurer with mail or deferred attempts in the interval. Raises UnavailableError.

    The reference of a mail is the digest of its Message-ID, as the receipts' address takes it. Attempts that were
    deferred show nothing but their envelope, so those of a sender who came back with anything count as come back.
    """
    insurers = {one.address.lower(): one.ik for one in config.insurers if ik in ("", one.ik)}
    if not insurers:
        return []
    received = list(_received(config, insurers, since, until, practice.lower()))
    deferred = [
        Deferred(one.sender, insurers[one.recipient], one.last_at, one.attempts, came_back=False)
        for one in read_away(config.kim_database, since, until)
        if one.recipient in insurers and practice.lower() in ("", one.sender)
    ]
    return accounts(received, deferred)


def _received(
    config: Config, insurers: Mapping[str, str], since: datetime, until: datetime, sender: str
) -> Iterator[Received]:
    with open_leases(config.kim_database, config.kim.spool) as leases:
        windows = leases.holds.windows(list(insurers))
    uncertain = uncertain_deliveries(config.switch_folder / "effects")
    engine = create_engine(config.kim_database)
    values = {"since": to_us(since), "until": to_us(until), "accounts": list(insurers), "sender": sender}
    try:
        with reading(engine).begin() as connection:
            for row in connection.execute(_RECEIVED, values):
                yield Received(
                    row.sender,
                    insurers[row.account],
                    bytes(row.reference).hex(),
                    from_us(row.accepted_us),
                    State(row.state),
                    row.reason or "",
                    held=any(_holds(window, row.account, row.id) for window in windows),
                    uncertain=str(row.id) in uncertain,
                )
    finally:
        engine.dispose()


def _holds(window: HoldWindow, account: str, id: int) -> bool:
    return window.account == account and window.from_id < id and (window.to_id is None or id <= window.to_id)


def uncertain_deliveries(folder: Path) -> frozenset[str]:
    """Ids that any worker listed when it was cut (SW-10)."""
    found: set[str] = set()
    for path in folder.glob("[0-9]*/*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found |= {str(one).rpartition(" ")[2] for one in json.loads(path.read_bytes())["uncertain"]}
    return frozenset(found)
