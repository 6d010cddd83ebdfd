"""What the switch asks of the mail store: fences, hold windows, and how much a limited scope has taken.

Deliveries that were finished before have no epoch.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "switch_fence",
        sa.Column("scope", sa.Text, primary_key=True, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        if_not_exists=True,  # several stores may share one PostgreSQL database, and then one fence
    )
    op.add_column("kim_delivery", sa.Column("epoch", sa.BigInteger))
    op.create_table(
        "kim_hold",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("from_id", sa.BigInteger, nullable=False),
        sa.Column("began_us", sa.BigInteger, nullable=False),
        sa.Column("to_id", sa.BigInteger),
        sa.Column("ended_us", sa.BigInteger),
        sa.Column("ended_epoch", sa.BigInteger),
        sa.Column("released_to", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("drained_us", sa.BigInteger),
    )
    open_window = sa.text("ended_us IS NULL")
    op.create_index(
        "kim_hold_open",
        "kim_hold",
        ["account"],
        unique=True,
        sqlite_where=open_window,
        postgresql_where=open_window,
    )
    op.create_table(
        "kim_followed",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kim_taken",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("the mail store only moves forward; restore a backup instead")
