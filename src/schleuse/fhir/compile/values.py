"""Statements for what one element's value must be: type, length, fixed value, pattern, required binding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schleuse.fhir import terminology
from schleuse.fhir.compile.program import ELEMENT_EMPTY, Rule
from schleuse.fhir.primitives import CHECKS
from schleuse.fhir.snapshot import Element

if TYPE_CHECKING:
    from schleuse.fhir.compile.compiler import Compiler, Scope

#: Types whose wrong value a finding may show, as far as `shown_among` lets it; of all others only the length.
_CODED: Final = frozenset({"code"})


def plain(value: Any) -> str:
    """A fixed primitive as it stands in XML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def primitive_lines(compiler: Compiler, scope: Scope, element: Element, type_code: str) -> list[str]:
    """Statements that check the value of a primitive `n`."""
    rule = scope.rule
    wrong_form = compiler.program.rule(rule("type.value", expected=type_code))
    lines = [
        "v = n.value",
        "if v is None:",
        f"    if not c or c.keys() <= {{'id'}}: x.add((n, {ELEMENT_EMPTY}, ''))",
        "else:",
        f"    if not {check_name(type_code)}(v): x.add((n, {wrong_form}, shown_length(v)))",
    ]
    longest = max_length(element)
    if longest is not None:
        too_long = compiler.program.rule(rule("maxLength", expected=f"<= {longest}"))
        lines.append(f"    if len(v) > {longest}: x.add((n, {too_long}, shown_length(v)))")
    for layer in element.layers:
        lines += _range_lines(compiler, scope, layer)
        for prefix in ("fixed", "pattern"):
            wanted = layer.value(prefix)
            if wanted is not None:
                number = compiler.program.rule(rule(prefix, expected=plain(wanted[1])))
                text = repr(plain(wanted[1]))
                shown = f"shown_among(v, ({text},))" if type_code in _CODED else "shown_length(v)"
                lines.append(f"    if v != {text}: x.add((n, {number}, {shown}))")
        codes = required_codes(compiler, layer)
        if codes is not None:
            number = binding_rule(compiler, scope, layer)
            allowed = compiler.program.constant(frozenset(code for _, code in codes))
            lines.append(f"    if v not in {allowed}: x.add((n, {number}, shown_among(v, {allowed})))")
    return list(dict.fromkeys(lines))  # a slice repeats most of what is said of all occurrences


def max_length(element: Element) -> int | None:
    """The smallest maxLength of all layers."""
    lengths = [layer.definition["maxLength"] for layer in element.layers if "maxLength" in layer.definition]
    return min(lengths, default=None)


def _range_lines(compiler: Compiler, scope: Scope, element: Element) -> list[str]:
    """minValue and maxValue of numbers (dates are compared by no profile that we know)."""
    lines = []
    for prefix, sign, operator in (("minValue", ">=", "<"), ("maxValue", "<=", ">")):
        bound = element.value(prefix)
        if bound is None:
            continue
        if not isinstance(bound[1], int | float):
            compiler.program.gap("range", bound[0], element.id)
            continue
        number = compiler.program.rule(scope.rule(prefix, expected=f"{sign} {bound[1]}"))
        lines.append(f"    if outside(v, {operator!r}, {bound[1]!r}): x.add((n, {number}, shown_length(v)))")
    return lines


def check_name(type_code: str) -> str:
    """Global name of the check of a primitive type."""
    return f"is_{type_code}"


def leaf_condition(compiler: Compiler, element: Element, type_code: str) -> str:
    """Source of a test on `y` that is false only if `y` is surely right, so that most values need no call."""
    if len({_own_rules(compiler, layer) for layer in element.layers}) > 1:
        return "True"
    for prefix in ("fixed", "pattern"):
        wanted = element.value(prefix)
        if wanted is not None:
            return f"y.children or y.value != {plain(wanted[1])!r}"
    if element.value("minValue") or element.value("maxValue"):
        return "True"
    codes = required_codes(compiler, element)
    if codes is not None:
        allowed = compiler.program.constant(frozenset(code for _, code in codes))
        return f"y.children or y.value not in {allowed}"
    longest = max_length(element)
    length = f" or len(v) > {longest}" if longest is not None else ""
    if type_code in ("string", "markdown"):
        return f"y.children or (v := y.value) is None{length or ' or len(v) > 9999'}"
    return f"y.children or (v := y.value) is None or not {check_name(type_code)}(v){length}"


def _own_rules(compiler: Compiler, element: Element) -> str:
    """What an element definition says of the value beyond its type, to compare layers by."""
    codes = required_codes(compiler, element)
    return repr([element.value(prefix) for prefix in _VALUE_RULES] + ["" if codes is None else sorted(codes)])


_VALUE_RULES: Final = ("fixed", "pattern", "minValue", "maxValue")


def has_value_rules(element: Element) -> bool:
    """Whether an element definition says anything of the value beyond its type."""
    return any(
        layer.value(prefix) is not None or layer.definition.get("binding", {}).get("strength") == "required"
        for layer in element.layers
        for prefix in (*_VALUE_RULES, "maxLength")
    )


def is_primitive(type_code: str) -> bool:
    return type_code in CHECKS


def complex_lines(compiler: Compiler, scope: Scope, element: Element, type_code: str) -> list[str]:
    """Statements for fixed, pattern and binding of a complex `n`."""
    lines: list[str] = []
    bound = False
    for layer in element.layers:
        for prefix, function in (("fixed", "is_exactly"), ("pattern", "has_pattern")):
            wanted = layer.value(prefix)
            if wanted is not None:
                number = compiler.program.rule(scope.rule(prefix, expected=prefix_text(wanted[1])))
                constant = compiler.program.constant(wanted[1])
                lines.append(f"if not {function}(n, {constant}): x.add((n, {number}, ''))")
        codes = required_codes(compiler, layer)
        if codes is not None and type_code in ("Coding", "CodeableConcept", "Quantity"):
            bound = True
            number = binding_rule(compiler, scope, layer)
            allowed = compiler.program.constant(codes)
            function = "check_concept" if type_code == "CodeableConcept" else "check_coding"
            lines.append(f"{function}(n, x, {allowed}, {number})")
    if type_code == "Coding":  # a code that a required value set holds is one of its system
        lines.append("if 'display' in c: x.coding(n)" if bound else "x.coding(n)")
    return list(dict.fromkeys(lines))


def prefix_text(value: Any) -> str:
    """A fixed or pattern structure in short: the codes and systems that it asks for."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={prefix_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(prefix_text, value))
    return plain(value)


def binding_rule(compiler: Compiler, scope: Scope, element: Element) -> int:
    return compiler.program.rule(scope.rule("binding", expected=element.definition["binding"]["valueSet"]))


def required_codes(compiler: Compiler, element: Element) -> frozenset[terminology.Code] | None:
    """All codes of a required binding; None if there is none or it cannot be listed (then it is a gap)."""
    binding = element.definition.get("binding")
    if not binding or binding.get("strength") != "required" or "valueSet" not in binding:
        return None
    codes = compiler.expand(binding["valueSet"])
    if codes is None and element.max != 0:
        compiler.program.gap("value-set", binding["valueSet"], element.id)
    return codes


def severity_rule(severity: str, key: str, human: str, profile: str) -> Rule:
    """The rule of an invariant."""
    return Rule(severity, key, human=human, profile=profile)
