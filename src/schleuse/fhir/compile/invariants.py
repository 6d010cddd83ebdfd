"""Statements for the FHIRPath invariants of one element.

Quirk of the reference validator (limits.md § 4): of several constraints with the same expression on one element only the
first is evaluated. If that one is a warning, the later error never comes up; gematik's patched packages rely on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from schleuse.fhir.compile.values import severity_rule
from schleuse.fhir.fhirpath.generate import Generator, indent
from schleuse.fhir.fhirpath.syntax import BadPathError, Expression, parse

if TYPE_CHECKING:
    from schleuse.fhir.compile.compiler import Compiler, Scope

#: Checked by statements of their own: ele-1 and ext-1 by the shape of an element.
_BUILT_IN: Final = frozenset({"ele-1", "ext-1"})

#: What the reference validator puts in the place of published expressions that do not say what they mean.
_REPLACED: Final = {
    # A reference by identifier has no `reference` and is no fragment.
    "ref-1": "reference.exists() implies (reference.startsWith('#').not() or "
    "reference.substring(1) in %rootResource.contained.id or reference = '#')",
    "txt-1": "true",  # found by the reader of the XML (narrative.markup)
}


def invariant_lines(
    compiler: Compiler, scope: Scope, constraints: Iterable[dict[str, Any]], type_code: str, where: str
) -> list[str]:
    """Statements that evaluate constraints on `n`; warnings only if `x.warn`."""
    errors: list[tuple[int, Expression]] = []
    warnings: list[tuple[int, Expression]] = []
    lines: list[str] = []
    seen: set[str] = set()
    for constraint in constraints:
        key, text = constraint["key"], constraint.get("expression")
        if key in _BUILT_IN or text in seen:
            continue
        if not text:
            compiler.program.gap("invariant", key, where)
            continue
        seen.add(text)
        compiler.program.invariants[key, text] = None
        severity = "error" if constraint.get("severity") == "error" else "warning"
        rule = severity_rule(severity, key, constraint.get("human", ""), scope.url)
        number = compiler.program.rule(rule)
        if key == "dom-3":
            lines.append(f"if 'contained' in c and not F.contained_are_used(n): x.add((n, {number}, ''))")
            continue
        (errors if severity == "error" else warnings).append((number, _parsed(key, text, scope)))
    lines += _block(compiler, scope, errors, type_code)
    if warnings:
        lines += ["if x.warn:", *indent(_block(compiler, scope, warnings, type_code))]
    return lines


def _parsed(key: str, text: str, scope: Scope) -> Expression:
    try:
        return parse(_REPLACED.get(key, text))
    except BadPathError as cause:
        raise scope.bad(f"invariant {key}: {cause}") from cause


def _block(compiler: Compiler, scope: Scope, rules: list[tuple[int, Expression]], type_code: str) -> list[str]:
    generator = Generator(choices=compiler.choices, constant=compiler.program.pattern, focus_type=type_code)
    generator.prepare(expression for _, expression in rules)
    for number, expression in rules:
        try:
            generator.unless_true(expression, f"x.add((n, {number}, ''))")
        except BadPathError as cause:
            raise scope.bad(f"invariant {compiler.program.rules[number].key}: {cause}") from cause
    return generator.lines
