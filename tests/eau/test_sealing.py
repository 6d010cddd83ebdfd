"""Whose key a document is sealed under: the person's, and nobody is mixed up with anybody."""

from __future__ import annotations

from dataclasses import replace

from schleuse.eau.document import DocumentId, Facts, Kind, Profile
from schleuse.eau.sealing import named
from schleuse.identifiers import KVNR

EAU = Facts(
    DocumentId("urn:uuid:5f6e5a4e-0000-4000-8000-000000000001"),
    Profile("https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_Bundle", "1.2"),
    Kind.EAU,
    practice="123456789",
    kvnr=KVNR("A123456780"),
)
STORNO = replace(
    EAU, id=DocumentId("urn:uuid:5f6e5a4e-0000-4000-8000-000000000002"), kind=Kind.STORNO, target=EAU.id, kvnr=None
)
BY_NAME = replace(EAU, kvnr=None, person=("Muster", "Erika", "1990-01-01"))


def test_an_insured_person_is_known_by_the_kvnr_as_it_is() -> None:
    assert (named(EAU).person, named(EAU).practice) == (b"A123456780", b"123456789")
    assert named(replace(EAU, practice=None)).practice is None


def test_a_person_without_kvnr_is_known_by_name_and_birth_date_however_they_are_written() -> None:
    other = replace(BY_NAME, person=(" MUSTER", "erika", "1990-01-01"))
    assert named(BY_NAME).person == named(other).person
    assert named(BY_NAME).person != named(replace(BY_NAME, person=("Muster", "Eva", "1990-01-01"))).person


def test_a_document_that_names_nobody_is_by_itself_and_a_storno_belongs_to_its_eau() -> None:
    nobody = replace(EAU, kvnr=None)
    assert named(STORNO).person == named(nobody).person
    assert named(nobody).person != named(replace(nobody, id=STORNO.id)).person


def test_a_name_or_an_id_is_never_taken_for_a_kvnr() -> None:
    for other in (BY_NAME, STORNO, replace(BY_NAME, person=("A123456780", "", "")), replace(EAU, kvnr=None)):
        assert b"\x1f" in named(other).person
    assert b"\x1f" not in named(EAU).person


def test_equal_certificates_have_equal_content() -> None:
    assert named(EAU).content == named(replace(EAU, id=STORNO.id)).content
    assert named(STORNO).content == b""
