"""prepared letters: the answer to a Storno whose eAU may yet be rejected

Storno that wait already have none; when their eAU is rejected they go on waiting, and people are shown them.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "eau_prepared",
        sa.Column(
            "delivery",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("ik", sa.String(9), nullable=False),
        sa.Column("code", sa.SmallInteger, nullable=False),
        sa.Column("message_id", sa.String(255), nullable=False),
        sa.Column("sender", sa.String(320), nullable=False),
        sa.Column("recipient", sa.String(320), nullable=False),
        sa.Column("draft", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("stores are only ever brought forward; go back by restoring a backup")
