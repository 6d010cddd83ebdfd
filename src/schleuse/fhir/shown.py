"""What of a document a finding may show: structure, never what somebody wrote about a person."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from schleuse.fhir.node import Node

_URL: Final = re.compile(r"https?://[A-Za-z0-9./_|-]{1,200}", re.ASCII)
#: Longer than this, letters that stand where a code should can be somebody's name.
_SHORT: Final = 4
#: Six digits in a row may be a number that names a person (KVNR, LANR, date of birth).
_LONG_NUMBER: Final = re.compile(r"[0-9]{6}", re.ASCII)


def shown_length(value: str | None) -> str:
    """Only how long a text is."""
    return f"{len(value)} characters" if value else ""


def shown_among(value: str | None, codes: Collection[str]) -> str:
    """A code where one of `codes` should stand: itself if it is one in other letters, or as short as they are.

    Anything else may be a name that was put in the wrong element, so only its length is shown.
    """
    if value is None:
        return ""
    if value in codes or value.upper() in codes or value.lower() in codes:
        return value
    if len(value) <= _SHORT and len(value) <= max(map(len, codes), default=0) and set(value) <= set("".join(codes)):
        return value
    return shown_length(value)


def shown_url(value: str | None) -> str:
    """A canonical URL if it looks like one, else only its length."""
    if value is None:
        return ""
    if _URL.fullmatch(value) and not _LONG_NUMBER.search(value):
        return value
    return shown_length(value)


def shown_kind(node: Node) -> str:
    """What sort of element it is: the resource's type and claimed profile, an extension's URL, a coding's system."""
    if node.name in ("extension", "modifierExtension"):
        return shown_url(node.value)
    resource = node if node.type is not None else node.first("resource")
    if resource is not None and resource.type is not None:
        return " ".join(filter(None, [resource.type, shown_url(resource.text("meta", "profile"))]))
    return shown_url(node.text("system"))
