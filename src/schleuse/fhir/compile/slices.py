"""Which slice an element belongs to: tests on `y` made from discriminators.

Source: FHIR R4 § 5.1.0.13 (slicing and discriminators).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schleuse.fhir.compile.values import plain, required_codes
from schleuse.fhir.snapshot import Element

if TYPE_CHECKING:
    from schleuse.fhir.compile.compiler import Compiler

_EXTENSIONS = ("extension", "modifierExtension")


def probe(base: Element) -> str:
    """Source of what is looked up once for each occurrence `y`, so that the tests of all slices can use it as `p`."""
    discriminators = (base.slicing or {}).get("discriminator", ())
    if len(discriminators) != 1:
        return ""
    kind, names = discriminators[0]["type"], _names(discriminators[0]["path"])
    if kind == "profile" and len(names) < 2:
        return f"claimed(y, {tuple(names)!r})"
    if kind not in ("value", "pattern") or not names or (names == ["url"] and base.name in _EXTENSIONS):
        return ""
    if all(_is_plain(part, names) for part in base.slices.values()):
        return f"values_at(y, {tuple(names)!r})"
    if all(_one_coding(part, names) for part in base.slices.values()):
        return f"codings_at(y, {tuple(names)!r})"
    return ""


def belongs(compiler: Compiler, base: Element, part: Element) -> str | None:
    """Source of the test whether `y`, an occurrence of `base`, belongs to the slice `part`; None if nothing tells."""
    slicing = base.slicing or {}
    discriminators = slicing.get("discriminator", ())
    prepared = probe(base)
    if prepared:
        names = _names(discriminators[0]["path"])
        test = _prepared_test(part, names, prepared)
        if test is not None:
            return test
    tests = [_test(compiler, base, part, one["type"], one["path"]) for one in discriminators]
    if not tests or None in tests:
        compiler.program.gap("discriminator", part.slice, part.id)
        return None
    return " and ".join(str(test) for test in tests)


def _names(path: str) -> list[str]:
    return [] if path == "$this" else path.split(".")


def _prepared_test(part: Element, names: list[str], prepared: str) -> str | None:
    if prepared.startswith("values_at"):
        return f"{plain(_own(part, names))!r} in p"
    if prepared.startswith("codings_at"):
        return f"{_one_coding(part, names)!r} in p"
    element = _at(part, names)
    urls = _profile_urls(element) if element is not None else []
    if element is None or not urls:
        return None
    return " or ".join(f"{key!r} in p" for key in [*urls, *element.type_codes])


def _own(part: Element, names: list[str]) -> Any:
    """The fixed or pattern value that the elements of a slice themselves (not their type's profile) state at a path."""
    element: Element | None = part
    for position in range(len(names) + 1):
        for prefix in ("fixed", "pattern"):
            own = element.value(prefix) if element is not None else None
            if own is not None:
                return _dig(own[1], names[position:])
        if position < len(names) and element is not None:
            element = element.children.get(names[position])
    return None


def _is_plain(part: Element, names: list[str]) -> bool:
    value = _own(part, names)
    return value is not None and not isinstance(value, dict | list)


def _one_coding(part: Element, names: list[str]) -> tuple[str, str] | None:
    """(system, code) if a slice asks at a path for just one coding."""
    match _own(part, names):
        case {"coding": [{"system": str(system), "code": str(code), **more}], **others} if not more and not others:
            return system, code
    return None


def _test(compiler: Compiler, base: Element, part: Element, kind: str, path: str) -> str | None:
    names = _names(path)
    match kind:
        case "value" | "pattern" if path == "url" and base.name in _EXTENSIONS:
            url = extension_url(part)
            return None if url is None else f"y.value == {url!r}"
        case "value" | "pattern":
            return _value_test(compiler, part, names)
        case "profile":
            return _profile_test(part, names)
        case "type":
            return _type_test(part, names)
        case "exists":
            return _exists_test(part, names)
    return None


def extension_url(part: Element) -> str | None:
    """The URL of an extension slice: fixed in its `url`, or that of its profile."""
    url = part.children.get("url")
    if url is not None:
        fixed = url.value("fixed") or url.value("pattern")
        if fixed is not None:
            return str(fixed[1])
    for entry in part.types:
        for canonical in entry.get("profile", ()):
            return str(canonical).partition("|")[0]
    return None


def _value_test(compiler: Compiler, part: Element, names: list[str]) -> str | None:
    found = wanted(compiler, part, names)
    if found is None:
        return None
    kind, value = found
    where = tuple(names)
    if kind == "codes":
        return f"any_coded(y, {where!r}, {compiler.program.constant(value)})"
    if isinstance(value, dict | list):
        return f"any_pattern(y, {where!r}, {compiler.program.constant(value)})"
    if not names:
        return f"y.value == {plain(value)!r}"
    if len(names) == 1:
        return f"(w := y.children.get({names[0]!r})) and w[0].value == {plain(value)!r}"
    return f"any_value(y, {where!r}, {plain(value)!r})"


def wanted(compiler: Compiler, element: Element, names: list[str]) -> tuple[str, Any] | None:
    """What an element definition asks for at a path: ("value", fixed or pattern), ("codes", set), or None."""
    for prefix in ("fixed", "pattern"):
        own = element.value(prefix)
        if own is not None:
            value = _dig(own[1], names)
            if value is not None:
                return "value", value
    if names:
        return _wanted_below(compiler, element, names)
    codes = required_codes(compiler, element)
    if codes is not None:
        return "codes", codes
    inner = _pattern_of_children(element)
    if inner:
        return "value", inner
    return _wanted_by_profile(compiler, element, names)


def _wanted_below(compiler: Compiler, element: Element, names: list[str]) -> tuple[str, Any] | None:
    child = element.children.get(names[0])
    if child is not None:
        for one in [*(part for part in child.slices.values() if part.min > 0), child]:
            found = wanted(compiler, one, names[1:])
            if found is not None:
                return found
    return _wanted_by_profile(compiler, element, names)


def _wanted_by_profile(compiler: Compiler, element: Element, names: list[str]) -> tuple[str, Any] | None:
    for entry in element.types:
        for canonical in entry.get("profile", ()):
            root = compiler.root_of(canonical)
            found = None if root is None else wanted(compiler, root, names)
            if found is not None:
                return found
    return None


def _pattern_of_children(element: Element) -> dict[str, Any]:
    """The fixed values below an element, as if they had been written as one pattern."""
    pattern: dict[str, Any] = {}
    for name, child in element.children.items():
        own = child.value("fixed") or child.value("pattern")
        inner = own[1] if own is not None else _pattern_of_children(child) if child.min > 0 else {}
        if inner or own is not None:
            pattern[name] = inner
    return pattern


def _dig(value: Any, names: list[str]) -> Any:
    for name in names:
        if isinstance(value, list):
            value = value[0] if value else None
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _profile_test(part: Element, names: list[str]) -> str | None:
    """The resource at the path claims one of the slice's profiles (limits.md § 4: claimed, then checked)."""
    element = _at(part, names)
    urls = _profile_urls(element) if element is not None else []
    if element is None or len(names) > 1 or not urls:
        return None
    return f"not claimed(y, {tuple(names)!r}).isdisjoint({(*urls, *element.type_codes)!r})"


def _profile_urls(element: Element) -> list[str]:
    return [str(url).partition("|")[0] for entry in element.types for url in entry.get("profile", ())]


def _type_test(part: Element, names: list[str]) -> str | None:
    element = _at(part, names)
    if element is None or not element.type_codes:
        return None
    return f"any_type(y, {tuple(names)!r}, {tuple(element.type_codes)!r})"


def _exists_test(part: Element, names: list[str]) -> str | None:
    element = _at(part, names)
    if element is None:
        return None
    if element.max == 0:
        return f"not any_at(y, {tuple(names)!r})"
    return f"any_at(y, {tuple(names)!r})" if element.min > 0 else None


def _at(part: Element, names: list[str]) -> Element | None:
    element: Element | None = part
    for name in names:
        element = None if element is None else element.children.get(name)
    return element
