"""suspected mail: which mailboxes, when accepted, from whom; and what two persons let go again (HD-47)

The signed documents are in the home; these rows are made from them again after the index was lost.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kim_suspicion",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("since_us", sa.BigInteger, nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        sa.Column("senders", sa.Text, nullable=False),
        sa.Column("ended_us", sa.BigInteger),
    )
    op.create_table(
        "kim_cleared",
        sa.Column("suspicion", sa.Text, primary_key=True),
        sa.Column("delivery", sa.BigInteger, primary_key=True, autoincrement=False),
    )
    kept = sa.text("state = 'QUARANTINED'")
    op.create_index(
        "kim_delivery_quarantined",
        "kim_delivery",
        ["account", "id"],
        sqlite_where=kept,
        postgresql_where=kept,
    )


def downgrade() -> None:
    raise NotImplementedError("the mail store only moves forward; restore a backup instead")
