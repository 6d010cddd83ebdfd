"""The header block of a mail, and nothing of its body (RFC 5322 § 2.2, 3.6).

Made for the hot path: one split, one pass over the lines (limits.md: 0.025 ms); what a field means is worked out
when somebody asks. Values keep every octet: `str` with surrogateescape, so that writing them again is lossless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header
from email.utils import getaddresses, parsedate_to_datetime
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from schleuse.errors import MalformedError

#: Far above real mails (2 to 8 KB), and low enough that no work below grows dangerous.
MAX_HEAD_OCTETS = 262_144
MAX_FIELDS = 1_000
MAX_PARAMETERS = 100
#: Longer address fields are read in linear time only, by the plain pattern below.
MAX_ADDRESS_FIELD = 20_000
#: Encoded words are looked for in values up to here: the standard library takes quadratic time on hostile ones.
MAX_ENCODED = 4_000
MAX_DATE = 200

_SPACE = " \t\r\n"
_FOLD = re.compile(r"\n(?=[ \t])")
_LINE = re.compile(r"^([!-9;-~]+)[ \t]*:(.*)", re.MULTILINE)
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*(?:\n|\Z)", re.MULTILINE)
#: What nearly every address field looks like: one address, bare or behind a display name without special signs.
_PLAIN_ADDRESS = re.compile(r"(?:[^\"(),:;<>@\[\]\\]*<([^\s<>\"(),]+)>|([^\s<>\"(),:;]+@[^\s<>\"(),:;]+))")
_PARAMETER = re.compile(r';\s*([^=;\s"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))', re.DOTALL)
_EXTENDED = re.compile(r"([^*]+)(?:\*([0-9]{1,3}))?(\*)?")


class BadHeadError(MalformedError):
    """A header block that cannot be read, or is beyond our bounds."""

    code = "mail.bad-head"


@dataclass(frozen=True, slots=True, repr=False)
class Head:
    """The fields of a header block in order of appearance: (name in lower case, unfolded value)."""

    fields: tuple[tuple[str, str], ...]
    _index: dict[str, list[str]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, list[str]] = {}
        for name, value in self.fields:
            if name in index:
                index[name].append(value)
            else:
                index[name] = [value]
        object.__setattr__(self, "_index", index)

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order; duplicates are visible here."""
        return list(self._index.get(name.lower(), ()))

    def get(self, name: str) -> str | None:
        """The first value of a field, None if it is absent."""
        values = self._index.get(name.lower())
        return values[0] if values else None

    def decoded(self, name: str) -> str | None:
        """The first value with its encoded words decoded (RFC 2047)."""
        value = self.get(name)
        return None if value is None else decode_words(value)

    def addresses(self, name: str) -> list[str]:
        """The addr-specs of all occurrences of an address field, without display names, leniently read."""
        return [address for value in self.all(name) for address in addresses_of(value)]

    def date(self, name: str = "date") -> datetime | None:
        """The instant of a date field, None if it is absent or cannot be read; without zone it counts as UTC."""
        value = self.get(name)
        return None if value is None else parse_date(value)

    def content_type(self) -> tuple[str, Mapping[str, str]]:
        """(type/subtype in lower case, parameters by lower-case name); absent: text/plain (RFC 2045 § 5.2)."""
        return parse_parameters(self.get("content-type") or "text/plain")


def split(raw: bytes) -> tuple[bytes, bytes]:
    """(header block, body) of a mail or part; the block keeps its last line end, the empty line is in neither."""
    if raw.startswith((b"\r\n", b"\n")):
        return b"", raw[2:] if raw[:1] == b"\r" else raw[1:]
    at = raw.find(b"\n\r\n", 0, MAX_HEAD_OCTETS)
    size = 3
    # Searched second and only up to there: a body has no such end for a long way.
    bare = raw.find(b"\n\n", 0, MAX_HEAD_OCTETS if at < 0 else at + 1)
    if bare >= 0:
        at, size = bare, 2
    if at < 0:
        if len(raw) > MAX_HEAD_OCTETS:
            raise BadHeadError(f"a header block has more than {MAX_HEAD_OCTETS} octets")
        return raw, b""
    return raw[: at + 1], raw[at + size :]


def parse(block: bytes) -> Head:
    """The fields of a header block. Raises BadHeadError."""
    if len(block) > MAX_HEAD_OCTETS:
        raise BadHeadError(f"a header block has more than {MAX_HEAD_OCTETS} octets")
    text = block.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub("", text)
    found = _LINE.findall(text)
    if len(found) > MAX_FIELDS:
        raise BadHeadError(f"a header block has more than {MAX_FIELDS} fields")
    if len(found) != text.count("\n") + (not text.endswith("\n")):
        _check_lines(text)
    return Head(tuple([(name.lower(), value.strip(_SPACE)) for name, value in found]))


def _check_lines(text: str) -> None:
    """Raises BadHeadError for a line that is no field; empty ones and the first line of an mbox are passed over."""
    for number, line in enumerate(text.split("\n")):
        if line.strip(_SPACE) and not _LINE.fullmatch(line) and not (number == 0 and line.startswith("From ")):
            raise BadHeadError("a header block has a line that is no field")


def raw_fields(block: bytes) -> Iterator[tuple[str, bytes]]:
    """(name in lower case, whole field with folding and line end), to copy fields into another mail."""
    for match in _FIELD.finditer(block):
        yield match[1].decode("ascii").lower(), match[0]


def decode_words(value: str) -> str:
    """A value with its encoded words decoded; what cannot be decoded stays as it is (RFC 2047 § 6.3)."""
    if "=?" not in value or len(value) > MAX_ENCODED:
        return value
    try:
        return "".join(
            piece if isinstance(piece, str) else piece.decode(charset or "ascii", "replace")
            for piece, charset in decode_header(value)
        )
    except (HeaderParseError, LookupError, ValueError):
        return value


def addresses_of(value: str) -> list[str]:
    """The addr-specs in one address field; entries without one are left out."""
    if (plain := _PLAIN_ADDRESS.fullmatch(value.strip())) is not None:
        return [plain[1] or plain[2]]
    if len(value) > MAX_ADDRESS_FIELD:
        raise BadHeadError(f"an address field has more than {MAX_ADDRESS_FIELD} characters")
    try:
        return [address for _, address in getaddresses([value]) if address]
    except (IndexError, ValueError, RecursionError):  # the standard library's parser on hostile input
        return []


def parse_date(value: str) -> datetime | None:
    """The instant of an RFC 5322 date, leniently: a wrong weekday does not matter (kim.md § 7.5)."""
    if len(value) > MAX_DATE:
        return None
    try:
        parsed = parsedate_to_datetime(value)
        return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


@lru_cache(maxsize=512)  # the same few values come with every mail, and each part is asked several times
def parse_parameters(value: str) -> tuple[str, Mapping[str, str]]:
    """(value in lower case, parameters) of fields like Content-Type (RFC 2045 § 5.1), RFC 2231 and 2047 decoded."""
    main, semicolon, _ = value.partition(";")
    plain: dict[str, str] = {}
    extended: dict[str, list[tuple[int, bool, str]]] = {}
    matches = _PARAMETER.finditer(value, len(main)) if semicolon else iter(())
    for count, match in enumerate(matches):
        if count == MAX_PARAMETERS:
            raise BadHeadError(f"a field has more than {MAX_PARAMETERS} parameters")
        name = match[1].lower()
        text = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3].strip()
        if "*" in name and (parts := _EXTENDED.fullmatch(name)) is not None:
            extended.setdefault(parts[1], []).append((int(parts[2] or 0), parts[3] is not None, text))
        else:
            plain.setdefault(name, decode_words(text))
    return main.strip().lower(), plain | {name: _extended(pieces) for name, pieces in extended.items()}


def _extended(pieces: list[tuple[int, bool, str]]) -> str:
    """A parameter that is split or percent-encoded (RFC 2231 § 3, 4)."""
    charset, octets = "utf-8", b""
    for number, encoded, text in sorted(pieces, key=lambda piece: piece[0]):
        if encoded and number == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        raw = text.encode("utf-8", "surrogateescape")
        octets += unquote_to_bytes(raw) if encoded else raw
    try:
        return octets.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):
        return octets.decode("utf-8", "replace")
