"""From hostile XML bytes to a light tree."""

from __future__ import annotations

from schleuse.errors import MalformedError


class BadXmlError(MalformedError):
    """The bytes are not an acceptable FHIR XML document. The message names the line, never the content."""

    code = "fhir.bad-xml"


class Node:
    """One FHIR element.

    name: element name ("birthDate"); for a resource the name of the element that holds it ("resource"), for the root its type.
    type: resource type ("Patient") if this is a resource, else None.
    value: the `value` attribute of a primitive, or the `url` attribute of an extension (see `url`); None if absent.
    children: child elements by name, in document order; an `id` attribute becomes a child "id".
    """

    __slots__ = ("children", "name", "type", "value")

    def __init__(self, name: str) -> None:
        self.name = name
        self.type: str | None = None
        self.value: str | None = None
        self.children: dict[str, list[Node]] = {}

    def all(self, *path: str) -> list[Node]:
        """Every descendant along a path of element names: `bundle.all("entry", "resource")`."""
        raise NotImplementedError

    def first(self, *path: str) -> Node | None:
        """The first such descendant, or None."""
        raise NotImplementedError

    def text(self, *path: str) -> str | None:
        """The value of the first such descendant, or None."""
        raise NotImplementedError


def parse(xml: bytes) -> Node:
    """The tree of one FHIR resource in XML (UTF-8, no DTD, no entities, bounded size and depth). Raises BadXmlError."""
    raise NotImplementedError
