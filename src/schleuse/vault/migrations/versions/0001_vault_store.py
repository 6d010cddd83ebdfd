"""Subjects and their keys, identities, actors, openings, tenant keys and counters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vault_subject",
        sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
        sa.Column("ik", sa.Text, nullable=False),
        sa.Column("lookup", sa.LargeBinary, nullable=False),
        sa.Column("nonce", sa.LargeBinary, nullable=False),
        sa.Column("last_version", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("ik", "lookup"),
    )
    op.create_table(
        "vault_subject_key",
        sa.Column("subject", sa.LargeBinary, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "vault_identity",
        sa.Column("ik", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, primary_key=True),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("container", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "vault_actor",
        sa.Column("ik", sa.Text, primary_key=True),
        sa.Column("year", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("pseudonym", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "vault_opening",
        sa.Column("first", sa.LargeBinary, primary_key=True),
        sa.Column("last", sa.LargeBinary, nullable=False),
        sa.Column("ik", sa.Text, nullable=False),
        sa.Column("subject", sa.LargeBinary),
        sa.Column("version", sa.BigInteger),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_index("vault_opening_subject", "vault_opening", ["subject"])
    op.create_table(
        "vault_tenant_key",
        sa.Column("ik", sa.Text, primary_key=True),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "vault_counter",
        sa.Column("origin", sa.Text, primary_key=True),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("top", sa.BigInteger, nullable=False),
    )
