"""Whether a file is UTF-8 without BOM (eau.md § 3), and its text in any case so far as it can be read."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

from schleuse.fhir.node import UTF8_NAMES

Fault = Literal["charset.bom", "charset.declared", "charset.bytes"]

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARATION = re.compile(rb"""\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["'][^>]{0,200}?\?>""")
_ANY_DECLARATION = re.compile(r"\A\s*<\?xml[^>]{0,400}?\?>")


@dataclass(frozen=True, slots=True, repr=False)
class Text:
    """A file's octets as UTF-8 without BOM and declaration. fault: how it deviates from that, None if it does not."""

    utf8: bytes
    fault: Fault | None = None


def read(xml: bytes) -> Text:
    """The text of a file. What is not UTF-8 is read as well as possible, so that the answer can name the document."""
    for bom, encoding in _BOMS:
        if xml.startswith(bom):
            return _converted(xml[len(bom) :], encoding, "charset.bom")
    if xml[:1] == b"\0" or xml[1:2] == b"\0":
        return _converted(xml, "utf-16-be" if xml[:1] == b"\0" else "utf-16-le", "charset.bytes")
    declared = _DECLARATION.match(xml)
    name = declared[1].decode("ascii").upper() if declared else "UTF-8"
    try:
        xml.decode("utf-8")
    except UnicodeDecodeError:
        return _converted(xml, "cp1252" if name in UTF8_NAMES else name, "charset.bytes")
    if name in UTF8_NAMES:
        return Text(xml)
    return _converted(xml, name, "charset.declared")


def _converted(xml: bytes, encoding: str, fault: Fault) -> Text:
    try:
        text = xml.decode(encoding, "replace")
    except LookupError:  # a declaration may name anything
        text = xml.decode("cp1252", "replace")
    return Text(_ANY_DECLARATION.sub("", text, count=1).encode(), fault)
