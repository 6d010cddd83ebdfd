"""Statements for the FHIRPath invariants of one element.

Quirk of the reference validator (limits.md § 4): of several constraints with the same expression on one element
only the first is evaluated. If that one is a warning, the later error never comes up; gematik's patched packages
rely on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from schleuse.fhir.compile.values import severity_rule
from schleuse.fhir.fhirpath.generate import Generator, indent
from schleuse.fhir.fhirpath.syntax import BadPathError, Expression, parse

if TYPE_CHECKING:
    from schleuse.fhir.compile.compiler import Compiler, Scope

#: Checked by statements of their own: ele-1 and ext-1 by the shape of an element.
_BUILT_IN: Final = frozenset({"ele-1", "ext-1"})

#: Published expressions that do not say what they mean, or say it at length; here a test for the violation.
_STATEMENTS: Final = {
    "dom-3": "'contained' in c and not F.contained_are_used(n)",
    # As written, a reference by identifier alone would violate it; the reference validator corrects it too.
    "ref-1": "'reference' in c and not x.fragment_resolves(n, r)",
    "txt-1": "'#markup' in c",  # noticed by the reader of the XML
}


def invariant_lines(
    compiler: Compiler,
    scope: Scope,
    constraints: Iterable[dict[str, Any]],
    type_code: str,
    where: str,
    *,
    is_resource: bool,
) -> list[str]:
    """Statements that evaluate constraints on `n`; warnings only if `x.warn`."""
    errors: list[tuple[int, Expression]] = []
    warnings: list[tuple[int, Expression]] = []
    lines: list[str] = []
    seen: set[str] = set()
    for constraint in constraints:
        key, text = constraint["key"], constraint.get("expression")
        if key in _BUILT_IN or text in seen or _is_best_practice(constraint):
            continue
        if not text:
            compiler.program.gap("invariant", key, where)
            continue
        seen.add(text)
        compiler.program.invariants[key, text] = None
        severity = "error" if constraint.get("severity") == "error" else "warning"
        rule = severity_rule(severity, key, constraint.get("human", ""), scope.url)
        number = compiler.program.rule(rule)
        if key in _STATEMENTS:
            lines.append(f"if {_STATEMENTS[key]}: x.add((n, {number}, ''))")
            continue
        (errors if severity == "error" else warnings).append((number, _parsed(key, text, scope)))
    generate = partial(_block, compiler, scope, type_code=type_code, is_resource=is_resource)
    lines += generate(errors)
    if warnings:
        lines += ["if x.warn:", *indent(generate(warnings))]
    return lines


def has_own_rules(constraints: Iterable[dict[str, Any]]) -> bool:
    """Whether constraints say anything that the shape of an element does not."""
    return any(constraint["key"] not in _BUILT_IN for constraint in constraints)


def _is_best_practice(constraint: dict[str, Any]) -> bool:
    """Advice such as "every resource should have a narrative" (dom-6), which the KBV's profiles forbid to follow."""
    return any(
        extension.get("url") == _BEST_PRACTICE and extension.get("valueBoolean") is True
        for extension in constraint.get("extension", ())
    )


_BEST_PRACTICE: Final = "http://hl7.org/fhir/StructureDefinition/elementdefinition-bestpractice"


def _parsed(key: str, text: str, scope: Scope) -> Expression:
    try:
        return parse(text)
    except BadPathError as cause:
        raise scope.bad(f"invariant {key}: {cause}") from cause


def _block(
    compiler: Compiler, scope: Scope, rules: list[tuple[int, Expression]], *, type_code: str, is_resource: bool
) -> list[str]:
    generator = Generator(
        choices=compiler.choices,
        constant=compiler.program.pattern,
        focus_type=type_code,
        focus_is_resource=is_resource,
    )
    generator.prepare(expression for _, expression in rules)
    for number, expression in rules:
        try:
            generator.unless_true(expression, f"x.add((n, {number}, ''))")
        except BadPathError as cause:
            raise scope.bad(f"invariant {compiler.program.rules[number].key}: {cause}") from cause
    return generator.lines
