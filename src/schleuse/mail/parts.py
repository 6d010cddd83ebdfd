"""The MIME parts of an opened mail, bounded against bombs, and the one that carries the payload (RFC 2045, 2046)."""

from __future__ import annotations

import binascii
import quopri
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pybase64

from schleuse.errors import MalformedError
from schleuse.mail.head import Head, parse, parse_parameters, split

#: A KIM mail without KAS (kim.md § 17) is at most this long.
MAX_MAIL_OCTETS = 15_728_640
MAX_PARTS = 200
MAX_DEPTH = 10
MAX_BOUNDARY = 200
_BASE64_SPACE = b"\r\n\t "
_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})


class BadPartError(MalformedError):
    """A MIME structure that cannot be read, or is beyond our bounds."""

    code = "mail.bad-part"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a mail is looked at before it counts as a bomb."""

    octets: int = MAX_MAIL_OCTETS
    parts: int = MAX_PARTS
    depth: int = MAX_DEPTH


@dataclass(frozen=True, slots=True, repr=False)
class Part:
    """One leaf of the MIME tree. body: as on the wire, still encoded."""

    head: Head
    body: bytes

    @property
    def type(self) -> str:
        return self.head.content_type()[0]

    @property
    def name(self) -> str | None:
        """The file name: of Content-Disposition, else of Content-Type."""
        disposition = parse_parameters(self.head.get("content-disposition") or "")[1]
        return disposition.get("filename") or self.head.content_type()[1].get("name")

    @property
    def description(self) -> str | None:
        return self.head.decoded("content-description")

    def decode(self) -> bytes:
        """The octets without their transfer encoding. Raises BadPartError."""
        return decode_body(self.body, self.head.get("content-transfer-encoding"))


def decode_body(body: bytes, encoding: str | None) -> bytes:
    """A body without its Content-Transfer-Encoding (RFC 2045 § 6)."""
    match (encoding or "").strip().lower():
        case "base64":
            return decode_base64(body)
        case "quoted-printable":
            return quopri.decodestring(body)
        case word if word in _IDENTITY:
            return body
        case _:
            raise BadPartError("a part has an unknown Content-Transfer-Encoding")


def decode_base64(body: bytes) -> bytes:
    """Base64 with white space between (RFC 2045 § 6.8); any other foreign sign is an error."""
    try:
        return pybase64.b64decode(body.translate(None, _BASE64_SPACE), validate=True)
    except (binascii.Error, ValueError) as cause:
        raise BadPartError("a base64 body cannot be decoded") from cause


def leaves(raw: bytes, bounds: Bounds = Bounds()) -> list[Part]:
    """Every leaf of the MIME tree of a mail in order, at most as deep, many and large as bounds say."""
    if len(raw) > bounds.octets:
        raise BadPartError(f"a mail has {len(raw)} octets; at most {bounds.octets} are read")
    found: list[Part] = []
    _collect(raw, bounds, found)
    return found


def _collect(raw: bytes, bounds: Bounds, found: list[Part]) -> None:
    block, body = split(raw)
    head = parse(block)
    type_, parameters = head.content_type()
    if type_.startswith("multipart/"):
        if bounds.depth == 0:
            raise BadPartError("parts of a mail are nested too deep")
        boundary = parameters.get("boundary", "").rstrip()
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            raise BadPartError("a multipart has no usable boundary")
        before = len(found)
        for piece in _pieces(body, b"--" + boundary.encode("utf-8", "surrogateescape")):
            _collect(piece, replace(bounds, depth=bounds.depth - 1), found)
        if len(found) > before:
            return
        # Empty ones count as leaves, so that the bound on parts bounds the containers too.
    found.append(Part(head, body))
    if len(found) > bounds.parts:
        raise BadPartError("a mail has too many parts")


def _pieces(body: bytes, delimiter: bytes) -> Iterator[bytes]:
    """The parts between delimiter lines (RFC 2046 § 5.1.1); a missing last delimiter is tolerated."""
    start = -1
    for begin, end, last in _delimiter_lines(body, delimiter):
        if start >= 0:
            yield body[start:begin]
        start = end
        if last:
            return
    if start >= 0:
        yield body[start:]


def _delimiter_lines(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int, bool]]:
    """(where its line break before begins, where the next line begins, whether it closes) of each delimiter line."""
    at = body.find(delimiter)
    while at >= 0:
        resume = at + len(delimiter)
        if at == 0 or body[at - 1] == 0x0A:
            # Looked for only here: a search to the next line end from inside a long line would cost its square.
            stop = body.find(b"\n", at)
            end = len(body) if stop < 0 else stop + 1
            rest = body[resume:end].rstrip(b" \t\r\n")
            if rest in {b"", b"--"}:
                before = at - (2 if body[at - 2 : at] == b"\r\n" else 1) if at else 0
                yield before, end, rest == b"--"
            resume = end
        at = body.find(delimiter, resume)


def payload_parts(parts: list[Part], descriptions: frozenset[str]) -> list[Part]:
    """The parts that carry signed payloads: by Content-Description or the name `.p7s`, else by type.

    descriptions: such as {"eAU", "eAUStorno"} (eau.md § 5). Whatever else is attached, such as the Vermerk of a
    Clientmodul or its report (kim.md § 12.1), is passed over. The caller decides what none or several mean.
    """
    wanted = {word.casefold() for word in descriptions}
    attached = [part for part in parts if not _is_mail_signature(part)]
    # A described part counts whatever its name; so does a second payload that lacks the description.
    marked = [
        part
        for part in attached
        if (part.description or "").strip().casefold() in wanted or (part.name or "").strip().lower().endswith(".p7s")
    ]
    return marked or [
        part for part in attached if part.type in {"application/pkcs7-mime", "application/pkcs7-signature"}
    ]


def _is_mail_signature(part: Part) -> bool:
    """The signature of a multipart/signed mail (RFC 8551 § 3.5.3): about the mail, not the payload."""
    return (
        part.type in {"application/pkcs7-signature", "application/x-pkcs7-signature"}
        and (part.name or "smime.p7s").lower() == "smime.p7s"
    )
