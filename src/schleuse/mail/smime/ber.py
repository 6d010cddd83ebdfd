"""ASN.1 values in BER and DER: a walker over octets, and the pieces to build DER (X.690).

The walker knows definite lengths only and hands out positions, not copies. What comes with indefinite lengths and
chunked strings (kim.md § 7.5) is rewritten once by `to_definite` and then walked in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from schleuse.errors import MalformedError

#: (identifier octet, start of the identifier, start of the contents, end of the contents)
Element = tuple[int, int, int, int]

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
SEQUENCE, SET = 0x30, 0x31
CONSTRUCTED = 0x20

#: The largest CMS object that we look at: the SIZE that a Clientmodul announces (kim.md § 9.1).
MAX_OCTETS = 35_882_577
#: CMS nests about 12 deep; certificates with the admission extension about as much again.
MAX_DEPTH = 40
#: A mail of the largest size in chunks of 1000 octets (kim.md § 7.5) has some 36,000.
MAX_ELEMENTS = 100_000
_MAX_LENGTH_OCTETS = 4
_INDEFINITE = 0x80
#: String types that BER may split into chunks (X.690 § 8.7, 8.21): bit string is not among those we read.
_CHUNKED_STRINGS = frozenset({0x24, 0x2C, 0x32, 0x33, 0x34, 0x36})
_T = TypeVar("_T")


class BadEncodingError(MalformedError):
    """Octets that are no BER, or BER beyond our bounds."""

    code = "smime.bad-encoding"


class IndefiniteLengthError(BadEncodingError):
    """The walker met an indefinite length: the caller rewrites with `to_definite` and starts again."""

    code = "smime.indefinite-length"


def read(data: bytes, position: int, end: int) -> Element:
    """The element that starts at position and lies within end."""
    try:
        tag, length = data[position], data[position + 1]
    except IndexError:
        raise BadEncodingError("an ASN.1 element is cut off in its header") from None
    if tag & 0x1F == 0x1F:
        return _read_long_tag(data, position, end)
    start = position + 2
    if length >= _INDEFINITE:
        start, length = _long_length(data, start, length)
    if start + length > end:
        raise BadEncodingError("an ASN.1 element is longer than what holds it")
    return tag, position, start, start + length


def _long_length(data: bytes, start: int, first: int) -> tuple[int, int]:
    """(start of the contents, length) for a length in the long form (X.690 § 8.1.3.5)."""
    if first == _INDEFINITE:
        raise IndefiniteLengthError("an ASN.1 element has indefinite length")
    octets = first & 0x7F
    if octets > _MAX_LENGTH_OCTETS or start + octets > len(data):
        raise BadEncodingError("the length of an ASN.1 element cannot be read")
    return start + octets, int.from_bytes(data[start : start + octets], "big")


def _read_long_tag(data: bytes, position: int, end: int) -> Element:
    """An element whose tag number is 31 or more (X.690 § 8.1.2.4); nothing in CMS needs its number."""
    start = position + 1
    while start < end and data[start] & 0x80:
        start += 1
    start += 1
    if start >= end or start - position > 5:
        raise BadEncodingError("the tag of an ASN.1 element cannot be read")
    length = data[start]
    start += 1
    if length >= _INDEFINITE:
        start, length = _long_length(data, start, length)
    if start + length > end:
        raise BadEncodingError("an ASN.1 element is longer than what holds it")
    return data[position], position, start, start + length


def children(data: bytes, element: Element) -> list[Element]:
    """The elements inside a constructed element."""
    tag, _, position, end = element
    if not tag & CONSTRUCTED:
        raise BadEncodingError("an ASN.1 element is primitive where it must hold others")
    found = []
    # The usual lengths are read in line, since this loop runs some hundred times a mail; `read` knows the rest.
    size = len(data) - 4
    while position < end:
        if position < size and data[position] & 0x1F != 0x1F and (length := data[position + 1]) <= 0x82:
            if length < 0x80:
                start = position + 2
            elif length == 0x82:
                start, length = position + 4, data[position + 2] << 8 | data[position + 3]
            elif length == 0x81:
                start, length = position + 3, data[position + 2]
            else:
                raise IndefiniteLengthError("an ASN.1 element has indefinite length")
            stop = start + length
            if stop > end:
                raise BadEncodingError("an ASN.1 element is longer than what holds it")
            found.append((data[position], position, start, stop))
            position = stop
        else:
            child = read(data, position, end)
            found.append(child)
            position = child[3]
    return found


def whole(data: bytes, tag: int) -> Element:
    """The one element of this tag that data is made of; trailing zero octets are tolerated."""
    if len(data) > MAX_OCTETS:
        raise BadEncodingError(f"a CMS object has {len(data)} octets; at most {MAX_OCTETS} are read")
    element = read(data, 0, len(data))
    if data[element[3] :].strip(b"\0\r\n"):
        raise BadEncodingError("an ASN.1 object is followed by other octets")
    return expect(element, tag)


def expect(element: Element, tag: int) -> Element:
    """The element itself. Raises BadEncodingError if it has another tag."""
    if element[0] != tag:
        raise BadEncodingError(f"found the ASN.1 tag {element[0]:#04x} where {tag:#04x} was expected")
    return element


def contents(data: bytes, element: Element) -> bytes:
    return data[element[2] : element[3]]


def encoding(data: bytes, element: Element) -> bytes:
    """Header and contents."""
    return data[element[1] : element[3]]


def octets(data: bytes, element: Element) -> bytes:
    """The value of an octet string, explicit or implicitly tagged, in one piece or in chunks."""
    if not element[0] & CONSTRUCTED:
        return data[element[2] : element[3]]
    return b"".join(_chunks(data, element, MAX_DEPTH))


def _chunks(data: bytes, element: Element, depth: int) -> list[bytes]:
    if depth == 0:
        raise BadEncodingError("chunks of an octet string are nested too deep")
    found = []
    for child in children(data, element):
        if child[0] == OCTET_STRING:
            found.append(contents(data, child))
        elif child[0] == OCTET_STRING | CONSTRUCTED:
            found.extend(_chunks(data, child, depth - 1))
        else:
            raise BadEncodingError("a chunk of an octet string is no octet string")
    return found


def integer(data: bytes, element: Element) -> int:
    """A small INTEGER, such as a version or a salt length."""
    value = contents(data, expect(element, INTEGER))
    if not 1 <= len(value) <= 8:
        raise BadEncodingError("an INTEGER has no or too many octets")
    return int.from_bytes(value, "big", signed=True)


def with_definite_lengths(data: bytes, parse: Callable[[bytes], _T]) -> _T:
    """parse(data), and once more after rewriting if data turns out to have indefinite lengths."""
    if data[1:2] != b"\x80":
        try:
            return parse(data)
        except IndefiniteLengthError:
            pass
    return parse(to_definite(data))


def to_definite(data: bytes) -> bytes:
    """The same value with definite lengths and strings of universal type in one piece.

    Implicitly tagged strings keep their chunks, since their type cannot be seen; `octets` joins them.
    """
    if len(data) > MAX_OCTETS:
        raise BadEncodingError(f"a CMS object has {len(data)} octets; at most {MAX_OCTETS} are read")
    return _Rewriter(data, sort_sets=False).run()


def to_der(data: bytes) -> bytes:
    """The DER of one BER value whose tags are all universal or explicit, such as signed attributes (X.690 § 10, 11)."""
    return _Rewriter(data, sort_sets=True).run()


class _Rewriter:
    def __init__(self, data: bytes, *, sort_sets: bool) -> None:
        self._data = data
        self._sort = sort_sets
        self._left = MAX_ELEMENTS

    def run(self) -> bytes:
        rewritten, end = self._element(0, len(self._data), MAX_DEPTH)
        if self._data[end:].strip(b"\0\r\n"):
            raise BadEncodingError("an ASN.1 object is followed by other octets")
        return rewritten

    def _element(self, position: int, end: int, depth: int) -> tuple[bytes, int]:
        """(rewritten element, where it ended)."""
        data = self._data
        self._left -= 1
        if depth == 0 or self._left < 0:
            raise BadEncodingError("an ASN.1 object is nested too deep or has too many elements")
        if position + 1 < end and data[position + 1] == _INDEFINITE and data[position] & 0x1F != 0x1F:
            return self._indefinite(position, end, depth)
        element = tag, _, start, stop = read(data, position, end)
        # An indefinite length ends in two zero octets: what has none inside can be taken as it is.
        if not tag & CONSTRUCTED or (not self._sort and data.find(b"\0\0", start, stop) < 0):
            return encoding(data, element) if not self._sort else _tlv_like(data, element), stop
        inside = []
        while start < stop:
            rewritten, start = self._element(start, stop, depth - 1)
            inside.append(rewritten)
        return self._join(data[position : element[2]], tag, inside), stop

    def _indefinite(self, position: int, end: int, depth: int) -> tuple[bytes, int]:
        data, tag = self._data, self._data[position]
        if not tag & CONSTRUCTED:
            raise BadEncodingError("a primitive ASN.1 element has indefinite length")
        position += 2
        inside = []
        if tag in _CHUNKED_STRINGS:
            pieces, position = self._primitives(position, end, tag & ~CONSTRUCTED)
            if pieces:  # the usual case: all chunks, or all but nested ones that follow
                inside.append(tlv(tag & ~CONSTRUCTED, *pieces))
        while data[position : position + 2] != b"\0\0":
            if position >= end:
                raise BadEncodingError("an ASN.1 element of indefinite length has no end")
            rewritten, position = self._element(position, end, depth - 1)
            inside.append(rewritten)
        if position + 2 > end:
            raise BadEncodingError("an ASN.1 element of indefinite length has no end")
        return self._join(bytes([tag]), tag, inside), position + 2

    def _primitives(self, position: int, end: int, tag: int) -> tuple[list[bytes], int]:
        """(contents of the primitive elements of this tag that come next, where they end)."""
        data, found = self._data, []
        while position < end and data[position] == tag:
            _, _, start, stop = read(data, position, end)
            found.append(data[start:stop])
            position = stop
        self._left -= len(found)
        if self._left < 0:
            raise BadEncodingError("an ASN.1 object has too many elements")
        return found, position

    def _join(self, header: bytes, tag: int, inside: list[bytes]) -> bytes:
        if tag in _CHUNKED_STRINGS:
            primitive = tag & ~CONSTRUCTED
            pieces = []
            for chunk in inside:
                element = read(chunk, 0, len(chunk))
                if element[0] not in {primitive, OCTET_STRING}:
                    raise BadEncodingError("a chunk of a string is of another type")
                pieces.append(contents(chunk, element))
            return tlv(primitive, b"".join(pieces))
        if self._sort and tag == SET:
            inside.sort()
        body = b"".join(inside)
        if tag & 0x1F == 0x1F:  # keep all identifier octets, which only a definite length can have here
            return _identifier(header) + length_octets(len(body)) + body
        return tlv(tag, body)


def _identifier(header: bytes) -> bytes:
    size = 1
    while header[size] & 0x80:
        size += 1
    return header[: size + 1]


def _tlv_like(data: bytes, element: Element) -> bytes:
    """A primitive element with the shortest length, and TRUE as DER wants it."""
    tag, position, start, _ = element
    value = contents(data, element)
    if tag & 0x1F == 0x1F:
        return _identifier(data[position:start]) + length_octets(len(value)) + value
    if tag == BOOLEAN and value != b"\0":
        value = b"\xff"
    return tlv(tag, value)


def length_octets(length: int) -> bytes:
    """The shortest length octets (X.690 § 10.1)."""
    if length < _INDEFINITE:
        return bytes((length,))
    size = (length.bit_length() + 7) // 8
    return bytes((_INDEFINITE | size,)) + length.to_bytes(size, "big")


def tlv(tag: int, *pieces: bytes) -> bytes:
    """One element in DER out of its contents, which may come in pieces."""
    body = b"".join(pieces)
    return bytes((tag,)) + length_octets(len(body)) + body


def set_of(tag: int, *elements: bytes) -> bytes:
    """A SET OF in DER: elements in ascending order (X.690 § 11.6)."""
    return tlv(tag, *sorted(elements))


def indefinite(tag: int, *pieces: bytes) -> bytes:
    """A constructed element of indefinite length."""
    return b"".join((bytes((tag, _INDEFINITE)), *pieces, b"\0\0"))


def chunked(tag: int, value: bytes, size: int = 1000) -> bytes:
    """An octet string in chunks of indefinite length, as Konnektors write it (kim.md § 7.5)."""
    pieces = (tlv(OCTET_STRING, value[at : at + size]) for at in range(0, len(value), size))
    return indefinite(tag | CONSTRUCTED, *pieces)


def small_integer(value: int) -> bytes:
    """INTEGER of a number from 0."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


@lru_cache(maxsize=256)
def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER of the dotted form (X.690 § 8.19)."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    body = bytearray()
    for number in (40 * first + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        body.extend(reversed(groups))
    return tlv(OID, bytes(body))
