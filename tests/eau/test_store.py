"""Filing in batches: nothing twice, nothing half, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.eau.samples import (
    AN_INSURER,
    ANOTHER_INSURER,
    NOON,
    OTHER_PRACTICE,
    POLICY,
    an_id,
    eau,
    faulty,
    file,
    settle_one,
    storno,
)

from schleuse.database import create_engine, sqlite_url
from schleuse.eau.decision import decide
from schleuse.eau.document import Kind
from schleuse.eau.feed_store import Terms
from schleuse.eau.filing import ForeignMailStoreError
from schleuse.eau.findings import Trouble
from schleuse.eau.outcome import DocumentState, ForeignStorno
from schleuse.eau.store import EauStore, Recorded, open_store
from schleuse.eau.switched import delivering, processing
from schleuse.eau.tables import CONTENT, DOCUMENT, LETTER, METADATA, PREPARED, RECEIVED
from schleuse.errors import UnavailableError
from schleuse.holding.states import State
from schleuse.kim.classify import Kind as MailKind
from schleuse.kim.store.delivery import share_of
from schleuse.switch.fence import StaleEpochError

ACCEPTED_EAU, CANCELLED_EAU = (Kind.EAU, DocumentState.ACCEPTED), (Kind.EAU, DocumentState.CANCELLED)
ACCEPTED_STORNO, PENDING_STORNO = (Kind.STORNO, DocumentState.ACCEPTED), (Kind.STORNO, DocumentState.PENDING)


REJECTED_EAU, REJECTED_STORNO = (Kind.EAU, DocumentState.REJECTED), (Kind.STORNO, DocumentState.REJECTED)


def rows(store: EauStore, table: sa.Table) -> int:
    with store._engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def feed(store: EauStore) -> list[tuple[int, str, int]]:
    """(seq, kind, number of the document) of the whole feed, everything published."""
    while store.feed.publish(AN_INSURER, below=None):
        pass
    return published(store)


def published(store: EauStore) -> list[tuple[int, str, int]]:
    """The same of what is published already."""
    events = store.feed.events(AN_INSURER, 0, 1000)
    return [(event.seq, event.kind.value, int(event.document_id.value[-12:], 16)) for event in events]


def test_the_migrations_make_the_tables_that_the_code_uses(database: str) -> None:
    open_store(database).close()
    engine = create_engine(database)
    with engine.connect() as connection:
        ours = [table for table in sa.inspect(connection).get_table_names() if table in METADATA.tables]
        differences = compare_metadata(
            MigrationContext.configure(
                connection, opts={"include_name": lambda name, type, _: type != "table" or name in METADATA.tables}
            ),
            METADATA,
        )
    engine.dispose()
    assert sorted(ours) == sorted(METADATA.tables)
    assert differences == []


def test_an_eau_is_filed_once_and_published(store: EauStore) -> None:
    assert file(store, eau(5)) == [Recorded(5, State.DELIVERED)]
    assert store.documents(AN_INSURER) == {ACCEPTED_EAU: 1}
    assert store.outcomes(AN_INSURER) == {"DELIVERED": 1}
    assert feed(store) == [(1, "eau", 5)]


def test_the_same_batch_again_has_the_same_outcomes_and_changes_nothing(
    open_eau: Callable[[], EauStore],
) -> None:
    batch = [eau(1), eau(2, id=1), faulty(3), storno(4, of=1), storno(5, of=3), storno(6, of=99)]
    store = open_eau()
    first = file(store, *batch)
    before = (store.documents(AN_INSURER), store.outcomes(AN_INSURER), store.letters.waiting(), feed(store))
    again = open_eau()
    assert file(again, *batch) == first
    assert (again.documents(AN_INSURER), again.outcomes(AN_INSURER), again.letters.waiting(), feed(again)) == before
    assert [recorded.state for recorded in first] == [
        State.DELIVERED,
        State.DUPLICATE_LINKED,
        State.RETURNED,
        State.DELIVERED,
        State.RETURNED,
        State.DELIVERED,
    ]


def test_a_batch_that_breaks_leaves_nothing(store: EauStore) -> None:
    def break_after_keeping() -> None:
        with store.filing(AN_INSURER, [eau(1).arrival], NOON) as filing:
            settle_one(filing, eau(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_after_keeping()
    assert store.documents(AN_INSURER) == {}
    assert file(store, eau(1)) == [Recorded(1, State.DELIVERED)]


def test_a_duplicate_is_linked_to_the_first_in_the_same_batch_and_later(store: EauStore) -> None:
    first, again = file(store, eau(1), eau(2, id=1))
    assert again == Recorded(2, State.DUPLICATE_LINKED, "same_document", first=first.delivery)
    assert file(store, eau(3, id=1)) == [Recorded(3, State.DUPLICATE_LINKED, "same_document", first=1)]
    assert feed(store) == [(1, "eau", 1)]


def test_the_memory_for_duplicates_has_no_end(store: EauStore) -> None:
    """HD-26: held for weeks and sent again by a machine that repeats for days, it is the same document a year later."""
    file(store, eau(1))
    late = eau(2, id=1)
    late.arrival = replace(late.arrival, accepted_at=late.arrival.accepted_at + timedelta(days=400))
    assert file(store, late) == [Recorded(2, State.DUPLICATE_LINKED, "same_document", first=1)]


def test_one_case_that_comes_held_repeated_and_made_anew_is_one_and_a_proposal(store: EauStore) -> None:
    """T-06, HD-05: the same id is linked; the same content under another id is filed and proposed, never dropped."""
    key = b"c" * 32
    file(store, eau(1, content_key=key), eau(2, id=1, content_key=key), eau(3, content_key=key))
    store.feed.publish(AN_INSURER, None)
    events = store.feed.events(AN_INSURER, 0, 10)
    assert [(event.similar_to) for event in events] == [None, an_id(1)]
    assert store.outcomes(AN_INSURER) == {"DELIVERED": 2, "DUPLICATE_LINKED": 1}


def test_an_accepted_id_with_other_content_is_quarantined_and_overwrites_nothing(store: EauStore) -> None:
    _, second = file(store, eau(1), eau(2, id=1, content=b"other"))
    assert second == Recorded(2, State.QUARANTINED, "id_reused")
    kept = store.feed.document(AN_INSURER, an_id(1)) if feed(store) else None
    assert kept is not None
    assert kept.xml == b"sealed xml 1"


def test_insurers_do_not_know_each_others_documents(store: EauStore) -> None:
    file(store, eau(1, id=7))
    assert file(store, eau(2, id=7), ik=ANOTHER_INSURER) == [Recorded(2, State.DELIVERED)]
    assert store.documents(ANOTHER_INSURER) == {ACCEPTED_EAU: 1}


def test_a_faulty_document_is_remembered_without_its_content_and_answered_again(store: EauStore) -> None:
    assert file(store, faulty(1), faulty(2, id=1)) == [
        Recorded(1, State.RETURNED, "fehlernachricht 101"),
        Recorded(2, State.RETURNED, "fehlernachricht 101"),
    ]
    assert store.letters.waiting() == 2
    assert store.documents(AN_INSURER) == {(Kind.EAU, DocumentState.REJECTED): 2}
    assert feed(store) == []


def test_a_rejected_document_that_is_processable_now_is_filed_and_noted(store: EauStore) -> None:
    file(store, faulty(1))
    assert file(store, eau(2, id=1)) == [Recorded(2, State.DELIVERED, "delivered_again")]
    assert file(store, eau(3, id=1)) == [Recorded(3, State.DUPLICATE_LINKED, "same_document", first=2)]
    assert file(store, storno(4, of=1)) == [Recorded(4, State.DELIVERED)]


def test_our_own_trouble_records_nothing_at_all(store: EauStore) -> None:
    assert file(store, eau(1, trouble=Trouble.KEY)) == [Recorded(1, State.HELD, "key")]
    assert store.outcomes(AN_INSURER) == {}
    assert file(store, eau(1)) == [Recorded(1, State.DELIVERED)]


def test_a_quarantined_mail_that_people_put_back_is_decided_anew(store: EauStore) -> None:
    found = {"dienstkennung": None, "file_name": None, "profile": None}
    assert file(store, eau(1, **found)) == [Recorded(1, State.QUARANTINED, "unclassifiable")]
    assert file(store, eau(1)) == [Recorded(1, State.DELIVERED)]
    assert store.outcomes(AN_INSURER) == {"DELIVERED": 1}


def test_mail_about_mail_is_recorded_without_a_document(store: EauStore) -> None:
    dsn = eau(1, mail=MailKind.DSN)
    assert file(store, dsn) == [Recorded(1, State.DELIVERED, "dsn")]
    assert store.documents(AN_INSURER) == {}


def test_a_store_beside_a_foreign_mail_store_stops_instead_of_forgetting_mail(store: EauStore) -> None:
    file(store, eau(1))
    other = eau(1, id=2)
    other.arrival = replace(other.arrival, digest=b"another mail")
    with pytest.raises(ForeignMailStoreError):
        file(store, other)


def test_a_certificate_that_came_under_two_numbers_is_proposed_and_filed_twice(store: EauStore) -> None:
    key = b"c" * 32
    file(store, eau(1, content_key=key))
    file(store, eau(2, content_key=key), eau(3, content_key=key))
    store.feed.publish(AN_INSURER, None)
    similar = [event.similar_to for event in store.feed.events(AN_INSURER, 0, 10)]
    assert similar == [None, an_id(1), an_id(1)]


def test_a_cancelled_certificate_and_its_correction_are_not_proposed_as_the_same(store: EauStore) -> None:
    key = b"c" * 32
    file(store, eau(1, content_key=key), storno(2, of=1), eau(3, content_key=key))
    file(store, storno(4, of=3))
    file(store, eau(5, content_key=key))
    store.feed.publish(AN_INSURER, None)
    assert all(event.similar_to is None for event in store.feed.events(AN_INSURER, 0, 10))


# --- Storno in any order ---


@pytest.mark.parametrize("one_batch", [True, False])
def test_a_storno_cancels_its_eau_and_comes_after_it_in_the_feed(store: EauStore, one_batch: bool) -> None:
    cases = [eau(1), storno(2, of=1)]
    _ = file(store, *cases) if one_batch else [file(store, case) for case in cases]
    assert store.documents(AN_INSURER) == {CANCELLED_EAU: 1, ACCEPTED_STORNO: 1}
    assert feed(store) == [(1, "eau", 1), (2, "storno", 1002)]
    first, second = store.feed.events(AN_INSURER, 0, 10)
    assert (first.state, second.target) == (DocumentState.CANCELLED, an_id(1))


@pytest.mark.parametrize("one_batch", [True, False])
def test_a_storno_that_overtook_its_eau_waits_and_is_told_after_it(store: EauStore, one_batch: bool) -> None:
    cases = [storno(1, of=2), eau(2)]
    if one_batch:
        file(store, *cases)
    else:
        assert file(store, cases[0]) == [Recorded(1, State.DELIVERED, "storno_pending")]
        assert store.documents(AN_INSURER) == {PENDING_STORNO: 1}
        assert feed(store) == []
        file(store, cases[1])
    assert store.documents(AN_INSURER) == {CANCELLED_EAU: 1, ACCEPTED_STORNO: 1}
    assert feed(store) == [(1, "eau", 2), (2, "storno", 1001)]
    assert [event.accepted_at for event in store.feed.events(AN_INSURER, 0, 10)] == [
        NOON + timedelta(seconds=2),
        NOON + timedelta(seconds=1),
    ]


def test_a_storno_that_we_kept_waiting_is_not_published_before_its_younger_eau(store: EauStore) -> None:
    file(store, eau(9))
    file(store, storno(5, of=9))
    assert feed(store) == [(1, "eau", 9), (2, "storno", 1005)]


def test_a_second_storno_is_noted_and_remembered(store: EauStore) -> None:
    _, _, second = file(store, eau(1), storno(2, of=1), storno(3, of=1))
    assert second == Recorded(3, State.DUPLICATE_LINKED, "already_cancelled", first=1)
    assert file(store, storno(4, of=1, id=3)) == [Recorded(4, State.DUPLICATE_LINKED, "same_document", first=3)]
    assert feed(store) == [(1, "eau", 1), (2, "storno", 1002)]


def test_the_storno_of_a_rejected_eau_is_answered_and_rejected(store: EauStore) -> None:
    _, answer = file(store, faulty(1), storno(2, of=1))
    assert answer == Recorded(2, State.RETURNED, "fehlernachricht 105")


@pytest.mark.parametrize("one_batch", [True, False])
def test_a_storno_that_waits_is_answered_and_rejected_when_its_eau_is_rejected(
    open_eau: Callable[[], EauStore], one_batch: bool
) -> None:
    store = open_eau()
    cases = [storno(1, of=2), faulty(2)]
    batches = [cases] if one_batch else [[case] for case in cases]
    for batch in batches:
        file(store, *batch)
    assert store.documents(AN_INSURER) == {REJECTED_EAU: 1, REJECTED_STORNO: 1}
    assert store.outcomes(AN_INSURER) == {"DELIVERED": 1, "RETURNED": 1}
    answer, _ = sorted(store.letters.due(NOON, 10), key=lambda letter: letter.delivery)
    assert (answer.code, answer.message_id, answer.draft) == (105, cases[0].letter.message_id, cases[0].letter.draft)
    assert (rows(store, PREPARED), rows(store, CONTENT)) == (0, 0)
    assert store.overdue_stornos(NOON + timedelta(days=1)) == []
    again = open_eau()
    for batch in batches:
        file(again, *batch)
    assert again.letters.waiting() == 2
    assert again.audit.contradictions(AN_INSURER) == {}


def test_nothing_is_sent_for_a_storno_while_it_waits_and_nothing_is_left_once_its_eau_is_filed(store: EauStore) -> None:
    file(store, storno(1, of=2))
    assert (store.letters.waiting(), rows(store, PREPARED)) == (0, 1)
    file(store, eau(2))
    assert (store.letters.waiting(), rows(store, PREPARED)) == (0, 0)
    assert store.audit.contradictions(AN_INSURER) == {}


def test_a_refused_storno_does_not_cancel_its_eau_that_comes_again_and_is_accepted_and_a_new_one_does(
    store: EauStore,
) -> None:
    file(store, storno(1, of=2), faulty(2))
    assert file(store, eau(3, id=2)) == [Recorded(3, State.DELIVERED, "delivered_again")]
    assert store.documents(AN_INSURER) == {REJECTED_EAU: 1, REJECTED_STORNO: 1, ACCEPTED_EAU: 1}
    assert file(store, storno(4, of=2)) == [Recorded(4, State.DELIVERED)]
    assert store.documents(AN_INSURER)[CANCELLED_EAU] == 1


def test_a_refused_storno_that_comes_again_is_answered_again_or_cancels_its_eau_in_the_batch_that_refused_it(
    store: EauStore,
) -> None:
    file(store, storno(1, of=2))
    batch = [faulty(2), storno(3, of=2, id=1), eau(4, id=2), storno(5, of=2, id=1)]
    assert [recorded.reason for recorded in file(store, *batch)] == [
        "fehlernachricht 101",
        "fehlernachricht 105",
        "delivered_again",
        None,
    ]
    assert store.letters.waiting() == 3
    assert store.audit.contradictions(AN_INSURER) == {}


def test_a_storno_that_nobody_can_be_answered_on_goes_on_waiting_for_people(store: EauStore) -> None:
    case = storno(1, of=2)
    with store.filing(AN_INSURER, [case.arrival], NOON) as filing:
        filing.keep(case.arrival, decide(case.found, filing.memory(case.arrival), POLICY), sealed=case.sealed)
    file(store, faulty(2))
    assert [overdue.delivery for overdue in store.overdue_stornos(NOON + timedelta(days=1))] == [1]
    assert store.audit.contradictions(AN_INSURER) == {}


def test_an_auditor_sees_a_refused_storno_without_its_answer_and_an_answer_without_its_storno(
    sqlite_store: EauStore,
) -> None:
    file(sqlite_store, storno(1, of=2), storno(3, of=4), faulty(2))
    with sqlite_store._engine.begin() as connection:
        connection.execute(sa.delete(LETTER).where(LETTER.c.delivery == 1))
        connection.execute(sa.update(DOCUMENT).where(DOCUMENT.c.delivery == 3).values(state="accepted"))
    assert sqlite_store.audit.contradictions(AN_INSURER) == {
        "Storno were rejected with the eAU that they waited for, and no Fehlernachricht was recorded": 1,
        "Fehlernachrichten are prepared for Storno that wait no longer": 1,
    }


def test_a_store_of_the_first_release_gets_the_new_tables_and_keeps_what_it_holds(database: str) -> None:
    store = open_store(database)
    file(store, storno(1, of=2))
    with store._engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE eau_prepared"))
        connection.execute(sa.text("DROP TABLE eau_paper"))
        connection.execute(sa.text("DROP TABLE switch_fence"))
        for table in ("eau_request", "eau_follow_up", "eau_follow_up_cursor"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        for index in ("eau_document_person", "eau_received_epoch", "eau_letter_out"):
            connection.execute(sa.text(f"DROP INDEX {index}"))
        for column in (
            *(f"eau_document.{name}" for name in ("au_type", "starts_on", "ends_on", "issued_on")),
            "eau_received.epoch",
            "eau_event.epoch",
            "eau_event.filed_at",
            "eau_event.published_at",
            "eau_letter.epoch",
            "eau_letter.out_at",
            "eau_document.held_us",
        ):
            table, _, name = column.partition(".")
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN {name}"))
        connection.execute(sa.text("UPDATE schleuse_eau_migrations_version SET version_num = '0001'"))
    store.close()
    again = open_store(database)
    assert (again.documents(AN_INSURER), rows(again, PREPARED)) == ({PENDING_STORNO: 1}, 0)
    file(again, faulty(2))
    assert again.documents(AN_INSURER) == {PENDING_STORNO: 1, REJECTED_EAU: 1}
    again.close()


def test_letters_that_left_before_the_upgrade_count_for_a_rate_after_it(database: str) -> None:
    store = open_store(database)
    file(store, faulty(1), faulty(2))
    store.letters.sent(1, NOON)
    with store._engine.begin() as connection:
        for index in ("eau_letter_out", "eau_request_until", "eau_follow_up_request"):
            connection.execute(sa.text(f"DROP INDEX {index}"))
        for table, name in (("eau_letter", "out_at"), ("eau_request", "cancelled_at")):
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN {name}"))
        connection.execute(sa.text("UPDATE schleuse_eau_migrations_version SET version_num = '0007'"))
    store.close()
    again = open_store(database)
    (letter,) = again.letters.due(NOON, 10)
    assert not again.letters.let_out(letter, NOON + timedelta(minutes=59), per_hour=1)
    assert again.letters.let_out(letter, NOON + timedelta(minutes=60), per_hour=1)
    again.close()


def test_people_can_ask_which_stornos_wait_too_long(store: EauStore) -> None:
    file(store, storno(1, of=50), storno(2, of=51))
    (overdue,) = store.overdue_stornos(NOON + timedelta(seconds=2))
    assert (overdue.delivery, overdue.target) == (1, an_id(50))


def test_a_foreign_storno_waits_for_ever_under_the_strict_policy(store: EauStore) -> None:
    strict = replace(POLICY, foreign_storno=ForeignStorno.QUARANTINE)
    file(store, storno(1, of=2, practice=OTHER_PRACTICE), eau(2), policy=strict)
    assert store.documents(AN_INSURER) == {PENDING_STORNO: 1, ACCEPTED_EAU: 1}


# --- any order, any batches, any crashes ---

MAILS = st.lists(st.tuples(st.sampled_from(["eau", "faulty", "storno"]), st.integers(1, 4)), min_size=1, max_size=12)


@given(MAILS, st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_mails_are_batched_and_repeated_each_document_is_filed_once(
    tmp_path_factory: pytest.TempPathFactory, mails: list[tuple[str, int]], data: st.DataObject
) -> None:
    cases = [
        storno(delivery, of=number, id=number)
        if kind == "storno"
        else (eau if kind == "eau" else faulty)(delivery, id=number)
        for delivery, (kind, number) in enumerate(mails, 1)
    ]
    store = open_store(sqlite_url(tmp_path_factory.mktemp("any") / "eau.sqlite"))
    outcomes: dict[int, Recorded] = {}
    rest = cases
    while rest:
        size = data.draw(st.integers(1, len(rest)), label="batch")
        batch = rest[:size]
        repeats = data.draw(st.integers(1, 2), label="runs of it")
        for _ in range(repeats):
            for recorded in file(store, *batch):
                assert outcomes.setdefault(recorded.delivery, recorded) == recorded
        rest = rest[size:]
    events = feed(store)
    assert [seq for seq, _, _ in events] == list(range(1, len(events) + 1))
    assert len({(kind, number) for _, kind, number in events}) == len(events)
    accepted = {number for kind, number in mails if kind == "eau"}
    assert {number for _, kind, number in events if kind == "eau"} == accepted
    for _, kind, number in events:
        if kind == "storno":
            assert ("eau", number - 1000) in [(kind, number) for _, kind, number in events]
    returned = [one for one in outcomes.values() if one.state is State.RETURNED]
    refused = sum(
        number for (kind, state), number in store.documents(AN_INSURER).items() if (kind, state) == REJECTED_STORNO
    ) - sum(one.state is State.RETURNED and one.reason == "fehlernachricht 105" for one in outcomes.values())
    assert store.letters.waiting() == len(returned) + refused
    assert store.audit.contradictions(AN_INSURER) == {}
    assert len(outcomes) == len(cases)
    store.close()


def test_two_workers_of_one_insurer_file_one_after_the_other(open_eau: Callable[[], EauStore]) -> None:
    stores = [open_eau(), open_eau()]
    failures: list[BaseException] = []

    def work(store: EauStore, deliveries: range) -> None:
        try:
            for delivery in deliveries:
                file(store, eau(delivery, id=(delivery % 100) + 1))
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(store, range(start, start + 20)))
        for store, start in zip(stores, (100, 200), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert stores[0].documents(AN_INSURER) == {ACCEPTED_EAU: 20}
    assert stores[0].outcomes(AN_INSURER) == {"DELIVERED": 20, "DUPLICATE_LINKED": 20}


def test_a_database_that_cannot_serve_is_unavailable_and_nothing_else(sqlite_store: EauStore) -> None:
    with sqlite_store._engine.begin() as connection:  # the disk loses a table
        connection.execute(sa.text("DROP TABLE eau_event"))
    with pytest.raises(UnavailableError):
        file(sqlite_store, eau(1))
    assert sqlite_store.documents(AN_INSURER) == {}


# --- publication ---


def test_numbers_are_given_in_acceptance_order_and_only_below_the_watermark(store: EauStore) -> None:
    file(store, eau(30), eau(10), eau(20))
    assert store.feed.publish(AN_INSURER, below=20) == 1
    assert store.feed.publish(AN_INSURER, below=20) == 0
    file(store, eau(15))
    assert store.feed.publish(AN_INSURER, below=None) == 3
    numbers = [int(event.document_id.value[-12:], 16) for event in store.feed.events(AN_INSURER, 0, 10)]
    assert numbers == [10, 15, 20, 30]


def test_publication_goes_on_in_steps_without_gaps(store: EauStore) -> None:
    file(store, *(eau(delivery) for delivery in range(1, 8)))
    assert [store.feed.publish(AN_INSURER, None, limit=3) for _ in range(4)] == [3, 3, 1, 0]
    assert [seq for seq, _, _ in feed(store)] == list(range(1, 8))


def test_each_insurer_has_numbers_of_its_own(store: EauStore) -> None:
    file(store, eau(1))
    file(store, eau(2), ik=ANOTHER_INSURER)
    assert store.feed.publish(AN_INSURER, None) == 1
    assert store.feed.events(ANOTHER_INSURER, 0, 10) == []
    assert store.feed.publish(ANOTHER_INSURER, None) == 1
    assert [event.seq for event in store.feed.events(ANOTHER_INSURER, 0, 10)] == [1]


def test_a_document_is_not_shown_before_its_event(store: EauStore) -> None:
    file(store, eau(1), faulty(2))
    assert store.feed.document(AN_INSURER, an_id(1)) is None
    store.feed.publish(AN_INSURER, None)
    assert store.feed.document(AN_INSURER, an_id(1)) is not None
    assert store.feed.document(ANOTHER_INSURER, an_id(1)) is None
    assert store.feed.document(AN_INSURER, an_id(2)) is None


def test_who_publishes_can_ask_where_the_unnumbered_events_end(store: EauStore) -> None:
    assert store.feed.unpublished_end(AN_INSURER) is None
    file(store, eau(30), eau(10))
    assert store.feed.unpublished_end(AN_INSURER) == 31
    store.feed.publish(AN_INSURER, below=31)
    assert store.feed.unpublished_end(AN_INSURER) is None


# --- the switch ---


def test_a_batch_of_an_older_epoch_records_nothing_and_another_insurer_goes_on(store: EauStore) -> None:
    """SW-06, T-05, T-24: refused at the store, in the transaction of the effect."""
    store.raise_fence({processing(AN_INSURER): 5, processing(ANOTHER_INSURER): 2}, 5)
    with pytest.raises(StaleEpochError), store.filing(AN_INSURER, [eau(1).arrival], NOON, 4):
        raise AssertionError("the block must not be entered")
    file(store, eau(2), ik=ANOTHER_INSURER, epoch=4)
    assert (store.outcomes(AN_INSURER), store.outcomes(ANOTHER_INSURER)) == ({}, {State.DELIVERED: 1})
    assert store.fence_head() == 5


def test_the_epoch_of_its_decision_stands_beside_a_mail(store: EauStore) -> None:
    """Invariant 2 of incident.md appendix B."""
    store.raise_fence({processing(AN_INSURER): 5}, 5)
    file(store, eau(1), epoch=5)
    file(store, eau(2))
    with store._engine.begin() as connection:
        epochs = connection.execute(sa.select(RECEIVED.c.epoch).order_by(RECEIVED.c.delivery)).scalars().all()
    assert epochs == [5, None]


def test_a_publication_of_an_older_epoch_numbers_nothing(store: EauStore) -> None:
    """SW-06: for the insurer that was switched, and only for this one."""
    file(store, eau(1))
    file(store, eau(2), ik=ANOTHER_INSURER)
    store.raise_fence({delivering(AN_INSURER): 5}, 5)
    with pytest.raises(StaleEpochError):
        store.feed.publish(AN_INSURER, None, terms=Terms(4, NOON))
    assert store.feed.publish(ANOTHER_INSURER, None, terms=Terms(4, NOON)) == 1
    assert store.feed.events(AN_INSURER, 0, 10) == []
    assert store.feed.publish(AN_INSURER, None, terms=Terms(5, NOON)) == 1


def test_a_limited_feed_grows_by_no_more_than_its_rate_in_any_hour(store: EauStore) -> None:
    file(store, *(eau(number) for number in range(1, 8)))

    def publish(minutes: int) -> int:
        return store.feed.publish(AN_INSURER, None, terms=Terms(1, NOON + timedelta(minutes=minutes), per_hour=3))

    assert [publish(0), publish(1), publish(59)] == [3, 0, 0]
    assert [publish(61), publish(120)] == [3, 0]
    assert publish(122) == 1
    assert [event.seq for event in store.feed.events(AN_INSURER, 0, 10)] == [1, 2, 3, 4, 5, 6, 7]
    file(store, *(eau(number) for number in range(8, 15)))
    assert [publish(9000), publish(200)] == [3, 3]  # a clock that was days ahead keeps nothing back
    assert publish(170) == 0  # and one that was set back by less than an hour gives nothing more


def test_a_limited_feed_gets_its_share_and_the_others_their_numbers_later(store: EauStore) -> None:
    """RS-06, § 9.2: canary and cohorts. No gaps, and a greater share is the smaller one and more."""
    ids = [number << 10 for number in range(1, 41)]
    file(store, *(eau(id) for id in ids))

    def publish(permille: int | None) -> int:
        return store.feed.publish(AN_INSURER, None, terms=Terms(1, NOON, permille=permille))

    expected: list[int] = []
    for permille in (0, 100, 100, 500):
        more = [id for id in ids if share_of(id) < permille and id not in expected]
        assert publish(permille) == len(more)
        expected += more
    assert 0 < len(expected) < len(ids)
    assert publish(None) == len(ids) - len(expected)
    expected += [id for id in ids if id not in expected]
    assert feed(store) == [(seq, "eau", id) for seq, id in enumerate(expected, 1)]


def test_a_storno_is_published_with_its_eau_and_never_before_it(store: EauStore) -> None:
    """HD-06: whatever the place of its own mail in the share."""
    out = next(id for n in range(1, 99) if share_of(id := n << 10) >= 500)
    into = [id for n in range(99, 250) if share_of(id := n << 10) < 500][:3]
    file(store, eau(out), storno(into[0], of=out), eau(into[1]), storno(into[2], of=into[1]))
    terms = Terms(1, NOON, permille=500)
    assert store.feed.publish(AN_INSURER, None, terms=terms) == 2
    assert published(store) == [(1, "eau", into[1]), (2, "storno", 1000 + into[2])]
    assert store.feed.publish(AN_INSURER, None, terms=replace(terms, permille=1000)) == 2
    assert published(store)[2:] == [(3, "eau", out), (4, "storno", 1000 + into[0])]


def test_how_long_a_document_waited_for_its_publication_is_added_to_how_long_its_mail_was_held(
    store: EauStore,
) -> None:
    """HD-46."""
    file(store, eau(1, held_for=timedelta(hours=2)), eau(2))
    hours = Terms(1, NOON, held_since=lambda filed: timedelta(hours=1) if filed == NOON else timedelta(0))
    store.feed.publish(AN_INSURER, None, terms=hours)
    held = [event.held_for for event in store.feed.events(AN_INSURER, 0, 10)]
    assert held == [timedelta(hours=3), timedelta(hours=1)]
