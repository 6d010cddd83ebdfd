"""first tables

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_DELIVERY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _delivery() -> sa.Column[int]:
    return sa.Column("delivery", _DELIVERY, primary_key=True, autoincrement=False)


def _ik() -> sa.Column[str]:
    return sa.Column("ik", sa.String(9), nullable=False)


def _partial(name: str, table: str, columns: list[str], condition: str, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    op.create_table(
        "eau_received",
        _delivery(),
        _ik(),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("accepted_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("first", sa.BigInteger),
    )
    op.create_table(
        "eau_document",
        _delivery(),
        _ik(),
        sa.Column("document_id", sa.String(255)),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("accepted_at", sa.BigInteger, nullable=False),
        sa.Column("file_hash", sa.LargeBinary),
        sa.Column("practice", sa.LargeBinary),
        sa.Column("person", sa.LargeBinary),
        sa.Column("content_key", sa.LargeBinary),
        sa.Column("similar", sa.BigInteger),
        sa.Column("target", sa.String(255)),
        sa.Column("cancelled_by", sa.String(255)),
    )
    document = "eau_document"
    _partial("eau_document_kept", document, ["document_id", "ik"], "state <> 'rejected'", unique=True)
    _partial("eau_document_rejected", document, ["document_id", "ik"], "state = 'rejected'")
    _partial("eau_document_file", document, ["file_hash", "ik"], "file_hash IS NOT NULL")
    _partial("eau_document_content", document, ["content_key", "ik"], "content_key IS NOT NULL")
    _partial("eau_document_pending", document, ["target", "ik"], "state = 'pending'")
    op.create_table(
        "eau_content",
        _delivery(),
        sa.Column("xml", sa.LargeBinary),
        sa.Column("p7s", sa.LargeBinary),
    )
    op.create_table(
        "eau_event",
        _delivery(),
        _ik(),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("step", sa.SmallInteger, nullable=False),
        sa.Column("seq", sa.BigInteger),
    )
    op.create_index("eau_event_seq", "eau_event", ["ik", "seq"], unique=True)
    _partial("eau_event_unpublished", "eau_event", ["ik", "position", "step"], "seq IS NULL")
    op.create_table(
        "eau_letter",
        _delivery(),
        _ik(),
        sa.Column("code", sa.SmallInteger, nullable=False),
        sa.Column("message_id", sa.String(255), nullable=False),
        sa.Column("sender", sa.String(320), nullable=False),
        sa.Column("recipient", sa.String(320), nullable=False),
        sa.Column("draft", sa.LargeBinary, nullable=False),
        sa.Column("wire", sa.LargeBinary),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
    )
    _partial("eau_letter_unsent", "eau_letter", ["next_at"], "sent_at IS NULL")
    op.create_table(
        "eau_cursor",
        sa.Column("ik", sa.String(9), primary_key=True),
        sa.Column("client", sa.String(64), primary_key=True),
        sa.Column("acked", sa.BigInteger, nullable=False),
        sa.Column("confirmed", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
