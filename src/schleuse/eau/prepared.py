"""Fehlernachrichten that are made before anybody knows whether they will be sent.

A Storno that overtook its eAU is answered with code 105 if that eAU turns out faulty (eau.md § 11). By then the
Storno's own mail is closed and its octets need not be read again: the answer is made and sealed when the Storno comes
and kept beside it, until the eAU is filed (the answer is thrown away) or rejected (it goes to the outbox).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam

from schleuse.eau.bulk import insert
from schleuse.eau.tables import PREPARED

Row = dict[str, Any]


class PreparedLetters:
    """Those of the Storno that one batch may be about, keyed by the Storno's delivery; part of one `Filing`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._rows: dict[int, Row] = {}
        self._stored: set[int] = set()

    def read(self, deliveries: Sequence[int]) -> None:
        """What earlier batches have left for these waiting Storno; nothing is asked when none waits."""
        if not deliveries:
            return
        for row in self._connection.execute(_BY_DELIVERY, {"keys": list(deliveries)}).mappings():
            self._rows[row["delivery"]] = dict(row)
            self._stored.add(row["delivery"])

    def add(self, row: Row) -> None:
        """Keep an answer beside the Storno that this batch has brought."""
        self._rows[row["delivery"]] = row

    def take(self, delivery: int) -> Row | None:
        """The answer, which is kept no longer; None if there is none, because nobody could be answered."""
        return self._rows.pop(delivery, None)

    def write(self) -> None:
        """Called once, at the end of the batch."""
        taken = sorted(self._stored - self._rows.keys())
        if taken:
            self._connection.execute(sa.delete(PREPARED).where(PREPARED.c.delivery.in_(taken)))
        insert(
            self._connection, PREPARED, [row for delivery, row in self._rows.items() if delivery not in self._stored]
        )


_BY_DELIVERY = sa.select(PREPARED).where(PREPARED.c.delivery.in_(bindparam("keys", expanding=True)))
