"""The error message as XML and as mail (eau.md § 12)."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.eau.samples import AN_INSURER, ANOTHER_INSURER

from schleuse.eau.codes import CODES
from schleuse.eau.document import Kind
from schleuse.eau.fehlernachricht import (
    MAX_DETAILS,
    VIRUS_BODY,
    BadFehlernachrichtError,
    Envelope,
    Fehlernachricht,
    answer_address,
    build_mail,
    identity,
    message_id,
)
from schleuse.eau.findings import Detail
from schleuse.eau.outcome import Faulty, Reference
from schleuse.eau.rules import EDITIONS, ROOTS, Edition, definitions
from schleuse.eau.versions import Answer
from schleuse.errors import UnavailableError
from schleuse.fhir import compile_rules
from schleuse.fhir.node import parse
from schleuse.kim.address import KIMAddress

SENDER, PRACTICE = KIMAddress("eau@Kasse.kim.telematik"), KIMAddress("praxis@arzt.kim.telematik")
FAULTY = Faulty(
    CODES[101],
    Kind.EAU,
    Reference.BUNDLE_IDENTIFIER,
    "urn:uuid:00000000-0000-5000-8000-000000000001",
    Answer.V1_2,
    "V1.2",
    (Detail("Bundle.entry[1].resource.birthDate", "-eau-geburtsdatumPatient", "Größe gefunden: 3, erwartet: 1"),),
)
ID = identity(AN_INSURER, 7, "<bad@mail>")
MESSAGE = Fehlernachricht(ID, "E", FAULTY)
ENVELOPE = Envelope(
    SENDER, PRACTICE, datetime(2026, 2, 2, 9, 30, tzinfo=UTC), "Schleuse;0.1.0", in_reply_to="<bad@mail>"
)


def read(mail: bytes) -> EmailMessage:
    parsed = email.message_from_bytes(mail, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def parts(mail: bytes) -> tuple[EmailMessage, EmailMessage]:
    text, attachment = read(mail).iter_parts()
    return text, attachment  # type: ignore[return-value]


@pytest.mark.parametrize("number", sorted(CODES))
def test_the_xml_has_one_issue_with_the_code_and_its_display_letter_for_letter(number: int) -> None:
    outcome = parse(replace(MESSAGE, faulty=replace(FAULTY, code=CODES[number])).xml())
    assert (outcome.type, outcome.text("id")) == ("OperationOutcome", ID)
    assert outcome.text("meta", "profile") == (
        "https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_health_insurance_Practitioner|1.2"
    )
    (issue,) = outcome.all("issue")
    assert (issue.text("severity"), issue.text("code")) == ("fatal", "processing")
    (coding,) = issue.all("details", "coding")
    assert coding.text("code") == str(number)
    assert coding.text("display") == CODES[number].display
    assert coding.text("system") == "https://fhir.kbv.de/CodeSystem/KBV_CS_SFHIR_EAU_AU_ERROR_KASSE"
    assert set(coding.children) == {"system", "code", "display"}


def test_the_reference_is_the_document_or_the_mail() -> None:
    (identifier,) = parse(MESSAGE.xml()).all("issue", "extension", "extension", "valueIdentifier")
    assert (identifier.text("system"), identifier.text("value")) == ("urn:ietf:rfc:3986", FAULTY.reference_value)
    by_mail = replace(FAULTY, reference=Reference.MESSAGE_ID, reference_value="<a&\"b'@c>")
    (identifier,) = parse(replace(MESSAGE, faulty=by_mail).xml()).all(
        "issue", "extension", "extension", "valueIdentifier"
    )
    assert identifier.text("system") == "https://fhir.kbv.de/NamingSystem/KBV_NS_EAU_Message_ID_KIM"
    assert identifier.text("value") == "<a&\"b'@c>"


def test_the_older_version_is_written_as_such() -> None:
    old = replace(MESSAGE, faulty=replace(FAULTY, version=Answer.V1_1_0, dienstkennung_version="V1.1"))
    assert (parse(old.xml()).text("meta", "profile") or "").endswith("|1.1.0")
    assert read(build_mail(old, ENVELOPE))["X-KIM-Dienstkennung"] == "eAU;Fehler-Kasse;V1.1"


def test_the_xml_is_utf_8_without_a_byte_order_mark() -> None:
    xml = replace(MESSAGE, faulty=replace(FAULTY, code=CODES[307])).xml()
    assert xml.startswith(b'<?xml version="1.0" encoding="UTF-8"?>')
    assert "verschlüsselt".encode() in xml


def test_the_mail_has_the_fields_and_parts_of_the_technische_anlage() -> None:
    mail = build_mail(MESSAGE, ENVELOPE)
    parsed = read(mail)
    assert parsed["Subject"] == f"EEAU0_Fehler_{ID}"
    assert parsed["To"] == PRACTICE.value
    assert parsed["From"] == SENDER.value
    assert parsed["Cc"] is None
    assert parsed["X-KIM-Dienstkennung"] == "eAU;Fehler-Kasse;V1.2"
    assert parsed["X-KIM-Sendersystem"] == "Schleuse;0.1.0"
    assert parsed["Message-ID"] == message_id(ID, SENDER) == f"<{ID}@kasse.kim.telematik>"
    assert parsed["In-Reply-To"] == "<bad@mail>"
    _, attachment = parts(mail)
    assert attachment.get_content_type() == "application/xml"
    assert attachment["Content-Transfer-Encoding"] == "base64"
    assert attachment.get_filename() == f"EEAU0_Fehler_{ID}.xml"
    assert attachment.get_param("name") == f"EEAU0_Fehler_{ID}.xml"
    assert attachment["Content-Description"] == "eAUFehler-Kasse"
    assert attachment.get_payload(decode=True) == MESSAGE.xml()


def test_lines_end_as_mail_asks_and_are_short_enough() -> None:
    long = replace(FAULTY, details=tuple(Detail("p" * 400, "ä" * 400, "t" * 400) for _ in range(3)))
    mail = build_mail(replace(MESSAGE, faulty=long), ENVELOPE)
    assert b"\n" not in mail.replace(b"\r\n", b"")
    assert b"\r" not in mail.replace(b"\r\n", b"")
    assert max(map(len, mail.split(b"\r\n"))) <= 998


def test_the_text_tells_the_vendor_where_and_which_rule() -> None:
    text, _ = parts(build_mail(MESSAGE, ENVELOPE))
    body = text.get_content()
    assert "Fehler 101" in body
    assert "Bundle.entry[1].resource.birthDate: -eau-geburtsdatumPatient: Größe gefunden: 3, erwartet: 1" in body


def test_a_hostile_document_cannot_make_the_text_endless() -> None:
    many = replace(FAULTY, details=tuple(Detail(str(n), "x") for n in range(10_000)))
    lines = replace(MESSAGE, faulty=many).text().splitlines()
    assert len(lines) < MAX_DETAILS + 10
    assert lines[-1] == f"- und {10_000 - MAX_DETAILS} weitere"


def test_a_virus_report_has_exactly_the_fixed_body() -> None:
    virus = replace(FAULTY, virus=True, reference=Reference.MESSAGE_ID, reference_value="<a@b>", details=())
    text, _ = parts(build_mail(replace(MESSAGE, faulty=virus), ENVELOPE))
    assert text.get_payload(decode=True) == VIRUS_BODY.encode()


def test_the_same_mail_is_answered_with_the_same_octets() -> None:
    assert identity(AN_INSURER, 7, "<bad@mail>") == ID
    assert build_mail(MESSAGE, ENVELOPE) == build_mail(Fehlernachricht(ID, "E", FAULTY), ENVELOPE)


def test_no_two_mails_have_an_answer_of_the_same_id() -> None:
    ids = {
        identity(ik, n, m)
        for ik in (AN_INSURER, ANOTHER_INSURER)
        for n in (7, 8)
        for m in (None, "<a@b>", "<bad@mail>")
    }
    assert len(ids) == 12
    assert ID in ids


@pytest.mark.parametrize("in_reply_to", ["<a@b>\r\nBcc: x@y", "a@b", "<a b@c>", "<ä@c>", "", None])
def test_a_message_id_that_is_not_clean_never_reaches_a_header(in_reply_to: str | None) -> None:
    mail = build_mail(MESSAGE, replace(ENVELOPE, in_reply_to=in_reply_to))
    assert read(mail)["In-Reply-To"] is None
    assert read(mail)["Bcc"] is None


def test_a_product_name_cannot_add_a_header() -> None:
    with pytest.raises(BadFehlernachrichtError):
        build_mail(MESSAGE, replace(ENVELOPE, product="Schleuse;1\r\nBcc: x@y"))


@pytest.mark.parametrize("id", ["", "a b", "a/b", "x" * 65, "a\r\n"])
def test_an_id_that_fhir_or_a_file_name_cannot_carry_is_refused(id: str) -> None:
    with pytest.raises(BadFehlernachrichtError):
        Fehlernachricht(id, "E", FAULTY)


def test_a_reference_that_xml_cannot_carry_is_refused() -> None:
    with pytest.raises(BadFehlernachrichtError):
        replace(MESSAGE, faulty=replace(FAULTY, reference_value="a\x00b")).xml()


@given(st.text(max_size=80), st.lists(st.builds(Detail, st.text(), st.text(), st.text()), max_size=4))
def test_whatever_stands_in_it_the_mail_has_two_parts_and_wellformed_xml(reference: str, details: list[Detail]) -> None:
    message = replace(MESSAGE, faulty=replace(FAULTY, reference_value=reference, details=tuple(details)))
    try:
        mail = build_mail(message, ENVELOPE)
    except BadFehlernachrichtError:
        return
    text, attachment = parts(mail)
    outcome = parse(attachment.get_payload(decode=True))  # type: ignore[arg-type]
    assert outcome.text("issue", "extension", "extension", "valueIdentifier", "value") == reference
    assert text.get_payload(decode=True) == message.text().encode()


# --- where it goes ---

OTHER = "antwort@arzt.kim.telematik"


@pytest.mark.parametrize(
    ("reply_to", "sender", "expected"),
    [
        (f"Dr. <{OTHER}>", PRACTICE.value, OTHER),
        (f"x@example.org, {OTHER}", PRACTICE.value, OTHER),
        ("unbekannt@arzt.kim.telematik", f'"Praxis" <{PRACTICE.value}>', PRACTICE.value),
        ("not an address", PRACTICE.value, PRACTICE.value),
        (None, PRACTICE.value, PRACTICE.value),
        (f"{OTHER}\r\nBcc: x", PRACTICE.value, OTHER),  # the address alone is taken, never the text around it
        (None, "nobody@example.org", None),
        (None, None, None),
    ],
)
def test_the_answer_goes_to_reply_to_if_the_directory_has_it_else_to_from(
    reply_to: str | None, sender: str | None, expected: str | None
) -> None:
    found = answer_address(reply_to, sender, lambda address: address == OTHER)
    assert (found.value if found else None) == expected


def test_a_directory_that_is_off_is_our_trouble_and_no_answer() -> None:
    def off(_address: str) -> bool:
        raise UnavailableError("off")

    with pytest.raises(UnavailableError):
        answer_address(OTHER, PRACTICE.value, off)


@pytest.mark.parametrize("edition", [EDITIONS[1], EDITIONS[3]], ids=lambda edition: edition.name)
def test_every_message_keeps_to_its_profile(edition: Edition) -> None:
    rules = compile_rules(definitions(edition), ROOTS)
    references = [(Reference.MESSAGE_ID, "<a@b>"), (Reference.BUNDLE_IDENTIFIER, FAULTY.reference_value)]
    for code, (reference, value) in product(CODES.values(), references):
        faulty = replace(FAULTY, code=code, version=Answer(edition.version), reference=reference, reference_value=value)
        assert rules.check_xml(replace(MESSAGE, faulty=faulty).xml()) == []
