"""certificates that came on paper, as the insurer's system told them

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "eau_paper",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("ik", sa.String(9), nullable=False),
        sa.Column("reference", sa.String(64), nullable=False),
        sa.Column("content_key", sa.LargeBinary, nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("told_at", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger),
    )
    op.create_index("eau_paper_reference", "eau_paper", ["ik", "reference"], unique=True)
    op.create_index("eau_paper_content", "eau_paper", ["content_key", "ik"])


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
