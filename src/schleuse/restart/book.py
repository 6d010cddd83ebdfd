"""The events of restarts, one file each, appended as the switch's own log is (RS-08).

    <home>/switch/restart/PLAN/00001.json, 00002.json, …

Appending is a `link` that fails if the number is taken, so operators' commands and the control role write side by side
without a lock or a database, and whoever comes after a crash, a shift or a restore reads where things stand. Each file
names the digest of the one before, and the journal is told the digest of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, UnavailableError
from schleuse.restart.documents import signed_document_from
from schleuse.restart.gates import Evidence, Result
from schleuse.restart.plan import GateKind, RestartPlan, plan_from
from schleuse.restart.progress import (
    Aborted,
    Approved,
    Changed,
    Documented,
    Entered,
    Event,
    Made,
    Noted,
    Offered,
    Progress,
    Returned,
    Signed,
    Waived,
    fold,
)
from schleuse.said import Said, as_it_is
from schleuse.switch.disk import LinkingDisk, place
from schleuse.switch.documents import Role, Signature, SignedCommand, parse_time, signed_from, time_text

GENESIS = "0" * 64  #: what the first event names as the one before
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class BookDamagedError(CorruptError):
    """An event of a restart cannot be read; its operator looks before anything is opened."""

    code = "restart.book-damaged"


class BookNotWrittenError(UnavailableError):
    """An event cannot be written; its operator looks at the disk."""

    code = "restart.book-not-written"


class NoSuchPlanError(ConflictError):
    """There is no plan of this name; `schleuse restart status` lists them."""

    code = "restart.no-such-plan"


class BadNameError(MalformedError):
    """The name of a plan is 1 to 64 letters, digits, dots, hyphens and underscores; who typed it chooses another."""

    code = "restart.bad-name"


class OvertakenError(ConflictError):
    """Somebody else did something with this restart meanwhile; look again and decide again."""

    code = "restart.overtaken"


class Book:
    """The folder `<home>/switch/restart`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, tuple[list[Event], str]] = {}  # events of a plan, and the digest of the last one

    def plans(self) -> list[str]:
        """Names of all plans."""
        return sorted(path.name for path in self._folder.glob("*") if _NAME.fullmatch(path.name) and path.is_dir())

    def events(self, plan: str) -> list[Event]:
        """All of a plan; what was read before is not read again. Raises NoSuchPlanError, BookDamagedError."""
        folder = self._of(plan)
        if not folder.is_dir():
            raise NoSuchPlanError(f"there is no restart {plan}")
        with self._lock:
            known, before = self._known.get(plan, ([], GENESIS))
            found = list(known)
            names = sorted(os.path.basename(one) for one in folder.glob("[0-9]*.json"))
            if len(names) < len(found):
                raise BookDamagedError(f"{plan}: events are gone that were there; its operator looks")
            for name in names[len(found) :]:
                event, before = _read(folder / name, len(found) + 1, before)
                found.append(event)
            self._known[plan] = (found, before)
            return list(found)

    def read(self, plan: str) -> tuple[Progress, int]:
        """Where it stands, and after how many events. Raises as `events`."""
        events = self.events(plan)
        return fold(events), len(events)

    def plan_of(self, plan: str) -> RestartPlan | None:
        """Its newest version, whatever else of it is damaged: for who aborts. None if no version can be read.

        Raises NoSuchPlanError.
        """
        folder = self._of(plan)
        if not folder.is_dir():
            raise NoSuchPlanError(f"there is no restart {plan}")
        found: RestartPlan | None = None
        for path in sorted(folder.glob("[0-9]*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, Error):
                event = decode(json.loads(path.read_bytes()))
                found = event.plan if isinstance(event, Made) else found
        return found

    def append(self, plan: str, event: Event, after: int) -> str:
        """Write one event, durably, if nobody has written one since. Returns the digest of its file, in hex.

        Raises OvertakenError, BookNotWrittenError, BadNameError.
        """
        folder = self._of(plan)
        disk = LinkingDisk()
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                disk.sync_directory(self._folder)
            before = hashlib.sha256((folder / f"{after:05d}.json").read_bytes()).hexdigest() if after else GENESIS
            data = json.dumps({"previous": before, **encode(event)}, indent=1, ensure_ascii=False).encode()
            placed = place(disk, folder / f"{after + 1:05d}.json", data, shown=False)
        except OSError as cause:
            raise BookNotWrittenError(f"{plan}: an event cannot be written ({cause.strerror})") from cause
        if not placed:
            raise OvertakenError(f"{plan} has a newer event; `restart status {plan}` shows it")
        return hashlib.sha256(data).hexdigest()

    def _of(self, plan: str) -> Path:
        if not _NAME.fullmatch(plan):
            raise BadNameError("the name of a plan is 1 to 64 letters, digits, dots, hyphens and underscores")
        return self._folder / plan


def _read(path: Path, number: int, before: str) -> tuple[Event, str]:
    """The event and the digest of its file. Raises BookDamagedError."""
    where = f"{path.parent.name}: {path.name}"
    try:
        data = path.read_bytes()
        table = json.loads(data)
        if path.name != f"{number:05d}.json" or table["previous"] != before:
            raise BookDamagedError(f"{where} does not follow the event before it")
        return decode(table), hashlib.sha256(data).hexdigest()
    except (OSError, ValueError, KeyError, TypeError, Error) as cause:
        raise BookDamagedError(f"{where} cannot be read ({type(cause).__name__})") from cause


_KINDS: Mapping[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Made, Approved, Offered, Signed, Entered, Changed),
        *(Aborted, Returned, Noted, Waived, Documented, Evidence),
    )
}


def encode(event: Event) -> dict[str, Any]:
    """As JSON, open for further keys."""
    table: dict[str, Any] = {"event": type(event).__name__.lower()}
    for one in fields(event):
        table[one.name] = _plain(getattr(event, one.name))
    match event:
        case Made():
            table["plan"] = json.loads(event.plan.encode())
        case Offered():
            table["commands"] = [SignedCommand(one, ()).encode() for one in event.commands]
        case Documented():
            table["document"] = event.document.encode()
        case Evidence():
            table["text"] = event.text._asdict()
        case Signed():
            table["signatures"] = {hash: one.value.hex() for hash, one in event.signatures.items()}
    return table


def decode(table: Mapping[str, Any]) -> Event:
    """The event again. Raises KeyError, TypeError, ValueError, Error."""
    kind = _KINDS[table["event"]]
    values = {one.name: table[one.name] for one in fields(kind)}
    for name in ("at", "until"):
        if values.get(name):
            values[name] = parse_time(values[name])
    if "role" in values:
        values["role"] = Role(values["role"])
    if "signature" in values:
        values["signature"] = bytes.fromhex(values["signature"])
    if kind is Made:
        values["plan"] = plan_from(values["plan"])
    elif kind is Offered:
        values["commands"] = tuple(signed_from(one).command for one in values["commands"])
    elif kind is Signed:
        who, role = values["by"], values["role"]
        values["signatures"] = {
            hash: Signature(who, role, bytes.fromhex(value)) for hash, value in values["signatures"].items()
        }
    elif kind is Entered:
        values["epochs"], values["gates"] = tuple(values["epochs"]), tuple(values["gates"])
    elif kind is Documented:
        values["document"] = signed_document_from(values["document"])
    elif kind is Waived:
        values["waiver_of"] = GateKind(values["waiver_of"])
    elif kind is Evidence:
        values["kind"], values["result"] = GateKind(values["kind"]), Result(values["result"])
        text = values["text"]  # of older homes: in English only
        values["text"] = as_it_is(text) if isinstance(text, str) else Said(**text)
    event: Event = kind(**values)
    return event


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, bytes):
        return value.hex()
    return list(value) if isinstance(value, tuple) else value
