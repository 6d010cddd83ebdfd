"""What of a document a finding may show: structure, never what somebody wrote about a person."""

from __future__ import annotations

import re
from typing import Final

from schleuse.fhir.node import Node

_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}|[0-9]{1,4}", re.ASCII)
_URL: Final = re.compile(r"https?://[A-Za-z0-9./_|-]{1,200}", re.ASCII)
#: Six digits in a row may be a number that names a person (KVNR, LANR, date of birth).
_LONG_NUMBER: Final = re.compile(r"[0-9]{6}", re.ASCII)


def shown_length(value: str | None) -> str:
    """Only how long a text is."""
    return f"{len(value)} characters" if value else ""


def shown_code(value: str | None) -> str:
    """A code if it looks like one, else only its length."""
    if value is None:
        return ""
    if _CODE.fullmatch(value) and not _LONG_NUMBER.search(value):
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
