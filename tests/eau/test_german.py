"""What practices and their vendors read is German, and the set of reasons is closed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

import pytest
from tests.eau.corpus import edited, put, rich

import schleuse
from schleuse.eau.checks import Checker
from schleuse.eau.fehlernachricht import _detail
from schleuse.eau.findings import Detail
from schleuse.eau.german import PHRASES, in_german
from schleuse.eau.rules import EDITIONS
from schleuse.eau.rules.expand import VALUE_SETS
from schleuse.eau.signature import PayloadVerdict
from schleuse.fhir import Finding, Severity, german
from schleuse.mail.smime.judge import Verdict
from schleuse.mail.smime.signed import Mismatch
from schleuse.mail.smime.trust import Fault

SOURCE = Path(schleuse.__file__).parent
MAIL = [
    SOURCE / "kim" / "message.py",
    SOURCE / "mail" / "head.py",
    SOURCE / "mail" / "parts.py",
    *(SOURCE / "mail" / "smime" / f"{name}.py" for name in ("algorithms", "ber", "judge", "recipients", "signed")),
    SOURCE / "mail" / "smime" / "envelope.py",
]
#: Never told to a sender: our own trouble, and mistakes of a caller.
OURS = {
    "no encryption certificate of our own is configured",
    "an envelope needs at least one recipient",
    "the X-KOM-LE-Version is not supported",
}


def told(file: Path, names: tuple[str, ...]) -> Iterator[str]:
    """Templates of the first texts given to calls whose name ends as one of `names`; `{}` for what is filled in."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if not function.endswith(names):
            continue
        for argument in node.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and " " in argument.value:
                yield argument.value
            elif isinstance(argument, ast.JoinedStr):
                parts = (str(one.value) if isinstance(one, ast.Constant) else "{}" for one in argument.values)
                yield "".join(parts)


@pytest.mark.parametrize("file", MAIL, ids=lambda file: file.stem)
def test_every_reason_of_mail_and_signature_has_its_german(file: Path) -> None:
    reasons = set(told(file, ("Error", "OpenedMail", "Judged", "_judged", "append"))) - OURS
    assert {reason for reason in reasons if reason not in PHRASES.german} == set()


@pytest.mark.parametrize("kind", [Verdict, Mismatch, Fault, PayloadVerdict])
def test_every_verdict_has_its_german(kind: type[Verdict]) -> None:
    assert [one.value for one in kind if one.value not in {*PHRASES.german, "valid", "unreadable"}] == []


def test_every_reason_of_xml_has_its_german() -> None:
    reasons = set(told(SOURCE / "fhir" / "node.py", ("BadXmlError",)))
    assert len(reasons) > 8
    assert reasons <= german.PHRASES.german.keys()


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<a",
        "<a></b>",
        "<a b='1' b='2'/>",
        "<a/><b/>",
        "<a>&x;</a>",
        "<a>&#0;</a>",
        "<a><![CDATA[",
        "<x:a/>",
        "<?xml?>",
    ],
)
def test_what_expat_says_of_broken_xml_has_its_german(xml: str) -> None:
    parser = expat.ParserCreate("UTF-8", "|")
    with pytest.raises(expat.ExpatError) as broken:
        parser.Parse(xml.encode(), True)
    assert expat.ErrorString(broken.value.code) in german.PHRASES.german


def test_numbers_and_names_are_filled_in() -> None:
    assert in_german("the mac has 12 octets instead of 16") == "mac hat 12 Oktette statt 16"
    told = in_german(f"{Fault.REVOKED.value} (serial number 1f)")
    assert told == "das Zertifikat oder eines darüber war beim Signieren gesperrt (Seriennummer 1f)"


def test_several_reasons_are_each_translated() -> None:
    assert in_german("signature holds, certificate valid; the signed content is no mail") == (
        "Signatur gültig, Zertifikat gültig; der signierte Inhalt ist keine Nachricht"
    )


def test_what_is_no_phrase_of_ours_stays() -> None:
    assert in_german("Fehler X [y]: a; gefunden: b.") == "Fehler X [y]: a; gefunden: b."


def test_broken_xml_is_explained_in_german(tmp_path: Path) -> None:
    finding = Checker(cache=tmp_path).check(b"<Bundle xmlns='http://hl7.org/fhir'></b>").errors[0]
    assert finding.found == "the XML is not well formed in line 1: mismatched tag"  # for the log
    assert finding.message("de") == (
        "Fehler XML [xml]: das XML ist nicht lesbar; gefunden: das XML ist nicht wohlgeformt, Zeile 1: "
        "Endtag passt nicht zum Starttag."
    )


def test_a_list_of_ours_is_told_by_its_german_name(tmp_path: Path) -> None:
    broken = edited(rich(EDITIONS[-1]).xml, put("Coverage/type/coding/code", "Schmidt"))
    found = [one for one in Checker(cache=tmp_path).check(broken).errors if one.key == "binding"]
    assert {one.expected for one in found} == {"a code of the list „Art des Kostenträgers“"}
    said = found[0].message("de")
    assert said.endswith("gefunden: 7 Zeichen; erwartet: ein Code der Liste „Art des Kostenträgers“.")
    assert "der Code gehört nicht zur Wertliste" in said
    assert VALUE_SETS not in said + found[0].message("en")


def test_an_invariant_of_the_base_definitions_is_told_in_german() -> None:
    finding = Finding(Severity.ERROR, "Bundle", "bdl-9", human="A document must have an identifier")
    assert "ein Dokument hat einen Identifier mit System und Wert" in finding.message("de")
    assert "A document must have an identifier" in finding.message("en")


def test_a_fehlernachricht_says_why_in_german() -> None:
    assert _detail(Detail("p7s", "data differ", Mismatch.DIGEST.value)) == (
        "- p7s: Daten abweichend: der Inhalt ist nicht der signierte"
    )
