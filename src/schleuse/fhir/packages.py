"""Official FHIR packages on disk, and which set of them is valid from when to when.

A directory holds `packages/NAME-VERSION.json` (the conformance resources of one package), one `.sha256` beside each
(of the package file it came from), and `registry.json`. Nothing in it is executed; compiled rules live in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

from schleuse.errors import ConflictError, RefusedError, UnavailableError
from schleuse.fhir.archive import BadPackageError, Package, read_package
from schleuse.fhir.definitions import Definitions
from schleuse.fhir.registry import BadConfigError, BadRegistryError, DependencyList, Registry, read_config

__all__ = [
    "BadConfigError",
    "BadPackageError",
    "BadRegistryError",
    "DependencyList",
    "OtherContentError",
    "Registry",
    "UnknownListError",
    "add",
    "installed",
    "load",
    "missing",
    "profiles_of",
    "read_registry",
]

#: Raise when `archive` keeps other parts of a package than before.
_FORMAT: Final = "1"


class UnknownListError(RefusedError):
    """No dependency list of that name, or one of its packages (or the base definitions) is not installed."""

    code = "fhir.unknown-list"


class OtherContentError(ConflictError):
    """A package of this name and version is installed with other content."""

    code = "fhir.other-content"


class StorageError(UnavailableError):
    """The folder of the packages cannot be written or read now."""

    code = "fhir.storage"


def add(
    paths: Iterable[Path],
    target_dir: Path,
    *,
    config: Path | None = None,
    new_list: DependencyList | None = None,
) -> list[str]:
    """Install package files (.tgz), and the lists of a configuration; returns the names of the packages installed.

    config: a refv-config.yaml; its lists and profiles join those that are known.
    new_list: a list to make of these packages (its own `packages` are replaced); it judges every resource profile in
        them, under the version that their meta.profile asks for.
    Raises BadPackageError, BadConfigError, OtherContentError, StorageError; a faulty file leaves nothing behind,
    and the registry is written last.
    """
    registry = read_registry(target_dir)
    if config is not None:
        registry = registry.joined(read_config(_text(config)))
    packages = [read_package(path) for path in paths]
    for package in packages:
        _refuse_other_content(package, target_dir)
    for package in packages:
        _store(package, target_dir)
    if new_list is not None:
        registry = registry.joined(_listed(new_list, packages))
    _write(target_dir / "registry.json", registry.to_json().encode())
    return [package.name for package in packages]


def read_registry(target_dir: Path) -> Registry:
    """What is installed; empty if the directory does not exist. Raises BadRegistryError."""
    try:
        return Registry.from_json((target_dir / "registry.json").read_text("utf-8"))
    except FileNotFoundError:
        return Registry()
    except (OSError, UnicodeDecodeError) as cause:
        raise StorageError("the registry of FHIR packages cannot be read") from cause


def installed(target_dir: Path) -> dict[str, str]:
    """Name with version -> SHA-256 of the package file."""
    found = {}
    for path in sorted((target_dir / "packages").glob("*.sha256")):
        found[path.name.removesuffix(".sha256")] = path.read_text("ascii").split()[0]
    return found


def load(target_dir: Path, list_name: str) -> Definitions:
    """Definitions of one dependency list, with the base R4 definitions that are installed.

    They are read when they are needed: rules from the disk cache need only their digest. Raises UnknownListError.
    """
    registry = read_registry(target_dir)
    wanted = registry.find(list_name)
    if wanted is None:
        raise UnknownListError(f"there is no dependency list {list_name}; known are {_names(registry)}")
    lacking = missing(target_dir, wanted)
    if lacking:
        raise UnknownListError(f"the list {list_name} needs {', '.join(lacking)}: `schleuse fhir add` installs them")
    have = installed(target_dir)
    base = _base(target_dir, have)
    # The earlier package of a list counts, and Definitions lets the later one win.
    names = [*base, *reversed([name for name in wanted.packages if name not in base])]
    digest = hashlib.sha256("\n".join([_FORMAT, *(f"{name} {have[name]}" for name in names)]).encode()).hexdigest()
    return Definitions(
        lambda: _resources(target_dir, names), ignored_code_systems=registry.ignored_code_systems, digest=digest
    )


def missing(target_dir: Path, wanted: DependencyList) -> list[str]:
    """What a list needs and the folder lacks; empty if the list is complete."""
    have = installed(target_dir)
    lacking = [name for name in wanted.packages if name not in have]
    return lacking if _base(target_dir, have) else [*lacking, "the base R4 definitions"]


def _base(target_dir: Path, have: Iterable[str]) -> list[str]:
    """The installed packages that hold the base R4 definitions."""
    return [name for name in have if (target_dir / "packages" / f"{name}.base").exists()]


def profiles_of(package: Package) -> dict[str, set[str]]:
    """The resource profiles of a package: URL -> versions after the bar that their documents may give."""
    found: dict[str, set[str]] = {}
    for resource in package.resources:
        if resource.get("resourceType") != "StructureDefinition" or resource.get("kind") != "resource":
            continue
        if resource.get("derivation") == "constraint":
            found[resource["url"]] = {_version_in_documents(resource)}
    return found


def _version_in_documents(structure: Mapping[str, Any]) -> str:
    """The version that meta.profile is fixed to ("1.2" for 1.2.1), else that of the profile itself."""
    for element in structure.get("snapshot", {}).get("element", ()):
        fixed = str(element.get("fixedCanonical", ""))
        if fixed.startswith(structure["url"] + "|"):
            return fixed.partition("|")[2]
    return str(structure.get("version", ""))


def _listed(new: DependencyList, packages: list[Package]) -> Registry:
    names = tuple(package.name for package in packages if not package.is_base)
    complete = DependencyList(new.name, names, new.valid_from, new.valid_till)
    profiles = {
        url: dict.fromkeys(versions, (new.name,))
        for package in packages
        if not package.is_base
        for url, versions in profiles_of(package).items()
    }
    return Registry((complete,), profiles)


def _resources(target_dir: Path, names: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for name in names:
        try:
            yield from json.loads((target_dir / "packages" / f"{name}.json").read_bytes())
        except OSError as cause:
            raise StorageError(f"the package {name} cannot be read") from cause
        except ValueError as cause:
            raise BadRegistryError(f"the package {name} is damaged on disk; add it again") from cause


def _refuse_other_content(package: Package, target_dir: Path) -> None:
    known = installed(target_dir).get(package.name)
    if known is not None and known != package.sha256:
        raise OtherContentError(
            f"{package.name} is installed with other content (SHA-256 {known[:12]}…, now {package.sha256[:12]}…); "
            "a publisher never changes a published version, so find out which of the two files is genuine"
        )


def _store(package: Package, target_dir: Path) -> None:
    folder = target_dir / "packages"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise StorageError(f"the folder of the FHIR packages cannot be made: {cause.strerror}") from cause
    content = json.dumps(package.resources, ensure_ascii=False, separators=(",", ":")).encode()
    _write(folder / f"{package.name}.json", content)
    if package.is_base:
        _write(folder / f"{package.name}.base", b"")
    _write(folder / f"{package.name}.sha256", f"{package.sha256}\n".encode())  # last: now it counts


def _write(path: Path, content: bytes) -> None:
    """Put a file in place whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
    except OSError as cause:
        raise StorageError(f"{path.name} cannot be written: {cause.strerror}") from cause


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise BadConfigError(f"{path.name} cannot be read as UTF-8 text") from cause


def _names(registry: Registry) -> str:
    return ", ".join(one.name for one in registry.lists) or "none"


def open_list(name: str, valid_from: date, valid_till: date | None) -> DependencyList:
    """A list still without packages, for `add`."""
    return DependencyList(name, (), valid_from, valid_till)
