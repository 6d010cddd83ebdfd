"""The flat element list of a StructureDefinition's snapshot as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schleuse.errors import MalformedError
from schleuse.fhir.definitions import Resource
from schleuse.fhir.primitives import SYSTEM_TYPES


class BadSnapshotError(MalformedError):
    """The snapshot of a StructureDefinition contradicts itself. Its publisher can repair it."""

    code = "fhir.bad-snapshot"


class Element:
    """One element definition with what stands below it.

    name: last part of the id, without slice ("coding", "value[x]"); for the root the type.
    slice: name of the slice, or "".
    children: by name; slices of a child hang below that child.
    sliced_from: of a slice, the definition of all occurrences, which counts for it too.
    """

    def __init__(self, definition: dict[str, Any], name: str, slice_name: str = "") -> None:
        self.definition = definition
        self.name = name
        self.slice = slice_name
        self.children: dict[str, Element] = {}
        self.slices: dict[str, Element] = {}
        self.sliced_from: Element | None = None

    @property
    def layers(self) -> list[Element]:
        """The definitions whose own rules count for this element, the general one first."""
        return [self] if self.sliced_from is None else [self.sliced_from, self]

    @property
    def constraints(self) -> list[dict[str, Any]]:
        """The constraints of all layers."""
        return [one for layer in self.layers for one in layer.definition.get("constraint", ())]

    @property
    def id(self) -> str:
        return str(self.definition["id"])

    @property
    def min(self) -> int:
        return int(self.definition.get("min", 0))

    @property
    def max(self) -> int | None:
        """Highest number of occurrences, None for any."""
        most = self.definition.get("max", "*")
        return None if most == "*" else int(most)

    @property
    def types(self) -> list[dict[str, Any]]:
        """Type entries, with FHIRPath's system types under their FHIR names."""
        return [
            {**entry, "code": SYSTEM_TYPES.get(entry["code"], entry["code"])}
            for entry in self.definition.get("type", ())
        ]

    @property
    def type_codes(self) -> list[str]:
        return [entry["code"] for entry in self.types]

    @property
    def is_choice(self) -> bool:
        return self.name.endswith("[x]")

    @property
    def slicing(self) -> dict[str, Any] | None:
        return self.definition.get("slicing")

    def value(self, prefix: str) -> tuple[str, Any] | None:
        """(key, value) of "fixed..." or "pattern...", or None."""
        for key, value in self.definition.items():
            if key.startswith(prefix):
                return key, value
        return None

    def walk(self) -> Iterator[Element]:
        yield self
        for child in [*self.children.values(), *self.slices.values()]:
            yield from child.walk()


def tree(structure: Resource) -> Element:
    """The root element of a StructureDefinition. Raises BadSnapshotError."""
    elements: dict[str, Element] = {}
    root: Element | None = None
    for definition in structure["snapshot"]["element"]:
        path = str(definition["id"])
        parent_path, _, last = path.rpartition(".")
        name, _, slice_name = last.partition(":")
        element = elements[path] = Element(definition, name, slice_name)
        if not parent_path:
            root = element
            continue
        parent = elements.get(parent_path)
        if parent is None:
            raise BadSnapshotError(f"{structure['url']} has {path} and no {parent_path}")
        _place(element, parent)
    if root is None:
        raise BadSnapshotError(f"{structure['url']} has no root element")
    return root


def _place(element: Element, parent: Element) -> None:
    if not element.slice:
        parent.children[element.name] = element
        return
    base = parent.children.get(element.name)
    if base is None:  # a slice whose unsliced element is not listed: anything else is free
        free = {"id": f"{parent.id}.{element.name}", "type": element.definition.get("type", [])}
        base = parent.children[element.name] = Element(free, element.name)
    base.slices[element.slice] = element
    element.sliced_from = base
