"""The file of a witness: its keys, its memory, the logs that it cosigns and watches.

Read whole, all mistakes at once, like `schleuse.config`, whose words it uses; but nothing else of a platform's
configuration is in it, because it is an insurer's. Beside it the witness itself keeps a second file of the logs that
followed those of the first one (`follow`); what stands in both is as the insurer's own file says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from schleuse.config import TLS, BadConfigError, File, Listen
from schleuse.errors import MalformedError
from schleuse.journal.note import LogKey, check_name, parse_vkey

FILE_NAME = "witness.toml"
FOLLOWED = "followed.toml"


def _name(value: str) -> str:
    try:
        return check_name(value)
    except MalformedError as cause:
        raise ValueError(str(cause)) from cause


def _log_vkey(value: str) -> str:
    try:
        LogKey(parse_vkey(value))
    except MalformedError as cause:
        raise ValueError(str(cause)) from cause
    return value


def _url(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError("expected https://… or http://…")
    return value


Url = Annotated[str, AfterValidator(_url)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MonitorSection(_Section):
    """What the insurer checks in its own log beyond cosigning (journal.md § 16)."""

    policy: File
    every_seconds: float = Field(60, gt=0)
    database: File = Field(Path("monitor.sqlite"), validate_default=True)
    canaries: File | None = None  # pseudonyms of persons who do not exist, 32 hex digits a line
    subjects_per_hour: int | None = Field(None, gt=0)
    denials_in_series: int = Field(20, gt=1)
    reread_bundles: int = Field(16, ge=0)  # of 256 entries, that were read before, with each look; all in turn


class LogSection(_Section):
    """One log. keys: vkeys with the log's origin as name; several while it changes its key."""

    keys: tuple[Annotated[str, AfterValidator(_log_vkey)], ...] = Field(min_length=1)
    url: Url | None = None  # where it is read; needed for pull mode and for the monitor
    pull_seconds: float | None = Field(None, gt=0)
    follow: bool = True  # also cosign the next year's log, once this one has announced its key; needs url
    monitor: MonitorSection | None = None

    @property
    def log_keys(self) -> tuple[LogKey, ...]:
        """The keys whose signature counts."""
        return tuple(LogKey(parse_vkey(key)) for key in self.keys)

    @property
    def origin(self) -> str:
        """The log's name; all keys have it."""
        return self.log_keys[0].key.name


class WitnessConfig(_Section):
    """The whole file. Relative paths are already made absolute."""

    home: Path
    file: Path
    name: Annotated[str, AfterValidator(_name)]
    key: File = Field(Path("witness.key"), validate_default=True)
    post_quantum_key: File | None = None
    database: File = Field(Path("witness.sqlite"), validate_default=True)
    listen: Listen | None = None
    metrics: Listen | None = None  # /metrics, /healthz and /readyz; on this machine only
    tls: TLS | None = None
    ca: File | None = None
    logs: tuple[LogSection, ...] = Field(min_length=1)

    @property
    def trusted(self) -> dict[str, tuple[LogKey, ...]]:
        """Origin -> keys."""
        return {log.origin: log.log_keys for log in self.logs}


def read_witness_config(path: Path) -> WitnessConfig:
    """Read the file, or the `witness.toml` of a folder. Raises BadConfigError with all mistakes."""
    file = path / FILE_NAME if path.is_dir() else path
    table, home = _table(file), file.parent.resolve()
    if (home / FOLLOWED).exists():
        table = _joined(table, _table(home / FOLLOWED))
    try:
        values = {**table, "home": home, "file": file.resolve()}
        config = WitnessConfig.model_validate(values, context={"home": home})
    except ValidationError as cause:
        raise BadConfigError([_sentence(file, error) for error in cause.errors()]) from cause
    if mistakes := [f"{file.name}: {mistake}" for mistake in _inconsistencies(config)]:
        raise BadConfigError(mistakes)
    return config


def read_canaries(path: Path) -> frozenset[bytes]:
    """Subject pseudonyms, 32 hex digits a line. Raises BadConfigError; no line is quoted: they are secret."""
    try:
        lines = path.read_text(encoding="ascii").split()
        canaries = frozenset(bytes.fromhex(line) for line in lines)
    except (OSError, ValueError) as cause:
        raise BadConfigError([f"{path}: the canaries cannot be read ({type(cause).__name__})"]) from cause
    if any(len(canary) != 16 for canary in canaries):
        raise BadConfigError([f"{path}: each canary is a line of 32 hex digits"])
    return canaries


def _table(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        raise BadConfigError([f"{file}: cannot be read ({cause.strerror})"]) from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise BadConfigError([f"{file}: is not TOML: {cause}"]) from cause


def _joined(table: dict[str, Any], followed: dict[str, Any]) -> dict[str, Any]:
    """With the logs of the second file that the first one does not name."""
    own = table.get("logs")
    if not isinstance(own, list):
        return table  # a mistake that is told when it is validated
    named = set(map(_origin_in, own))
    return {**table, "logs": [*own, *(log for log in followed.get("logs", []) if _origin_in(log) not in named)]}


def _origin_in(section: Any) -> str | None:
    match section:
        case {"keys": [str(vkey), *_]}:
            return vkey.partition("+")[0]
    return None


def _inconsistencies(config: WitnessConfig) -> Iterator[str]:
    origins = [log.origin for log in config.logs]
    for origin in sorted({origin for origin in origins if origins.count(origin) > 1}):
        yield f"logs: {origin} is listed more than once"
    databases = [log.monitor.database for log in config.logs if log.monitor] + [config.database]
    if len(set(databases)) < len(databases):
        yield "logs: two monitors, or a monitor and the witness, have the same database"
    for log in config.logs:
        if any(key.key.name != log.origin for key in log.log_keys):
            yield f"logs: the keys of {log.origin} have different names"
        if log.url is None and (log.pull_seconds is not None or log.monitor is not None):
            yield f"logs: {log.origin} needs a url to be pulled or monitored"
        if log.pull_seconds is None and config.listen is None:
            yield f"logs: {log.origin} is cosigned by nobody: set pull_seconds here, or listen"


def _sentence(file: Path, error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "file"
    reason = {"extra_forbidden": "is not a key that this version knows", "missing": "is missing"}.get(
        error["type"], error["msg"].removeprefix("Value error, ")
    )
    return f"{file.name}: {where}: {reason}"
