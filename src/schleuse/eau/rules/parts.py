"""Pieces that many resources share."""

from __future__ import annotations

from typing import Any

from schleuse.eau.rules.edition import Edition
from schleuse.eau.rules.notation import CodeList, Invariant, Rule, many, maybe, one, slices
from schleuse.eau.rules.terminology import IDENTIFIER_USE


def head(name: str, edition: Edition, *, last_updated: bool = False, single: bool = False) -> tuple[Rule, Rule]:
    """id and meta of a resource that claims one profile. From 1.2 on a second claim may stand beside ours.

    single: even in 1.2 exactly one claim. last_updated: whether that time may be written.
    """
    canonical = edition.canonical(name)
    if edition.old or single:
        claim = one("profile", "canonical", fixed=canonical)
    else:
        ours = one("ours", "canonical", fixed=canonical)
        claim = slices("profile", "canonical", "value:$this", ours, at_least=1, rules="open")
    return (
        one("id", "http://hl7.org/fhirpath/System.String"),
        one("meta", "Meta", maybe("lastUpdated", "instant") if last_updated else None, claim),
    )


def coding(
    system: str, code: str | None = None, *, values: CodeList | None = None, name: str = "coding", **more: Any
) -> Rule:
    """One Coding of a fixed system without version, display and userSelected."""
    return one(
        name, "Coding", one("system", "uri", fixed=system), one("code", "code", fixed=code), values=values, **more
    )


def coded(values: CodeList, *, name: str = "coding") -> Rule:
    """One Coding whose system and code are one of a list."""
    return one(name, "Coding", one("system", "uri"), one("code", "code"), values=values)


def concept(name: str, system: str, code: str, *, optional: bool = False) -> Rule:
    """A CodeableConcept that is exactly one code."""
    return (maybe if optional else one)(name, "CodeableConcept", coding(system, code))


def refers(name: str, *targets: str, type: str | None = None, at_least: int = 1, at_most: int = 1) -> Rule:
    """A literal reference without identifier and display. type: the fixed type that must be written beside it."""
    kind = one("type", "uri", fixed=type) if type else None
    return many(
        name, "Reference", one("reference", "string"), kind, targets=targets, at_least=at_least, at_most=at_most
    )


def plain_identifier(name: str, system: str, *, length: int | None = None, **more: Any) -> Rule:
    """An Identifier of a fixed system with nothing but its value."""
    value = one("value", "string", length=length, invariants=more.pop("invariants", ()))
    return one(name, "Identifier", one("system", "uri", fixed=system), value, **more)


def typed_identifier(
    name: str,
    type: tuple[str, str],
    system: str,
    *rules: Invariant,
    length: int | None = None,
    use: str | None = None,
) -> Rule:
    """A slice of identifiers that its type tells apart. type: (system, code); use: the only one permitted, if any."""
    type_system, code = type
    inner = one("coding", "Coding", one("system", "uri"), one("code", "code"))
    return maybe(
        name,
        "Identifier",
        maybe("use", "code", fixed=use) if use else maybe("use", "code", values=IDENTIFIER_USE),
        one("type", "CodeableConcept", inner, pattern={"coding": [{"system": type_system, "code": code}]}),
        one("system", "uri", fixed=system),
        one("value", "string", length=length, invariants=rules),
    )
