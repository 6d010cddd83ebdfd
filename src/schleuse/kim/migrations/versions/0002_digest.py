"""The digest of each mail beside its delivery, for the journal's entry of its acceptance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("kim_delivery", sa.Column("digest", sa.LargeBinary))
