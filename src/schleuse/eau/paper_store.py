"""SQL of certificates that came on paper, and of the proposals that follow from them (HD-05, T-06).

A match is looked for whenever somebody reads, so it does not matter whether the paper, the held original or a document
that was generated anew came first; and nothing is stored that could drop any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from schleuse.database import reading, transaction
from schleuse.eau.document import DocumentId
from schleuse.eau.locking import lock_insurer
from schleuse.eau.switched import require_delivering
from schleuse.eau.tables import DOCUMENT, EVENT, PAPER
from schleuse.errors import ConflictError
from schleuse.identifiers import IK


class PaperDiffersError(ConflictError):
    """The insurer's system told other contents under this reference before; it takes a new one for another scan."""

    code = "eau.paper-differs"


@dataclass(frozen=True, slots=True)
class Paper:
    """One certificate on paper. matches: published eAU of the same contents that are not cancelled, oldest first."""

    number: int
    reference: str
    told_at: datetime
    matches: tuple[DocumentId, ...]


#: The insurer's name of the first paper with the contents of a document; part of the feed's query.
FIRST_PAPER = (
    sa.select(PAPER.c.reference)
    .where(PAPER.c.content_key == DOCUMENT.c.content_key, PAPER.c.ik == DOCUMENT.c.ik)
    .order_by(PAPER.c.number)
    .limit(1)
    .correlate(DOCUMENT)
    .scalar_subquery()
)

_MATCHES = (
    sa.select(DOCUMENT.c.content_key, DOCUMENT.c.document_id)
    .join(EVENT, EVENT.c.delivery == DOCUMENT.c.delivery)
    .where(
        DOCUMENT.c.ik == sa.bindparam("ik"),
        DOCUMENT.c.content_key.in_(sa.bindparam("keys", expanding=True)),
        sa.text("content_key IS NOT NULL"),
        DOCUMENT.c.state == "accepted",
        EVENT.c.seq.is_not(None),
    )
    .order_by(DOCUMENT.c.delivery)
)


class PaperStore:
    """Raises UnavailableError from every method when the database cannot serve."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = reading(engine)

    def tell(self, ik: IK, reference: str, key: bytes, client: str, now: datetime, epoch: int | None = None) -> Paper:
        """Keep it; telling the same again changes nothing. key: pseudonym of the contents.

        Raises PaperDiffersError, StaleEpochError (SW-06), and then nothing is recorded.
        """
        with transaction(self._engine) as connection:
            require_delivering(connection, ik, epoch)
            lock_insurer(connection, ik)
            row = _find(connection, ik, reference)
            if row is None:
                values = {"ik": ik.value, "reference": reference, "content_key": key, "client": client, "told_at": now}
                connection.execute(sa.insert(PAPER), {**values, "epoch": epoch})
                row = _find(connection, ik, reference)
            elif bytes(row.content_key) != key:
                raise PaperDiffersError(
                    "other contents were told under this reference before; take a new reference for another scan"
                )
            return _papers(connection, ik, [row])[0]

    def papers(self, ik: IK, after: int, limit: int) -> list[Paper]:
        """Those with a higher number, in the order in which they were told."""
        query = (
            sa.select(PAPER).where(PAPER.c.ik == ik.value, PAPER.c.number > after).order_by(PAPER.c.number).limit(limit)
        )
        with transaction(self._reader) as connection:
            return _papers(connection, ik, connection.execute(query).all())


def _find(connection: sa.Connection, ik: IK, reference: str) -> Any:
    query = sa.select(PAPER).where(PAPER.c.ik == ik.value, PAPER.c.reference == reference)
    return connection.execute(query).one_or_none()


def _papers(connection: sa.Connection, ik: IK, rows: Sequence[Any]) -> list[Paper]:
    matches: dict[bytes, list[DocumentId]] = {bytes(row.content_key): [] for row in rows}
    if rows:
        for found in connection.execute(_MATCHES, {"ik": ik.value, "keys": list(matches)}):
            matches[bytes(found.content_key)].append(DocumentId(found.document_id))
    return [Paper(row.number, row.reference, row.told_at, tuple(matches[bytes(row.content_key)])) for row in rows]
