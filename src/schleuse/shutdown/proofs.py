"""Where closure proofs are kept: files that can be read while everything else is away (SW-07).

    <home>/switch/proofs/0000000012/0001-4711.json     all that the first attempt to prove epoch 12 saw

An attempt looks at what is not proven yet and records what changed, so the latest proof of each check counts.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from schleuse.errors import UnavailableError
from schleuse.journal.disk import OsDisk, replace
from schleuse.shutdown.closure import ClosureProof, Method, Need, Verdict, What, verdict_of
from schleuse.switch.documents import parse_time, time_text


class ProofNotKeptError(UnavailableError):
    """The proof was made and could not be written; its operator looks at the disk, and it is made again."""

    code = "shutdown.proof-not-kept"


@dataclass(frozen=True, slots=True)
class Claim:
    """How it stands with the proof of one closed atom. age: since the command was accepted, None if unknown."""

    need: Need
    verdict: Verdict
    proven_at: datetime | None
    age: timedelta | None

    @property
    def text(self) -> str:
        """As it is shown: a scope without proof is never shown as off (SW-17)."""
        if self.verdict is Verdict.PROVEN:
            return "proven"
        return f"commanded, not proven ({self.verdict})"


def proofs(folder: Path, epoch: int) -> list[ClosureProof]:
    """All proofs of this epoch, oldest first. folder: `<home>/switch/proofs`. A file that is damaged is left out."""
    return list(_proofs(folder / f"{epoch:010d}"))


def keep(folder: Path, epoch: int, made: Sequence[ClosureProof]) -> Path:
    """Write an attempt, durably. Raises ProofNotKeptError."""
    place = folder / f"{epoch:010d}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        # With the process id: control and a command may prove at the same moment.
        path = place / f"{_next_number(place):04d}-{os.getpid()}.json"
        replace(OsDisk(), path, json.dumps([_table(one) for one in made], indent=1).encode())
    except OSError as cause:
        raise ProofNotKeptError(f"a proof of epoch {epoch} cannot be written ({cause.strerror})") from cause
    return path


def _next_number(place: Path) -> int:
    return max((int(one.stem.partition("-")[0]) for one in place.glob("[0-9]*.json")), default=0) + 1


def claims(folder: Path, needed: Iterable[Need], now: datetime) -> list[Claim]:
    """How it stands with each need: what `switch show` says and the metrics count."""
    read: dict[int, Mapping[str, list[ClosureProof]]] = {}
    found: list[Claim] = []
    for need in needed:
        if need.epoch not in read:
            read[need.epoch] = _by_scope(proofs(folder, need.epoch))
        mine = read[need.epoch].get(need.text, [])
        verdict = verdict_of(need, mine)
        proven = max((one.finished_at for one in mine), default=None) if verdict is Verdict.PROVEN else None
        found.append(Claim(need, verdict, proven, now - need.since if need.since else None))
    return found


def _by_scope(made: Iterable[ClosureProof]) -> Mapping[str, list[ClosureProof]]:
    found: defaultdict[str, list[ClosureProof]] = defaultdict(list)
    for one in made:
        found[one.scope].append(one)
    return found


def unproven(folder: Path, needed: Iterable[Need], now: datetime) -> list[Claim]:
    """Those that are commanded and not proven."""
    return [one for one in claims(folder, needed, now) if one.verdict is not Verdict.PROVEN]


def last_proven(folder: Path, texts: Iterable[str]) -> dict[str, datetime | None]:
    """When each was last proven closed by all checks of one epoch, None if never; for the age of drills (SW-15).

    texts: `Need.text`. Reads from the newest epoch on, and no further than needed.
    """
    found: dict[str, datetime | None] = dict.fromkeys(texts)
    missing = set(found)
    for path in sorted(folder.glob("[0-9]*"), reverse=True):
        if not missing:
            break
        for text, made in _by_scope(_proofs(path)).items():
            latest = {one.what: one for one in made}
            if text in missing and all(one.verdict is Verdict.PROVEN for one in latest.values()):
                found[text] = max(one.finished_at for one in latest.values())
        missing = {text for text in missing if found[text] is None}
    return found


def _proofs(folder: Path) -> Iterator[ClosureProof]:
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            yield from [_proof(one) for one in json.loads(path.read_bytes())]
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _table(proof: ClosureProof) -> dict[str, Any]:
    return {name: time_text(value) if isinstance(value, datetime) else value for name, value in asdict(proof).items()}


def _proof(table: Mapping[str, Any]) -> ClosureProof:
    times = {name: parse_time(table[name]) for name in ("started_at", "finished_at")}
    words = {"what": What(table["what"]), "method": Method(table["method"]), "verdict": Verdict(table["verdict"])}
    return ClosureProof(**{**table, **times, **words})
