"""The Checker: character sets, versions, date windows, kinds, and own trouble that never accuses."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from io import BytesIO, TextIOWrapper
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.eau.corpus import edited, fehlernachricht, generator, put, remove, rich

from schleuse.cli.eau_check import check as check_command
from schleuse.eau import charset
from schleuse.eau.checks import Checker, FileKind, RulesMissingError, default_rules
from schleuse.eau.findings import Verdict
from schleuse.eau.rules import EDITIONS
from schleuse.eau.windows import WINDOWS, Window, choose
from schleuse.practice.documents import Generator
from schleuse.practice.documents.plan import Version

NEWEST = EDITIONS[-1]


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Checker:
    return Checker(cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def eau() -> bytes:
    return rich(NEWEST).xml


def keys(checker: Checker, xml: bytes) -> list[str]:
    return [finding.key for finding in checker.check(xml).errors]


def test_a_valid_eau_is_valid_and_its_tree_is_handed_on(checker: Checker, eau: bytes) -> None:
    checked = checker.check(eau)
    assert (checked.verdict, checked.kind, checked.rules) == (Verdict.VALID, FileKind.EAU, "own 1.2.1")
    assert checked.profile == "https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_Bundle|1.2"
    assert checked.node is not None
    assert checked.node.type == "Bundle"


def test_a_storno_and_a_fehlernachricht_are_known_by_their_profile(checker: Checker) -> None:
    storno = generator(NEWEST).storno(rich(NEWEST)).xml
    assert checker.check(storno).kind is FileKind.STORNO
    assert checker.check(storno).verdict is Verdict.VALID
    answer = checker.check(fehlernachricht(NEWEST, "Message-ID"))
    assert (answer.kind, answer.verdict) == (FileKind.FEHLER, Verdict.VALID)


def test_a_bom_is_a_fault_of_the_character_set_and_the_document_is_read_all_the_same(
    checker: Checker, eau: bytes
) -> None:
    checked = checker.check(b"\xef\xbb\xbf" + eau)
    assert (checked.verdict, checked.charset_fault, checked.kind) == (Verdict.INVALID, True, FileKind.EAU)
    assert [finding.key for finding in checked.errors] == ["charset.bom"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "iso8859-15"])
def test_bytes_that_are_not_utf8_are_a_fault_of_the_character_set(checker: Checker, eau: bytes, encoding: str) -> None:
    checked = checker.check(eau.decode().encode(encoding, "replace"))
    assert checked.charset_fault
    assert "charset.bytes" in [finding.key for finding in checked.errors]
    assert checked.node is not None  # so the answer can name the document


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_utf16_and_utf32_are_faults_of_the_character_set(checker: Checker, eau: bytes, encoding: str) -> None:
    assert checker.check(eau.decode().encode(encoding)).charset_fault


def test_a_declared_other_character_set_is_a_fault_even_if_the_bytes_would_do(checker: Checker, eau: bytes) -> None:
    declared = eau.replace(b'encoding="UTF-8"', b'encoding="ISO-8859-15"')
    assert "charset.declared" in keys(checker, declared)


@pytest.mark.parametrize("written", [b'encoding="utf-8"', b"encoding='UTF-8'", b"", b'encoding="UTF8"'])
def test_utf8_may_be_declared_in_any_way_or_not_at_all(checker: Checker, eau: bytes, written: bytes) -> None:
    checked = checker.check(eau.replace(b'encoding="UTF-8"', written))
    assert (checked.verdict, checked.charset_fault) == (Verdict.VALID, False)


def test_a_name_in_a_code_is_not_shown(checker: Checker, eau: bytes) -> None:
    for where in ("Patient/address/country", "Composition/status", "Composition/type/coding/code"):
        checked = checker.check(edited(eau, put(where, "Schmidt")))
        assert checked.verdict is Verdict.INVALID
        assert "Schmidt" not in " ".join(one.message() + one.found + one.path for one in checked.findings)


@given(st.binary(max_size=300))
def test_any_octets_have_a_text_in_utf8(octets: bytes) -> None:
    charset.read(octets).utf8.decode("utf-8")


@pytest.mark.parametrize(
    "octets", [b"", b"no xml", b"<Bundle", b"<!DOCTYPE x []><Bundle xmlns='http://hl7.org/fhir'/>"]
)
def test_what_is_no_xml_that_we_read_is_unreadable(checker: Checker, octets: bytes) -> None:
    checked = checker.check(octets)
    assert (checked.verdict, checked.node) == (Verdict.UNREADABLE, None)


def test_another_profile_is_invalid_and_of_no_kind(checker: Checker, eau: bytes) -> None:
    other = checker.check(eau.replace(b"KBV_PR_EAU_Bundle|", b"KBV_PR_ERP_Bundle|"))
    assert (other.verdict, other.kind, other.rules) == (Verdict.INVALID, None, None)
    assert [finding.key for finding in other.errors] == ["profile.unknown"]


@pytest.mark.parametrize("version", ["1.3", "1.0.2", "1.2.1", ""])
def test_an_unknown_version_is_invalid_but_of_a_known_kind(checker: Checker, eau: bytes, version: str) -> None:
    other = checker.check(eau.replace(b"KBV_PR_EAU_Bundle|1.2", f"KBV_PR_EAU_Bundle|{version}".encode()))
    assert (other.verdict, other.kind) == (Verdict.INVALID, FileKind.EAU)
    assert [finding.key for finding in other.errors] == ["profile.unknown"]


def test_a_document_without_profile_is_invalid(checker: Checker, eau: bytes) -> None:
    assert keys(checker, edited(eau, remove("meta/profile"))) == ["profile.missing"]


def issued(version: Version, day: date) -> bytes:
    now = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
    return Generator(Random(3), now).eau(version, issuer="arzt", place="praxis").xml


@pytest.mark.parametrize(
    ("version", "day", "rules", "verdict"),
    [
        ("1.2", date(2025, 9, 30), "own 1.2.0", Verdict.INVALID),
        ("1.2", date(2025, 10, 1), "own 1.2.0", Verdict.VALID),
        ("1.2", date(2026, 1, 26), "own 1.2.0", Verdict.VALID),
        ("1.2", date(2026, 1, 27), "own 1.2.1", Verdict.VALID),
        ("1.1.0", date(2023, 6, 30), "own 1.1.0 DMP 1.05", Verdict.INVALID),
        ("1.1.0", date(2024, 9, 30), "own 1.1.0 DMP 1.05", Verdict.VALID),
        ("1.1.0", date(2024, 10, 1), "own 1.1.0 DMP 1.06", Verdict.VALID),
        ("1.1.0", date(2026, 6, 30), "own 1.1.0 DMP 1.06", Verdict.VALID),
        ("1.1.0", date(2026, 7, 1), "own 1.1.0 DMP 1.06", Verdict.INVALID),
    ],
)
def test_the_date_of_issue_chooses_the_rules(
    checker: Checker, version: Version, day: date, rules: str, verdict: Verdict
) -> None:
    checked = checker.check(issued(version, day))
    assert (checked.rules, checked.verdict) == (rules, verdict)
    assert [finding.key for finding in checked.errors] == (["date.window"] if verdict is Verdict.INVALID else [])


def test_a_storno_is_judged_by_its_own_date(checker: Checker) -> None:
    document = rich(NEWEST)
    late = Generator(Random(1), datetime(2025, 12, 1, tzinfo=UTC)).storno(document)
    assert checker.check(late.xml).rules == "own 1.2.0"


@pytest.mark.parametrize("day", ["", "2026", "2026-02", "yesterday"])
def test_a_date_that_cannot_be_read_is_judged_by_the_newest_rules(checker: Checker, eau: bytes, day: str) -> None:
    checked = checker.check(edited(eau, put("Composition/date", day)))
    assert (checked.rules, checked.verdict) == ("own 1.2.1", Verdict.INVALID)
    assert "date.window" not in [finding.key for finding in checked.errors]


def test_windows_are_data(tmp_path: Path, eau: bytes) -> None:
    moved = (Window(NEWEST, date(2030, 1, 1)),)
    assert keys(Checker(windows=moved, cache=tmp_path), eau) == ["date.window"]


@given(st.dates(date(2020, 1, 1), date(2040, 1, 1)), st.sampled_from(["1.1.0", "1.2"]))
def test_a_window_that_is_chosen_as_inside_covers_the_day(day: date, version: str) -> None:
    window, inside = choose(WINDOWS, version, day)
    assert window is not None
    assert inside is any(one.covers(day) for one in WINDOWS if one.edition.version == version)
    assert not inside or window.covers(day)


def test_warnings_are_found_on_request_and_never_decide(checker: Checker, eau: bytes) -> None:
    odd = edited(eau, put("Practitioner/identifier/value", "123"))
    assert checker.check(odd).findings == ()
    checked = checker.check(odd, warnings=True)
    assert [finding.key for finding in checked.findings] == ["-for-laengeLANR"]
    assert (checked.verdict, checked.errors) == (Verdict.VALID, ())


def test_a_warm_checker_gives_the_same_verdict(tmp_path: Path, eau: bytes) -> None:
    warmed = Checker(cache=tmp_path)
    warmed.warm()
    assert warmed.check(eau).verdict is Verdict.VALID


def test_missing_official_rules_are_our_own_trouble(tmp_path: Path) -> None:
    with pytest.raises(RulesMissingError):
        Checker("official", packages=tmp_path)
    with pytest.raises(RulesMissingError):
        Checker("official")


def test_without_complete_packages_our_own_rules_judge(tmp_path: Path) -> None:
    assert default_rules(tmp_path) == "own"


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, eau: bytes) -> Path:
    folder = tmp_path / "files"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a-valid.xml").write_bytes(eau)
    (folder / "deeper" / "b-invalid.xml").write_bytes(edited(eau, remove("Patient/address")))
    (folder / "notes.txt").write_text("not looked at")
    return folder


def run(*names: object, home: Path, **more: object) -> int:
    return check_command(*(str(name) for name in names), home=home, **more)  # type: ignore[arg-type]


def test_the_exit_code_is_that_of_the_worst_file(files: Path, tmp_path: Path) -> None:
    assert run(files / "a-valid.xml", home=tmp_path) == 0
    assert run(files, home=tmp_path) == 1
    assert run(files, tmp_path / "none.xml", home=tmp_path) == 2
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", home=tmp_path) == 2


def test_json_is_one_object_a_line(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(files, home=tmp_path, json_=True)
    valid, invalid = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert valid["file"].endswith("a-valid.xml")
    assert (valid["verdict"], valid["kind"], valid["findings"]) == ("valid", "eau", [])
    assert valid["profile"].endswith("KBV_PR_EAU_Bundle|1.2")
    assert invalid["verdict"] == "invalid"
    assert "-eau-angabePatientenAdressePflicht" in [finding["key"] for finding in invalid["findings"]]
    assert set(invalid["findings"][0]) == {"severity", "path", "key", "found", "expected", "message"}


def test_messages_are_german_and_on_request_english(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(files, home=tmp_path)
    german = capsys.readouterr().out
    run(files, home=tmp_path, lang="en")
    english = capsys.readouterr().out
    assert "ungültig" in german
    assert "Die Anschrift der versicherten Person ist angegeben" in german
    assert "invalid" in english
    assert "The insured person's address is given" in english


def signed(content: bytes) -> bytes:
    """An enveloping SignedData by a throw-away key; the command judges what is inside."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "practice")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + timedelta(days=900))
    certificate = builder.sign(key, hashes.SHA256())
    signing = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(certificate, key, hashes.SHA256())
    return signing.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


def test_the_document_inside_a_p7s_is_judged(
    eau: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    octets = signed(eau)
    (tmp_path / "x.p7s").write_bytes(octets)
    assert run(tmp_path / "x.p7s", home=tmp_path) == 0
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(octets)))
    assert run("-", home=tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("-: gültig")


def test_what_is_no_cms_is_not_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.p7s").write_bytes(b"\x30\x03\x02\x01\x05")
    assert run(tmp_path / "x.p7s", tmp_path / "none.p7s", home=tmp_path) == 2
    said = capsys.readouterr().out
    assert "nicht lesbar" in said
    assert "gefunden: das CMS-Objekt ist kein ContentInfo" in said
    assert "gefunden: nicht vorhanden" in said


def test_nothing_printed_names_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = generator(NEWEST).eau(payor="GKV", kvnr=True)
    broken = edited(document.xml, put("Patient/identifier/value", document.patient.kvnr + "9"))
    (tmp_path / "x.xml").write_bytes(broken)
    run(tmp_path / "x.xml", home=tmp_path)
    said = capsys.readouterr().out
    assert document.patient.kvnr not in said
    assert document.patient.name.family not in said
