"""Run by Alembic."""

from schleuse.database import run_migrations
from schleuse.vault.tables import METADATA

run_migrations(METADATA)
