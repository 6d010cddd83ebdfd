"""What hold receipts ask for: by which reference a mail is asked for, and which receipts went out as mails (§ 6.4).

Mail that was accepted before has no reference; nobody was promised a receipt for it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kim_origin",
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("reference", sa.LargeBinary, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("accepted_us", sa.BigInteger, nullable=False),
    )
    op.create_index("kim_origin_reference", "kim_origin", ["reference"])
    op.create_index("kim_origin_sender", "kim_origin", ["sender", "position"])
    op.create_table(
        "kim_receipt",
        sa.Column("delivery", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("accepted_us", sa.BigInteger),
    )
    waiting = sa.text("accepted_us IS NULL")
    op.create_index("kim_receipt_waiting", "kim_receipt", ["delivery"], sqlite_where=waiting, postgresql_where=waiting)


def downgrade() -> None:
    raise NotImplementedError("the mail store only moves forward; restore a backup instead")
