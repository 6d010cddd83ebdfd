"""Deliveries, reports, routing cursor, retired segments, and with PostgreSQL the mails themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # an INTEGER key is SQLite's own row number


def upgrade() -> None:
    op.create_table(
        "kim_delivery",
        sa.Column("id", _ID, primary_key=True, autoincrement=False),
        sa.Column("account", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("twin", sa.LargeBinary),
        sa.Column("linked_to", sa.BigInteger),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("accepted_us", sa.BigInteger, nullable=False),
        sa.Column("changed_us", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("not_before_us", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until_us", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("delay_reported", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("expires_us", sa.BigInteger),
        sa.Column("purged_us", sa.BigInteger),
    )
    held = sa.text("state = 'HELD'")
    leased = sa.text("state = 'RELEASING'")
    expiring = sa.text("expires_us IS NOT NULL")
    op.create_index("kim_delivery_twin", "kim_delivery", ["twin"], unique=True)
    op.create_index(
        "kim_delivery_held",
        "kim_delivery",
        ["account", "id"],
        sqlite_where=held,
        postgresql_where=held,
    )
    op.create_index(
        "kim_delivery_leased",
        "kim_delivery",
        ["lease_until_us"],
        sqlite_where=leased,
        postgresql_where=leased,
    )
    op.create_index(
        "kim_delivery_expiring",
        "kim_delivery",
        ["expires_us"],
        sqlite_where=expiring,
        postgresql_where=expiring,
    )
    op.create_table(
        "kim_report",
        sa.Column("delivery", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("action", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("diagnostic", sa.Text),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("accepted_us", sa.BigInteger),
    )
    pending = sa.text("accepted_us IS NULL")
    op.create_index(
        "kim_report_pending",
        "kim_report",
        ["delivery"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_table("kim_cursor", sa.Column("position", sa.BigInteger, nullable=False))
    op.create_table(
        "kim_retired",
        sa.Column("segment", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("mails", sa.BigInteger, nullable=False),
        sa.Column("deliveries", sa.BigInteger, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.create_table(
            "kim_body",
            sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
            sa.Column("position", sa.BigInteger),
            sa.Column("meta", sa.LargeBinary, nullable=False),
            sa.Column("content", sa.LargeBinary),
        )
        # Ciphertext in base64: trying to compress it only costs time.
        op.execute("ALTER TABLE kim_body ALTER COLUMN content SET STORAGE EXTERNAL")
        unrouted = sa.text("position IS NULL")
        op.create_index("kim_body_position", "kim_body", ["position"], unique=True)
        op.create_index("kim_body_unrouted", "kim_body", ["id"], postgresql_where=unrouted)


def downgrade() -> None:
    raise NotImplementedError("the mail store only moves forward; restore a backup instead")
