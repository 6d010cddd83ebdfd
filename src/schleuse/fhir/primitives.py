"""The primitive types of FHIR R4: what their values look like.

Source: FHIR R4 § 2.24.0.1 (regular expressions and ranges); that a date exists and that a `uri` has no
blanks is checked by the reference validator too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Final

_YEAR = r"(?:[0-9](?:[0-9](?:[0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)"
_MONTH = r"(?:0[1-9]|1[0-2])"
_DAY = r"(?:0[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_OID = r"[0-2](?:\.(?:0|[1-9][0-9]*))+"
#: A plain URI has no blanks, does not start with "oid:" or "uuid:", and is right if it says that it is an OID or UUID.
_URI = rf"(?!oid:|uuid:|urn:oid:(?!{_OID}\Z)|urn:uuid:(?!(?i:{_UUID})\Z))\S+"
_TEXT = r"(?s:.+)"  # blanks alone are bad style and not wrong

PATTERNS: Final[dict[str, str]] = {
    "base64Binary": r"\s*(?:(?:[0-9A-Za-z+/]\s*){4})*(?:(?:[0-9A-Za-z+/]\s*){2}={2}\s*|(?:[0-9A-Za-z+/]\s*){3}=\s*)?",
    "boolean": r"true|false",
    "canonical": _URI,
    "code": r"\S+(?: \S+)*",
    "date": rf"{_YEAR}(?:-{_MONTH}(?:-{_DAY})?)?",
    "dateTime": rf"{_YEAR}(?:-{_MONTH}(?:-{_DAY}(?:T{_TIME}{_ZONE})?)?)?",
    "decimal": r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?",
    "id": r"[A-Za-z0-9\-.]{1,64}",
    "instant": rf"{_YEAR}-{_MONTH}-{_DAY}T{_TIME}{_ZONE}",
    "integer": r"-?(?:0|[1-9][0-9]{0,9})",
    "markdown": _TEXT,
    "oid": rf"urn:oid:{_OID}",
    "positiveInt": r"[1-9][0-9]{0,9}",
    "string": _TEXT,
    "time": _TIME,
    "unsignedInt": r"0|[1-9][0-9]{0,9}",
    "uri": _URI,
    "url": _URI,
    "uuid": rf"urn:uuid:{_UUID}",
}

_COMPILED: Final = {name: re.compile(pattern, re.ASCII).fullmatch for name, pattern in PATTERNS.items()}

_MOST: Final = 2**31 - 1
_MAX_TEXT: Final = 1024 * 1024  #: FHIR R4 § 2.24.0.1: strings have at most 1 MB


def _is_whole(name: str) -> Callable[[str], bool]:
    match = _COMPILED[name]

    def check(value: str) -> bool:
        return match(value) is not None and -_MOST - 1 <= int(value) <= _MOST

    return check


def _is_date(name: str) -> Callable[[str], bool]:
    match = _COMPILED[name]

    def check(value: str) -> bool:
        return match(value) is not None and (value[8:10] <= "28" or _day_exists(value))

    return check


def _day_exists(value: str) -> bool:
    try:
        date(int(value[:4]), int(value[5:7]), int(value[8:10]))
    except ValueError:
        return False
    return True


def _is_text(value: str) -> bool:
    return len(value) <= _MAX_TEXT


#: Type name -> something that is true of a (not empty) value of that type.
CHECKS: Final[dict[str, Callable[[str], object]]] = {
    **_COMPILED,
    **{name: _is_whole(name) for name in ("integer", "positiveInt", "unsignedInt")},
    **{name: _is_date(name) for name in ("date", "dateTime", "instant")},
    "string": _is_text,
    "markdown": _is_text,
}

#: Types that FHIR's snapshots name by their FHIRPath type (element ids, extension URLs, primitives' values).
SYSTEM_TYPES: Final[dict[str, str]] = {
    "http://hl7.org/fhirpath/System.String": "string",
    "http://hl7.org/fhirpath/System.Boolean": "boolean",
    "http://hl7.org/fhirpath/System.Date": "date",
    "http://hl7.org/fhirpath/System.DateTime": "dateTime",
    "http://hl7.org/fhirpath/System.Decimal": "decimal",
    "http://hl7.org/fhirpath/System.Integer": "integer",
    "http://hl7.org/fhirpath/System.Time": "time",
}
