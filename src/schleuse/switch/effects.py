"""What a worker did when it saw an epoch: SwitchEffect of incident.md § 5.3, one small file each.

    <home>/switch/effects/0000000012/eau-worker-0.json

Files, because they are read while the roles, the databases or the control plane are away; the journal gets the same
by the role's trail. `schleuse switch show` and the closure proof read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from schleuse.journal.disk import OsDisk, replace
from schleuse.switch.documents import parse_time, time_text


@dataclass(frozen=True, slots=True)
class SwitchEffect:
    """worker: role and number, such as "eau-worker-0". seen_at: when its own copy had the epoch.

    quiet_at: when nothing of the closed scopes ran any more; None while something does. last_effect_at: of the scopes,
    None if there was none since the start. inflight: units that ran when the epoch was seen; of these finished, cut,
    and uncertain, which are listed by id (SW-10). safe: why the worker keeps to the safe state, or "".
    """

    worker: str
    epoch: int
    seen_at: datetime
    quiet_at: datetime | None = None
    last_effect_at: datetime | None = None
    inflight: int = 0
    finished: int = 0
    cut: int = 0
    uncertain: tuple[str, ...] = ()
    safe: str = ""


class EffectBook:
    """The folder `<home>/switch/effects`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, effect: SwitchEffect) -> None:
        """Replace what this worker had written of this epoch. Raises OSError."""
        folder = self._folder / f"{effect.epoch:010d}"
        folder.mkdir(parents=True, exist_ok=True)
        table = {name: _plain(value) for name, value in asdict(effect).items()}
        replace(OsDisk(), folder / f"{effect.worker}.json", json.dumps(table, indent=1).encode())

    def read(self, epoch: int) -> list[SwitchEffect]:
        """Of all workers that have seen this epoch; a file that cannot be read is left out."""
        return list(self._effects(self._folder / f"{epoch:010d}"))

    def _effects(self, folder: Path) -> Iterator[SwitchEffect]:
        for path in sorted(folder.glob("*.json")):
            try:
                yield _effect(json.loads(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError):
                continue


def _plain(value: Any) -> Any:
    return time_text(value) if isinstance(value, datetime) else value


def _effect(table: dict[str, Any]) -> SwitchEffect:
    times = {name: table[name] and parse_time(table[name]) for name in ("seen_at", "quiet_at", "last_effect_at")}
    return SwitchEffect(**{**table, **times, "uncertain": tuple(table["uncertain"])})
