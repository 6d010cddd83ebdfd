"""DocumentId, profiles and the facts that are read out of a document."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eau.samples import BUNDLE, STORNO_BUNDLE

from schleuse.eau.document import (
    BadDocumentError,
    BadDocumentIdError,
    DocumentId,
    Kind,
    Profile,
    read_document_id,
    read_facts,
    read_profile,
)
from schleuse.fhir.node import parse
from schleuse.identifiers import KVNR
from schleuse.practice.documents import Generator
from schleuse.practice.documents.plan import Version

UUID = "A1b2c3d4-0000-4000-8000-00000000000F"


def generator(seed: int = 1) -> Generator:
    return Generator(random.Random(seed), datetime(2026, 2, 2, 9, tzinfo=UTC))


@pytest.mark.parametrize("written", [UUID, f"urn:uuid:{UUID}", f"URN:UUID:{UUID.upper()}", f" {UUID} "])
def test_one_uuid_is_one_document_however_it_is_written(written: str) -> None:
    assert DocumentId(written) == DocumentId(f"urn:uuid:{UUID.lower()}")
    assert DocumentId(written).written == written.strip()


def test_an_id_that_is_no_uuid_is_kept_because_the_profile_allows_it() -> None:
    assert DocumentId("2026/02/Ä-17").value == "2026/02/Ä-17"


@pytest.mark.parametrize("value", ["", "  ", "a\nb", "a\x00", "x" * 256, "\ud800"])
def test_an_id_that_cannot_be_a_key_or_stand_in_a_header_is_none(value: str) -> None:
    with pytest.raises(BadDocumentIdError):
        DocumentId(value)


@given(st.text())
def test_whatever_the_text_an_id_is_printable_and_stays_equal_to_itself(text: str) -> None:
    try:
        id = DocumentId(text)
    except BadDocumentIdError:
        return
    assert id.value.isprintable()
    assert DocumentId(id.value) == id


def test_the_facts_of_an_eau_are_those_that_the_practice_wrote() -> None:
    document = generator().eau(kind="ERST", payor="GKV", kvnr=True, place="praxis")
    facts = read_facts(parse(document.xml))
    assert facts.kind is Kind.EAU
    assert facts.id == DocumentId(document.document_id)
    assert facts.profile == Profile(BUNDLE, "1.2")
    assert facts.kvnr == KVNR(document.facts.kvnr or "")
    assert facts.insurer is not None
    assert facts.insurer.value == document.facts.insurer_ik
    assert (facts.au_type, facts.target, facts.person) == ("ERST", None, None)
    assert facts.starts_on == str(document.facts.incapable_from)
    assert facts.ends_on == str(document.facts.incapable_until)
    assert facts.diagnoses == set(document.facts.diagnoses)
    assert facts.practice is not None
    assert len(facts.practice) == 9


@pytest.mark.parametrize("seed", range(20))
def test_every_document_that_a_practice_may_send_can_be_read(seed: int) -> None:
    versions: tuple[Version, ...] = ("1.2", "1.1.0")
    for version in versions:
        document = generator(seed).eau(version)
        facts = read_facts(parse(document.xml))
        assert facts.id.value == document.document_id
        assert facts.profile.version == version
        assert facts.diagnoses == set(document.facts.diagnoses)


def test_a_storno_names_its_practice_and_the_eau_to_cancel_and_no_person() -> None:
    practice = generator()
    document = practice.eau(place="praxis")
    facts = read_facts(parse(practice.storno(document).xml))
    assert facts.kind is Kind.STORNO
    assert facts.profile.url == STORNO_BUNDLE
    assert facts.target == DocumentId(document.document_id)
    assert facts.practice == read_facts(parse(document.xml)).practice
    assert (facts.kvnr, facts.person, facts.content_key()) == (None, None, None)


def test_in_the_ersatzverfahren_name_and_birth_date_stand_for_the_kvnr() -> None:
    document = generator().eau(payor="GKV", kvnr=False, birth="day")
    facts = read_facts(parse(document.xml))
    assert facts.kvnr is None
    assert facts.person is not None
    assert facts.person[0] == document.facts.family
    assert facts.person_key() is None
    assert facts.content_key() is not None


def test_the_same_certificate_written_anew_has_the_same_content_key() -> None:
    facts = read_facts(parse(generator().eau(payor="GKV", kvnr=True).xml))
    again = replace(facts, id=DocumentId("another"), diagnoses=frozenset(sorted(facts.diagnoses)))
    assert again.content_key() == facts.content_key()
    assert replace(facts, ends_on="2026-12-31").content_key() != facts.content_key()
    assert replace(facts, diagnoses=frozenset({"Z99.9"})).content_key() != facts.content_key()


def test_facts_do_not_show_the_person_when_printed() -> None:
    for kvnr in (True, False):
        document = generator().eau(payor="GKV", kvnr=kvnr)
        facts = read_facts(parse(document.xml))
        shown = repr(facts) + str(facts)
        assert document.facts.family not in shown  # type: ignore[operator]
        assert (document.facts.kvnr or "X123") not in shown


def test_a_faulty_document_still_tells_its_id_and_profile_for_the_answer() -> None:
    bundle = parse(
        b'<Bundle xmlns="http://hl7.org/fhir"><meta><profile value="https://example.org/Other|1.2"/></meta>'
        b'<identifier><system value="urn:ietf:rfc:3986"/><value value="abc"/></identifier></Bundle>'
    )
    assert read_document_id(bundle) == DocumentId("abc")
    assert read_profile(bundle) == Profile("https://example.org/Other", "1.2")
    assert Profile("https://example.org/Other", "1.2").kind is None
    with pytest.raises(BadDocumentError):
        read_facts(bundle)


def test_a_document_without_profile_or_id_tells_nothing() -> None:
    bundle = parse(b'<Bundle xmlns="http://hl7.org/fhir"><type value="document"/></Bundle>')
    assert read_document_id(bundle) is None
    assert read_profile(bundle) is None
