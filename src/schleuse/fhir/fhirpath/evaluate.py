"""One expression as a Python function."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

from schleuse.fhir.fhirpath import functions
from schleuse.fhir.fhirpath.generate import Generator, indent
from schleuse.fhir.fhirpath.syntax import parse
from schleuse.fhir.node import Node


class Surroundings(Protocol):
    """What an expression may ask about the document around its focus."""

    def resolve(self, references: functions.Items) -> list[Any]: ...

    def container(self, resource: Node) -> Node: ...


class _Alone:
    """No document around: nothing resolves."""

    def resolve(self, references: functions.Items) -> list[Any]:
        return []

    def container(self, resource: Node) -> Node:
        return resource


Evaluator = Callable[..., list[Any]]


def evaluator(text: str, *, choices: frozenset[str] = frozenset()) -> Evaluator:
    """A function from a Node (and, optionally, its surroundings and its resource) to the items of an expression.

    Raises BadPathError.
    """
    constants: dict[str, re.Pattern[str]] = {}

    def constant(pattern: re.Pattern[str]) -> str:
        name = f"P{len(constants)}"
        constants[name] = pattern
        return name

    expression = parse(text)
    generator = Generator(choices=choices, constant=constant)
    generator.prepare([expression])
    result = generator.value(expression)
    source = "\n".join(["def evaluate(n, x, r):", *indent([*generator.lines, f"return list({result})"])])
    names: dict[str, Any] = {**NAMES, **constants}
    exec(compile(source, "<fhirpath>", "exec"), names)  # noqa: S102 - made from a parsed tree, with quoted literals
    function = names["evaluate"]

    def evaluate(node: Node, surroundings: Surroundings | None = None, resource: Node | None = None) -> list[Any]:
        return list(function(node, surroundings or _Alone(), resource or node))

    return evaluate


#: Globals that generated statements use.
NAMES: dict[str, Any] = {"F": functions, "Node": Node, "Decimal": Decimal}
