"""What compiling gives: the source of all functions, and the tables that they refer to by number or name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple


class Rule(NamedTuple):
    """One thing that can be found wrong. Functions name it by its position in `Program.rules`.

    child: what of the node the rule is about, as an ending of the path ("identifier", "value[x]"), or "".
    """

    severity: str
    key: str
    expected: str = ""
    human: str = ""
    profile: str = ""
    child: str = ""


class Gap(NamedTuple):
    """Something that the definitions ask for and that these rules do not check (said, never silent).

    kind: "value-set" (not expandable from the definitions), "type" (no definition and no children listed),
        "profile" (named but not supplied), "discriminator" (cannot be evaluated), "invariant" (without FHIRPath).
    """

    kind: str
    name: str
    where: str


#: Rules of FHIR's XML form and of every element; their numbers are fixed.
GENERAL_RULES: Final = (
    Rule("error", "xml.text", expected="no text between elements"),
    Rule("error", "xml.attribute", expected="only the attributes value, id and url, never empty"),
    Rule("error", "xml.order", expected="repetitions of an element next to each other"),
    Rule("error", "narrative.markup", expected="only the markup that a Narrative allows"),
    Rule("error", "element.unknown", expected="only elements of the definition"),
    Rule("error", "element.order", expected="elements in the order of the definition"),
    Rule("error", "element.empty", expected="a value or content"),
    Rule("error", "extension.unknown", expected="an extension that is defined"),
    Rule("error", "extension.context", expected="an extension that is defined for this place"),
    Rule("error", "extension.modifier", expected="modifierExtension for modifiers, extension for all others"),
    Rule("error", "profile.unknown", expected="a profile that these rules know"),
    Rule("error", "profile.missing", expected="meta.profile"),
    Rule("error", "code.unknown", expected="a code of its code system"),
    Rule("warning", "code.display", expected="the display text of the code system"),
    Rule("error", "reference.unresolved", expected="a resource of this Bundle"),
    Rule("error", "reference.type", expected="the type of the resource referred to"),
)
(
    XML_TEXT,
    XML_ATTRIBUTE,
    XML_ORDER,
    NARRATIVE_MARKUP,
    ELEMENT_UNKNOWN,
    ELEMENT_ORDER,
    ELEMENT_EMPTY,
    EXTENSION_UNKNOWN,
    EXTENSION_CONTEXT,
    EXTENSION_MODIFIER,
    PROFILE_UNKNOWN,
    PROFILE_MISSING,
    CODE_UNKNOWN,
    CODE_DISPLAY,
    REFERENCE_UNRESOLVED,
    REFERENCE_TYPE,
) = range(len(GENERAL_RULES))


class ProfileEntry(NamedTuple):
    """A compiled resource profile: the name of its function, its version, its resource type."""

    function: str
    version: str
    type: str


class ExtensionEntry(NamedTuple):
    """A compiled extension: the name of its function, whether it is a modifier, and where it may stand (element paths
    and types; "Element" is anywhere, nothing listed is anywhere)."""

    function: str
    modifier: bool
    contexts: tuple[str, ...]


@dataclass
class Program:
    """Everything but the running: plain values, so that it can be kept on disk."""

    functions: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    patterns: dict[str, str] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=lambda: list(GENERAL_RULES))
    profiles: dict[str, ProfileEntry] = field(default_factory=dict)
    extensions: dict[str, ExtensionEntry] = field(default_factory=dict)
    systems: dict[str, dict[str, str | None]] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    gaps: list[Gap] = field(default_factory=list)
    extension_gaps: list[Gap] = field(default_factory=list)
    optional: bool = False  #: now come the extensions that no profile asks for
    invariants: dict[tuple[str, str], None] = field(default_factory=dict)
    _numbers: dict[Rule, int] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def rule(self, rule: Rule) -> int:
        """The number of a rule; equal rules have one."""
        number = self._numbers.setdefault(rule, len(self.rules))
        if number == len(self.rules):
            self.rules.append(rule)
        return number

    def constant(self, value: Any) -> str:
        """The name of a global that holds a plain value (equal values share one)."""
        literal = literal_of(value)
        name = self._names.get(literal)
        if name is None:
            name = self._names[literal] = f"K{len(self._names)}"
            self.constants.append(f"{name} = {literal}")
        return name

    def fresh(self, literal: str) -> str:
        """The name of a global of its own."""
        name = f"K{len(self._names)}"
        self._names[f"{name} alone"] = name
        self.constants.append(f"{name} = {literal}")
        return name

    def pattern(self, pattern: re.Pattern[str]) -> str:
        """The name of a global that holds a compiled pattern."""
        name = self._names.get(f"pattern {pattern.pattern}")
        if name is None:
            name = self._names[f"pattern {pattern.pattern}"] = f"P{len(self._names)}"
            self.patterns[name] = pattern.pattern
        return name

    def gap(self, kind: str, name: str, where: str) -> None:
        gap = Gap(kind, name, where)
        if gap not in self.gaps and gap not in self.extension_gaps:
            (self.extension_gaps if self.optional else self.gaps).append(gap)

    def source(self) -> str:
        """The whole Python module."""
        return "\n".join([*self.constants, *self.functions])


def literal_of(value: Any) -> str:
    """Python source of a plain value; sets in a fixed order, so that equal definitions give equal source."""
    match value:
        case frozenset():
            return f"frozenset({{{', '.join(sorted(map(literal_of, value)))}}})" if value else "frozenset()"
        case tuple():
            return f"({', '.join(map(literal_of, value))}{',' if len(value) == 1 else ''})"
        case list():
            return f"[{', '.join(map(literal_of, value))}]"
        case dict():
            return f"{{{', '.join(f'{literal_of(k)}: {literal_of(v)}' for k, v in value.items())}}}"
        case _:
            return repr(value)
