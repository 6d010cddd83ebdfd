"""Writing FHIR as XML: elements whose value is an attribute, resources in the FHIR namespace."""

from __future__ import annotations

from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

NAMESPACE = "http://hl7.org/fhir"
Element = ET.Element


def element(name: str, *children: Element | None, value: str | None = None) -> Element:
    """<name value="..."> with its children; a child that is None is left out."""
    made = ET.Element(name)
    if value is not None:
        made.set("value", value)
    made.extend(child for child in children if child is not None)
    return made


def optional(name: str, value: str | None) -> Element | None:
    """<name value="..."/>, or nothing if there is no value."""
    return None if value is None else element(name, value=value)


def resource(kind: str, id: str, profile: str, *children: Element | None) -> Element:
    """A resource with its id and the one profile that it claims (`URL|version`)."""
    return element(kind, element("id", value=id), element("meta", element("profile", value=profile)), *children)


def extension(url: str, value: Element) -> Element:
    made = element("extension", value)
    made.set("url", url)
    return made


def coding(name: str, system: str, code: str, *, version: str | None = None) -> Element:
    return element(name, element("system", value=system), optional("version", version), element("code", value=code))


def concept(name: str, system: str, code: str, *, text: str | None = None) -> Element:
    """A CodeableConcept with one coding."""
    return element(name, coding("coding", system, code), optional("text", text))


def identifier(name: str, system: str, value: str, *, type: tuple[str, str] | None = None) -> Element:
    """type: system and code of the identifier's type."""
    kind = concept("type", *type) if type else None
    return element(name, kind, element("system", value=system), element("value", value=value))


def reference(name: str, target: Element, *, type: str | None = None) -> Element:
    """A relative literal reference to a resource of the same bundle."""
    return element(name, element("reference", value=address(target)), optional("type", type))


def address(target: Element) -> str:
    """`Kind/id` of a resource."""
    return f"{target.tag}/{target[0].get('value')}"


def entry(base: str, content: Element) -> Element:
    """A bundle entry under an absolute address below base."""
    return element("entry", element("fullUrl", value=f"{base}/{address(content)}"), element("resource", content))


def to_bytes(root: Element) -> bytes:
    """UTF-8 without BOM (eau.md § 3), indented by two spaces as practice systems write it."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    _write(root, "", f' xmlns="{NAMESPACE}"', lines)
    return ("\n".join(lines) + "\n").encode()


def _write(node: Element, indent: str, extra: str, lines: list[str]) -> None:
    attributes = extra + "".join(f" {key}={quoteattr(value)}" for key, value in node.items())
    if len(node) == 0:
        lines.append(f"{indent}<{node.tag}{attributes}/>")
        return
    lines.append(f"{indent}<{node.tag}{attributes}>")
    for child in node:
        _write(child, indent + "  ", "", lines)
    lines.append(f"{indent}</{node.tag}>")
