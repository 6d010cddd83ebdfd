"""One run of compiled rules over one document: what the compiled functions call, and what they found.

Nothing here knows a profile; the tables come from `compile.Program`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from schleuse.fhir.compile.program import (
    CODE_DISPLAY,
    CODE_UNKNOWN,
    ELEMENT_EMPTY,
    ELEMENT_ORDER,
    ELEMENT_UNKNOWN,
    EXTENSION_CONTEXT,
    EXTENSION_MODIFIER,
    EXTENSION_UNKNOWN,
    NARRATIVE_MARKUP,
    PROFILE_MISSING,
    PROFILE_UNKNOWN,
    REFERENCE_TYPE,
    REFERENCE_UNRESOLVED,
    XML_ATTRIBUTE,
    XML_ORDER,
    XML_TEXT,
    Rule,
)
from schleuse.fhir.definitions import version_matches
from schleuse.fhir.node import ATTRIBUTE, MARKUP, ORDER, TEXT, Node
from schleuse.fhir.shown import shown_among, shown_kind, shown_url

CheckFunction = Callable[[Node, "Check", Node], None]
Found = tuple[Node, int, str]


class Profile(NamedTuple):
    function: CheckFunction
    version: str
    type: str


class Extension(NamedTuple):
    function: CheckFunction
    modifier: bool
    contexts: tuple[str, ...]


class Tables(NamedTuple):
    """What one rule set's checks look things up in."""

    rules: tuple[Rule, ...]
    profiles: Mapping[str, Profile]
    extensions: Mapping[str, Extension]
    systems: Mapping[str, Mapping[str, str | None]]


_FLAWS: Final = {TEXT: XML_TEXT, ATTRIBUTE: XML_ATTRIBUTE, ORDER: XML_ORDER, MARKUP: NARRATIVE_MARKUP}
#: A document has some dozens of shapes an element at most; hostile ones must not fill the memory.
_MAX_SHAPES: Final = 500
_RELATIVE: Final = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/.*)?", re.ASCII)


class Check:
    """The `x` of the compiled functions."""

    def __init__(self, root: Node, tables: Tables, *, warn: bool) -> None:
        self._root = root
        self._tables = tables
        self.warn = warn
        self.found: list[Found] = []
        self.add = self.found.append
        self.references: list[tuple[Node, Node, int, tuple[tuple[str, CheckFunction | None], ...]]] = []
        self._index: dict[str, Node] | None = None
        self._containers: dict[int, Node] = {}
        self._fragments: dict[int, dict[str, Node]] = {}
        self._fit: dict[tuple[int, CheckFunction], bool] = {}
        self._done: set[tuple[int, CheckFunction]] = set()
        self._trial_depth = 0

    # --- Children ---

    def shape(self, node: Node, names: tuple[str, ...], seen: set[tuple[str, ...]], table: Any) -> None:
        """Judge which names occur together below a node; remember them if they are right."""
        known, required, single, empty, exclusive = table
        before = len(self.found)
        last = -2
        for name in names:
            place = known.get(name)
            if place is None:
                self._unknown(node, name)
                continue
            position, forbidden = place
            if forbidden >= 0:
                self.add((node, forbidden, str(len(node.children[name]))))
            if position < last:
                self.add((node, ELEMENT_ORDER, name))
            last = max(last, position)
        for rule, group in required:
            if not any(name in node.children for name in group):
                self.add((node, rule, "0"))
        for rule, group in single:
            count = sum(name in node.children for name in group)
            if count > 1:
                self.add((node, rule, str(count)))
        if names in empty:
            self.add((node, ELEMENT_EMPTY, ""))
        elif exclusive >= 0 and ("extension" in names) is any(name.startswith("value") for name in names):
            self.add((node, exclusive, "both" if "extension" in names else "neither"))
        if len(self.found) == before and len(seen) < _MAX_SHAPES:
            seen.add(names)

    def _unknown(self, node: Node, name: str) -> None:
        rule = _FLAWS.get(name)
        if rule is None:
            self.add((node, ELEMENT_UNKNOWN, name))
        else:
            self.add((node, rule, ""))

    def primitive_children(self, node: Node, resource: Node, context: frozenset[str]) -> None:
        """A primitive may have an id and extensions."""
        for name in node.children:
            if name == "extension":
                for extension in node.children["extension"]:
                    self.extension(extension, node, resource, context, False)
            elif name != "id":
                self._unknown(node, name)

    def extension(self, node: Node, holder: Node, resource: Node, context: frozenset[str], modifier: bool) -> None:
        """An extension where the profile names none in particular: it must be defined, for this place, of this sort."""
        entry = self._tables.extensions.get(node.value or "")
        if entry is None:
            self.add((node, EXTENSION_UNKNOWN, shown_url(node.value)))
            return
        if entry.modifier is not modifier:
            self.add((node, EXTENSION_MODIFIER, node.name))
        if entry.contexts and not _stands_in(entry.contexts, context, holder):
            self.add((node, EXTENSION_CONTEXT, holder.name))
        entry.function(node, self, resource)

    # --- Resources ---

    def resource(
        self, node: Node, holder: Node, wanted: tuple[CheckFunction, ...], type_name: str, contained: bool
    ) -> None:
        """A resource inside another: against the profile that the place asks for, and against all that it claims."""
        if contained:
            self._containers[id(node)] = holder
        functions = list(wanted[:1]) if len(wanted) == 1 else []
        if len(wanted) > 1:
            self.any_of(node, node, wanted)
        functions += [function for function in self.claimed(node) if function not in functions]
        if not functions and not wanted and not node.all("meta", "profile"):
            base = self._tables.profiles.get(f"http://hl7.org/fhir/StructureDefinition/{node.type}")
            if base is None:
                self.add((node, PROFILE_MISSING, node.type or ""))
            else:
                functions.append(base.function)
        for function in functions:
            self._run(node, function)
        if node.type is None:
            self.add((node, ELEMENT_EMPTY, ""))
        elif type_name and node.type != type_name and not wanted:
            self.add((node, ELEMENT_UNKNOWN, node.type))

    def claimed(self, node: Node) -> list[CheckFunction]:
        """Functions of the profiles in meta.profile; one that is not known is an error."""
        functions: list[CheckFunction] = []
        for claim in node.all("meta", "profile"):
            url, _, version = (claim.value or "").partition("|")
            profile = self._tables.profiles.get(url)
            if profile is None or (version and not version_matches(version, profile.version)):
                self.add((claim, PROFILE_UNKNOWN, shown_url(claim.value)))
            elif profile.function not in functions:
                functions.append(profile.function)
        return functions

    def _run(self, node: Node, function: CheckFunction) -> None:
        if (id(node), function) not in self._done:
            self._done.add((id(node), function))
            function(node, self, node)

    def run(self, function: CheckFunction) -> None:
        """Check the document's root, then follow its references."""
        self._run(self._root, function)
        # Following a reference may check a resource against one more profile, which may refer further.
        while self.references:
            pending, self.references = self.references, []
            for reference in pending:
                self._follow(*reference)

    def any_of(self, node: Node, resource: Node, functions: tuple[CheckFunction, ...]) -> None:
        """The node must fit one of several profiles; if none fits, what the first found is reported."""
        findings = []
        for function in functions:
            found = self._try(node, resource, function)
            if not found:
                return
            findings.append(found)
        self.found += findings[0]

    def _try(self, node: Node, resource: Node, function: CheckFunction) -> list[Found]:
        """The errors that a function finds, without reporting them."""
        trial = Check(self._root, self._tables, warn=False)
        trial._index, trial._containers, trial._fragments = self._index, self._containers, self._fragments
        trial._trial_depth = self._trial_depth + 1
        function(node, trial, resource)
        self.references += trial.references if not trial.found and not self._trial_depth else []
        return trial.found

    # --- References ---

    def resolve(self, references: Any) -> list[Node]:
        """The resources of this document that references (elements or texts) point to."""
        found = []
        for item in references:
            text = item
            if item.__class__ is Node:
                text = _value(item, "reference") if "reference" in item.children else item.value
            target = self._target(text) if isinstance(text, str) else None
            if target is not None:
                found.append(target)
        return found

    def container(self, resource: Node) -> Node:
        """The resource that contains a contained one; else the resource itself (%rootResource)."""
        return self._containers.get(id(resource), resource)

    def fragment_resolves(self, node: Node, resource: Node) -> bool:
        """ref-1: a reference to a fragment names something contained, or the container."""
        text = _value(node, "reference")
        return text is None or text[0] != "#" or text == "#" or self._fragment(text, resource) is not None

    def _fragment(self, text: str, resource: Node) -> Node | None:
        container = self.container(resource)
        if text == "#":
            return container
        known = self._fragments.get(id(container))
        if known is None:
            known = self._fragments[id(container)] = {}
            for one in container.all("contained"):
                known.setdefault("#" + (one.text("id") or ""), one)
        return known.get(text)

    def _target(self, reference: str) -> Node | None:
        index = self._index
        if index is None:
            index = self._index = _index(self._root)
        return index.get(reference)

    def _follow(
        self, node: Node, resource: Node, rule: int, targets: tuple[tuple[str, CheckFunction | None], ...]
    ) -> None:
        text = _value(node, "reference")
        kind = _value(node, "type")
        if text is None:
            return
        target = self._fragment(text, resource) if text[0] == "#" else self._target(text)
        if target is None:
            self._unresolved(node, resource, text, rule, {name for name, _ in targets})
            return
        if kind is not None and kind != target.type and kind.rpartition("/")[2] != target.type:
            self.add((node, REFERENCE_TYPE, shown_among(kind, [name for name, _ in targets])))
        if not self._fits(target, targets):
            self.add((node, rule, target.type or ""))

    def _fits(self, target: Node, targets: tuple[tuple[str, CheckFunction | None], ...]) -> bool:
        """Whether a resource is of a wanted type and, where a profile is wanted, checked against it or right by it."""
        same = [function for name, function in targets if name == target.type]
        for function in same:
            if function is None or (id(target), function) in self._done:
                return True  # what it got wrong has been reported where it stands
        return any(function is not None and self._is_right(target, function) for function in same)

    def _is_right(self, target: Node, function: CheckFunction) -> bool:
        """Whether a function finds no error in a resource; asked once, however many references lead there."""
        key = (id(target), function)
        if key not in self._fit:
            self._fit[key] = not self._try(target, target, function)
        return self._fit[key]

    def _unresolved(self, node: Node, resource: Node, text: str, rule: int, types: set[str]) -> None:
        """A reference to nothing: wrong in a document's Composition and if only this document could hold it."""
        in_document = self._root.type == "Bundle" and self._root.text("type") == "document"
        if text.startswith("#") or (in_document and (resource.type == "Composition" or text.startswith("urn:"))):
            self.add((node, REFERENCE_UNRESOLVED, ""))
            return
        named = _RELATIVE.fullmatch(text)
        if named is not None and types and named[1] not in types:
            self.add((node, rule, named[1]))

    # --- Codes ---

    def coding(self, node: Node) -> None:
        """A code must be one of its system, if that is known completely; its text should be that of the system."""
        system = node.children.get("system")
        code = node.children.get("code")
        if system is None or code is None:
            return
        codes = self._tables.systems.get(system[0].value or "")
        if codes is None:
            return
        value = code[0].value or ""
        if value not in codes:
            self.add((node, CODE_UNKNOWN, shown_among(value, codes)))
        elif self.warn and "display" in node.children:
            wanted = codes[value]
            if wanted is not None and not _same_text(node.text("display"), wanted):
                self.add((node, CODE_DISPLAY, value))


def _same_text(found: str | None, wanted: str) -> bool:
    return found is not None and found.split() == wanted.split()


def _stands_in(allowed: tuple[str, ...], context: frozenset[str], holder: Node) -> bool:
    """Whether one of an extension's contexts names this place. Of a path only its end is compared where the place is
    known by its type alone ("Patient.name" within HumanName)."""
    return any(
        expression in context or ("." in expression and expression.rpartition(".")[2] == holder.name)
        for expression in allowed
    )


def _index(root: Node) -> dict[str, Node]:
    """Resources of a Bundle by fullUrl, and by "Type/id" as seen from its own server (FHIR R4 § 2.36.4.1)."""
    found: dict[str, Node] = {}
    for entry in root.children.get("entry", ()):
        resource = entry.first("resource")
        url = entry.text("fullUrl")
        if resource is None or url is None:
            continue
        found.setdefault(url, resource)
        if not url.startswith("urn:"):
            relative = "/".join(url.split("/")[-2:])
            found.setdefault(relative, resource)
    return found


# --- Values of complex types ---


def has_pattern(node: Node, pattern: Any) -> bool:
    """Whether a node has at least what a pattern lists (FHIR R4 § 5.1.0.7, pattern[x])."""
    if not isinstance(pattern, dict):
        return node.value == (str(pattern).lower() if isinstance(pattern, bool) else str(pattern))
    for name, wanted in pattern.items():
        if name == "url" and node.name in ("extension", "modifierExtension"):
            if node.value != wanted:
                return False
            continue
        children = node.children.get(name)
        if children is None:
            return False
        for one in wanted if isinstance(wanted, list) else [wanted]:
            if not any(has_pattern(child, one) for child in children):
                return False
    return True


def is_exactly(node: Node, fixed: Any) -> bool:
    """Whether a node is what a fixed value says, no more and no less."""
    if not isinstance(fixed, dict):
        return not node.children and has_pattern(node, fixed)
    for name, children in node.children.items():
        wanted = fixed.get(name)
        listed = wanted if isinstance(wanted, list) else [] if wanted is None else [wanted]
        if len(listed) != len(children):
            return False
        if not all(is_exactly(child, one) for child, one in zip(children, listed, strict=True)):
            return False
    return has_pattern(node, fixed)


def _pair(coding: Node) -> tuple[str, str | None]:
    return _value(coding, "system") or "", _value(coding, "code")


def check_coding(node: Node, check: Check, allowed: frozenset[tuple[str, str]], rule: int) -> None:
    """A Coding (or Quantity) with a required binding."""
    system, code = node.children.get("system"), node.children.get("code")
    if code is None or (system[0].value if system else "", code[0].value) not in allowed:
        check.add((node, rule, shown_among(code[0].value if code else None, _codes(allowed))))


def check_concept(node: Node, check: Check, allowed: frozenset[tuple[str, str]], rule: int) -> None:
    """A CodeableConcept with a required binding: one of its codings must be in the value set."""
    codings = node.children.get("coding", ())
    if not any(_pair(coding) in allowed for coding in codings):
        check.add((node, rule, " ".join(shown_among(coding.text("code"), _codes(allowed)) for coding in codings)))


@lru_cache(maxsize=256)
def _codes(allowed: frozenset[tuple[str, str]]) -> frozenset[str]:
    return frozenset(code for _, code in allowed)


# --- Tests of slices ---


def any_at(node: Node, path: tuple[str, ...]) -> bool:
    return bool(node.all(*path))


def any_value(node: Node, path: tuple[str, ...], value: str) -> bool:
    return any(found.value == value for found in node.all(*path))


def any_pattern(node: Node, path: tuple[str, ...], pattern: Any) -> bool:
    return any(has_pattern(found, pattern) for found in node.all(*path))


def any_coded(node: Node, path: tuple[str, ...], allowed: frozenset[tuple[str, str]]) -> bool:
    """Whether a code, Coding or CodeableConcept at the path is in a value set."""
    for found in node.all(*path):
        if "coding" in found.children:
            if any(_pair(coding) in allowed for coding in found.children["coding"]):
                return True
        elif "code" in found.children:
            if _pair(found) in allowed:
                return True
        elif found.value is not None and any(code == found.value for _, code in allowed):
            return True
    return False


def any_type(node: Node, path: tuple[str, ...], types: tuple[str, ...]) -> bool:
    return any(found.type in types for found in node.all(*path))


def claimed(node: Node, path: tuple[str, ...]) -> frozenset[str]:
    """The profiles that the resource at the path names in meta.profile, without version. Of a resource that names
    none, its type: it is taken for the profile of that type, so that the finding is the missing meta.profile."""
    for found in node.all(*path) if path else [node]:
        profiles = found.all("meta", "profile")
        if profiles:
            return frozenset([(profile.value or "").partition("|")[0] for profile in profiles])
        if found.type is not None:
            return frozenset([found.type])
    return frozenset()


def values_at(node: Node, path: tuple[str, ...]) -> list[str | None]:
    """The values at a path."""
    found = node.children.get(path[0], ())
    for name in path[1:]:
        found = [child for one in found for child in one.children.get(name, ())]
    return [one.value for one in found]


def codings_at(node: Node, path: tuple[str, ...]) -> list[tuple[str | None, str | None]]:
    """(system, code) of all codings of the CodeableConcepts at a path."""
    found = node.children.get(path[0], ())
    for name in (*path[1:], "coding"):
        found = [child for one in found for child in one.children.get(name, ())]
    return [(_value(one, "system"), _value(one, "code")) for one in found]


def _value(node: Node, name: str) -> str | None:
    found = node.children.get(name)
    return None if found is None else found[0].value


def outside(value: str, operator: str, bound: float) -> bool:
    """Whether a number is below ("<") or above (">") a bound; what is no number is reported elsewhere."""
    try:
        number = float(value)
    except ValueError:
        return False
    return number < bound if operator == "<" else number > bound


#: Globals of compiled functions.
NAMES: Final[dict[str, Any]] = {
    function.__name__: function
    for function in (
        any_at,
        any_coded,
        any_pattern,
        any_type,
        any_value,
        check_coding,
        check_concept,
        claimed,
        codings_at,
        has_pattern,
        is_exactly,
        outside,
        shown_among,
        shown_kind,
        values_at,
    )
}
