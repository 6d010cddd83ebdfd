"""Attempts that were deferred, by sender, mailbox and hour (incident.md § 6.5)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kim_deferral",
        sa.Column("sender", sa.Text, primary_key=True),
        sa.Column("recipient", sa.Text, primary_key=True),
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_us", sa.BigInteger, nullable=False),
        sa.Column("last_us", sa.BigInteger, nullable=False),
        sa.Column("envid", sa.Text),
        sa.Column("came_back_us", sa.BigInteger),
    )
    still_away = sa.text("came_back_us IS NULL")
    op.create_index(
        "kim_deferral_away",
        "kim_deferral",
        ["recipient", "sender"],
        sqlite_where=still_away,
        postgresql_where=still_away,
    )


def downgrade() -> None:
    raise NotImplementedError("the mail store only moves forward; restore a backup instead")
