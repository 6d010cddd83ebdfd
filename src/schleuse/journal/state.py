"""The `state` file: up to where the trees are flushed, so that older segments may go (journal.md § 12.3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from schleuse.errors import CorruptError
from schleuse.journal.disk import Disk, replace
from schleuse.journal.wal import START, Position

NAME = "state"


class BadStateError(CorruptError):
    """The state file is not as it was written; the operator and a copy can help."""

    code = "journal.bad-state"


@dataclass(frozen=True, slots=True)
class LogState:
    """One log when the state was written. started: its size at the oldest kept segment. Notes are whole or empty."""

    number: int
    origin: str
    size: int
    started: int
    minimum: int = 0
    signed: str = ""
    served: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """oldest: the beginning of the oldest kept segment. applied: frames before it are in the flushed files."""

    oldest: Position = START
    applied: Position = START
    logs: tuple[LogState, ...] = ()


def write_state(disk: Disk, folder: Path, state: State) -> None:
    """Durable when this returns. Raises OSError."""
    text = json.dumps(
        {
            "version": 1,
            "oldest": _position(state.oldest),
            "applied": _position(state.applied),
            "logs": [
                [log.number, log.origin, log.size, log.started, log.minimum, log.signed, log.served]
                for log in state.logs
            ],
        },
        ensure_ascii=False,
    ).encode()
    replace(disk, folder / NAME, sha256(text).hexdigest().encode() + b"\n" + text + b"\n")


def read_state(folder: Path) -> State:
    """The state, or that of a new journal if there is no file. Raises BadStateError, OSError."""
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return State()
    digest, _, text = data.partition(b"\n")
    if sha256(text[:-1]).hexdigest().encode() != digest or text[-1:] != b"\n":
        raise BadStateError(f"{NAME}: its checksum does not match")
    try:
        table = json.loads(text)
        return State(
            _read_position(table["oldest"]),
            _read_position(table["applied"]),
            tuple(LogState(*fields) for fields in table["logs"]),
        )
    except (ValueError, KeyError, TypeError) as cause:
        raise BadStateError(f"{NAME}: cannot be read by this version") from cause


def _position(position: Position) -> list[int | str]:
    return [position.segment, position.offset, position.batch, position.chain.hex()]


def _read_position(fields: list[int | str]) -> Position:
    segment, offset, batch, chain = fields
    return Position(int(segment), int(offset), int(batch), bytes.fromhex(str(chain)))
