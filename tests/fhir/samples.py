"""Small conformance resources of our own, to test one thing at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schleuse.fhir import Definitions, Finding, RuleSet, compile_rules

BASE = "http://x.example/StructureDefinition/"
CORE = "http://hl7.org/fhir/StructureDefinition/"
NS = 'xmlns="http://hl7.org/fhir"'


def element(path: str, types: str = "", count: str = "0..1", **more: Any) -> dict[str, Any]:
    """An element definition: "Patient.name", "string HumanName", "0..*"; a slice is "Patient.name:official"."""
    least, _, most = count.partition("..")
    listed = [entry if isinstance(entry, dict) else {"code": entry} for entry in types.split()]
    return {
        "id": path,
        "path": ".".join(part.partition(":")[0] for part in path.split(".")),
        "min": int(least),
        "max": most,
        "type": listed,
        **more,
    }


def profile(
    name: str, type_name: str, *elements: dict[str, Any], kind: str = "resource", **more: Any
) -> dict[str, Any]:
    """A StructureDefinition; the root element is added if it is not given."""
    root = [] if elements and elements[0]["id"] == type_name else [element(type_name, count="0..*")]
    return {
        "resourceType": "StructureDefinition",
        "url": BASE + name,
        "version": "1.2.1",
        "name": name,
        "type": type_name,
        "kind": kind,
        "derivation": "constraint",
        "snapshot": {"element": [*root, *elements]},
        **more,
    }


def value_set(name: str, system: str, *codes: str) -> dict[str, Any]:
    include = {"system": system, "concept": [{"code": code} for code in codes]}
    return {"resourceType": "ValueSet", "url": f"http://x.example/ValueSet/{name}", "compose": {"include": [include]}}


def code_system(url: str, *codes: str, content: str = "complete") -> dict[str, Any]:
    concepts = [{"code": code, "display": f"Display of {code}"} for code in codes]
    return {"resourceType": "CodeSystem", "url": url, "content": content, "concept": concepts}


def required(name: str) -> dict[str, Any]:
    return {"strength": "required", "valueSet": f"http://x.example/ValueSet/{name}"}


def constraint(key: str, expression: str, severity: str = "error") -> dict[str, Any]:
    return {"key": key, "severity": severity, "human": f"text of {key}", "expression": expression}


META = (element("Patient.meta", "Meta"), element("Patient.meta.profile", "canonical", "0..*"))


def patient_rules(*elements: dict[str, Any], others: Iterable[dict[str, Any]] = ()) -> RuleSet:
    """Rules of one Patient profile "P" with meta and the elements."""
    root = [one for one in elements if one["id"] == "Patient"]
    rest = [one for one in elements if one["id"] != "Patient"]
    return compile_rules(Definitions([profile("P", "Patient", *root, *META, *rest), *others]), [BASE + "P"])


def patient(content: str, claim: str = "P|1.2") -> bytes:
    return f'<Patient {NS}><meta><profile value="{BASE}{claim}"/></meta>{content}</Patient>'.encode()


def judge(rules: RuleSet, content: str) -> list[tuple[str, str]]:
    """(key, path) of all findings on a Patient with this content."""
    return [(finding.key, finding.path) for finding in rules.check_xml(patient(content))]


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]
