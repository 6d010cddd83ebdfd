"""The file of a role's copy: the epochs that it has seen, and the mark of a safe state.

    <digest> {"safe": {...}, "type": "schleuse-switch-copy", "version": 2}
    <digest> "<the octets of epoch 1>"
    <digest> "<the octets of epoch 2>"

Each digest is over the one of the line before and its own line, so that no line can be changed, taken out or moved. An
epoch is one line at the end, whatever came before: each process writes each epoch, and years of drills are thousands of
them (decision 0022). The mark stands in the first line, and whoever sets it writes the whole file anew: so the end of a
file may be lost and never the mark. A last line without its end was being written when the machine died: its epoch is
in the log. The file of version 1 (one digest over one JSON object) is read, and written anew in this form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schleuse.errors import CorruptError, Error
from schleuse.journal.opening import Json, canonical_json, parse_canonical_json
from schleuse.switch.disk import Place, SwitchDisk, extend, place_of, put
from schleuse.switch.log import Accepted

_TYPE = "schleuse-switch-copy"


class CopyDamagedError(CorruptError):
    """The role's own copy of the switch cannot be read; two persons look and open again."""

    code = "switch.copy-damaged"


@dataclass(frozen=True, slots=True)
class SafeMark:
    """Since when, by epoch, and why the role believes nothing before."""

    epoch: int
    why: str


@dataclass(frozen=True, slots=True)
class Copied:
    """What the file says. raws: the files of the epochs from 1 on. end: digest of the last line. is_whole: nothing was
    torn off its end, and it is of this version."""

    raws: Sequence[bytes]
    safe: SafeMark | None = None
    end: str = ""
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class _Left:
    """The file as we left it: where it is, how many epochs it has, the digest of its last line, and its mark."""

    place: Place
    count: int
    end: str
    safe: SafeMark | None


class CopyFile:
    """One per process; several processes may share the file, and each of them writes only what all of them believe."""

    def __init__(self, path: Path, disk: SwitchDisk) -> None:
        self.path = path
        self._disk = disk
        self._left: _Left | None = None

    def read(self) -> Copied:
        """Nothing where there is no file yet. Raises CopyDamagedError."""
        try:
            before = place_of(self.path)
            found = read_copy(self.path)
            if found.is_whole and place_of(self.path) == before:
                self._left = _Left(before, len(found.raws), found.end, found.safe)
        except FileNotFoundError:
            return Copied(())
        except OSError as cause:
            raise CopyDamagedError(f"the copy {self.path.name} cannot be read ({cause.strerror})") from cause
        return found

    def keep(self, entries: Sequence[Accepted], safe: SafeMark | None) -> None:
        """Have all of these in the file: what is new at its end, or all of it anew where the file is not as we left it.

        entries: those that were kept before, and more. Raises OSError; the next call does it again.
        """
        left, self._left = self._left, None
        if left is not None and left.safe == safe and left.count <= len(entries):
            data, end = _lines([one.data for one in entries[left.count :]], left.end)
            here = extend(self._disk, self.path, data, left.place)
            if here is not None:
                self._left = _Left(here, len(entries), end, safe)
                return
        first, end = _line(_head(safe), "")
        data, end = _lines([one.data for one in entries], end)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._left = _Left(put(self._disk, self.path, first + data), len(entries), end, safe)


def read_copy(path: Path) -> Copied:
    """For the role itself, for putting a lost log back, and for checks. Raises CopyDamagedError, FileNotFoundError."""
    try:
        return _parsed(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as cause:
        raise CopyDamagedError(f"the copy {path.name} cannot be read ({cause.strerror})") from cause
    except (Error, KeyError, TypeError, ValueError) as cause:
        raise CopyDamagedError(f"the copy {path.name} is damaged") from cause


def _parsed(data: bytes) -> Copied:
    """Raises Error, KeyError, TypeError, ValueError."""
    head, _, rest = data.partition(b"\n")
    if b" " not in head:
        return _first_version(head, rest)
    *lines, torn = data.split(b"\n")
    if not lines:
        raise ValueError("the first line was never whole; it is written with the file")
    payload, end = _opened(lines[0], "")
    table: Any = parse_canonical_json(payload)
    if (table["type"], table["version"]) != (_TYPE, 2):
        raise ValueError("not a copy of version 2")
    raws: list[bytes] = []
    for line in lines[1:]:
        payload, end = _opened(line, end)
        if not payload.startswith(b'"'):  # nothing else is parsed, however deep it may be
            raise ValueError("an epoch is a text")
        raws.append(str(json.loads(payload)).encode("latin-1"))
    return Copied(raws, _mark(table["safe"]), end, not torn)


def _first_version(digest: bytes, body: bytes) -> Copied:
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("the digest does not match")
    value: Any = parse_canonical_json(body)
    return Copied([str(one).encode("latin-1") for one in value["entries"]], _mark(value["safe"]))


def _mark(table: Any) -> SafeMark | None:
    return SafeMark(int(table["epoch"]), str(table["why"])) if table else None


def _head(safe: SafeMark | None) -> bytes:
    mark: dict[str, Json] = {} if safe is None else {"epoch": safe.epoch, "why": safe.why}
    return canonical_json({"type": _TYPE, "version": 2, "safe": mark})


def _lines(raws: Sequence[bytes], end: str) -> tuple[bytes, str]:
    lines: list[bytes] = []
    for raw in raws:
        # latin-1: an epoch that nobody can read may be any octets, and they must come back as they were.
        line, end = _line(canonical_json(raw.decode("latin-1")), end)
        lines.append(line)
    return b"".join(lines), end


def _line(payload: bytes, before: str) -> tuple[bytes, str]:
    digest = hashlib.sha256(before.encode() + payload).hexdigest()
    return digest.encode() + b" " + payload + b"\n", digest


def _opened(line: bytes, before: str) -> tuple[bytes, str]:
    """What the line says, and its digest. Raises ValueError."""
    digest, _, payload = line.partition(b" ")
    found = hashlib.sha256(before.encode() + payload).hexdigest()
    if found.encode() != digest:
        raise ValueError("the digest does not match")
    return payload, found
