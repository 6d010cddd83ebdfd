"""The log of the next year: cosigned without a change of configuration, if this year's log has announced it (§ 17).

What is trusted is no word of the operator but the log that this witness has cosigned itself: the checkpoint of the
announcement must carry our own cosignature, and satisfy the insurer's policy where it has one. So two witnesses that
are shown two successors have cosigned two histories, which is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from schleuse.config import BadConfigError
from schleuse.errors import RefusedError
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.note import LogKey, VerifierKey
from schleuse.journal.policy import Policy, parse_policy
from schleuse.journal.proof_file import ProofFile
from schleuse.journal.successor import announced_key
from schleuse.witness.alarm import Alarm, Finding, OnAlarm
from schleuse.witness.config import FOLLOWED, LogSection, MonitorSection
from schleuse.witness.remote import NotThereError, RemoteLog
from schleuse.witness.service import Witness

_HEAD = "# Logs that followed others; kept by the witness. For a log that is in witness.toml too, that file counts.\n"


class NotYetOursError(RefusedError):
    """The announcement stands under a checkpoint that this witness has not cosigned; wait until it has."""

    code = "witness.not-yet-ours"


class CannotFollowError(RefusedError):
    """The address of the next log cannot be told from that of this one; the insurer adds its section by hand."""

    code = "witness.cannot-follow"


class Follower:
    """Looks after one log. home: folder of the witness. trusted: origin -> keys, as the witness has them now."""

    def __init__(
        self,
        home: Path,
        section: LogSection,
        log: RemoteLog,
        witness: Witness,
        trusted: Mapping[str, Sequence[LogKey]],
        on_alarm: OnAlarm,
    ) -> None:
        self._home = home
        self._section = section
        self._log = log
        self._witness = witness
        self._trusted = trusted
        self._on_alarm = on_alarm
        self._told = False

    def look(self) -> str | None:
        """Take the successor over, if it is announced and not known yet, and return its origin.

        A key that differs from the trusted one changes nothing, and is an alarm once.
        Raises what `proven_successor` and `take_over` do, and RemoteError.
        """
        try:
            proof, entry = self._log.successor()
        except NotThereError:
            return None
        key = proven_successor(self._section, self._witness, proof, entry)
        known = self._trusted.get(key.name)
        if known is None:
            take_over(self._home, self._section, key)
            return key.name
        if not self._told and not _is_among(key, known):
            self._told = True
            text = f"{self._section.origin} announces {key.vkey}, and another key is trusted for that log"
            self._on_alarm(Alarm(Finding.OTHER_SUCCESSOR, self._section.origin, text))
        return None


def proven_successor(section: LogSection, witness: Witness, proof: ProofFile, entry: bytes) -> VerifierKey:
    """The key of the log that follows this one.

    Raises NotYetOursError, MalformedError, NoteRefusedError, NotProvenError, BadConfigError.
    """
    key = announced_key(proof, entry, section.log_keys)
    if not witness.is_ours(proof.note):
        raise NotYetOursError(f"{section.origin} announces {key.name} under a checkpoint that is not cosigned here yet")
    if section.monitor is not None:
        _policy(section.monitor).judge(proof.note)
    return key


def take_over(home: Path, section: LogSection, key: VerifierKey) -> None:
    """Write the section of the next log, which cosigns and watches it as this one is cosigned and watched.

    A policy that the insurer has put there before stays. Raises CannotFollowError, BadConfigError, OSError.
    """
    url = _url(section, key)
    monitor = None if section.monitor is None else _monitor(section.monitor, section.origin, key)
    file = home / FOLLOWED
    text = file.read_text(encoding="utf-8") if file.exists() else _HEAD
    if json.dumps(key.vkey, ensure_ascii=False) in text:
        return
    if section.monitor is not None and monitor is not None and not monitor.policy.exists():
        replace(OsDisk(), monitor.policy, _policy_text(_read(section.monitor.policy), key, url).encode())
    # Last: what the section names is there.
    replace(OsDisk(), file, (text + _section_text(section, key, url, monitor)).encode())


def _is_among(key: VerifierKey, keys: Collection[LogKey]) -> bool:
    return any(one.key == key for one in keys)


def _url(section: LogSection, key: VerifierKey) -> str | None:
    """A log is served below its origin (§ 5), so that only the year at the end differs."""
    if section.url is None:
        return None
    rest, _, year = section.url.rstrip("/").rpartition("/")
    if year != _year(section.origin):
        raise CannotFollowError(f"the url of {section.origin} does not end in its year; add {key.vkey} by hand")
    return f"{rest}/{_year(key.name)}"


def _monitor(monitor: MonitorSection, origin: str, key: VerifierKey) -> MonitorSection:
    policy, database = (_of_year(path, origin, key.name) for path in (monitor.policy, monitor.database))
    return monitor.model_copy(update={"policy": policy, "database": database})


def _of_year(path: Path, before: str, after: str) -> Path:
    """`policy-2026` or `policy` -> `policy-2027`."""
    old, new = _year(before), _year(after)
    stem = path.stem.replace(old, new) if old in path.stem else f"{path.stem}-{new}"
    return path.with_name(stem + path.suffix)


def _policy_text(before: str, key: VerifierKey, url: str | None) -> str:
    """The same witnesses and quorum, another log."""
    rules = [line for line in before.splitlines() if line.split()[:1] != ["log"]]
    return "\n".join([" ".join(filter(None, ("log", key.vkey, url))), *rules, ""])


def _section_text(section: LogSection, key: VerifierKey, url: str | None, monitor: MonitorSection | None) -> str:
    fields: dict[str, object] = {"keys": [key.vkey], "url": url, "pull_seconds": section.pull_seconds}
    lines = ["", "[[logs]]", *_lines({**fields, "follow": section.follow})]
    if monitor is not None:
        lines += ["", "[logs.monitor]", *_lines({name: getattr(monitor, name) for name in type(monitor).model_fields})]
    return "\n".join([*lines, ""])


def _lines(fields: Mapping[str, object]) -> list[str]:
    """As TOML, in which strings, numbers, lists of them, true and false are written as in JSON."""
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in shown.items() if value is not None]


def _policy(monitor: MonitorSection) -> Policy:
    return parse_policy(_read(monitor.policy).encode())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise BadConfigError([f"{path}: cannot be read ({type(cause).__name__})"]) from cause


def _year(origin: str) -> str:
    return origin.rpartition("/")[2]
