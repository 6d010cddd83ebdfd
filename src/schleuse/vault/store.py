"""The vault's own store: who is behind a pseudonym, wrapped keys, identities, openings, counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from schleuse.database import open_database, reading, transaction
from schleuse.identifiers import IK
from schleuse.vault.tables import ACTOR, COUNTER, IDENTITY, OPENING, SUBJECT, SUBJECT_KEY, TENANT_KEY

MIGRATIONS = "schleuse.vault.migrations"
_MANY: sa.BindParameter[bytes] = sa.bindparam("many", expanding=True)


@dataclass(frozen=True, slots=True, repr=False)
class Subject:
    """A row of SUBJECT."""

    pseudonym: bytes
    nonce: bytes
    last_version: int


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A private key of an insurer, sealed. fingerprint: SHA-256 of the certificate's DER."""

    ik: IK
    kind: str
    fingerprint: bytes
    certificate: bytes
    container: bytes


@dataclass(frozen=True, slots=True, repr=False)
class SealedOpening:
    """A row of OPENING. subject: the person it is about, if it is. version: None if the insurer's own key seals it."""

    first: bytes
    last: bytes
    sealed: bytes
    subject: bytes | None = None
    version: int | None = None


class VaultStore:
    """Thread-safe; each method is one transaction. All raise UnavailableError, CorruptError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = reading(engine)
        if engine.dialect.name == "sqlite":
            # What is erased must not stay in free pages of the file; each connection has to be told.
            event.listen(engine, "connect", _overwrite_deleted)
            engine.dispose()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def subjects(self, ik: IK, lookups: Sequence[bytes]) -> dict[bytes, Subject]:
        """By lookup, those that exist."""
        columns = SUBJECT.c
        query = sa.select(SUBJECT).where(columns.ik == ik.value, columns.lookup.in_(_MANY))
        with transaction(self._reading) as connection:
            rows = connection.execute(query, {"many": list(lookups)}).all()
        return {bytes(row.lookup): _subject(row) for row in rows}

    def add_subjects(self, ik: IK, new: Mapping[bytes, Subject]) -> dict[bytes, Subject]:
        """Assign pseudonyms to lookups; another call may have been faster, then its value holds. Returns what holds."""
        rows = [
            {
                "pseudonym": one.pseudonym,
                "ik": ik.value,
                "lookup": lookup,
                "nonce": one.nonce,
                "last_version": one.last_version,
            }
            for lookup, one in new.items()
        ]
        with transaction(self._engine) as connection:
            connection.execute(_insert_new(connection, SUBJECT), rows)
        return self.subjects(ik, list(new))

    def by_pseudonym(self, ik: IK, pseudonyms: Iterable[bytes]) -> dict[bytes, Subject]:
        """Those that exist at this insurer."""
        columns = SUBJECT.c
        query = sa.select(SUBJECT).where(columns.ik == ik.value, columns.pseudonym.in_(_MANY))
        with transaction(self._reading) as connection:
            rows = connection.execute(query, {"many": list(pseudonyms)}).all()
        return {bytes(row.pseudonym): _subject(row) for row in rows}

    def add_keys(
        self,
        ik: IK,
        keys: Sequence[tuple[bytes, int, bytes]],
        openings: Sequence[SealedOpening],
        identity: Identity | None = None,
    ) -> bool:
        """New versions of subject keys, (subject, version, SK1), with what was sealed under them.

        False, and nothing is kept, if one of the subjects was erased meanwhile.
        """
        newest = [{"s": subject, "v": version} for subject, version, _ in keys]
        raised = sa.update(SUBJECT).where(
            SUBJECT.c.pseudonym == sa.bindparam("s"), SUBJECT.c.last_version < sa.bindparam("v")
        )
        here = sa.select(sa.func.count()).where(SUBJECT.c.ik == ik.value, SUBJECT.c.pseudonym.in_(_MANY))
        with transaction(self._engine) as connection:
            subjects = {subject for subject, _, _ in keys}
            # Another batch may have filed a later version already. On PostgreSQL the lock keeps an erasure away.
            connection.execute(raised.values(last_version=sa.bindparam("v")), newest)
            if connection.execute(here, {"many": list(subjects)}).scalar_one() < len(subjects):
                connection.rollback()
                return False
            connection.execute(
                sa.insert(SUBJECT_KEY),
                [{"subject": subject, "version": version, "record": record} for subject, version, record in keys],
            )
            _add_openings(connection, ik, openings)
            if identity is not None:
                connection.execute(
                    sa.insert(IDENTITY),
                    {
                        "ik": ik.value,
                        "kind": identity.kind,
                        "fingerprint": identity.fingerprint,
                        "certificate": identity.certificate,
                        "container": identity.container,
                    },
                )
        return True

    def add_openings(self, ik: IK, openings: Sequence[SealedOpening]) -> None:
        """Openings that name no insured person."""
        with transaction(self._engine) as connection:
            _add_openings(connection, ik, openings)

    def opening(self, ik: IK, event: bytes) -> SealedOpening | None:
        """The row whose batch has this event. The caller looks whether the event is really in it."""
        columns = OPENING.c
        query = (
            sa.select(OPENING)
            .where(columns.ik == ik.value, columns.first <= event, columns.last >= event)
            .order_by(columns.first.desc())
            .limit(1)
        )
        with transaction(self._reading) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        subject = None if row.subject is None else bytes(row.subject)
        return SealedOpening(bytes(row.first), bytes(row.last), bytes(row.sealed), subject, row.version)

    def key(self, subject: bytes, version: int) -> bytes | None:
        """The record SK1; None once it was erased."""
        columns = SUBJECT_KEY.c
        query = sa.select(columns.record).where(columns.subject == subject, columns.version == version)
        with transaction(self._reading) as connection:
            record = connection.execute(query).scalar_one_or_none()
        return None if record is None else bytes(record)

    def has_key(self, ik: IK, subject: bytes, version: int) -> bool:
        """Whether this insurer has this version of this subject's key."""
        here = SUBJECT_KEY.join(SUBJECT, SUBJECT_KEY.c.subject == SUBJECT.c.pseudonym)
        query = sa.select(SUBJECT.c.pseudonym).select_from(here)
        query = query.where(SUBJECT.c.ik == ik.value, SUBJECT.c.pseudonym == subject, SUBJECT_KEY.c.version == version)
        with transaction(self._reading) as connection:
            return connection.execute(query).one_or_none() is not None

    def identities(self, ik: IK, kind: str) -> list[Identity]:
        """All that were taken over."""
        columns = IDENTITY.c
        with transaction(self._reading) as connection:
            rows = connection.execute(sa.select(IDENTITY).where(columns.ik == ik.value, columns.kind == kind)).all()
        return [
            Identity(ik, kind, bytes(row.fingerprint), bytes(row.certificate), bytes(row.container)) for row in rows
        ]

    def erase(self, ik: IK, pseudonym: bytes) -> None:
        """Every key, opening and link of a person; then nobody can say whom the pseudonym stood for (G6)."""
        with transaction(self._engine) as connection:
            connection.execute(sa.delete(SUBJECT_KEY).where(SUBJECT_KEY.c.subject == pseudonym))
            connection.execute(sa.delete(OPENING).where(OPENING.c.subject == pseudonym))
            connection.execute(sa.delete(SUBJECT).where(SUBJECT.c.pseudonym == pseudonym, SUBJECT.c.ik == ik.value))
        if self._engine.dialect.name == "sqlite":  # the write-ahead file still has the old pages
            with closing(self._engine.raw_connection()) as raw:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def actor(self, ik: IK, year: int, name: str, fresh: bytes) -> bytes:
        """The pseudonym of an actor in the log of a year, `fresh` if it has none yet."""
        columns = ACTOR.c
        query = sa.select(columns.pseudonym).where(columns.ik == ik.value, columns.year == year, columns.name == name)
        with transaction(self._engine) as connection:
            known = connection.execute(query).scalar_one_or_none()
            if known is None:
                connection.execute(sa.insert(ACTOR), {"ik": ik.value, "year": year, "name": name, "pseudonym": fresh})
        return fresh if known is None else bytes(known)

    def actors(self, ik: IK) -> dict[bytes, str]:
        """Names by pseudonym, of all years."""
        with transaction(self._reading) as connection:
            rows = connection.execute(sa.select(ACTOR).where(ACTOR.c.ik == ik.value)).all()
        return {bytes(row.pseudonym): row.name for row in rows}

    def tenant_key(self, ik: IK, fresh: bytes) -> bytes:
        """The wrapped key of an insurer, `fresh` if it has none yet."""
        query = sa.select(TENANT_KEY.c.record).where(TENANT_KEY.c.ik == ik.value)
        with transaction(self._engine) as connection:
            known = connection.execute(query).scalar_one_or_none()
            if known is None:
                connection.execute(sa.insert(TENANT_KEY), {"ik": ik.value, "record": fresh})
        return fresh if known is None else bytes(known)

    def counters(self) -> dict[str, tuple[int, int]]:
        """(release counter, size reached) by origin, as last noted."""
        with transaction(self._reading) as connection:
            return {row.origin: (row.counter, row.top) for row in connection.execute(sa.select(COUNTER)).all()}

    def note_counters(self, counters: Mapping[str, tuple[int, int]]) -> None:
        """Remember how far each log had come."""
        with transaction(self._engine) as connection:
            for origin, (counter, top) in counters.items():
                connection.execute(sa.delete(COUNTER).where(COUNTER.c.origin == origin))
                connection.execute(sa.insert(COUNTER), {"origin": origin, "counter": counter, "top": top})


def open_vault_store(url: str) -> VaultStore:
    """Raises UnavailableError, CorruptError."""
    return VaultStore(open_database(url, MIGRATIONS))


def _subject(row: sa.Row[tuple[object, ...]]) -> Subject:
    return Subject(bytes(row.pseudonym), bytes(row.nonce), row.last_version)


def _add_openings(connection: sa.Connection, ik: IK, openings: Sequence[SealedOpening]) -> None:
    if openings:
        connection.execute(
            sa.insert(OPENING),
            [
                {
                    "first": one.first,
                    "last": one.last,
                    "ik": ik.value,
                    "subject": one.subject,
                    "version": one.version,
                    "sealed": one.sealed,
                }
                for one in openings
            ],
        )


def _insert_new(connection: sa.Connection, table: sa.Table) -> sa.Insert:
    """INSERT that leaves a row which is there already as it is."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table).on_conflict_do_nothing()


def _overwrite_deleted(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA secure_delete=ON").close()
