"""The generator: the same seed gives the same bytes, the choices are followed, the numbers are real."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from random import Random
from xml.etree import ElementTree as ET

import pytest

from schleuse.identifiers import KVNR
from schleuse.practice.documents import Document, Generator
from schleuse.practice.documents.people import luhn
from schleuse.practice.documents.plan import QUALIFICATION, Issuer, Payor

NOW = datetime(2026, 3, 4, 10, 30, tzinfo=UTC)
FHIR = "{http://hl7.org/fhir}"


def generator(seed: int = 7) -> Generator:
    return Generator(Random(seed), NOW)


def values(document: Document, path: str) -> list[str]:
    """Values at a path of plain names below the bundle's resources."""
    steps = "/".join(FHIR + name for name in path.split("/"))
    return [found.get("value", "") for found in ET.fromstring(document.xml).iterfind(f".//{steps}")]


def test_the_same_seed_and_instant_give_the_same_bytes() -> None:
    assert generator().eau().xml == generator().eau().xml


def test_another_seed_gives_another_document() -> None:
    assert generator(1).eau().document_id != generator(2).eau().document_id


def test_the_bytes_are_utf8_without_bom() -> None:
    xml = generator().eau().xml
    assert xml.startswith(b'<?xml version="1.0" encoding="UTF-8"?>')
    xml.decode("utf-8")


def test_the_document_id_is_a_uuid_of_version_5_and_stands_in_the_bundle() -> None:
    document = generator().eau()
    assert uuid.UUID(document.document_id.removeprefix("urn:uuid:")).version == 5
    assert document.document_id in values(document, "identifier/value")


def test_every_kvnr_has_its_check_digit() -> None:
    drawn = [generator(seed).eau().patient.kvnr for seed in range(50)]
    assert all(KVNR(kvnr).has_check_digit for kvnr in drawn)


def test_every_ik_has_its_check_digit() -> None:
    drawn = [generator(seed).eau(payor="GKV").facts.insurer_ik or "" for seed in range(50)]
    assert all(luhn(ik[2:8]) == ik[8] for ik in drawn)


def test_the_check_digit_of_a_public_ik_comes_out() -> None:
    assert luhn("157551") == "9"  # 101575519, a public IK


def test_a_folge_has_no_start_and_an_erst_has_one() -> None:
    assert values(generator().eau(kind="FOLGE"), "onsetPeriod/start") == []
    first = generator().eau(kind="ERST", start=date(2026, 3, 2))
    assert values(first, "onsetPeriod/start") == ["2026-03-02"]
    assert first.facts.incapable_from == date(2026, 3, 2)


def test_in_the_ersatzverfahren_no_kvnr_is_written() -> None:
    document = generator().eau(payor="GKV", kvnr=False)
    assert document.facts.kvnr is None
    assert document.patient.kvnr.encode() not in document.xml


@pytest.mark.parametrize("payor", ["GKV", "PKV", "BG", "SEL", "SKT", "UK"])
def test_every_payor_can_be_chosen(payor: Payor) -> None:
    assert payor in values(generator().eau(payor=payor), "Coverage/type/coding/code")


@pytest.mark.parametrize("issuer", list(QUALIFICATION))
def test_every_issuer_can_be_chosen(issuer: Issuer) -> None:
    document = generator().eau(issuer=issuer)
    assert QUALIFICATION[issuer] in values(document, "qualification/code/coding/code")


def test_a_second_person_answers_for_a_doctor_in_training() -> None:
    document = generator().eau(issuer="weiterbildung", responsible=True)
    assert len(values(document, "Practitioner/id")) == 2
    assert values(document, "attester/mode") == ["legal"]


def test_a_storno_names_the_document_and_nobody_insured() -> None:
    document = generator().eau()
    storno = generator(8).storno(document)
    assert storno.facts.cancels == document.document_id
    assert values(storno, "item/identifier/value") == [document.document_id]
    assert values(storno, "Patient/id") == []
    assert storno.document_id != document.document_id


def test_a_folge_can_be_made_for_the_same_case() -> None:
    first = generator().eau(payor="GKV", kvnr=True)
    later = generator(9).eau(
        payor="GKV", kvnr=True, kind="FOLGE", patient=first.patient, practice=first.practice, doctor=first.doctor
    )
    assert later.facts.kvnr == first.facts.kvnr
    assert later.document_id != first.document_id


def test_the_file_is_named_by_the_bare_document_id() -> None:
    document = generator().eau()
    bare = document.document_id.removeprefix("urn:uuid:")
    assert document.file_name() == f"EEAU0_{bare}.xml"
    assert generator().storno(document).file_name("T", ".p7s").startswith("TEAU0_Storno_")


def test_the_version_after_the_bar_is_the_one_chosen() -> None:
    profiles = values(generator().eau("1.1.0"), "meta/profile")
    assert profiles
    assert all(profile.endswith("|1.1.0") for profile in profiles)


def test_a_rich_document_is_as_long_as_real_ones() -> None:
    rich = generator().eau(icds=6, steps=("d_arzt", "reha"), text="Kreuzschmerz", lines="extra")
    assert 20_000 < len(rich.xml) < 32_000


def test_names_do_not_leak_by_being_printed() -> None:
    document = generator().eau()
    assert document.patient.name.family not in repr((document, document.patient, document.facts))
