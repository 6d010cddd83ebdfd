"""the switch: fences, and the epoch of each decision, publication and letter; how long a document was held

What was recorded before has no epoch, and was not held.

Revision ID: 0003
Revises: 0002
"""

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
    for table in ("eau_received", "eau_event", "eau_letter"):
        op.add_column(table, sa.Column("epoch", sa.BigInteger))
    op.add_column("eau_document", sa.Column("held_us", sa.BigInteger))


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
