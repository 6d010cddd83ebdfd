"""Names that an insurer's system gives to what is its own: a scan, a request. They are kept and logged in the plain."""

from __future__ import annotations

import re

from schleuse.errors import MalformedError
from schleuse.identifiers import KVNR

_WHOLE = re.compile(r"[A-Z][0-9]{9}")
#: Anywhere, also where two overlap.
_KVNR = re.compile(r"(?=([A-Z][0-9]{9}))")
#: A UUID or a hash: one of 600 UUIDs and of 30 hashes (SHA-256) holds the shape by chance.
_RANDOM = re.compile(r"(?<![0-9A-F])(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}|[0-9A-F]{32,})(?![0-9A-F])")


class NamesAPersonError(MalformedError):
    """The name of a scan or a request has the shape of a KVNR in it; the insurer's system takes one without."""

    code = "eau.reference-names-a-person"


def require_no_person(reference: str) -> None:
    """Nothing in it is a KVNR, alone or beside other signs, in capitals or not. Raises NamesAPersonError."""
    text = reference.upper()
    if _WHOLE.fullmatch(text) or any(KVNR(found).has_check_digit for found in _KVNR.findall(_RANDOM.sub(" ", text))):
        raise NamesAPersonError(
            "there is something of the shape of a KVNR in it; take one that says nothing of a person"
        )
