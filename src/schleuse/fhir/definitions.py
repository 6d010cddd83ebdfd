"""The conformance resources that rules are compiled from, looked up by canonical URL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any

Resource = Mapping[str, Any]

_KINDS = ("StructureDefinition", "ValueSet", "CodeSystem")


def version_matches(asked: str, has: str) -> bool:
    """Whether a canonical's version names this one: equal, or a leading part ("1.2" names "1.2.1")."""
    return asked == has or has.startswith(asked + ".")


class Definitions:
    """StructureDefinitions (with snapshot), ValueSets and CodeSystems, as the dicts of their JSON form.

    resources: any iterable of dicts with `resourceType`, or a function that reads them when they are needed; other
        resource types are ignored, Bundles are unpacked. If two have the same URL *and* version, the later one wins.
        Without a version asked for, the later one wins.
    ignored_code_systems: codes of these systems are never checked against a CodeSystem
        (reference configuration: the ICD-10-GM systems).
    digest: what identifies the content, if the caller knows that without reading it (must change when a byte changes);
        lets rules be taken from the disk cache without reading the definitions.

    What the compiler reads of a StructureDefinition: url, version, name, type, kind, derivation, context and of each
    snapshot.element: id (with ":slice"), path, sliceName, min, max, type (code, profile, targetProfile), fixed*,
    pattern*, maxLength, minValue*, maxValue*, isModifier, binding (strength required, valueSet), slicing
    (discriminator, rules, ordered), contentReference, constraint (key, severity, human, expression).
    Primitive types are built in and need no definition. A complex type without a definition is fine as long as the
    elements that use it list their children themselves; if they do not, their content stays unchecked and
    `RuleSet.gaps` names them. A CodeSystem with content "complete" is taken at its word: a code of that
    system that it does not list is an error wherever it stands.
    """

    def __init__(
        self,
        resources: Iterable[Resource] | Callable[[], Iterable[Resource]],
        *,
        ignored_code_systems: Collection[str] = (),
        digest: str | None = None,
    ) -> None:
        self.ignored_code_systems = frozenset(ignored_code_systems)
        self._resources = resources
        self._digest = digest

    @cached_property
    def _by_kind(self) -> dict[str, dict[str, list[Resource]]]:
        found: dict[str, dict[str, list[Resource]]] = {kind: {} for kind in _KINDS}
        for resource in self._resources() if callable(self._resources) else self._resources:
            _add(found, resource)
        return found

    def structure(self, canonical: str) -> Resource | None:
        """The StructureDefinition of a canonical ("url" or "url|version"), or None."""
        return self._find("StructureDefinition", canonical)

    def value_set(self, canonical: str) -> Resource | None:
        """The ValueSet of a canonical, or None."""
        return self._find("ValueSet", canonical)

    def code_system(self, canonical: str) -> Resource | None:
        """The CodeSystem of a canonical, or None."""
        return self._find("CodeSystem", canonical)

    def structures(self) -> list[Resource]:
        """Every StructureDefinition that a canonical without version would find."""
        return [versions[-1] for versions in self._by_kind["StructureDefinition"].values()]

    def code_systems(self) -> list[Resource]:
        """Every CodeSystem that a canonical without version would find."""
        return [versions[-1] for versions in self._by_kind["CodeSystem"].values()]

    def _find(self, kind: str, canonical: str) -> Resource | None:
        url, _, version = canonical.partition("|")
        known = self._by_kind[kind].get(url)
        if not known:
            return None
        if version:
            for resource in reversed(known):
                if version_matches(version, resource.get("version", "")):
                    return resource
        return known[-1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content, independent of the order in which different URLs came."""
        total = hashlib.sha256(json.dumps(sorted(self.ignored_code_systems)).encode())
        if self._digest is not None:
            total.update(self._digest.encode())
            return total.hexdigest()
        for kind in _KINDS:
            for url, known in sorted(self._by_kind[kind].items()):
                for resource in known:
                    total.update(f"{kind} {url}\n".encode())
                    total.update(json.dumps(resource, sort_keys=True, separators=(",", ":")).encode())
        return total.hexdigest()


def _add(found: dict[str, dict[str, list[Resource]]], resource: Resource) -> None:
    kind = resource.get("resourceType")
    if kind == "Bundle":
        for entry in resource.get("entry", ()):
            _add(found, entry.get("resource", {}))
    elif kind in found and "url" in resource:
        if kind == "StructureDefinition" and "snapshot" not in resource:
            return
        known = found[kind].setdefault(resource["url"], [])
        known[:] = [other for other in known if other.get("version") != resource.get("version")]
        known.append(resource)
