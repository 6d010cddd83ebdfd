"""requests of employers end: cancelled, or some time after nothing can follow any more

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("eau_request", sa.Column("cancelled_at", sa.BigInteger))
    op.create_index("eau_request_until", "eau_request", ["ik", "until"])
    op.create_index("eau_follow_up_request", "eau_follow_up", ["ik", "request"])


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
