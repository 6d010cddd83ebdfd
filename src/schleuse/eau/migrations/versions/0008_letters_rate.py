"""when each Fehlernachricht went out: a scope that is limited by the hour counts them

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("eau_letter", sa.Column("out_at", sa.BigInteger))
    op.execute("UPDATE eau_letter SET out_at = sent_at")
    op.create_index("eau_letter_out", "eau_letter", ["ik", "out_at"])


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
