"""Volatile evidence of a closing: what would vanish is written down while the closing runs (SW-11).

    <home>/switch/evidence/0000000012/processes.json, …, manifest.json

Collected in parallel and never awaited by a closing. A source that fails is named in the manifest with its reason. The
manifest comes last and has the SHA-256 of every file, so a collection without one was cut short and is made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schleuse.clock import Now
from schleuse.errors import UnavailableError
from schleuse.journal.disk import OsDisk, replace
from schleuse.shutdown.proc import PROC, Process, processes, read
from schleuse.shutdown.proc import descendants as proc_descendants
from schleuse.switch.documents import time_text

#: What a source returns; it runs in a thread and may raise anything.
Source = Callable[[], bytes]
#: A source that takes longer is named as missing: the others must not wait for it.
SOURCE_SECONDS = 20.0
MANIFEST = "manifest.json"


class EvidenceNotKeptError(UnavailableError):
    """Evidence could not be written; its operator looks at the disk. The closing is not concerned."""

    code = "shutdown.evidence-not-kept"


@dataclass(frozen=True, slots=True)
class Collection:
    """digest: SHA-256 of the manifest, in hex. missing: names of the sources that gave nothing."""

    folder: Path
    digest: str
    files: int
    missing: tuple[str, ...]


def collected(folder: Path, epoch: int) -> bool:
    """Whether there is a complete collection of this epoch. folder: `<home>/switch/evidence`."""
    return (folder / f"{epoch:010d}" / MANIFEST).exists()


async def collect(folder: Path, epoch: int, sources: Mapping[str, Source], now: Now) -> Collection:
    """Ask all sources at once, write what they say, and the manifest. Raises EvidenceNotKeptError."""
    place = folder / f"{epoch:010d}"
    began = now()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as cause:
        raise EvidenceNotKeptError(f"evidence of epoch {epoch} cannot be written ({cause.strerror})") from cause
    entries = await asyncio.gather(*(_one(place, name, source, now) for name, source in sources.items()))
    manifest = json.dumps(
        {"epoch": epoch, "began_at": time_text(began), "ended_at": time_text(now()), "sources": entries}, indent=1
    ).encode()
    try:
        await asyncio.to_thread(replace, OsDisk(), place / MANIFEST, manifest)
    except OSError as cause:
        raise EvidenceNotKeptError(f"evidence of epoch {epoch} cannot be written ({cause.strerror})") from cause
    missing = tuple(one["name"] for one in entries if "sha256" not in one)
    return Collection(place, hashlib.sha256(manifest).hexdigest(), len(entries) - len(missing), missing)


async def _one(place: Path, name: str, source: Source, now: Now) -> dict[str, Any]:
    began = time_text(now())
    try:
        data = await asyncio.wait_for(asyncio.to_thread(source), SOURCE_SECONDS)
        await asyncio.to_thread(replace, OsDisk(), place / name, data)
    except Exception as fault:  # whatever it was, the other sources and the closing go on
        return {"name": name, "began_at": began, "missing": type(fault).__name__}
    return {
        "name": name,
        "began_at": began,
        "ended_at": time_text(now()),
        "octets": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def verify(folder: Path) -> list[str]:
    """What differs from the manifest of one collection; [] if nothing does. Raises OSError, ValueError."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    return [
        one["name"] for one in manifest["sources"] if "sha256" in one and _digest(folder / one["name"]) != one["sha256"]
    ]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


# --- this machine (Linux) -------------------------------------------------------------------


def process_list(proc: Path = PROC) -> bytes:
    """Every process that we may see: pid, parent, user, state, start, and its command line."""
    return _lines(_process(one, proc) for one in processes(proc))


def sockets(proc: Path = PROC) -> bytes:
    """The kernel's tables of this network namespace, as they are."""
    names = ("tcp", "tcp6", "udp", "udp6", "unix")
    return b"".join(f"== {name}\n".encode() + read(proc / "net" / name) for name in names)


def open_files(pids: Sequence[int], proc: Path = PROC) -> bytes:
    """What these processes have open: pid, descriptor and target."""
    return _lines(one for pid in pids for one in _open_files(proc / str(pid), pid))


def descendants(roots: Sequence[int], proc: Path = PROC) -> list[int]:
    """These processes and all that they forked."""
    return sorted(proc_descendants(set(roots), {one.pid: one for one in processes(proc)}))


def role_pids(run: Path) -> list[int]:
    """The processes that hold the lock files of roles. run: `<home>/run`."""
    texts = [read(path).decode("ascii", "replace").strip() for path in sorted(run.glob("*.lock"))]
    return [int(one) for one in texts if one.isdigit()]


def hashes(files: Sequence[Path]) -> bytes:
    """SHA-256 of these files and of all files below these folders, as `sha256sum` writes them."""
    return "".join(f"{_digest(one)}  {one}\n" for one in _files(files)).encode()


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
        else:
            yield path


def _process(one: Process, proc: Path) -> dict[str, Any]:
    folder = proc / str(one.pid)
    return {
        "pid": one.pid,
        "parent": one.parent,
        "uid": _owner(folder),
        "state": one.state,
        "start_ticks": one.started,
        "command": read(folder / "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip(),
    }


def _owner(folder: Path) -> int:
    try:
        return folder.stat().st_uid
    except OSError:
        return -1


def _open_files(folder: Path, pid: int) -> Iterator[dict[str, Any]]:
    try:
        names = sorted(os.listdir(folder / "fd"), key=int)
    except OSError as cause:
        yield {"pid": pid, "missing": cause.strerror}
        return
    for name in names:
        try:
            yield {"pid": pid, "fd": int(name), "target": os.readlink(folder / "fd" / name)}
        except OSError:
            continue


def _lines(rows: Iterator[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in rows).encode()
