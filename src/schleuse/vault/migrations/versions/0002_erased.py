"""Which pseudonyms were erased, so that a lost key is not taken for one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("vault_erased", sa.Column("digest", sa.LargeBinary, primary_key=True))
