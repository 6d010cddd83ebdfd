"""when each event was filed and published: for how long deliveries were held, and at which rate they go out

Events that were filed before have neither time.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("eau_event", sa.Column("filed_at", sa.BigInteger))
    op.add_column("eau_event", sa.Column("published_at", sa.BigInteger))


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
