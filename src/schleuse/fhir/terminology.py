"""Which codes a ValueSet holds, as far as its definition and the CodeSystems at hand tell.

Source: FHIR R4 § 4.9.8 (ValueSet composition rules).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from schleuse.fhir.definitions import Definitions, Resource

Code = tuple[str, str]  #: (system, code)

#: Value sets of the packages refer to each other two levels deep; bounds a circle.
_MAX_DEPTH: Final = 8


def concepts(code_system: Resource) -> Iterator[Resource]:
    """All concepts of a CodeSystem, parents before children."""
    queue = list(reversed(code_system.get("concept", ())))
    while queue:
        concept = queue.pop()
        yield concept
        queue += reversed(concept.get("concept", ()))


def codes_of(definitions: Definitions, system: str) -> frozenset[str] | None:
    """All codes of a system, or None if it is not known completely (or is to be ignored)."""
    code_system = definitions.code_system(system)
    if code_system is None or code_system.get("content") != "complete":
        return None
    if code_system["url"] in definitions.ignored_code_systems:
        return None
    return frozenset(concept["code"] for concept in concepts(code_system))


def displays_of(definitions: Definitions, system: str) -> dict[str, str]:
    """Code -> display text of a system."""
    code_system = definitions.code_system(system)
    if code_system is None:
        return {}
    return {concept["code"]: concept["display"] for concept in concepts(code_system) if "display" in concept}


def expand(definitions: Definitions, canonical: str, *, depth: int = 0) -> frozenset[Code] | None:
    """All codes of a ValueSet, or None if they cannot be listed from these definitions."""
    value_set = definitions.value_set(canonical)
    if value_set is None or depth > _MAX_DEPTH:
        return None
    compose = value_set.get("compose", {})
    if not compose.get("include"):
        return _listed(value_set)
    found: set[Code] = set()
    for part in compose["include"]:
        included = _part(definitions, part, depth)
        if included is None:
            return _listed(value_set)
        found |= included
    for part in compose.get("exclude", ()):
        excluded = _part(definitions, part, depth)
        if excluded is None:
            return _listed(value_set)
        found -= excluded
    return frozenset(found)


def _listed(value_set: Resource) -> frozenset[Code] | None:
    """The codes of an expansion that the ValueSet brings along."""
    expansion = value_set.get("expansion", {}).get("contains")
    if not expansion:
        return None
    queue, found = list(expansion), set()
    while queue:
        entry = queue.pop()
        if "code" in entry and not entry.get("abstract"):
            found.add((entry.get("system", ""), entry["code"]))
        queue += entry.get("contains", ())
    return frozenset(found)


def _part(definitions: Definitions, part: dict[str, Any], depth: int) -> frozenset[Code] | None:
    """The codes of one `include` or `exclude`: those of its system that are also in all its value sets."""
    sets: list[frozenset[Code]] = []
    for canonical in part.get("valueSet", ()):
        expanded = expand(definitions, canonical, depth=depth + 1)
        if expanded is None:
            return None
        sets.append(expanded)
    if "system" in part:
        own = _of_system(definitions, part)
        if own is None:
            return None
        sets.append(own)
    return frozenset.intersection(*sets) if sets else frozenset()


def _of_system(definitions: Definitions, part: dict[str, Any]) -> frozenset[Code] | None:
    system = part["system"]
    if "concept" in part:
        return frozenset((system, concept["code"]) for concept in part["concept"])
    codes = codes_of(definitions, system)
    if codes is None:
        return None
    for condition in part.get("filter", ()):
        kept = _filtered(definitions, system, condition)
        if kept is None:
            return None
        codes &= kept
    return frozenset((system, code) for code in codes)


def _filtered(definitions: Definitions, system: str, condition: dict[str, Any]) -> frozenset[str] | None:
    code_system = definitions.code_system(system)
    if code_system is None or condition.get("property") != "concept":
        return None
    top = [concept for concept in concepts(code_system) if concept["code"] == condition.get("value")]
    below = frozenset(concept["code"] for concept in concepts({"concept": top}))
    match condition.get("op"):
        case "is-a":
            return below
        case "descendent-of":
            return below - {condition["value"]}
        case "is-not-a":
            return frozenset(concept["code"] for concept in concepts(code_system)) - below
        case _:
            return None


def systems_of(codes: Iterable[Code]) -> frozenset[str]:
    """The systems that occur."""
    return frozenset(system for system, _ in codes)
