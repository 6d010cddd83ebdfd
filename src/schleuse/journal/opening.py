"""Openings: what the commitments in an entry stand for, shown to somebody who may know it (journal.md § 4, § 11.4)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256

from schleuse.errors import MalformedError
from schleuse.journal.entry import Entry
from schleuse.journal.text import decode_base64, decode_decimal, encode_base64

SALT_SIZE = 16
MAX_NUMBER = 2**53 - 1  #: integers that every JSON reader agrees on (RFC 7493 § 2.2)
MAX_DEPTH = 32  #: of a detail record; ours

#: What a detail record may hold.
Json = str | int | list["Json"] | dict[str, "Json"]

#: Writes what `_check` lets through as RFC 8785 does; that is at most MAX_DEPTH deep, so there are no circles.
#: `json.dumps` would make an encoder for every record.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)
_DIGITS = re.compile(r"-?[0-9]{1,16}", re.ASCII)


class BadOpeningError(MalformedError):
    """A detail record or opening outside the form; whoever wrote it can change it."""

    code = "journal.bad-opening"


def object_commitment(salt: bytes, object_id: str, version: int) -> bytes:
    """The `object` of an entry, 32 bytes. salt: 16 random bytes, kept with the document. Raises BadOpeningError."""
    name = object_id.encode()
    if len(name) > 0xFFFF or not 0 <= version < 1 << 64:
        raise BadOpeningError("an object id has at most 65,535 bytes, and its version is a u64")
    return sha256(b"JE1-object\n" + _check_salt(salt) + len(name).to_bytes(2) + name + version.to_bytes(8)).digest()


def detail_commitment(salt: bytes, detail: bytes) -> bytes:
    """The `detail` of an entry, 32 bytes. salt: 16 random bytes, kept with the record. detail: canonical JSON."""
    return sha256(b"JE1-detail\n" + _check_salt(salt) + detail).digest()


def canonical_json(value: Json) -> bytes:
    """A detail record as RFC 8785 writes it. Raises BadOpeningError.

    Restricted to strings, integers below 2^53, lists and objects with ASCII keys; for those the standard library's
    sorted form without spaces is already the canonical one.
    """
    _check(value, MAX_DEPTH)
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError as cause:
        raise BadOpeningError("a detail record holds half of a surrogate pair") from cause


def parse_canonical_json(data: bytes) -> Json:
    """The record in canonical bytes. Raises BadOpeningError, also for the same value in another spelling."""
    try:
        value: Json = json.loads(data.decode(), parse_int=_integer)
    except (ValueError, RecursionError) as cause:
        raise BadOpeningError("a detail record is JSON in UTF-8") from cause
    if canonical_json(value) != data:
        raise BadOpeningError("a detail record is canonical JSON (RFC 8785)")
    return value


@dataclass(frozen=True, slots=True, repr=False)
class Opening:
    """What makes an entry readable. Personal data: repr() shows nothing.

    object_: salt, id and version of what was accessed. detail: salt and canonical JSON of the detail record.
    Either may be missing; then nothing is said about that commitment.
    """

    object_: tuple[bytes, str, int] | None = None
    detail: tuple[bytes, bytes] | None = None

    def matches(self, entry: Entry) -> bool:
        """Whether all that is given here is what the entry commits to. Raises BadOpeningError for impossible salts."""
        return (self.object_ is None or object_commitment(*self.object_) == entry.object) and (
            self.detail is None or detail_commitment(*self.detail) == entry.detail
        )

    def encode(self) -> bytes:
        """As canonical JSON, for the `extra` line of a proof file."""
        fields: dict[str, Json] = {}
        if self.object_ is not None:
            salt, name, version = self.object_
            # The version is text, because it may be above 2^53.
            fields["object"] = [encode_base64(salt), name, str(version)]
        if self.detail is not None:
            fields["detail"] = [encode_base64(self.detail[0]), self.detail[1].decode()]
        return canonical_json(fields)


def parse_opening(data: bytes) -> Opening:
    """The opening in an `extra` line. Raises MalformedError."""
    fields = parse_canonical_json(data)
    if not isinstance(fields, dict) or not fields.keys() <= {"object", "detail"}:
        raise BadOpeningError("an opening is an object with the keys object and detail")
    return Opening(_object(fields.get("object")), _detail(fields.get("detail")))


def _object(value: Json | None) -> tuple[bytes, str, int] | None:
    match value:
        case None:
            return None
        case [str(salt), str(name), str(version)]:
            return decode_base64(salt), name, decode_decimal(version, 1 << 64)
    raise BadOpeningError("the object of an opening is salt, id and version")


def _detail(value: Json | None) -> tuple[bytes, bytes] | None:
    match value:
        case None:
            return None
        case [str(salt), str(detail)]:
            return decode_base64(salt), detail.encode()
    raise BadOpeningError("the detail of an opening is salt and canonical JSON")


def _check(value: Json, depth: int) -> None:
    if depth == 0:
        raise BadOpeningError(f"a detail record is at most {MAX_DEPTH} levels deep")
    match value:
        case str():
            return
        case bool():
            raise BadOpeningError("a detail record holds no true or false")
        case int():
            if abs(value) > MAX_NUMBER:
                raise BadOpeningError("integers in a detail record are below 2^53")
        case list():
            for item in value:
                _check(item, depth - 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or not key.isascii():
                    raise BadOpeningError("keys in a detail record are ASCII")
                _check(item, depth - 1)
        case _:
            raise BadOpeningError("a detail record holds strings, integers, lists and objects only")


def _integer(text: str) -> int:
    # Python refuses numbers of thousands of digits with an error of its own, and reads long ones slowly.
    if not _DIGITS.fullmatch(text):
        raise BadOpeningError("integers in a detail record are below 2^53")
    return int(text)


def _check_salt(salt: bytes) -> bytes:
    if len(salt) != SALT_SIZE:
        raise BadOpeningError(f"a salt has {SALT_SIZE} bytes, not {len(salt)}")
    return salt
