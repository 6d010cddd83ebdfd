"""what was decided since an epoch, found without reading all that was ever decided

A stage of a restart asks each second how many of its decisions were errors (RS-07).

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("eau_received_epoch", "eau_received", ["epoch"])


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
