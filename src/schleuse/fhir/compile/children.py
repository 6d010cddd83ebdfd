"""Statements for the children of one element: which may stand there, in what order and number, and their own checks.

Which names occur together is the *shape* of an element. Documents have few shapes, so a function keeps those that it
has found right (`SEEN`), and most elements cost one look into a set for unknown, missing, prohibited and disordered
children together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schleuse.fhir.compile import slices
from schleuse.fhir.compile.invariants import has_own_rules
from schleuse.fhir.compile.values import is_primitive, leaf_condition
from schleuse.fhir.fhirpath.generate import indent
from schleuse.fhir.snapshot import Element

if TYPE_CHECKING:
    from schleuse.fhir.compile.compiler import Compiler, Scope

#: Elements that hold resources (FHIR R4: Bundle.entry, DomainResource, Parameters, Bundle.entry.response).
_HOLDERS = frozenset({"resource", "contained", "outcome"})


@dataclass
class _Shape:
    """The table behind `Check.shape`: name -> (position, number of the rule that forbids it or -1)."""

    names: dict[str, tuple[int, int]] = field(default_factory=dict)
    required: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    single: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)


def children_lines(compiler: Compiler, scope: Scope, element: Element, type_code: str) -> list[str]:
    """Statements that check all children of `n` (`c` is `n.children`)."""
    writer = _Writer(compiler, scope, element, type_code)
    for child in element.children.values():
        writer.child(child)
    return [*writer.shape_lines(), *writer.lines]


class _Writer:
    def __init__(self, compiler: Compiler, scope: Scope, element: Element, type_code: str) -> None:
        self._compiler = compiler
        self._scope = scope
        self._element = element
        self._type_code = type_code
        self._shape = _Shape()
        self._position = 0
        self.lines: list[str] = []

    def shape_lines(self) -> list[str]:
        shape = self._shape
        shape.names.setdefault("id", (-1, -1))
        empty: tuple[tuple[str, ...], ...] = ((), ("id",))  # ele-1
        if is_primitive(self._type_code):
            empty = ()  # whether it is, hangs on the value too
        elif self._element is self._scope.root and self._scope.kind == "resource":
            empty = ((),)
        exclusive = -1
        if self._type_code == "Extension":
            exclusive = self._rule("ext-1", "", expected="either extension or value[x]")
        table = (shape.names, tuple(shape.required), tuple(shape.single), empty, exclusive)
        seen = self._compiler.program.fresh("set()")
        known = self._compiler.program.constant(table)
        return [f"if (s := tuple(c)) not in {seen}: x.shape(n, s, {seen}, {known})"]

    def child(self, child: Element) -> None:
        self._position += 1
        if child.name == "url" and self._type_code == "Extension":
            return  # an attribute; whoever calls has looked at it
        if child.is_choice:
            self._choice(child)
        elif child.max == 0:
            self._forbid(child.name)
        else:
            self._allow(child.name)
            if child.min > 0:
                self._require(child.name, (child.name,), f">= {child.min}")
            for part in child.slices.values():
                if part.min > 0 and child.min == 0:
                    self._require(f"{child.name}:{part.slice}", (child.name,), f">= {part.min}")
            self._repeated(child)

    # --- The shape ---

    def _rule(self, key: str, child: str, expected: str) -> int:
        return self._compiler.program.rule(self._scope.rule(key, expected=expected, child=child))

    def _allow(self, name: str) -> None:
        self._shape.names[name] = (self._position, -1)

    def _forbid(self, name: str) -> None:
        self._shape.names[name] = (self._position, self._rule("cardinality.max", name, "0"))

    def _require(self, label: str, names: tuple[str, ...], expected: str) -> None:
        self._shape.required.append((self._rule("cardinality.min", label, expected), names))

    # --- Elements of one name ---

    def _repeated(self, child: Element) -> None:
        body = self._cardinality(child)
        if child.slices and child.slicing is not None:
            body += self._sliced(child)
        else:
            body += self._plain(child)
        if body:
            self.lines += [f"l = c.get({child.name!r})", "if l is not None:", *indent(body)]

    def _cardinality(self, child: Element) -> list[str]:
        lines = []
        if child.min > 1:
            number = self._rule("cardinality.min", child.name, f">= {child.min}")
            lines.append(f"if len(l) < {child.min}: x.add((n, {number}, str(len(l))))")
        if child.max is not None:
            number = self._rule("cardinality.max", child.name, f"<= {child.max}")
            lines.append(f"if len(l) > {child.max}: x.add((n, {number}, str(len(l))))")
        return lines

    def _plain(self, child: Element) -> list[str]:
        call = self._call(child, self._type_of(child))
        if not call:
            return []
        if child.max == 1:
            return ["y = l[0]", *call]
        return ["for y in l:", *indent(call)]

    def _type_of(self, child: Element) -> dict[str, Any]:
        return child.types[0] if child.types else {"code": ""}

    def _call(self, child: Element, entry: dict[str, Any]) -> list[str]:
        """Statements that check the one element `y`."""
        compiler, code = self._compiler, entry["code"]
        if "contentReference" in child.definition:
            return [f"{compiler.referred(self._scope, child)}(y, x, r)"]
        if code == "Extension" and not child.children and not entry.get("profile"):
            context = compiler.program.constant(contexts(self._scope, self._element, self._type_code))
            return [f"x.extension(y, n, r, {context}, {child.name == 'modifierExtension'})"]
        if child.name in _HOLDERS and compiler.is_resource(entry):
            return self._resource(entry, child.name == "contained")
        if self._is_resource_id(child):
            code = "id"
        if _is_id_attribute(child, code):
            return []  # the reader of the XML makes it, at most once and never empty
        function = compiler.element(self._scope, child, {**entry, "code": code})
        if function is None:
            return []
        if _is_leaf(child, code):
            condition = leaf_condition(compiler, child, code)
            return [f"if {condition}: {function}(y, x, r)"]
        return [f"{function}(y, x, r)"]

    def _is_resource_id(self, child: Element) -> bool:
        return child.name == "id" and self._element is self._scope.root and self._scope.kind == "resource"

    def _resource(self, entry: dict[str, Any], contained: bool) -> list[str]:
        compiler = self._compiler
        named = [(url, compiler.profile(url)) for url in entry.get("profile", ())]
        for url, function in named:
            if function is None:
                compiler.program.gap("profile", url, self._element.id)
        functions = ", ".join(f"{function}" for _, function in named if function)
        wanted = "" if entry["code"] in ("Resource", "DomainResource") else entry["code"]
        return [f"x.resource(y, r, ({functions}{',' if functions else ''}), {wanted!r}, {contained})"]

    # --- Choice elements ---

    def _choice(self, child: Element) -> None:
        """`value[x]`: one name a type, of which at most one occurs."""
        tags = self._tags(child)
        names = tuple(tags)
        for tag, (part, entry) in tags.items():
            if child.max == 0 or part.max == 0:
                self._forbid(tag)
                continue
            self._allow(tag)
            number = self._rule("cardinality.max", child.name, "<= 1")
            body = [f"if len(l) > 1: x.add((n, {number}, str(len(l))))", "y = l[0]", *self._call(part, entry)]
            self.lines += [f"l = c.get({tag!r})", "if l is not None:", *indent(body)]
            if part is not child and part.min > 0:
                self._require(tag, (tag,), f">= {part.min}")
        if child.min > 0:
            self._require(child.name, names, f">= {child.min}")
        if names and child.max != 0:
            number = self._rule("cardinality.max", child.name, "<= 1")
            self._shape.single.append((number, names))

    def _tags(self, child: Element) -> dict[str, tuple[Element, dict[str, Any]]]:
        """Element name -> (definition that counts for it, type)."""
        base = child.name[:-3]
        tags: dict[str, tuple[Element, dict[str, Any]]] = {}
        closed = child.slicing is not None and child.slicing.get("rules") == "closed" and child.slices
        if not closed:
            for entry in child.types:
                tags[_tag(base, entry["code"])] = (child, entry)
        for part in child.slices.values():
            for entry in part.types:
                tags[_tag(base, entry["code"])] = (part, entry)
        return tags

    # --- Slices ---

    def _sliced(self, child: Element) -> list[str]:
        tests = {name: slices.belongs(self._compiler, child, part) for name, part in child.slices.items()}
        parts = [part for name, part in child.slices.items() if tests[name] is not None]
        counters = {part.slice: f"i{number}" for number, part in enumerate(parts)}
        counted = [part for part in parts if part.min > 0 or part.max is not None]
        loop: list[str] = []
        for part in parts:
            body = [f"{counters[part.slice]} += 1"] if part in counted else []
            if part.max != 0:
                body += self._call(part, self._type_of(part) if part.types else self._type_of(child))
            loop += [f"{'elif' if loop else 'if'} {tests[part.slice]}:", *indent(body or ["pass"])]
        # A slice that nothing tells may hold anything, so then nothing is refused for being in none.
        others = self._unsliced(child) if len(parts) == len(tests) else []
        if others:
            loop += ["else:", *indent(others)] if loop else others
        if not loop:
            return []
        start = [f"{' = '.join(counters[part.slice] for part in counted)} = 0"] if counted else []
        prepared = slices.probe(child)
        if prepared:
            loop.insert(0, f"p = {prepared}")
        return [*start, "for y in l:", *indent(loop), *self._slice_counts(counted, counters)]

    def _unsliced(self, child: Element) -> list[str]:
        """What an element that is in no slice meets."""
        if (child.slicing or {}).get("rules") == "closed":
            number = self._rule("slice.closed", "", "one of: " + ", ".join(child.slices))
            return [f"x.add((y, {number}, shown_kind(y)))"]
        return self._call(child, self._type_of(child))

    def _slice_counts(self, counted: list[Element], counters: dict[str, str]) -> list[str]:
        lines = []
        for part in counted:
            label, count = f"{part.name}:{part.slice}", counters[part.slice]
            if part.min > 0:
                number = self._rule("cardinality.min", label, f">= {part.min}")
                lines.append(f"if {count} < {part.min}: x.add((n, {number}, str({count})))")
            if part.max is not None:
                number = self._rule("cardinality.max", label, f"<= {part.max}")
                lines.append(f"if {count} > {part.max}: x.add((n, {number}, str({count})))")
        return lines


def _is_leaf(child: Element, code: str) -> bool:
    """Whether the value alone tells if a primitive is right: no required extension, no invariant of its own."""
    needed = any(inner.min > 0 for inner in child.children.values())
    return is_primitive(code) and not needed and not has_own_rules(child.constraints)


def _is_id_attribute(child: Element, code: str) -> bool:
    return child.name == "id" and code == "string" and not has_own_rules(child.constraints)


def _tag(base: str, type_code: str) -> str:
    return base + type_code[0].upper() + type_code[1:]


def contexts(scope: Scope, element: Element, type_code: str) -> frozenset[str]:
    """By what names an extension's context may call this element (FHIR R4 § 5.3.4.4.1)."""
    definition = element.definition
    names = {definition.get("path", ""), definition.get("base", {}).get("path", ""), type_code, scope.type}
    if element is scope.root:
        names |= {scope.url, scope.type}
        names |= {"Resource", "DomainResource"} if scope.kind == "resource" else set()
    else:
        names -= {scope.type}
    return frozenset(names - {""})
