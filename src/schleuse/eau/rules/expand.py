"""From the tables of `notation` to the conformance resources that the engine reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from schleuse.eau.rules.notation import CodeList, Invariant, Profile, Rule

Resource = dict[str, Any]

VALUE_SETS = "https://schleuse.example/ValueSet"
_FHIR_STRING = "http://hl7.org/fhirpath/System.String"


def structure(profile: Profile, version: str) -> Resource:
    """A StructureDefinition with snapshot. version: of the profile, "1.2.1" matches a claim of "|1.2"."""
    is_extension = profile.type == "Extension"
    root: Resource = {"id": profile.type, "path": profile.type, "min": 0, "max": "*"}
    if profile.invariants:
        root["constraint"] = [_constraint(each) for each in profile.invariants]
    whole = Rule("", profile.type, 0, None, profile.children, closed=profile.closed, extensions=profile.extensions)
    return {
        "resourceType": "StructureDefinition",
        "url": profile.url,
        "version": version,
        "name": profile.url.rsplit("/", 1)[-1],
        "status": "active",
        "kind": "complex-type" if is_extension else "resource",
        "abstract": False,
        "type": profile.type,
        "derivation": "constraint",
        "baseDefinition": f"http://hl7.org/fhir/StructureDefinition/{profile.type}",
        "snapshot": {"element": [root, *_children(whole, profile.type, profile.type, resource=not is_extension)]},
    }


#: These come before `extension` in every resource; the order of a snapshot is the order of the XML.
_BEFORE_EXTENSION = ("id", "meta", "text")


def _children(rule: Rule, id: str, path: str, *, resource: bool = False) -> Iterator[Resource]:
    first = _BEFORE_EXTENSION if resource else ()
    if not resource:
        most = "0" if rule.without_id else "1"
        yield {"id": f"{id}.id", "path": f"{path}.id", "min": 0, "max": most, "type": [{"code": _FHIR_STRING}]}
    for child in rule.children:
        if child.name in first:
            yield from _element(child, id, path)
    if rule.type != "Bundle":  # the only resource without extensions of its own
        yield from _extensions(rule, id, path)
    for child in rule.children:
        if child.name not in first:
            yield from _element(child, id, path)


def _extensions(rule: Rule, id: str, path: str) -> Iterator[Resource]:
    name = {"id": f"{id}.extension", "path": f"{path}.extension", "min": 0}
    kind = [{"code": "Extension"}]
    if rule.extensions is None:
        yield {**name, "max": "0" if rule.closed else "*", "type": kind}
        return
    fewest = sum(each.at_least for each in rule.extensions)
    yield {
        **name,
        "min": fewest,
        "max": "*",
        "type": kind,
        "slicing": _slicing(("value:url",), "open" if rule.others else "closed"),
    }
    for each in rule.extensions:
        yield from _slice(each, f"{id}.extension", f"{path}.extension")


def _slice(rule: Rule, id: str, path: str) -> Iterator[Resource]:
    named = f"{id}:{rule.slice or rule.name}"
    yield {**_own(rule, named, path), "sliceName": rule.slice or rule.name}
    if rule.children or rule.extensions is not None:
        yield from _children(rule, named, path)


def _element(rule: Rule, id: str, path: str) -> Iterator[Resource]:
    own_id, own_path = f"{id}.{rule.name}", f"{path}.{rule.name}"
    own = _own(rule, own_id, own_path)
    if not rule.alternatives:
        yield own
        if rule.children or rule.extensions is not None or rule.closed:
            yield from _children(rule, own_id, own_path)
        return
    yield {**own, "slicing": _slicing(rule.discriminators, rule.rules)}
    for each in rule.alternatives:
        yield from _slice(each, own_id, own_path)


def _own(rule: Rule, id: str, path: str) -> Resource:
    type: Resource = {"code": rule.type}
    if rule.profile:
        type["profile"] = [rule.profile]
    if rule.targets:
        type["targetProfile"] = list(rule.targets)
    made: Resource = {
        "id": id,
        "path": path,
        "min": rule.at_least,
        "max": "*" if rule.at_most is None else str(rule.at_most),
        "type": [type],
    }
    if rule.fixed is not None:
        made[f"fixed{_capital(rule.type)}"] = rule.fixed
    if rule.pattern is not None:
        made[f"pattern{_capital(rule.type)}"] = dict(rule.pattern)
    if rule.length is not None:
        made["maxLength"] = rule.length
    if rule.values is not None:
        made["binding"] = {"strength": "required", "valueSet": f"{VALUE_SETS}/{rule.values.name}"}
    if rule.invariants:
        made["constraint"] = [_constraint(each) for each in rule.invariants]
    return made


def _slicing(discriminators: Iterable[str], rules: str) -> Resource:
    pairs = (each.split(":", 1) for each in discriminators)
    return {"discriminator": [{"type": type, "path": path} for type, path in pairs], "rules": rules, "ordered": False}


def _constraint(invariant: Invariant) -> Resource:
    return {
        "key": invariant.key,
        "severity": "warning" if invariant.warning else "error",
        "human": invariant.de,
        "expression": " ".join(invariant.expression.split()),
    }


def _capital(type: str) -> str:
    return type[0].upper() + type[1:]


def value_set(codes: CodeList) -> Resource:
    return {
        "resourceType": "ValueSet",
        "url": f"{VALUE_SETS}/{codes.name}",
        "status": "active",
        "compose": {
            "include": [
                {"system": system, "concept": [{"code": code} for code in members]} for system, members in codes.content
            ]
        },
    }


def code_system(system: str, codes: Iterable[str]) -> Resource:
    return {
        "resourceType": "CodeSystem",
        "url": system,
        "status": "active",
        "content": "complete",
        "concept": [{"code": code} for code in codes],
    }


def code_lists(profiles: Iterable[Profile]) -> dict[str, CodeList]:
    """Every code list that the tables name, by name."""
    found: dict[str, CodeList] = {}

    def look(rule: Rule) -> None:
        if rule.values is not None:
            found[rule.values.name] = rule.values
        for each in (*rule.children, *rule.alternatives, *(rule.extensions or ())):
            look(each)

    for profile in profiles:
        for rule in (*profile.children, *(profile.extensions or ())):
            look(rule)
    return found
