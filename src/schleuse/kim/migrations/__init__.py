"""Alembic environment of the mail store's tables."""
