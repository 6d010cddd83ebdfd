"""The vault's own store: who is behind a pseudonym, wrapped keys, identities, openings, counters."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from schleuse.database import BUSY_TIMEOUT_MS, open_database, reading, transaction, translate
from schleuse.identifiers import IK
from schleuse.vault.bulk import among, insert, insert_new, raise_versions
from schleuse.vault.contracts import Unshown
from schleuse.vault.reflected import Key, Known
from schleuse.vault.tables import (
    ACTOR,
    COUNTER,
    ERASED,
    IDENTITY,
    OPENING,
    REFLECTED,
    SUBJECT,
    SUBJECT_KEY,
    TENANT_KEY,
)

MIGRATIONS = "schleuse.vault.migrations"
#: Of a new SQLite file. Rows are small and their keys random: each of a batch changes other pages, which are written
#: whole, so that pages of the size that suits documents cost two and a half times as many octets.
PAGE_OCTETS = 4096
#: Of one query's IN; SQLite takes 32,766 variables.
_AT_ONCE = 10_000
#: How long the emptying of the write-ahead file waits for those who read; the next second tries again.
PATIENCE_MS = 200
_MANY: sa.BindParameter[bytes] = sa.bindparam("many", expanding=True)
_SUBJECT = "SELECT pseudonym, ik, lookup, nonce, last_version FROM vault_subject"
_BY_LOOKUP = f"{_SUBJECT} WHERE ik = ? AND lookup IN"
#: Whose row it is, is asked of the row: beside `ik = ?` SQLite, which has no statistics of its tables, takes the index
#: of the insurer for the shorter way and reads all of its persons for every batch.
_BY_PSEUDONYM = f"{_SUBJECT} WHERE pseudonym IN"
_PRESENT = "SELECT ik, pseudonym FROM vault_subject WHERE pseudonym IN"
_RECORDS = sa.select(SUBJECT_KEY).where(sa.tuple_(SUBJECT_KEY.c.subject, SUBJECT_KEY.c.version).in_(_MANY))
_OWN_KEY = (
    sa.select(SUBJECT.c.pseudonym)
    .select_from(SUBJECT_KEY.join(SUBJECT, SUBJECT_KEY.c.subject == SUBJECT.c.pseudonym))
    .where(
        SUBJECT.c.ik == sa.bindparam("of"),
        SUBJECT.c.pseudonym == sa.bindparam("s"),
        SUBJECT_KEY.c.version == sa.bindparam("v"),
    )
)
_REFLECTED = sa.text(
    "INSERT INTO vault_reflected (origin, size) VALUES (:origin, :size) "
    "ON CONFLICT (origin) DO UPDATE SET size = excluded.size WHERE vault_reflected.size < excluded.size"
)


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


class SealedOpening(Unshown, frozen=True):
    """A row of OPENING. subject: the person it is about, if it is. version: None if the insurer's own key seals it."""

    first: bytes
    last: bytes
    sealed: bytes
    subject: bytes | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class KeyRecord:
    """A row of SUBJECT_KEY with its insurer. record: SK1."""

    ik: IK
    subject: bytes
    version: int
    record: bytes


class Deposit(Unshown, frozen=True):
    """What is kept together or not at all.

    keys: new versions of subject keys, (subject, version, SK1). openings: what makes entries readable. reflected:
    (origin, size) of the log whose changes of keys are all in the store with this one.
    """

    ik: IK
    keys: Sequence[tuple[bytes, int, bytes]] = ()
    openings: Sequence[SealedOpening] = ()
    identity: Identity | None = None
    reflected: tuple[str, int] | None = None


class VaultStore:
    """Thread-safe; each method is one transaction. All raise UnavailableError, CorruptError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = reading(engine)
        self._sqlite = engine.dialect.name == "sqlite"
        #: Whether the write-ahead file may have pages of what was erased; an earlier life may have left some.
        self._old_pages = self._sqlite
        if self._sqlite:
            # What is erased must not stay in free pages of the file; each connection has to be told.
            event.listen(engine, "connect", _overwrite_deleted)
            engine.dispose()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def subjects(self, ik: IK, lookups: Sequence[bytes]) -> dict[bytes, Subject]:
        """By lookup, those that exist."""
        with transaction(self._reading) as connection:
            return {row.lookup: _subject(row) for row in among(connection, _BY_LOOKUP, lookups, ik.value)}

    def assign(self, ik: IK, lookups: Collection[bytes]) -> dict[bytes, Subject]:
        """Rows of these lookups, made where there is none."""
        known = self.subjects(ik, list(set(lookups)))
        new = {lookup: _fresh_subject() for lookup in lookups if lookup not in known}
        return known | self.add_subjects(ik, new) if new else known

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
            for lookup, one in sorted(new.items())  # so that two batches never wait crosswise (PostgreSQL)
        ]
        with transaction(self._engine) as connection:
            if insert_new(connection, SUBJECT, rows) == len(rows):
                return dict(new)
        return self.subjects(ik, list(new))

    def by_pseudonym(self, ik: IK, pseudonyms: Iterable[bytes]) -> dict[bytes, Subject]:
        """Those that exist at this insurer."""
        with transaction(self._reading) as connection:
            rows = among(connection, _BY_PSEUDONYM, list(pseudonyms))
            return {row.pseudonym: _subject(row) for row in rows if row.ik == ik.value}

    def keep(self, deposits: Sequence[Deposit]) -> list[bool]:
        """All in one transaction. False: one of its subjects was erased meanwhile, and nothing of it is kept."""
        with transaction(self._engine) as connection:
            persons = [_persons(one) for one in deposits]
            present = _present(connection, set().union(*persons))
            kept = [all((one.ik.value, subject) in present for subject in some)
                    for one, some in zip(deposits, persons, strict=True)]  # fmt: skip
            here = [one for one, is_kept in zip(deposits, kept, strict=True) if is_kept]
            keys = [
                {"subject": subject, "version": version, "record": record}
                for one in here
                for subject, version, record in one.keys
            ]
            raise_versions(connection, _newest(here))
            insert(connection, SUBJECT_KEY, keys)
            insert(connection, OPENING, [_opening(one.ik, row) for one in here for row in one.openings])
            insert(connection, IDENTITY, [_identity(one.identity) for one in here if one.identity is not None])
            # In order, so that two never wait crosswise; of each log the largest comes last.
            for reflected in sorted(one.reflected for one in here if one.reflected is not None):
                _reflect(connection, *reflected)
        return kept

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

    def keys(self, wanted: Collection[Key]) -> dict[Key, bytes]:
        """The records SK1 by (subject, version); of one that was erased there is none."""
        with transaction(self._reading) as connection:
            rows = connection.execute(_RECORDS, {"many": list(wanted)}).all()
        return {(bytes(row.subject), row.version): bytes(row.record) for row in rows}

    def has_key(self, ik: IK, subject: bytes, version: int) -> bool:
        """Whether this insurer has this version of this subject's key."""
        with transaction(self._reading) as connection:
            return connection.execute(_OWN_KEY, {"of": ik.value, "s": subject, "v": version}).first() is not None

    def was_erased(self, subject: bytes) -> bool:
        """Whether a key that is not here was destroyed; else it was lost, as by putting an older copy back."""
        query = sa.select(ERASED.c.digest).where(ERASED.c.digest == sha256(subject).digest())
        with transaction(self._reading) as connection:
            return connection.execute(query).first() is not None

    def identities(self, ik: IK, kind: str) -> list[Identity]:
        """All that were taken over."""
        columns = IDENTITY.c
        with transaction(self._reading) as connection:
            rows = connection.execute(sa.select(IDENTITY).where(columns.ik == ik.value, columns.kind == kind)).all()
        return [
            Identity(ik, kind, bytes(row.fingerprint), bytes(row.certificate), bytes(row.container)) for row in rows
        ]

    def erase(self, ik: IK, pseudonym: bytes, reflected: tuple[str, int] | None = None) -> None:
        """Every key, opening and link of a person; then nobody can say whom the pseudonym stood for (G6).

        reflected: see `Deposit`.
        """
        with transaction(self._engine) as connection:
            insert_new(connection, ERASED, [{"digest": sha256(pseudonym).digest()}])
            # First: it waits for a batch that has locked the person (`_present`); what follows sees the batch's keys.
            connection.execute(sa.delete(SUBJECT).where(SUBJECT.c.pseudonym == pseudonym, SUBJECT.c.ik == ik.value))
            connection.execute(sa.delete(SUBJECT_KEY).where(SUBJECT_KEY.c.subject == pseudonym))
            connection.execute(sa.delete(OPENING).where(OPENING.c.subject == pseudonym))
            if reflected is not None:
                _reflect(connection, *reflected)
        self._old_pages = self._sqlite
        self._drop_old_pages()

    def _drop_old_pages(self) -> None:
        """Empty the write-ahead file, if something was erased; whoever reads at that moment puts it off a second."""
        if not self._old_pages:
            return
        try:
            with closing(self._engine.raw_connection()) as raw:
                cursor = raw.cursor()
                cursor.execute(f"PRAGMA busy_timeout={PATIENCE_MS}")
                busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        except sqlite3.OperationalError as cause:
            raise translate(cause) from cause
        self._old_pages = bool(busy)

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

    def reflected(self, origin: str) -> int:
        """Size of the log up to which every change of keys is in this store."""
        with transaction(self._reading) as connection:
            found = connection.execute(sa.select(REFLECTED.c.size).where(REFLECTED.c.origin == origin))
            return found.scalar_one_or_none() or 0

    def known(self, ik: IK, subjects: Collection[bytes]) -> Known:
        """What is here of these subjects."""
        versions: dict[bytes, int] = {}
        keys: set[Key] = set()
        erased: set[bytes] = set()
        many = sorted(subjects)
        with transaction(self._reading) as connection:
            for start in range(0, len(many), _AT_ONCE):
                some = many[start : start + _AT_ONCE]
                rows = among(connection, _BY_PSEUDONYM, some)
                versions |= {row.pseudonym: row.last_version for row in rows if row.ik == ik.value}
                found = connection.execute(sa.select(SUBJECT_KEY).where(SUBJECT_KEY.c.subject.in_(some)))
                keys |= {(bytes(row.subject), row.version) for row in found}
                digests = {sha256(one).digest(): one for one in some}
                gone = connection.execute(sa.select(ERASED.c.digest).where(ERASED.c.digest.in_(list(digests))))
                erased |= {digests[bytes(row.digest)] for row in gone}
        return Known(versions, keys, erased)

    def use_up(self, versions: Mapping[bytes, int], reflected: tuple[str, int] | None = None) -> None:
        """Never give these versions, by subject, again. reflected: see `Deposit`."""
        with transaction(self._engine) as connection:
            raise_versions(connection, versions)
            if reflected is not None:
                _reflect(connection, *reflected)

    def note_counters(
        self, counters: Mapping[str, tuple[int, int]], reflected: Mapping[str, int] | None = None
    ) -> None:
        """Remember how far each log had come. reflected: see `Deposit`, by origin."""
        with transaction(self._engine) as connection:
            for origin, (counter, top) in sorted(counters.items()):
                connection.execute(sa.delete(COUNTER).where(COUNTER.c.origin == origin))
                connection.execute(sa.insert(COUNTER), {"origin": origin, "counter": counter, "top": top})
            for origin, size in sorted((reflected or {}).items()):
                _reflect(connection, origin, size)
        self._drop_old_pages()

    # For generations of the key encryption key (§ 17)

    def has_wrapped_records(self) -> bool:
        """Whether anything here is lost with the key encryption key."""
        with transaction(self._reading) as connection:
            return any(
                connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None
                for table in (SUBJECT_KEY, TENANT_KEY, COUNTER)
            )

    def keys_below(self, generation: int, limit: int, after: tuple[bytes, int] = (b"", 0)) -> list[KeyRecord]:
        """Subject keys that an older generation wraps, in order of (subject, version), after that one."""
        columns = SUBJECT_KEY.c
        query = (
            sa.select(SUBJECT.c.ik, columns.subject, columns.version, columns.record)
            .select_from(SUBJECT_KEY.join(SUBJECT, columns.subject == SUBJECT.c.pseudonym))
            .where(_generation() < generation.to_bytes(4), sa.tuple_(columns.subject, columns.version) > after)
            .order_by(columns.subject, columns.version)
            .limit(limit)
        )
        with transaction(self._reading) as connection:
            rows = connection.execute(query).all()
        return [KeyRecord(IK(row.ik), bytes(row.subject), row.version, bytes(row.record)) for row in rows]

    def count_below(self, generation: int) -> int:
        """How many subject keys older generations wrap."""
        query = sa.select(sa.func.count()).select_from(SUBJECT_KEY).where(_generation() < generation.to_bytes(4))
        with transaction(self._reading) as connection:
            return int(connection.execute(query).scalar_one())

    def replace_keys(self, keys: Sequence[tuple[KeyRecord, bytes]]) -> None:
        """(old, new record): what was erased or replaced meanwhile stays as it is."""
        columns = SUBJECT_KEY.c
        update = sa.update(SUBJECT_KEY).where(
            columns.subject == sa.bindparam("s"),
            columns.version == sa.bindparam("v"),
            columns.record == sa.bindparam("old"),
        )
        rows = [{"s": one.subject, "v": one.version, "old": one.record, "new": new} for one, new in keys]
        if rows:
            with transaction(self._engine) as connection:
                connection.execute(update.values(record=sa.bindparam("new")), rows)

    def tenant_records(self) -> dict[IK, bytes]:
        """The wrapped key of each insurer that has one."""
        with transaction(self._reading) as connection:
            return {IK(row.ik): bytes(row.record) for row in connection.execute(sa.select(TENANT_KEY)).all()}

    def replace_tenant_key(self, ik: IK, old: bytes, new: bytes) -> None:
        """If it still is the old one."""
        update = sa.update(TENANT_KEY).where(TENANT_KEY.c.ik == ik.value, TENANT_KEY.c.record == old)
        with transaction(self._engine) as connection:
            connection.execute(update.values(record=new))


def _generation() -> sa.ColumnElement[bytes]:
    """The generation in a record SK1 (octets 28 to 31, big-endian), which `sk1.kek_id` reads, too."""
    return sa.func.substr(SUBJECT_KEY.c.record, 29, 4, type_=sa.LargeBinary)


def open_vault_store(url: str) -> VaultStore:
    """Raises UnavailableError, CorruptError."""
    return VaultStore(open_database(url, MIGRATIONS, PAGE_OCTETS))


def _fresh_subject() -> Subject:
    return Subject(secrets.token_bytes(16), secrets.token_bytes(32), 0)


def _subject(row: sa.Row[Any]) -> Subject:
    return Subject(row.pseudonym, row.nonce, row.last_version)


def _persons(one: Deposit) -> set[bytes]:
    """Of whom it keeps something."""
    return {subject for subject, _, _ in one.keys} | {row.subject for row in one.openings if row.subject is not None}


def _newest(deposits: Iterable[Deposit]) -> dict[bytes, int]:
    """The highest version of each subject that these bring."""
    newest: dict[bytes, int] = {}
    for one in deposits:
        for subject, version, _ in one.keys:
            newest[subject] = max(version, newest.get(subject, 0))
    return newest


def _present(connection: sa.Connection, pseudonyms: Collection[bytes]) -> set[tuple[str, bytes]]:
    """Those that exist, with their IK. On PostgreSQL the lock keeps an erasure away until the keys are in."""
    locked = " ORDER BY pseudonym FOR UPDATE" if connection.dialect.name == "postgresql" else ""
    return {(row.ik, row.pseudonym) for row in among(connection, _PRESENT, sorted(pseudonyms), end=locked)}


def _reflect(connection: sa.Connection, origin: str, size: int) -> None:
    """Raise it; whoever was faster may have raised it further."""
    connection.execute(_REFLECTED, {"origin": origin, "size": size})


def _opening(ik: IK, one: SealedOpening) -> dict[str, object]:
    return {
        "first": one.first,
        "last": one.last,
        "ik": ik.value,
        "subject": one.subject,
        "version": one.version,
        "sealed": one.sealed,
    }


def _identity(one: Identity) -> dict[str, object]:
    return {
        "ik": one.ik.value,
        "kind": one.kind,
        "fingerprint": one.fingerprint,
        "certificate": one.certificate,
        "container": one.container,
    }


def _overwrite_deleted(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA secure_delete=ON").close()
