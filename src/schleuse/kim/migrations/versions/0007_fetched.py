"""what the owner of a mailbox took by POP3, found by its time: nobody here knows what it was (HD-09)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    fetched = sa.text("state = 'DELIVERED' AND reason = 'fetched'")
    op.create_index(
        "kim_delivery_fetched",
        "kim_delivery",
        ["account", "accepted_us"],
        sqlite_where=fetched,
        postgresql_where=fetched,
    )


def downgrade() -> None:
    raise NotImplementedError("the mail store only moves forward; restore a backup instead")
