"""The vault's tables, in SQLite and PostgreSQL."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.postgres import fresh_database

from schleuse.database import open_database, sqlite_url, transaction
from schleuse.identifiers import IK
from schleuse.vault.store import (
    MIGRATIONS,
    Deposit,
    Identity,
    SealedOpening,
    Subject,
    VaultStore,
    _opening,
    _present,
    open_vault_store,
)
from schleuse.vault.tables import METADATA, OPENING, SUBJECT_KEY

KASSE, OTHER = IK("109900011"), IK("109900022")
ANNA, BERT = Subject(b"\xa1" * 16, b"\1" * 32, 0), Subject(b"\xb1" * 16, b"\2" * 32, 0)
RECORD = bytes(92)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "vault.sqlite")
    else:
        with fresh_database() as address:
            yield address


@pytest.fixture
def store(url: str) -> Iterator[VaultStore]:
    opened = open_vault_store(url)
    yield opened
    opened.close()


def with_people(store: VaultStore) -> VaultStore:
    store.add_subjects(KASSE, {b"anna": ANNA, b"bert": BERT})
    return store


def add_keys(
    store: VaultStore,
    ik: IK,
    keys: Sequence[tuple[bytes, int, bytes]],
    openings: Sequence[SealedOpening],
    identity: Identity | None = None,
) -> bool:
    """Alone in its transaction."""
    (kept,) = store.keep([Deposit(ik, keys, openings, identity)])
    return kept


def event(number: int) -> bytes:
    return number.to_bytes(16)


def key(store: VaultStore, subject: bytes, version: int) -> bytes | None:
    return store.keys([(subject, version)]).get((subject, version))


def test_the_migration_makes_what_the_tables_say(url: str) -> None:
    open_vault_store(url).close()
    engine = sa.create_engine(url)
    found = sa.inspect(engine)
    for table in METADATA.sorted_tables:
        assert [column["name"] for column in found.get_columns(table.name)] == [column.name for column in table.columns]
        assert {index["name"] for index in found.get_indexes(table.name) if not index["unique"]} == {
            index.name for index in table.indexes
        }
    engine.dispose()


def test_who_was_first_keeps_his_pseudonym(store: VaultStore) -> None:
    assert store.add_subjects(KASSE, {b"anna": ANNA}) == {b"anna": ANNA}
    assert store.add_subjects(KASSE, {b"anna": BERT}) == {b"anna": ANNA}
    assert store.subjects(KASSE, [b"anna", b"nobody"]) == {b"anna": ANNA}
    assert store.subjects(OTHER, [b"anna"]) == {}
    assert store.by_pseudonym(KASSE, [ANNA.pseudonym, BERT.pseudonym]) == {ANNA.pseudonym: ANNA}
    assert store.by_pseudonym(OTHER, [ANNA.pseudonym]) == {}


@pytest.mark.parametrize("count", [1, 3, 300])
def test_however_many_are_kept_at_once_each_is_found(store: VaultStore, count: int) -> None:
    with_people(store)
    keys = [(ANNA.pseudonym, version, bytes([version % 256]) * 92) for version in range(1, count + 1)]
    openings = [SealedOpening(event(2 * n), event(2 * n + 1), str(n).encode(), ANNA.pseudonym, n) for n in range(count)]
    assert add_keys(store, KASSE, keys, openings)
    assert store.keys([(subject, version) for subject, version, _ in keys]) == {key[:2]: key[2] for key in keys}
    for n in (0, count // 2, count - 1):
        assert store.opening(KASSE, event(2 * n + 1)) == openings[n]


def test_a_new_file_has_pages_for_small_rows_and_an_old_one_stays_as_it_is(tmp_path: Path) -> None:
    for name, made_with in (("new", None), ("old", 16_384)):
        path = tmp_path / f"{name}.sqlite"
        if made_with is not None:
            open_database(sqlite_url(path), MIGRATIONS, made_with).dispose()
        open_vault_store(sqlite_url(path)).close()
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("PRAGMA page_size").fetchone() == (made_with or 4096,)


def test_a_batch_of_persons_is_looked_up_without_reading_all_that_an_insurer_has(tmp_path: Path) -> None:
    engine = open_database(sqlite_url(tmp_path / "vault.sqlite"), MIGRATIONS)
    plans: list[str] = []

    def explain(connection: sa.Connection, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            plans.extend(row[3] for row in cursor.fetchall())

    sa.event.listen(engine, "before_cursor_execute", explain)
    with closing(VaultStore(engine)) as store:
        keys = [number.to_bytes(16) for number in range(64)]
        store.by_pseudonym(KASSE, keys)
        store.known(KASSE, keys)
        store.subjects(KASSE, keys)
    assert len(plans) == 5  # known asks three tables
    assert not [plan for plan in plans if plan.startswith("SCAN") or plan.endswith("(ik=?)")]


def test_many_writers_at_once_agree_on_one_pseudonym(store: VaultStore) -> None:
    def one(number: int) -> Subject:
        fresh = Subject(bytes([number]) * 16, bytes(32), 0)
        return store.add_subjects(KASSE, {b"anna": fresh})[b"anna"]

    with ThreadPoolExecutor(8) as threads:
        assert len({found.pseudonym for found in threads.map(one, range(16))}) == 1


def test_writers_with_the_same_persons_in_other_orders_never_wait_crosswise(store: VaultStore) -> None:
    """PostgreSQL ends such a deadlock by refusing one of them, and a whole batch of mails waits."""
    lookups = [number.to_bytes(32) for number in range(2400)]
    logs = [f"log-{number}" for number in range(40)]

    def assign(seed: int) -> None:
        mine = random.Random(seed).sample(lookups, len(lookups))
        for start in range(0, len(mine), 600):
            store.assign(KASSE, mine[start : start + 600])

    def note(seed: int) -> None:
        some = random.Random(seed).sample(logs, len(logs))
        for size in range(1, 20):
            store.keep([Deposit(KASSE, reflected=(log, size)) for log in some])
            store.note_counters({}, dict.fromkeys(reversed(some), size))

    with ThreadPoolExecutor(4) as pool:
        for work in (assign, note):
            assert list(pool.map(work, range(4))) == [None] * 4
    assert len(store.subjects(KASSE, lookups)) == len(lookups)
    assert {store.reflected(log) for log in logs} == {19}


def test_key_versions_only_grow_in_whatever_order_they_come(store: VaultStore) -> None:
    with_people(store)
    assert add_keys(store, KASSE, [(ANNA.pseudonym, 2, RECORD), (BERT.pseudonym, 1, RECORD)], [])
    assert add_keys(store, KASSE, [(ANNA.pseudonym, 1, b"older" + RECORD[5:])], [])
    found = store.by_pseudonym(KASSE, [ANNA.pseudonym, BERT.pseudonym])
    assert (found[ANNA.pseudonym].last_version, found[BERT.pseudonym].last_version) == (2, 1)
    assert key(store, ANNA.pseudonym, 1) == b"older" + RECORD[5:]
    assert store.has_key(KASSE, ANNA.pseudonym, 2)
    assert not store.has_key(OTHER, ANNA.pseudonym, 2)
    assert not store.has_key(KASSE, ANNA.pseudonym, 3)


def test_nothing_is_filed_for_a_person_who_was_erased_meanwhile(store: VaultStore) -> None:
    with_people(store).erase(KASSE, ANNA.pseudonym)
    opening = SealedOpening(event(1), event(1), b"sealed", BERT.pseudonym, 1)
    assert not add_keys(store, KASSE, [(BERT.pseudonym, 1, RECORD), (ANNA.pseudonym, 1, RECORD)], [opening])
    assert key(store, BERT.pseudonym, 1) is None
    assert store.opening(KASSE, event(1)) is None
    assert store.by_pseudonym(KASSE, [BERT.pseudonym])[BERT.pseudonym].last_version == 0


def test_what_makes_entries_about_an_erased_person_readable_is_not_kept_either(store: VaultStore) -> None:
    """A release that was under way while the person was erased (G6)."""
    with_people(store).erase(KASSE, ANNA.pseudonym)
    assert not add_keys(store, KASSE, [], [SealedOpening(event(1), event(1), b"sealed", ANNA.pseudonym)])
    assert store.opening(KASSE, event(1)) is None
    assert add_keys(store, KASSE, [], [SealedOpening(event(2), event(2), b"sealed", BERT.pseudonym)])


def test_one_erased_person_takes_no_other_deposit_of_the_transaction_with_it(store: VaultStore) -> None:
    with_people(store).erase(KASSE, ANNA.pseudonym)
    row = SealedOpening(event(1), event(1), b"sealed", BERT.pseudonym, 1)
    gone = Deposit(KASSE, [(ANNA.pseudonym, 1, RECORD)], [SealedOpening(event(2), event(2), b"sealed")])
    other = Deposit(OTHER, [(BERT.pseudonym, 2, RECORD)])
    assert store.keep([gone, Deposit(KASSE, [(BERT.pseudonym, 1, RECORD)], [row]), other]) == [False, True, False]
    assert store.has_key(KASSE, BERT.pseudonym, 1)
    assert store.opening(KASSE, event(1)) == row
    assert store.opening(KASSE, event(2)) is None
    assert key(store, BERT.pseudonym, 2) is None


def test_an_opening_is_found_by_any_event_of_its_batch(store: VaultStore) -> None:
    first = SealedOpening(event(10), event(19), b"one")
    second = SealedOpening(event(20), event(20), b"two", ANNA.pseudonym, 3)
    with_people(store).keep([Deposit(KASSE, openings=[first, second])])
    assert store.opening(KASSE, event(10)) == first
    assert store.opening(KASSE, event(15)) == first
    assert store.opening(KASSE, event(20)) == second
    assert store.opening(KASSE, event(9)) is None
    assert store.opening(KASSE, event(21)) is None
    assert store.opening(OTHER, event(15)) is None


def test_erasing_takes_keys_openings_and_the_link_of_one_person(store: VaultStore) -> None:
    with_people(store)
    rows = [
        SealedOpening(event(1), event(1), b"of anna", ANNA.pseudonym, 1),
        SealedOpening(event(2), event(2), b"of bert", BERT.pseudonym, 1),
        SealedOpening(event(3), event(3), b"fetched by anna's insurer", ANNA.pseudonym),
        SealedOpening(event(4), event(4), b"of nobody"),
    ]
    add_keys(store, KASSE, [(ANNA.pseudonym, 1, RECORD), (BERT.pseudonym, 1, RECORD)], rows)
    add_keys(store, KASSE, [(ANNA.pseudonym, 2, RECORD)], [])
    store.erase(KASSE, ANNA.pseudonym)
    assert store.subjects(KASSE, [b"anna", b"bert"]).keys() == {b"bert"}
    assert [key(store, ANNA.pseudonym, version) for version in (1, 2)] == [None, None]
    assert key(store, BERT.pseudonym, 1) == RECORD
    left = [store.opening(KASSE, event(number)) for number in (1, 2, 3, 4)]
    assert [row is not None for row in left] == [False, True, False, True]


@pytest.mark.postgres
def test_an_erasure_takes_the_keys_of_a_batch_that_is_on_its_way() -> None:
    """In PostgreSQL a DELETE sees what was committed when it began: it must begin when the batch has ended (G6)."""
    with fresh_database() as url, closing(with_people(open_vault_store(url))) as store, ThreadPoolExecutor(1) as pool:
        keys = [{"subject": ANNA.pseudonym, "version": 1, "record": RECORD}]
        sealed = SealedOpening(event(1), event(1), b"sealed", ANNA.pseudonym, 1)
        with transaction(store._engine) as batch:  # as `keep`, stopped before its end
            assert _present(batch, {ANNA.pseudonym})
            batch.execute(sa.insert(SUBJECT_KEY), keys)
            batch.execute(sa.insert(OPENING), [_opening(KASSE, sealed)])
            erasing = pool.submit(store.erase, KASSE, ANNA.pseudonym)
            while not erasing.done() and not _somebody_waits(store):
                pass
            assert not erasing.done()
        erasing.result()
        assert store.keys([(ANNA.pseudonym, 1)]) == {}
        assert store.opening(KASSE, event(1)) is None
        assert store.was_erased(ANNA.pseudonym)


def _somebody_waits(store: VaultStore) -> bool:
    with store._engine.connect() as connection:
        return connection.execute(sa.text("SELECT 1 FROM pg_locks WHERE NOT granted")).first() is not None


def test_an_actor_has_one_pseudonym_a_year(store: VaultStore) -> None:
    assert store.actor(KASSE, 2026, "role eau", b"\1" * 16) == b"\1" * 16
    assert store.actor(KASSE, 2026, "role eau", b"\2" * 16) == b"\1" * 16
    assert store.actor(KASSE, 2027, "role eau", b"\3" * 16) == b"\3" * 16
    assert store.actor(OTHER, 2026, "role eau", b"\4" * 16) == b"\4" * 16
    assert store.actors(KASSE) == {b"\1" * 16: "role eau", b"\3" * 16: "role eau"}


def test_an_insurers_key_stays_the_first_one(store: VaultStore) -> None:
    assert store.tenant_key(KASSE, b"one") == b"one"
    assert store.tenant_key(KASSE, b"two") == b"one"
    assert store.tenant_key(OTHER, b"two") == b"two"


def test_identities_come_back_by_insurer_and_kind(store: VaultStore) -> None:
    with_people(store)
    identity = Identity(KASSE, "enc", b"\1" * 32, b"certificate", b"container")
    add_keys(store, KASSE, [(ANNA.pseudonym, 1, RECORD)], [], identity)
    assert store.identities(KASSE, "enc") == [identity]
    assert store.identities(KASSE, "osig") == []
    assert store.identities(OTHER, "enc") == []


def test_counters_are_remembered_by_log(store: VaultStore) -> None:
    assert store.counters() == {}
    store.note_counters({"a": (1, 2), "b": (3, 4)})
    store.note_counters({"a": (2**40, 9)})
    assert store.counters() == {"a": (2**40, 9), "b": (3, 4)}


def test_every_connection_overwrites_what_is_deleted(tmp_path: Path) -> None:
    store = open_vault_store(sqlite_url(tmp_path / "vault.sqlite"))
    several = [store._engine.raw_connection() for _ in range(3)]
    assert [one.cursor().execute("PRAGMA secure_delete").fetchone() for one in several] == [(1,)] * 3
    for one in several:
        one.close()
    store.close()


def test_what_was_erased_is_in_no_file_any_more(tmp_path: Path) -> None:
    store = with_people(open_vault_store(sqlite_url(tmp_path / "vault.sqlite")))
    secret = b"a wrapped key that must not survive" * 3
    opening = SealedOpening(event(1), event(1), b"a detail record that must not survive", ANNA.pseudonym, 1)
    add_keys(store, KASSE, [(ANNA.pseudonym, 1, secret[:92])], [opening])
    assert any(secret[:40] in path.read_bytes() for path in tmp_path.iterdir())
    store.erase(KASSE, ANNA.pseudonym)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for gone in (secret[:40], b"must not survive", ANNA.pseudonym, ANNA.nonce):
        assert gone not in content
    store.close()


def sk1(generation: int, subject: bytes, version: int, filler: bytes = b"s") -> bytes:
    """Shaped like a record SK1."""
    return b"SK1\n\x01\0\0\0" + subject + version.to_bytes(4) + generation.to_bytes(4) + filler * 60


def test_records_of_older_generations_are_found_in_order_and_in_portions(store: VaultStore) -> None:
    with_people(store)
    keys = [(ANNA.pseudonym, 1, 1), (ANNA.pseudonym, 2, 2), (BERT.pseudonym, 1, 1), (BERT.pseudonym, 2, 256)]
    add_keys(store, KASSE, [(subject, version, sk1(by, subject, version)) for subject, version, by in keys], [])
    found = store.keys_below(2, 10)
    assert [(one.ik, one.subject, one.version) for one in found] == [
        (KASSE, ANNA.pseudonym, 1),
        (KASSE, BERT.pseudonym, 1),
    ]
    assert store.keys_below(2, 1) == found[:1]
    assert store.keys_below(2, 10, (ANNA.pseudonym, 1)) == found[1:]
    assert [store.count_below(generation) for generation in (1, 2, 3, 257)] == [0, 2, 3, 4]


def test_a_record_is_replaced_only_while_it_is_the_old_one(store: VaultStore) -> None:
    with_people(store)
    people = (ANNA.pseudonym, BERT.pseudonym)
    add_keys(store, KASSE, [(subject, 1, sk1(1, subject, 1)) for subject in people], [])
    found = store.keys_below(2, 10)
    store.erase(KASSE, BERT.pseudonym)
    store.replace_keys([(one, sk1(2, one.subject, 1)) for one in found])
    assert key(store, ANNA.pseudonym, 1) == sk1(2, ANNA.pseudonym, 1)
    assert key(store, BERT.pseudonym, 1) is None, "what was erased does not come back"
    store.replace_keys([(found[0], sk1(3, ANNA.pseudonym, 1))])
    assert key(store, ANNA.pseudonym, 1) == sk1(2, ANNA.pseudonym, 1)
    store.replace_keys([])


def test_a_tenants_key_is_replaced_only_while_it_is_the_old_one(store: VaultStore) -> None:
    store.tenant_key(KASSE, b"old")
    store.replace_tenant_key(KASSE, b"other", b"new")
    assert store.tenant_records() == {KASSE: b"old"}
    store.replace_tenant_key(KASSE, b"old", b"new")
    assert store.tenant_records() == {KASSE: b"new"}


def test_anything_that_the_key_encryption_key_wraps_is_noticed(store: VaultStore) -> None:
    assert not store.has_wrapped_records()
    store.tenant_key(KASSE, b"wrapped")
    assert store.has_wrapped_records()


def test_a_subject_key_alone_is_noticed_too(store: VaultStore) -> None:
    add_keys(with_people(store), KASSE, [(ANNA.pseudonym, 1, RECORD)], [])
    assert store.has_wrapped_records()


def test_what_was_erased_leaves_the_write_ahead_file_as_soon_as_nobody_reads_there(tmp_path: Path) -> None:
    """G6: also after a reader was in the way, and after a death in between."""
    file, record = tmp_path / "vault.sqlite", b"\x5a" * 92
    store = with_people(open_vault_store(sqlite_url(file)))
    assert add_keys(store, KASSE, [(ANNA.pseudonym, 1, record)], [])

    def stays() -> bool:
        return any(record in path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm"))

    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM vault_subject").fetchone()
        store.erase(KASSE, ANNA.pseudonym)
        assert stays()
        store.note_counters({})
        assert stays()
    store.note_counters({})
    assert not stays()
    store.close()


def test_old_pages_of_an_earlier_life_leave_the_write_ahead_file(tmp_path: Path) -> None:
    file, record = tmp_path / "vault.sqlite", b"\x5a" * 92
    store = with_people(open_vault_store(sqlite_url(file)))
    assert add_keys(store, KASSE, [(ANNA.pseudonym, 1, record)], [])
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA secure_delete=ON")
        other.execute("DELETE FROM vault_subject_key")
        other.commit()
        again = open_vault_store(sqlite_url(file))
        again.note_counters({})
        found = [path.name for path in tmp_path.iterdir() if record in path.read_bytes()]
        again.close()
    store.close()
    assert found == []
