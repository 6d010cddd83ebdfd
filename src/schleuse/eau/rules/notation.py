"""The words in which the tables are written. A table lists every element that may stand in a resource.

    one("status", "code", fixed="active")              exactly one
    maybe("period", "Period", one("end", "dateTime"))  none or one, with its children
    many("coding", "Coding", at_least=1, at_most=6)    a range; at_most None is unbounded
    slices("telecom", "ContactPoint", "value:system", ...)   alternatives told apart by a discriminator, and no others

Elements of complex types carry `id` and `extension` without being listed; an extension must be one of those that the
rule set defines. `closed=True` forbids extensions, `extensions=(...)` lists the only ones; with `others=True` more may
stand beside those listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Fixed = str | bool


@dataclass(frozen=True, slots=True)
class Invariant:
    """A rule that needs an expression. key: the one vendors know from the official profiles.

    expression: FHIRPath in our own words. warning: told, but no ground for rejection.
    """

    key: str
    expression: str
    de: str
    en: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class CodeList:
    """Permitted codes: (system, codes) pairs. name becomes the last part of the ValueSet's URL; title is German."""

    name: str
    title: str
    content: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One element of a table. children None: a primitive type, or a complex one that is defined elsewhere."""

    name: str
    type: str
    at_least: int
    at_most: int | None
    children: tuple[Rule, ...] = ()
    fixed: Fixed | None = None
    pattern: Mapping[str, Any] | None = None
    length: int | None = None
    values: CodeList | None = None
    profile: str | None = None
    targets: tuple[str, ...] = ()
    invariants: tuple[Invariant, ...] = ()
    discriminators: tuple[str, ...] = ()
    rules: str = "closed"
    slice: str | None = None
    alternatives: tuple[Rule, ...] = ()
    closed: bool = False
    extensions: tuple[Rule, ...] | None = None
    others: bool = False
    without_id: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """A table: the profile of a resource, or of an extension if type is "Extension"."""

    url: str
    type: str
    children: tuple[Rule, ...]
    invariants: tuple[Invariant, ...] = ()
    extensions: tuple[Rule, ...] | None = None
    closed: bool = False


def one(name: str, type: str, *children: Rule | None, **more: Any) -> Rule:
    """Exactly one."""
    return many(name, type, *children, at_least=1, at_most=1, **more)


def maybe(name: str, type: str, *children: Rule | None, **more: Any) -> Rule:
    """None or one."""
    return many(name, type, *children, at_least=0, at_most=1, **more)


def many(
    name: str, type: str, *children: Rule | None, at_least: int = 0, at_most: int | None = None, **more: Any
) -> Rule:
    """A range. A child that is None is left out, so that a table can say `x if edition.old else None`."""
    kept = tuple(child for child in children if child is not None)
    return Rule(name, type, at_least, at_most, kept, **more)


def slices(
    name: str,
    type: str,
    discriminator: str | tuple[str, ...],
    *alternatives: Rule,
    at_least: int = 0,
    at_most: int | None = None,
    rules: str = "closed",
    **more: Any,
) -> Rule:
    """Alternatives, each a Rule whose name names the slice. discriminator: "value:url", "profile:resource", …"""
    wanted = (discriminator,) if isinstance(discriminator, str) else discriminator
    named = tuple(replace(each, slice=each.name, name=name) for each in alternatives)
    return Rule(name, type, at_least, at_most, discriminators=wanted, rules=rules, alternatives=named, **more)


def extension(name: str, profile: str, *, at_least: int = 0, at_most: int | None = 1, **more: Any) -> Rule:
    """A use of an extension, for `extensions=(...)`. profile: its URL; name: of the slice."""
    return Rule(name, "Extension", at_least, at_most, profile=profile, **more)
