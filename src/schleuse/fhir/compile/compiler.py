"""From the profiles asked for to all functions that they need."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from schleuse.errors import MalformedError
from schleuse.fhir import terminology
from schleuse.fhir.compile.children import children_lines, contexts
from schleuse.fhir.compile.invariants import invariant_lines
from schleuse.fhir.compile.program import ExtensionEntry, ProfileEntry, Program, Rule
from schleuse.fhir.compile.values import complex_lines, has_value_rules, is_primitive, primitive_lines
from schleuse.fhir.definitions import Definitions, Resource
from schleuse.fhir.fhirpath.generate import indent
from schleuse.fhir.snapshot import BadSnapshotError, Element, tree

_CORE: Final = "http://hl7.org/fhir/StructureDefinition/"
_ANY_RESOURCE: Final = frozenset({"Resource", "DomainResource"})


class BadDefinitionsError(MalformedError):
    """The definitions cannot be compiled: a missing root, an invariant that is not FHIRPath, a broken snapshot."""

    code = "fhir.bad-definitions"


@dataclass(frozen=True, slots=True)
class Scope:
    """The StructureDefinition whose elements are being compiled."""

    url: str
    type: str
    kind: str
    root: Element

    def rule(self, key: str, *, expected: str = "", child: str = "") -> Rule:
        return Rule("error", key, expected=expected, profile=self.url, child=child)

    def bad(self, reason: str) -> BadDefinitionsError:
        return BadDefinitionsError(f"{self.url}: {reason}; its publisher can repair it")


def compile_program(definitions: Definitions, roots: Iterable[str]) -> Program:
    """Compile the profiles `roots` and all that they reach. Raises BadDefinitionsError."""
    wanted = tuple(roots)
    compiler = Compiler(definitions, wanted)
    program = compiler.program
    for canonical in wanted:
        if compiler.profile(canonical) is None:
            raise BadDefinitionsError(f"the profile {canonical} is not among the definitions")
        program.roots += (canonical.partition("|")[0],)
    program.optional = True
    compiler.extensions()
    compiler.systems()
    return program


class Compiler:
    """Compiles each profile, type and element once."""

    def __init__(self, definitions: Definitions, roots: tuple[str, ...]) -> None:
        self.program = Program()
        self._definitions = definitions
        self._functions: dict[str, str] = {}
        self._elements: dict[tuple[int, str, str], str | None] = {}
        self._scopes: dict[str, Scope | None] = {}
        self._expansions: dict[str, frozenset[terminology.Code] | None] = {}
        self.choices = self._choice_names(roots)

    def _choice_names(self, roots: tuple[str, ...]) -> frozenset[str]:
        """Base names of the choice elements that can occur. Not of all in FHIR: in some resource `code` is one too."""
        names = {"value"}
        queue, seen = list(roots), set()
        while queue:
            structure = self._definitions.structure(queue.pop())
            if structure is None or structure["url"] in seen:
                continue
            seen.add(structure["url"])
            for element in structure["snapshot"]["element"]:
                if element["id"].endswith("[x]"):
                    names.add(element["id"].rpartition(".")[2][:-3])
                for entry in element.get("type", ()) if element.get("max") != "0" else ():
                    queue += [_CORE + entry["code"], *entry.get("profile", ())]
        return frozenset(names)

    # --- What the writers of statements ask ---

    def expand(self, canonical: str) -> frozenset[terminology.Code] | None:
        if canonical not in self._expansions:
            self._expansions[canonical] = terminology.expand(self._definitions, canonical)
        return self._expansions[canonical]

    def scope(self, canonical: str) -> Scope | None:
        structure = self._definitions.structure(canonical)
        if structure is None:
            return None
        key = f"{structure['url']}|{structure.get('version', '')}"
        if key not in self._scopes:
            self._scopes[key] = self._scope(structure)
        return self._scopes[key]

    @staticmethod
    def _scope(structure: Resource) -> Scope:
        try:
            root = tree(structure)
        except BadSnapshotError as cause:
            raise BadDefinitionsError(str(cause)) from cause
        return Scope(structure["url"], structure["type"], structure.get("kind", ""), root)

    def root_of(self, canonical: str) -> Element | None:
        scope = self.scope(canonical)
        return None if scope is None else scope.root

    def is_resource(self, entry: dict[str, Any]) -> bool:
        """Whether a type entry names a resource (type or profile)."""
        if entry["code"] in _ANY_RESOURCE:
            return True
        scopes = [self.scope(url) for url in (*entry.get("profile", ()), _CORE + entry["code"])]
        return any(scope is not None and scope.kind == "resource" for scope in scopes)

    # --- Functions ---

    def profile(self, canonical: str) -> str | None:
        """Name of the function that checks a profile or type, or None if it is not defined."""
        scope = self.scope(canonical)
        if scope is None:
            return None
        structure = self._definitions.structure(canonical) or {}
        key = f"{scope.url}|{structure.get('version', '')}"
        if key in self._functions:
            return self._functions[key]
        name = self._functions[key] = self._name(scope.url.rpartition("/")[2])
        if scope.kind == "resource":
            self.program.profiles[scope.url] = ProfileEntry(name, structure.get("version", ""), scope.type)
        self._write(name, scope, scope.root, {"code": scope.type}, is_root=True)
        return name

    def element(self, scope: Scope, element: Element, entry: dict[str, Any]) -> str | None:
        """Name of the function that checks an element of a type; None if nothing can be checked."""
        key = (id(element), entry["code"], " ".join(entry.get("profile", ())))
        if key in self._elements:
            return self._elements[key]
        if not element.children and not is_primitive(entry["code"]) and self._adds_nothing(element, entry):
            self._elements[key] = self._type_function(element, entry)
            return self._elements[key]
        name = self._elements[key] = self._name(element.id)
        self._write(name, scope, element, entry, is_root=False)
        return name

    def referred(self, scope: Scope, element: Element) -> str:
        """Function of the element that a contentReference names."""
        wanted = element.definition["contentReference"].partition("#")[2]
        for candidate in scope.root.walk():
            if candidate.id == wanted:
                entry = candidate.types[0] if candidate.types else {"code": "BackboneElement"}
                found = self.element(scope, candidate, entry)
                if found is not None:
                    return found
        raise scope.bad(f"{element.id} refers to {wanted}, which is not there")

    def _name(self, hint: str) -> str:
        letters = re.sub(r"\W+", "_", hint, flags=re.ASCII)[-40:].strip("_")
        return f"f{len(self.program.functions) + len(self._functions) + len(self._elements)}_{letters}"

    def _adds_nothing(self, element: Element, entry: dict[str, Any]) -> bool:
        """Whether an element without children of its own is just what its type says."""
        if has_value_rules(element):
            return False
        if entry["code"] == "Reference" and entry.get("targetProfile"):
            return False
        known = {constraint.get("expression") for constraint in self._type_constraints(entry)}
        return all(
            constraint["key"] in ("ele-1", "ext-1") or constraint.get("expression") in known
            for constraint in element.constraints
        )

    def _type_scopes(self, entry: dict[str, Any]) -> list[Scope]:
        """The base type and the profiles that a type entry names, as far as they are defined."""
        named = [_CORE + entry["code"], *entry.get("profile", ())]
        return [scope for scope in map(self.scope, named) if scope is not None]

    def _type_constraints(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            constraint
            for scope in self._type_scopes(entry)
            for constraint in scope.root.definition.get("constraint", ())
        ]

    def _type_function(self, element: Element, entry: dict[str, Any]) -> str | None:
        """Function for the content of an element that lists no children."""
        profiles = entry.get("profile", ())
        if profiles:
            functions = [self.profile(url) for url in profiles]
            for url, function in zip(profiles, functions, strict=True):
                if function is None:
                    self.program.gap("profile", url, element.id)
            known = [function for function in functions if function is not None]
            if len(known) == 1:
                return known[0]
            if known:
                return self._alternatives(known)
        if entry["code"] in _ANY_RESOURCE or not entry["code"]:
            return None
        function = self.profile(_CORE + entry["code"])
        if function is None:
            self.program.gap("type", entry["code"], element.id)
        return function

    def _alternatives(self, functions: list[str]) -> str:
        """A function for elements that must fit one of several profiles."""
        name = self._name("any_of")
        self.program.functions.append(f"def {name}(n, x, r): x.any_of(n, r, ({', '.join(functions)},))")
        return name

    def _write(self, name: str, scope: Scope, element: Element, entry: dict[str, Any], *, is_root: bool) -> None:
        position = len(self.program.functions)
        self.program.functions.append("")  # keeps names unique while inner functions are written
        code = entry["code"]
        lines = ["c = n.children"]
        if is_root and scope.kind == "resource":
            wrong = self.program.rule(scope.rule("type", expected=scope.type))
            lines += [f"if n.type != {scope.type!r}: x.add((n, {wrong}, shown_kind(n))); return", "r = n"]
        if is_primitive(code):
            lines += self._primitive(scope, element, code)
        elif code != "xhtml":
            lines += self._complex(scope, element, entry, is_root=is_root)
        constraints = self._constraints(element, entry, is_root=is_root)
        lines += invariant_lines(
            self, scope, constraints, code, element.id, is_resource=is_root and scope.kind == "resource"
        )
        self.program.functions[position] = "\n".join([f"def {name}(n, x, r):", *indent(lines)])

    def _primitive(self, scope: Scope, element: Element, code: str) -> list[str]:
        lines = primitive_lines(self, scope, element, code)
        inner = {name: child for name, child in element.children.items() if name != "value"}
        if inner:
            only = Element(element.definition, element.name, element.slice)
            only.children, only.sliced_from = inner, element.sliced_from
            return lines + children_lines(self, scope, only, code)
        context = self.program.constant(contexts(scope, element, code))
        return [*lines, f"if c: x.primitive_children(n, r, {context})"]

    def _complex(self, scope: Scope, element: Element, entry: dict[str, Any], *, is_root: bool) -> list[str]:
        lines: list[str] = []
        if element.children:
            lines += children_lines(self, scope, element, entry["code"])
        elif not is_root:
            function = self._type_function(element, entry)
            lines += [f"{function}(n, x, r)"] if function else []
        lines += complex_lines(self, scope, element, entry["code"])
        targets = tuple(entry.get("targetProfile", ()))
        if entry["code"] == "Reference" and targets and _CORE + "Resource" not in targets:
            lines.append(self._reference(scope, targets))
        return lines

    def _reference(self, scope: Scope, targets: tuple[str, ...]) -> str:
        """References are followed when the whole document has been seen."""
        number = self.program.rule(scope.rule("reference.target", expected=", ".join(map(_short, targets))))
        functions = []
        for canonical in targets:
            if canonical.startswith(_CORE):
                functions.append(f"({canonical.rpartition('/')[2]!r}, None)")
                continue
            target = self.scope(canonical)
            function = self.profile(canonical)
            if target is None or function is None:
                self.program.gap("profile", canonical, scope.url)
                return "pass"
            functions.append(f"({target.type!r}, {function})")
        return f"if 'reference' in c or 'type' in c: x.references.append((n, r, {number}, ({', '.join(functions)},)))"

    def _constraints(self, element: Element, entry: dict[str, Any], *, is_root: bool) -> list[dict[str, Any]]:
        """Constraints of the type come first, as the reference validator goes through the type first."""
        own = element.constraints
        if is_root or is_primitive(entry["code"]):
            return own
        inherited = self._type_constraints(entry)
        if element.children:
            return [*inherited, *own]
        called = {constraint.get("expression") for constraint in inherited}
        return [constraint for constraint in own if constraint.get("expression") not in called]

    # --- Tables ---

    def extensions(self) -> None:
        """Compile every extension: which ones a document uses is not known before."""
        for structure in self._definitions.structures():
            url = structure["url"]
            if structure["type"] != "Extension" or url == _CORE + "Extension":
                continue
            function = self.profile(url)
            scope = self.scope(url)
            if function is not None and scope is not None:
                modifier = bool(scope.root.definition.get("isModifier"))
                self.program.extensions[url] = ExtensionEntry(function, modifier, _allowed_contexts(structure))

    def systems(self) -> None:
        """All codes and display texts of each code system that is known completely."""
        for code_system in self._definitions.code_systems():
            url = code_system["url"]
            codes = terminology.codes_of(self._definitions, url)
            if codes:
                displays = terminology.displays_of(self._definitions, url)
                self.program.systems[url] = {code: displays.get(code) for code in sorted(codes)}


def _allowed_contexts(structure: Resource) -> tuple[str, ...]:
    """Where an extension may stand; nothing if anywhere, or if only FHIRPath tells."""
    contexts = structure.get("context", ())
    if any(context["type"] == "fhirpath" or context["expression"] == "Element" for context in contexts):
        return ()
    return tuple(context["expression"] for context in contexts)


def _short(canonical: str) -> str:
    return canonical.rpartition("/")[2]
