"""What every part of the mail store stands on: the index, the mails, and the marks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from schleuse.database import reading, translate
from schleuse.kim.store.bodies import Contents
from schleuse.kim.store.marks import Marks


@dataclass(frozen=True, slots=True)
class Backing:
    """Shared by the parts of one store. Transactions raise our errors (`database.translate`) for the driver's."""

    engine: Engine
    contents: Contents
    marks: Marks

    @property
    def is_shared(self) -> bool:
        """Several hosts work on one database (PostgreSQL)."""
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction; committed when the block ends, rolled back when it raises."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except SQLAlchemyError as cause:
            raise translate(cause) from cause

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One transaction that sees one moment, however long it reads; it waits for no writer and stops none."""
        level = {"isolation_level": "REPEATABLE READ"} if self.is_shared else {}
        try:
            with reading(self.engine).execution_options(**level).begin() as connection:
                yield connection
        except SQLAlchemyError as cause:
            raise translate(cause) from cause

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that waits for no writer."""
        try:
            with reading(self.engine).begin() as connection:
                yield connection
        except SQLAlchemyError as cause:
            raise translate(cause) from cause
