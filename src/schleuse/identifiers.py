"""Identifiers of the German health system that more than one package uses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from schleuse.errors import MalformedError


class BadIKError(MalformedError):
    """Not an Institutionskennzeichen; whoever wrote it can change it."""

    code = "identifier.bad-ik"


class BadKVNRError(MalformedError):
    """Not a KVNR; whoever wrote it can change it."""

    code = "identifier.bad-kvnr"


_IK = re.compile(r"[0-9]{9}", re.ASCII)
_KVNR = re.compile(r"[A-Z][0-9]{9}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class IK:
    """Institutionskennzeichen: nine digits that name an insurer, a hospital or another institution.

    The check digit is not tested: neither the eAU profile nor the Technische Anlage asks for it (eau.md § 8).
    Raises: BadIKError.
    Source: § 293 SGB V.
    """

    value: str

    def __post_init__(self) -> None:
        if not _IK.fullmatch(self.value):
            raise BadIKError("an IK (Institutionskennzeichen) is nine digits")

    def __str__(self) -> str:
        return self.value


def kvnr_check_digit(first_nine: str) -> int:
    """Check digit of a KVNR from its letter and eight digits: modulo 10, weights 1-2-1-2 (§ 290 SGB V)."""
    digits = f"{ord(first_nine[0]) - ord('A') + 1:02d}{first_nine[1:]}"
    total = 0
    for index, sign in enumerate(digits):
        product = int(sign) * (1 + index % 2)
        total += product - 9 if product > 9 else product
    return total % 10


@dataclass(frozen=True, slots=True, repr=False)
class KVNR:
    """Unchangeable part of the Krankenversichertennummer.

    Shape: one letter A-Z and nine digits, the last a check digit ("A123456780"). Received documents
    are *not* refused for a wrong check digit (eau.md § 8), so parsing does not test it; `has_check_digit` tells.
    Personal data: repr() is masked, so that a log line cannot leak it.
    Raises: BadKVNRError.
    Source: § 290 SGB V.
    """

    value: str

    def __post_init__(self) -> None:
        if not _KVNR.fullmatch(self.value):
            raise BadKVNRError("a KVNR is one capital letter and nine digits")

    @property
    def has_check_digit(self) -> bool:
        """Whether the last digit is the right check digit."""
        return kvnr_check_digit(self.value[:9]) == int(self.value[9])

    def __repr__(self) -> str:
        return f"KVNR('{self.value[0]}********{self.value[-1]}')"

    __str__ = __repr__
