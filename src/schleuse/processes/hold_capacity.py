"""How long a hold the store of this home lasts, from what it has seen (RS-20, HD-08, HD-28).

Arrivals are those of the busiest day, the size of a mail is what the disk has for it, and what can be processed is the
fastest minute in which eAU were filed: figures of records, so a home that has seen nothing yet has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from schleuse.clock import from_us, to_us
from schleuse.config import Config
from schleuse.database import asking
from schleuse.holding.capacity import Room
from schleuse.mail.spool.disk import OsDisk
from schleuse.processes.kim_room import Room as RoomOf

#: Within which the busiest day and the fastest minute are looked for.
LOOK_BACK = timedelta(days=35)

_DAY_US, _MINUTE_US = 86_400_000_000, 60_000_000
_BUSIEST = sa.text(
    "SELECT count(*) AS mails, accepted_us / 86400000000 AS day FROM kim_delivery"
    " WHERE account IN :accounts AND accepted_us >= :since GROUP BY accepted_us / 86400000000"
    " ORDER BY 1 DESC, 2 DESC LIMIT 1"
).bindparams(sa.bindparam("accounts", expanding=True))
_KEPT = sa.text("SELECT count(DISTINCT id / 1024) FROM kim_delivery WHERE purged_us IS NULL")
_FASTEST = sa.text(
    "SELECT count(*) FROM eau_event WHERE filed_at >= :since GROUP BY filed_at / 60000000 ORDER BY 1 DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Measured:
    """busiest_day: mails for insurers on the UTC day `day`, 0 and None if there were none. octets: of the store for
    each mail that is kept, index included, 0.0 if none is. fastest: eAU/s filed in the best minute, 0.0 if none.
    room: of the store's disk; None with PostgreSQL, whose disk is not ours to see."""

    busiest_day: int
    day: datetime | None
    octets: float
    fastest: float
    room: Room | None

    @property
    def per_second(self) -> float:
        """Arrivals of the busiest day."""
        return self.busiest_day / (_DAY_US / 1e6)


def measured(config: Config, now: datetime) -> Measured:
    """Reads beside the roles that run. Raises UnavailableError, CorruptError."""
    accounts = [one.address.lower() for one in config.insurers]
    since = to_us(now - LOOK_BACK)
    with asking(config.kim_database) as kim:
        busiest = kim.execute(_BUSIEST, {"accounts": accounts, "since": since}).first()
        kept = kim.execute(_KEPT).scalar_one()
        octets = _taken(config, kim)
    with asking(config.eau_database) as eau:
        fastest = eau.execute(_FASTEST, {"since": since}).scalar() or 0
    return Measured(
        busiest_day=busiest.mails if busiest else 0,
        day=from_us(busiest.day * _DAY_US) if busiest else None,
        octets=octets / kept if kept else 0.0,
        fastest=fastest / (_MINUTE_US / 1e6),
        room=_room(config),
    )


def _taken(config: Config, kim: sa.Connection) -> int:
    if kim.dialect.name == "postgresql":
        sizes = (
            kim.execute(sa.text("SELECT pg_total_relation_size(CAST(:name AS regclass))"), {"name": name}).scalar_one()
            for name in ("kim_body", "kim_delivery", "kim_report", "kim_origin")
        )
        return sum(sizes)
    index = Path(sa.make_url(config.kim_database).database or "")
    return sum(map(_blocks, [*_files(config.kim.spool), *index.parent.glob(f"{index.name}*")]))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _blocks(path: Path) -> int:
    """What the disk has for it: purged contents are holes. A file that goes meanwhile takes nothing."""
    with suppress(OSError):
        return path.stat().st_blocks * 512
    return 0


def _room(config: Config) -> Room | None:
    if not config.kim_database.startswith("sqlite"):
        return None
    with suppress(OSError):
        return RoomOf(config, OsDisk()).octets()
    return None
