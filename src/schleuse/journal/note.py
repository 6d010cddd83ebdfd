"""Signed notes: a text with signature lines, readable by people and exact to the byte (C2SP signed-note).

A log signs its checkpoint as a note, witnesses add lines to it. Whoever has some of the keys ignores the lines of the
others, but a wrong signature of a known key spoils the whole note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import sha256
from typing import Protocol, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schleuse.errors import MalformedError, RefusedError
from schleuse.journal.text import decode_base64, encode_base64

MAX_NOTE = 64 * 1024  #: bytes of a note (journal.md § 6)
MAX_LINES = 100  #: signature lines; 16 are the least that everybody must take, each costs a verification
DASH = "\u2014"  #: begins each signature line: an em dash, three bytes in UTF-8

_ED25519_KEY = 32  #: bytes of a public key
_MLDSA44_KEY = 1312
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)
#: Control characters but newline, and halves of surrogate pairs, which no UTF-8 can hold.
_UNFIT = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")


class BadNoteError(MalformedError):
    """Not a signed note, or not a key of one; whoever wrote it can change it."""

    code = "journal.bad-note"


class NoteRefusedError(RefusedError):
    """A note without a valid signature of a key we trust, or with a false one of such a key."""

    code = "journal.note-refused"


class KeyKind(IntEnum):
    """First byte of a public key in a vkey: what its signatures are over."""

    ED25519 = 0x01  #: over the note's text: the log itself
    COSIGNATURE_ED25519 = 0x04  #: over time and text: a witness
    COSIGNATURE_MLDSA44 = 0x06  #: over time and subtree: a witness, safe from quantum computers


KEY_SIZE = {
    KeyKind.ED25519: _ED25519_KEY,
    KeyKind.COSIGNATURE_ED25519: _ED25519_KEY,
    KeyKind.COSIGNATURE_MLDSA44: _MLDSA44_KEY,
}


def key_id(name: str, kind: KeyKind, public_key: bytes) -> bytes:
    """Four bytes that find a key; they do not authenticate it."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:4]


def check_name(name: str) -> str:
    """The name itself, if it can be that of a key: not empty, no space of any script, no "+", no control character.

    Raises BadNoteError.
    """
    if not name or "+" in name or any(sign.isspace() for sign in name) or _UNFIT.search(name):
        raise BadNoteError("a key name is not empty and has neither spaces nor '+'")
    return name


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public key of a log or witness under its name. Raises BadNoteError. Source: signed-note, "Verifier keys"."""

    name: str
    kind: KeyKind
    public_key: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public_key) != KEY_SIZE[self.kind]:
            raise BadNoteError(f"a key of kind {self.kind:#04x} has {KEY_SIZE[self.kind]} bytes")

    @property
    def id(self) -> bytes:
        """The key id, 4 bytes."""
        return key_id(self.name, self.kind, self.public_key)

    @property
    def vkey(self) -> str:
        """The key as one word: name, key id and key."""
        return f"{self.name}+{self.id.hex()}+{encode_base64(bytes([self.kind]) + self.public_key)}"


def parse_vkey(vkey: str) -> VerifierKey:
    """The key in a vkey. Raises MalformedError, also for a kind that we do not know and a wrong key id."""
    parts = vkey.split("+", 2)  # Base64 contains "+" too
    if len(parts) != 3 or not _KEY_ID.fullmatch(parts[1]):
        raise BadNoteError("a vkey is name+key id in 8 hex digits+Base64 of the key")
    data = decode_base64(parts[2])
    try:
        kind = KeyKind(data[0])
    except (IndexError, ValueError) as cause:
        raise BadNoteError("found a vkey of an unknown kind") from cause
    key = VerifierKey(parts[0], kind, data[1:])
    if key.id.hex() != parts[1]:
        raise BadNoteError("the key id in the vkey does not belong to its name and key")
    return key


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature as it stands in a note. signature: what follows the key id; its form depends on the key's kind."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"{DASH} {self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, ending in a newline, and its signature lines, none of them verified yet."""

    text: str
    lines: tuple[SignatureLine, ...]

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(map(str, self.lines))}"

    def encode(self) -> bytes:
        """The note as bytes, exactly as it was parsed."""
        return str(self).encode()

    def with_lines(self, lines: Iterable[SignatureLine]) -> Note:
        """This note with those of the lines that it does not have yet, after its own."""
        return replace(self, lines=tuple(dict.fromkeys((*self.lines, *lines))))


class Verifier(Protocol):
    """What opens a note: one known key. `LogKey` here, `CosignerKey` in cosignature.py."""

    @property
    def key(self) -> VerifierKey:
        """Name and public key."""
        ...

    def verifies(self, text: str, signature: bytes) -> bool:
        """Whether this signature of a line is valid over the note's text. Never raises."""
        ...


V = TypeVar("V", bound=Verifier)


@dataclass(frozen=True, slots=True)
class LogKey:
    """Verifies what a log signed: Ed25519 over the text (kind 0x01). Raises BadNoteError for other keys."""

    key: VerifierKey

    def __post_init__(self) -> None:
        if self.key.kind is not KeyKind.ED25519:
            raise BadNoteError("the key of a log is of kind 0x01")

    def verifies(self, text: str, signature: bytes) -> bool:
        """See `Verifier`."""
        return ed25519_verifies(self.key.public_key, signature, text.encode())


class LogSigner:
    """Signs notes under a log's name. Holds the private key; not printable."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.key = VerifierKey(name, KeyKind.ED25519, private_key.public_key().public_bytes_raw())

    def sign(self, text: str) -> SignatureLine:
        """The line for a note with this text. The text must end in a newline, else BadNoteError."""
        return SignatureLine(self.key.name, self.key.id, self._private_key.sign(check_text(text).encode()))


def parse_note(data: bytes) -> Note:
    """Text and signature lines of a note, nothing verified. Raises MalformedError (journal.md § 6, steps 1 to 3)."""
    if len(data) > MAX_NOTE:
        raise BadNoteError(f"a note has at most {MAX_NOTE} bytes, not {len(data)}")
    try:
        string = data.decode()
    except UnicodeDecodeError as cause:
        raise BadNoteError("a note is UTF-8") from cause
    if _UNFIT.search(string):
        raise BadNoteError("a note has no control characters but newlines")
    # The last empty line: the text may have empty lines of its own.
    head, separator, tail = string.rpartition("\n\n")
    if not separator:
        raise BadNoteError("a note is a text, an empty line and signature lines")
    return Note(head + "\n", tuple(parse_lines(tail)))


def parse_lines(string: str) -> list[SignatureLine]:
    """Signature lines alone, as a witness answers them; at least one. Raises MalformedError."""
    if not string.endswith("\n"):
        raise BadNoteError("signature lines end in a newline, and there is at least one")
    lines = string[:-1].split("\n")
    if len(lines) > MAX_LINES:
        raise BadNoteError(f"a note has at most {MAX_LINES} signatures, not {len(lines)}")
    return [_parse_line(line) for line in lines]


def open_note(note: Note, verifiers: Sequence[V]) -> list[tuple[V, SignatureLine]]:
    """The lines that a known key signed, in their order, all of them valid (journal.md § 6, steps 4 and 5).

    Raises NoteRefusedError if a line of a known key is false or no line is of a known key, and BadNoteError if two
    verifiers cannot be told apart by name and key id.
    """
    known = {(verifier.key.name, verifier.key.id): verifier for verifier in verifiers}
    if len(known) != len(verifiers):
        raise BadNoteError("two of the known keys have the same name and key id")
    opened = []
    for line in note.lines:
        if verifier := known.get((line.name, line.key_id)):
            if not verifier.verifies(note.text, line.signature):
                raise NoteRefusedError(f"the signature of {line.name} on this note is false")
            opened.append((verifier, line))
    if not opened:
        raise NoteRefusedError("no known key has signed this note")
    return opened


def check_text(text: str) -> str:
    """The text itself, if it can be signed: ends in a newline, no control characters. Raises BadNoteError."""
    if not text.endswith("\n") or _UNFIT.search(text) or len(text.encode()) > MAX_NOTE:
        raise BadNoteError("the text of a note ends in a newline and has no other control characters")
    return text


def ed25519_verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the signature is valid; False for any wrong length."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _parse_line(line: str) -> SignatureLine:
    start, _, rest = line.partition(" ")
    name, _, field = rest.partition(" ")
    if start != DASH:
        raise BadNoteError("a signature line begins with an em dash and a space")
    data = decode_base64(field)
    if len(data) < 5:
        raise BadNoteError("a signature line holds a key id and at least one byte of signature")
    return SignatureLine(check_name(name), data[:4], data[4:])
