"""Is the switch of this home whole? What an operator checks before anything is believed or made anew (SW-02, SW-06)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from schleuse.config import Config
from schleuse.database import DatabaseMissingError, asking
from schleuse.errors import Error
from schleuse.processes.mandates import mandates_of
from schleuse.processes.operators import rights_of
from schleuse.processes.switching import switch_log
from schleuse.switch import fence
from schleuse.switch.copy import unproven
from schleuse.switch.copy_file import CopyDamagedError, read_copy
from schleuse.switch.log import Accepted


@dataclass(frozen=True, slots=True)
class Finding:
    """what: a word for machines. where: file or database. text: for people, with what to do.

    bad: it must be mended; else it is a remark.
    """

    what: str
    where: str
    text: str
    bad: bool = True


def heads(config: Config) -> Mapping[str, int | str]:
    """By role's database: the highest epoch that it has seen, or why nobody knows. A database that is not there yet
    has seen none."""
    urls = {"kim": config.kim_database, "eau": config.eau_database, "vault": config.vault_database}
    return {name: _head(url) for name, url in urls.items()}


def _head(url: str) -> int | str:
    try:
        with asking(url) as connection:
            return fence.head(connection) if sa.inspect(connection).has_table(fence.TABLE_NAME) else 0
    except DatabaseMissingError:
        return 0
    except Error as error:
        return f"cannot be read: {error}"


def findings(config: Config) -> Iterator[Finding]:
    """Everything that is not as it should be. Raises SwitchLogError when the log cannot be read at all."""
    rights = rights_of(config)
    log, mandates = switch_log(config, rights), mandates_of(config, rights)
    entries = log.read_all()
    for one in entries:
        yield from _of_entry(one)
        why = unproven(one, entries[: one.epoch - 1], mandates)
        if why:
            text = f"a rule has closed what nobody had agreed to; it stays in force: {why}"
            yield Finding("unproven-rule", f"epoch {one.epoch}", text)
    beyond = [epoch for epoch in log.inodes() if epoch > len(entries)]
    if beyond:
        text = f"epoch {len(entries) + 1} is missing, {min(beyond)} is there; a running role or the next order mends it"
        yield Finding("gap", "log", text)
    for draft in sorted(log.folder.glob(".*")):
        yield Finding("draft", draft.name, "a writer died here; the file may be removed", bad=False)
    for path in sorted((config.switch_folder / "copies").glob("*.json")):
        yield from _of_copy(path, entries)
    for name, head in heads(config).items():
        if isinstance(head, str):
            yield Finding("fence", name, f"its database {head}", bad=False)
        elif head > len(entries):
            yield Finding(
                "fence",
                name,
                f"its database has seen epoch {head}, the log ends at {len(entries)}: put the lost epochs back from a"
                f" copy or a backup; if there is none, order `switch hold all` until the log has passed {head},"
                " and let two persons open",
            )


def _of_entry(one: Accepted) -> Iterator[Finding]:
    if one.signed is None:
        yield Finding("unreadable", f"epoch {one.epoch}", f"{one.fault}; it holds everything until two persons open")
    elif one.fault:
        yield Finding("no-effect", f"epoch {one.epoch}", f"a command without effect: {one.fault}", bad=False)
    if one.remark:
        yield Finding("signer", f"epoch {one.epoch}", f"a closing that stays in force, though {one.remark}", bad=False)


def _of_copy(path: Path, entries: list[Accepted]) -> Iterator[Finding]:
    try:
        copied = read_copy(path)
    except (CopyDamagedError, FileNotFoundError) as error:
        yield Finding("copy", path.name, f"{error}; its role holds everything until two persons open")
        return
    ours = [one.digest for one in entries]
    theirs = [hashlib.sha256(raw).hexdigest() for raw in copied.raws]
    different = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False), 1) if a != b), None)
    if different is not None:
        text = f"epoch {different} of the log is not the one that this role has seen: one of them was rewritten"
        yield Finding("rewritten", path.name, text)
    elif len(theirs) > len(ours):
        yield Finding("cut", path.name, f"it has {len(theirs)} epochs, the log {len(ours)}; the next order mends it")
    elif len(theirs) < len(ours):
        yield Finding("behind", path.name, f"it ends at epoch {len(theirs)} of {len(ours)}", bad=False)
    if copied.safe is not None:
        text = f"this role kept to the safe state at epoch {copied.safe.epoch}: {copied.safe.why}"
        yield Finding("safe", path.name, text, bad=False)


def once_switched(config: Config) -> list[str]:
    """What tells that this home had a switch: then an empty log would open what is closed. Empty: it never had one."""
    found = [f"copies/{path.name}" for path in sorted((config.switch_folder / "copies").glob("*.json"))]
    if found:  # no database has to answer
        return found
    for name, head in heads(config).items():
        if head:
            found.append(f"the database of {name} ({head})")
    return [*found, "the log itself"] if switch_log(config).exists else found
