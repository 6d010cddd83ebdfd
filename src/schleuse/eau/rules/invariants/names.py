"""Names and address lines: the whole and its parts must agree (eau.md § 8, address lines 1 to 8)."""

from __future__ import annotations

from schleuse.eau.rules.edition import Edition
from schleuse.eau.rules.invariants.words import ADXP, implies
from schleuse.eau.rules.notation import Invariant

_PART_DE = "Wo Bestandteile stehen, steht auch die ganze Angabe"
_PART_EN = "Where parts stand, the whole stands too"
NAME_PARTS = tuple(
    Invariant(key, f"{part}.all(extension('{url}').empty() or hasValue())", _PART_DE, _PART_EN)
    for key, part, url in (
        ("hum-1", "family", "http://fhir.de/StructureDefinition/humanname-namenszusatz"),
        ("hum-2", "family", "http://hl7.org/fhir/StructureDefinition/humanname-own-name"),
        ("hum-3", "family", "http://hl7.org/fhir/StructureDefinition/humanname-own-prefix"),
        ("hum-4", "prefix", "http://hl7.org/fhir/StructureDefinition/iso21090-EN-qualifier"),
    )
)
LINE_PARTS = tuple(
    Invariant(key, f"line.all(extension('{ADXP}-{part}').empty() or hasValue())", _PART_DE, _PART_EN)
    for key, part in (
        ("add-1", "houseNumber"),
        ("add-2", "streetName"),
        ("add-3", "postBox"),
        ("add-5", "additionalLocator"),
    )
)
BOX_LINE = Invariant(
    "postBox-de-1",
    f"line.where(extension('{ADXP}-postBox').exists()).count() = 1",
    "Eine Postfachanschrift nennt genau ein Postfach",
    "A box address names exactly one box",
)


def _line(number: int, part: str) -> str:
    """An ADXP part of the first (0) or second (1) line."""
    return f"address.line[{number}].extension('{ADXP}-{part}')"


def _text(number: int, part: str) -> str:
    return f"{_line(number, part)}.value.toString()"


_STREET, _NUMBER, _EXTRA = "streetName", "houseNumber", "additionalLocator"
_LINE = "address.line[0].toString()"
_HAS_STREET, _HAS_NUMBER = f"{_line(0, _STREET)}.exists()", f"{_line(0, _NUMBER)}.exists()"


def _whole_line(edition: Edition) -> str:
    """The first line is the street, blanks (one in 1.1.0, at least one later) and the house number."""
    street, number = _text(0, _STREET), _text(0, _NUMBER)
    if edition.old:
        return f"{_LINE} = {street} + ' ' + {number}"
    # %context is the resource; inside a function's argument $this would be the string.
    line, of = f"%context.{_LINE}", f"%context.{number}"
    tail = f"{_LINE}.substring({line}.length() - {of}.length(), {of}.length())"
    # 1.2.0 takes the house number for a pattern (eau.md § 10); we keep that, as its official verdict counts.
    same = f"{tail} = {number}" if edition.newest else f"{tail}.matches({of})"
    between = (
        f"{_LINE}.substring(%context.{street}.length(), {line}.length() - %context.{street}.length() - {of}.length())"
    )
    return f"{_LINE}.indexOf(%context.{street}) = 0 and {same} and {between}.matches('^ +$')"


def _only(number: int, part: str) -> str:
    """A line with this part says nothing else."""
    return f"({_line(number, part)}.exists() implies address.line[{number}].toString() = {_text(number, part)})"


_SECOND_LINE = (
    f"address.line[1].exists() implies ({_line(1, _NUMBER)}.empty() and {_line(1, _STREET)}.empty()"
    f" and {_line(1, _EXTRA)}.exists())"
)


def patient_lines(edition: Edition) -> tuple[Invariant, ...]:
    rules = (
        (implies(f"{_HAS_NUMBER} and {_HAS_STREET}", _whole_line(edition)), "Straße und Hausnummer ergeben die Zeile"),
        (
            implies(f"{_HAS_NUMBER} and {_HAS_STREET}.not()", f"{_LINE} = {_text(0, _NUMBER)}"),
            "Die Hausnummer allein ist die Zeile",
        ),
        (
            implies(f"{_HAS_NUMBER}.not() and {_HAS_STREET}", f"{_LINE} = {_text(0, _STREET)}"),
            "Die Straße allein ist die Zeile",
        ),
        (f"{_only(0, _EXTRA)} and {_only(1, _EXTRA)}", "Der Zusatz allein ist die Zeile"),
        (_only(0, "postBox"), "Das Postfach allein ist die Zeile"),
        (
            implies(f"{_HAS_NUMBER} or {_HAS_STREET}", f"{_line(0, _EXTRA)}.empty()"),
            "Der Zusatz steht nicht bei Straße und Hausnummer",
        ),
        (_SECOND_LINE, "Die zweite Zeile ist ein Zusatz"),
        (
            f"address.line[1].exists() implies (({_HAS_NUMBER} or {_HAS_STREET}) and {_line(0, _EXTRA)}.empty())",
            "Vor einer zweiten Zeile stehen Straße oder Hausnummer",
        ),
    )
    return _lines("Patient", rules)


def organization_lines(edition: Edition) -> tuple[Invariant, ...]:
    no_number = f"{_line(0, _NUMBER)}.where(value = 'N/A').exists()"
    both = f"{_HAS_STREET} and {_HAS_NUMBER}"
    whole = both if edition.old else f"{both} and {no_number}.not()"
    rules = [
        (implies(whole, _whole_line(edition)), "Straße und Hausnummer ergeben die Zeile"),
        (_only(1, _EXTRA), "Der Zusatz allein ist die Zeile"),
        (
            implies(_HAS_STREET, _HAS_NUMBER) if edition.old else both,
            "Straße und Hausnummer (oder N/A) sind angegeben",
        ),
        (implies(_HAS_NUMBER, _HAS_STREET), "Zur Hausnummer gehört die Straße"),
        (f"{_line(0, _EXTRA)}.empty()", "In der ersten Zeile steht kein Zusatz"),
        (_SECOND_LINE, "Die zweite Zeile ist ein Zusatz"),
        (
            f"address.line[1].exists() implies ({both} and {_line(0, _EXTRA)}.empty())",
            "Vor einer zweiten Zeile stehen Straße und Hausnummer",
        ),
    ]
    if not edition.old:
        rules.append(
            (
                implies(f"{no_number} and {_HAS_STREET}", f"{_text(0, _STREET)} = {_LINE}"),
                "Ohne Hausnummer (N/A) ist die Straße die Zeile",
            )
        )
    return _lines("Organization", tuple(rules))


_LINE_EN = "The address line and its parts (street, house number, addition, box) agree"


def _lines(resource: str, rules: tuple[tuple[str, str], ...]) -> tuple[Invariant, ...]:
    return tuple(
        Invariant(f"-for-adresszeilenAufbau{resource}Ressource-{place}", expression, text, _LINE_EN)
        for place, (expression, text) in enumerate(rules, start=1)
    )
