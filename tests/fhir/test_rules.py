"""Running rule sets: which profile judges, what is kept on disk, what a finding says."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fhir.samples import BASE, META, NS, constraint, element, only, patient, profile

from schleuse.fhir import Definitions, Finding, Severity, compile_rules, rules
from schleuse.fhir import cache as disk
from schleuse.fhir.finding import has_errors
from schleuse.fhir.node import Node
from schleuse.fhir.rules import BadDefinitionsError
from schleuse.fhir.shown import shown_among, shown_kind, shown_length, shown_url

PROFILE = profile("P", "Patient", *META, element("Patient.x", "string", "1..1", maxLength=3))
OTHER = profile("Q", "Patient", *META, element("Patient.x", "string", "0..0"))


def definitions() -> Definitions:
    return Definitions([PROFILE, OTHER])


# --- Which profile ---


def test_a_document_is_judged_by_the_root_profile_that_it_claims() -> None:
    both = compile_rules(definitions(), [BASE + "P", BASE + "Q"])
    assert both.roots == {BASE + "P", BASE + "Q"}
    assert [one.key for one in both.check_xml(patient("", "P|1.2"))] == ["cardinality.min"]
    assert both.check_xml(patient("", "Q|1.2.1")) == []


@pytest.mark.parametrize("claim", ["Z", "P|2.0", "P|1.2.1.1", "P|1.20"])
def test_a_claim_that_is_not_known_is_an_error(claim: str) -> None:
    found = compile_rules(definitions(), [BASE + "P"]).check_xml(patient("<x value='a'/>", claim))
    assert only(found).key == "profile.unknown"
    assert only(found).found == f"{BASE}{claim}"


def test_a_document_without_claim_is_judged_only_if_the_caller_names_the_profile() -> None:
    compiled = compile_rules(definitions(), [BASE + "P"])
    xml = f"<Patient {NS}><x value='a'/></Patient>".encode()
    assert only(compiled.check_xml(xml)).key == "profile.missing"
    assert compiled.check_xml(xml, profile=BASE + "P|1.2") == []
    with pytest.raises(BadDefinitionsError):
        compiled.check_xml(xml, profile=BASE + "P|9")


def test_another_resource_type_is_an_error_and_nothing_else_is_said() -> None:
    compiled = compile_rules(definitions(), [BASE + "P"])
    xml = f"<List {NS}><meta><profile value='{BASE}P|1.2'/></meta></List>".encode()
    assert only(compiled.check_xml(xml)).key == "type"


def test_many_threads_may_use_one_rule_set() -> None:
    compiled = compile_rules(definitions(), [BASE + "P"])
    results: list[list[str]] = []

    def work() -> None:
        for number in range(200):
            content = "<x value='a'/>" if number % 2 else ""
            results.append([one.key for one in compiled.check_xml(patient(content))])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(tuple, results)) == [()] * 400 + [("cardinality.min",)] * 400


def test_findings_come_in_the_order_of_the_document_and_once() -> None:
    twice = element("Patient.y", "string", constraint=[constraint("k-1", "$this = 'a'")])
    compiled = compile_rules(
        Definitions([profile("P", "Patient", *META, element("Patient.x", "string", maxLength=1), twice)]), [BASE + "P"]
    )
    xml = patient("<x value='long'/><y value='b'/>").replace(b"</meta>", f"<profile value='{BASE}P'/></meta>".encode())
    assert [one.path for one in compiled.check_xml(xml)] == ["Patient.x", "Patient.y"]


# --- On disk ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "fhir"


def never() -> list[dict[str, object]]:
    raise AssertionError("the definitions were read")


def test_kept_rules_need_no_definitions(folder: Path) -> None:
    first = Definitions(lambda: [PROFILE], digest="d1")
    compile_rules(first, [BASE + "P"], cache=folder)
    again = compile_rules(Definitions(never, digest="d1"), [BASE + "P"], cache=folder)
    assert only(again.check_xml(patient(""))).key == "cardinality.min"
    assert again.roots == {BASE + "P"}


def test_other_content_roots_or_engine_are_compiled_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_rules(Definitions(lambda: [PROFILE], digest="d1"), [BASE + "P"], cache=folder)
    with pytest.raises(AssertionError):
        compile_rules(Definitions(never, digest="d2"), [BASE + "P"], cache=folder)
    with pytest.raises(AssertionError):
        compile_rules(Definitions(never, digest="d1"), [BASE + "Q"], cache=folder)
    with pytest.raises(AssertionError):
        compile_rules(Definitions(never, digest="d1", ignored_code_systems=["s"]), [BASE + "P"], cache=folder)
    monkeypatch.setattr(disk, "engine_digest", lambda: "another engine")
    with pytest.raises(AssertionError):
        compile_rules(Definitions(never, digest="d1"), [BASE + "P"], cache=folder)


def test_the_digest_of_definitions_hangs_on_their_content_only() -> None:
    assert Definitions([PROFILE, OTHER]).digest == Definitions([OTHER, PROFILE]).digest
    assert Definitions([PROFILE]).digest != Definitions([OTHER]).digest
    assert Definitions([{**PROFILE, "version": "9"}]).digest != Definitions([PROFILE]).digest


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _to_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


DAMAGES: list[Callable[[Path], object]] = [
    _flip,
    lambda path: path.write_bytes(path.read_bytes()[:100]),
    lambda path: path.write_bytes(b""),
    lambda path: path.chmod(0o666),
    lambda path: path.chmod(0o620),
    lambda path: path.parent.chmod(0o777),
    lambda path: path.parent.parent.chmod(0o777),
    _to_folder,
    _to_link,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_another_could_have_written_is_not_executed(folder: Path, damage: Callable[[Path], object]) -> None:
    compile_rules(Definitions(lambda: [PROFILE], digest="d1"), [BASE + "P"], cache=folder)
    damage(next(iter(folder.iterdir())))
    reads: list[int] = []

    def read() -> list[dict[str, object]]:
        reads.append(1)
        return [PROFILE]

    compiled = compile_rules(Definitions(read, digest="d1"), [BASE + "P"], cache=folder)
    assert reads == [1]
    assert only(compiled.check_xml(patient(""))).key == "cardinality.min"


def test_a_kept_file_does_not_answer_to_another_key(folder: Path) -> None:
    disk.write(folder, "a" * 64, {"x": 1})
    (folder / ("b" * 64)).write_bytes((folder / ("a" * 64)).read_bytes())
    (folder / ("b" * 64)).chmod(0o600)
    assert disk.read(folder, "a" * 64) == {"x": 1}
    assert disk.read(folder, "b" * 64) is None


def test_files_are_private_and_the_oldest_are_forgotten(folder: Path) -> None:
    for number in range(30):
        assert disk.write(folder, f"{number:064}", number)
        os.utime(folder / f"{number:064}", (number, number))
    kept = list(folder.iterdir())
    assert len(kept) <= 25
    assert disk.read(folder, f"{29:064}") == 29
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_a_place_to_keep_them_rules_work_all_the_same(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    compiled = compile_rules(definitions(), [BASE + "P"], cache=blocked / "fhir")
    assert only(compiled.check_xml(patient(""))).key == "cardinality.min"


def test_the_cache_follows_the_xdg_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert rules.default_cache() == Path("/some/where/schleuse/fhir")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert rules.default_cache() == Path.home() / ".cache" / "schleuse" / "fhir"


# --- Findings ---

FINDING = Finding(Severity.ERROR, "Patient.x", "maxLength", "5 characters", "<= 3", profile=BASE + "P")


def test_a_finding_says_where_what_was_there_and_what_should_be() -> None:
    assert FINDING.message("en") == (
        "error Patient.x [maxLength]: the text is too long; found: 5 characters; expected: <= 3."
    )
    assert (
        FINDING.message("de")
        == "Fehler Patient.x [maxLength]: der Text ist zu lang; gefunden: 5 Zeichen; erwartet: <= 3."
    )


def test_the_text_of_a_constraint_is_part_of_the_message() -> None:
    finding = Finding(Severity.WARNING, "Patient", "k-1", human="Der Name fehlt.")
    assert finding.message("en") == "warning Patient [k-1]: Der Name fehlt."


def test_every_rule_of_the_engine_has_words_in_both_languages() -> None:
    from schleuse.fhir.compile.program import GENERAL_RULES
    from schleuse.fhir.finding import _WORDS
    from schleuse.fhir.german import PHRASES

    assert _WORDS["de"].rules.keys() == _WORDS["en"].rules.keys()
    for rule in GENERAL_RULES:
        assert rule.key in _WORDS["de"].rules
        assert rule.expected in PHRASES.german or rule.expected in ("meta.profile",) or "profile" in rule.expected


def test_only_errors_reject() -> None:
    warning = Finding(Severity.WARNING, "Patient", "k-1")
    assert not has_errors([warning])
    assert has_errors([warning, FINDING])
    assert not has_errors([])


SECRETS = ["Mustermann", "A123456780", "1980-05-17", "Herzog-Wilhelm-Str. 5", "max@example.org", "F32.1"]


@pytest.mark.parametrize("secret", SECRETS)
def test_findings_never_quote_what_somebody_wrote(secret: str) -> None:
    """Whatever is wrong with it: the value of an element that is no code is not in the finding."""
    strict = compile_rules(
        Definitions(
            [
                profile(
                    "P",
                    "Patient",
                    *META,
                    element("Patient.a", "string", fixedString="x"),
                    element("Patient.b", "date"),
                    element("Patient.c", "string", maxLength=1),
                    element("Patient.d", "uri", patternUri="urn:x"),
                    element("Patient.e", "string", constraint=[constraint("k-1", "$this = 'x'")]),
                    element("Patient.f", "integer"),
                )
            ]
        ),
        [BASE + "P"],
    )
    content = "".join(f"<{name} value='{secret}'/>" for name in "abcdef")
    found = strict.check_xml(patient(content))
    assert {one.path for one in found} >= {"Patient.a", "Patient.c", "Patient.e", "Patient.f"}
    text = json.dumps([[one.found, one.expected, one.message("de"), one.message("en")] for one in found])
    assert secret not in text


def test_what_stands_for_a_code_is_shown_if_it_is_one_or_as_short_as_one() -> None:
    countries = frozenset({"D", "CH", "GB"})
    assert shown_among("d", countries) == "d"
    assert shown_among("DB", countries) == "DB"
    assert shown_among("DE", countries) == "2 characters"  # no country of this list is written with an E
    assert shown_among("HBCD", countries) == "4 characters"
    assert shown_among("erst_end", {"ERST", "ERST_END"}) == "erst_end"
    assert shown_among(None, countries) == ""
    assert shown_among("D", ()) == "1 characters"


@pytest.mark.parametrize("name", ["Schmidt", "SCHMIDT", "ERNST", "schmidt", "Müller", "A123456780", "a b"])
def test_a_name_that_stands_for_a_code_is_not_shown(name: str) -> None:
    for codes in ({"D", "CH"}, {"ERST", "FOLGE", "ERST_END"}, {"processing", "too-costly", "multiple-matches"}):
        assert shown_among(name, codes) == f"{len(name)} characters"


def test_urls_are_shown_if_they_look_like_urls() -> None:
    assert shown_url("http://x.example/a|1.2") == "http://x.example/a|1.2"
    assert shown_url("http://x.example/?name=Anna") == "27 characters"
    assert shown_url("http://x.example/123456") == "23 characters"
    assert shown_url("Anna") == "4 characters"
    assert shown_url(None) == ""
    assert shown_length(None) == ""


def test_an_element_is_shown_by_its_kind_only() -> None:
    node = Node("name")
    node.value = "Anna"
    assert shown_kind(node) == ""
