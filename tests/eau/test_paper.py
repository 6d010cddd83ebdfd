"""Certificates that came on paper: told by the insurer's system, matched whenever somebody looks (HD-05, T-06)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.eau.asgi import Http
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER, EAU_FACTS, NOON, an_id, eau, file, storno
from tests.eau.test_feed import (
    Fill,
    Journal,
    app,
    benefits,
    clock,
    fill,
    http,
    journal,
    mails,
    running,
    signer,
    switch,
    vault,
)
from tests.switch_double import FakeSwitch
from tests.vault_double import VaultDouble

from schleuse.eau.document import certificate_key
from schleuse.eau.feed_login import Happened
from schleuse.eau.paper_store import PaperDiffersError
from schleuse.eau.store import EauStore
from schleuse.eau.switched import delivering
from schleuse.identifiers import KVNR
from schleuse.scopes import ScopeState
from schleuse.switch.fence import StaleEpochError
from schleuse.vault import Named

__all__ = ["app", "benefits", "clock", "fill", "http", "journal", "mails", "running", "signer", "switch", "vault"]

KEY, OTHER = b"c" * 32, b"d" * 32
PAPER = {
    "kvnr": "A123456780",
    "practice": "123456789",
    "starts_on": "2026-02-02",
    "ends_on": "2026-02-06",
    "kind": "ERST",
    "diagnoses": ["J06.9", "R05"],
}
AT = f"/v1/{AN_INSURER}/paper"


def test_it_is_matched_whichever_came_first(store: EauStore) -> None:
    """T-06: neither the paper nor a document generated anew is dropped; each is named, the oldest first."""
    papers = store.feed.paper
    assert papers.tell(AN_INSURER, "before", KEY, "benefits", NOON).matches == ()
    file(store, eau(1, content_key=KEY), eau(2, content_key=KEY), eau(3, content_key=OTHER))
    assert papers.papers(AN_INSURER, 0, 100)[0].matches == (), "the feed has not named them yet"
    store.feed.publish(AN_INSURER, None)
    assert papers.tell(AN_INSURER, "after", KEY, "benefits", NOON).matches == (an_id(1), an_id(2))
    assert [one.matches for one in papers.papers(AN_INSURER, 0, 100)] == [(an_id(1), an_id(2))] * 2
    events = store.feed.events(AN_INSURER, 0, 10)
    assert [event.on_paper for event in events] == ["before", "before", None]
    assert [event.similar_to for event in events] == [None, an_id(1), None]


def test_a_cancelled_eau_is_not_proposed_any_more(store: EauStore) -> None:
    file(store, eau(1, content_key=KEY), storno(2, of=1))
    store.feed.publish(AN_INSURER, None)
    assert store.feed.paper.tell(AN_INSURER, "p", KEY, "benefits", NOON).matches == ()


def test_telling_again_changes_nothing_and_other_contents_need_another_reference(store: EauStore) -> None:
    papers = store.feed.paper
    assert papers.tell(AN_INSURER, "p", KEY, "benefits", NOON) == papers.tell(AN_INSURER, "p", KEY, "archive", NOON)
    with pytest.raises(PaperDiffersError):
        papers.tell(AN_INSURER, "p", OTHER, "benefits", NOON)
    assert len(papers.papers(AN_INSURER, 0, 100)) == 1


def test_insurers_do_not_know_each_others_papers(store: EauStore) -> None:
    file(store, eau(1, content_key=KEY))
    store.feed.publish(AN_INSURER, None)
    assert store.feed.paper.tell(ANOTHER_INSURER, "p", KEY, "benefits", NOON).matches == ()
    assert store.feed.events(AN_INSURER, 0, 10)[0].on_paper is None
    assert store.feed.paper.papers(AN_INSURER, 0, 100) == []


def test_what_was_closed_meanwhile_keeps_nothing(store: EauStore) -> None:
    """SW-06."""
    store.raise_fence({delivering(AN_INSURER): 9}, 9)
    with pytest.raises(StaleEpochError):
        store.feed.paper.tell(AN_INSURER, "p", KEY, "benefits", NOON, epoch=8)
    assert store.feed.paper.papers(AN_INSURER, 0, 100) == []


def put(http: Http, reference: str = "post-1", **changes: Any) -> Any:
    return http.request("PUT", f"{AT}/{reference}", json={**PAPER, **changes})


def test_an_insurers_system_tells_it_and_is_shown_the_eau(
    http: Http, fill: Fill, vault: VaultDouble, journal: Journal
) -> None:
    contents = certificate_key(("A123456780",), "123456789", "2026-02-02", "2026-02-06", "ERST", ["R05", "J06.9"])
    (whose,) = vault.pseudonyms(AN_INSURER, [Named(b"A123456780", contents)])
    fill(eau(1, content_key=whose.content))
    answer = put(http)
    assert answer.status_code == 200
    assert answer.json()["possibly_same_as"] == [str(an_id(1))]
    page = http.get(AT).json()
    assert (page["papers"], page["next"]) == ([answer.json()], answer.json()["number"])
    assert http.get(f"{AT}?after={page['next']}").json()["papers"] == []
    assert http.get(f"/v1/{AN_INSURER}/eau").json()["events"][0]["possibly_on_paper"] == "post-1"
    told = [event for event in journal.events if event.what is Happened.PAPER]
    assert [(event.ik, event.client, event.paper) for event in told] == [(AN_INSURER, "benefits", "post-1")]


def test_a_scan_and_an_eau_of_the_same_contents_have_the_same_key() -> None:
    """HD-05: the same octets, whatever the order of the diagnoses."""
    facts = replace(
        EAU_FACTS, kvnr=KVNR("A123456780"), starts_on="2026-02-02", ends_on="2026-02-06", au_type="ERST",
        diagnoses=frozenset({"J06.9", "R05"}),
    )  # fmt: skip
    assert facts.content_key() == certificate_key(
        ("A123456780",), "123456789", "2026-02-02", "2026-02-06", "ERST", ["R05", "J06.9", "R05"]
    )


def test_what_the_journal_does_not_take_is_not_kept(http: Http, journal: Journal, sqlite_store: EauStore) -> None:
    """RP-01: record, then act."""
    journal.fail = True
    assert put(http).status_code == 503
    assert sqlite_store.feed.paper.papers(AN_INSURER, 0, 10) == []


def test_a_vault_that_does_not_serve_makes_it_wait(http: Http, vault: VaultDouble, sqlite_store: EauStore) -> None:
    vault.fail("pseudonyms")
    assert put(http).status_code == 503
    vault.recover()
    assert put(http).status_code == 200
    assert len(sqlite_store.feed.paper.papers(AN_INSURER, 0, 10)) == 1


def test_while_it_is_closed_nothing_is_told(http: Http, switch: FakeSwitch, sqlite_store: EauStore) -> None:
    switch.set(f"eau_intake/{AN_INSURER}/deliver", ScopeState.HOLD)
    answer = put(http)
    assert (answer.status_code, answer.json()["code"]) == (503, "eau.feed.closed")
    assert sqlite_store.feed.paper.papers(AN_INSURER, 0, 10) == []


@pytest.mark.parametrize(
    ("reference", "changes", "status"),
    [
        ("A123456780", {}, 400),
        ("a123456780", {}, 400),
        ("x" * 65, {}, 422),
        ("a b", {}, 422),
        (".p", {}, 422),
        ("p", {"kvnr": "123"}, 422),
        ("p", {"ends_on": "2026-02-30"}, 422),
        ("p", {"ends_on": None}, 422),
        ("p", {"kind": "erst"}, 422),
        ("p", {"diagnoses": ["Grippe"]}, 422),
        ("p", {"name": "Muster"}, 422),
    ],
)
def test_bad_tellings_are_refused_and_quoted_nowhere(
    http: Http, reference: str, changes: dict[str, Any], status: int
) -> None:
    """HD-27: a name, or a reference that is a KVNR, is not taken."""
    answer = put(http, reference, **changes)
    assert answer.status_code == status
    assert "A123456780" not in answer.text.replace(reference, "")
    assert "Muster" not in answer.text
