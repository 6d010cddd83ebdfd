"""answers to employers: the days that an eAU certifies, requests, and what follows them by itself

eAU that were filed before have no days here; an answer about their persons is "in Prüfung" if nothing else is found.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("eau_document", sa.Column("au_type", sa.String(16)))
    for name in ("starts_on", "ends_on", "issued_on"):
        op.add_column("eau_document", sa.Column(name, sa.Date))
    whose = sa.text("person IS NOT NULL")
    op.create_index("eau_document_person", "eau_document", ["person", "ik"], sqlite_where=whose, postgresql_where=whose)
    op.create_table(
        "eau_request",
        sa.Column("ik", sa.String(9), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("person", sa.LargeBinary, nullable=False),
        sa.Column("other", sa.LargeBinary),
        sa.Column("absent_from", sa.Date, nullable=False),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.Column("code", sa.SmallInteger, nullable=False),
        sa.Column("answered_at", sa.BigInteger, nullable=False),
        sa.Column("deliveries", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("due", sa.SmallInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger),
    )
    op.create_index("eau_request_code", "eau_request", ["ik", "code", "absent_from", "asked_at"])
    op.create_index("eau_request_person", "eau_request", ["person", "ik"])
    op.create_index("eau_request_other", "eau_request", ["other", "ik"])
    due = sa.text("due = 1")
    op.create_index("eau_request_due", "eau_request", ["ik", "id"], sqlite_where=due, postgresql_where=due)
    op.create_table(
        "eau_follow_up",
        sa.Column("ik", sa.String(9), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger),
    )
    op.create_table(
        "eau_follow_up_cursor",
        sa.Column("ik", sa.String(9), primary_key=True),
        sa.Column("client", sa.String(64), primary_key=True),
        sa.Column("acked", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
