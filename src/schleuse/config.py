"""The configuration of this machine: one file, read whole at start, all mistakes reported at once.

An unknown key is a mistake, a new key has a default so that yesterday's file still works, and a secret is the
path of a file. Paths in the file are relative to the folder that the file is in (the *home*).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from schleuse.errors import MalformedError
from schleuse.identifiers import IK, BadIKError

FILE_NAME = "schleuse.toml"


class BadConfigError(MalformedError):
    """`mistakes` has one line each, all of the file."""

    code = "config.bad"

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Environment(StrEnum):
    """Production (PU), or test (RU, TU) with a suffix and a prefix letter of its own (kim.md § 1, § 3)."""

    PRODUCTION = "production"
    TEST = "test"

    @property
    def suffix(self) -> str:
        """Domain suffix of every KIM address of this environment."""
        return ".kim.telematik" if self is Environment.PRODUCTION else ".kim.telematik-test"

    @property
    def prefix(self) -> str:
        """First letter of eAU file names: E productive, T test data (eau.md § 3)."""
        return "E" if self is Environment.PRODUCTION else "T"


def _ik(value: str) -> str:
    try:
        IK(value)
    except BadIKError as cause:
        raise ValueError(str(cause)) from cause
    return value


def _under_home(value: Path, info: ValidationInfo) -> Path:
    home: Path | None = (info.context or {}).get("home")
    return home / value.expanduser() if home else value


def _host_and_port(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ValueError("expected HOST:PORT")
    return value


IKText = Annotated[str, AfterValidator(_ik)]
File = Annotated[Path, AfterValidator(_under_home)]  # a file or folder under the home
Listen = Annotated[str, AfterValidator(_host_and_port)]


def host_and_port(listen: str) -> tuple[str, int]:
    """("127.0.0.1", 8465) for "127.0.0.1:8465"; brackets of an IPv6 address are taken off."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TLS(_Section):
    """A server certificate (PEM, with its chain) and its key."""

    certificate: File
    key: File


class Route(_Section):
    """Where mail for a domain goes; the domain "*" is the smarthost for all others."""

    domain: str = "*"
    host: str
    port: int = Field(465, gt=0, lt=65536)
    tls: Literal["implicit", "starttls", "none"] = "implicit"  # none: on this machine only
    ca: File | None = None
    client_certificate: File | None = None  # mutual TLS between Fachdienste (kim.md § 11)
    client_key: File | None = None
    connections: int = Field(4, gt=0, le=64)
    user: str | None = None
    password_file: File | None = None


class KimSection(_Section):
    """The mail role."""

    smtp_tls: Listen = "127.0.0.1:8465"
    smtp_starttls: Listen | None = "127.0.0.1:8587"
    smtp_relay: Listen | None = None  # for other providers' hosts, without login (Fachdienst to Fachdienst)
    pop3_tls: Listen = "127.0.0.1:8995"
    tls: TLS
    database: str | None = None
    spool: File = Field(Path("spool"), validate_default=True)
    directory: File = Field(Path("directory.json"), validate_default=True)
    max_mail_octets: int = Field(35_882_577, ge=1_000_000)  # kim.md § 17
    max_connections: int = Field(1000, gt=0)
    max_connections_per_peer: int = Field(200, gt=0)
    min_free_octets: int = Field(1_000_000_000, ge=0)
    metrics: Listen = "127.0.0.1:9101"
    routes: tuple[Route, ...] = ()


class EauSection(_Section):
    """The role that opens, checks and files eAU."""

    workers: int = Field(2, gt=0, le=64)
    batch: int = Field(64, gt=0, le=1024)
    database: str | None = None
    feed: Listen = "127.0.0.1:8443"
    feed_tls: TLS
    metrics: Listen = "127.0.0.1:9102"
    trust: tuple[File, ...]
    rules: Literal["own", "official"] = "own"
    packages: File = Field(Path("fhir"), validate_default=True)
    submit: Listen = "127.0.0.1:8465"
    submit_ca: File
    accept_if_payload_signature_valid: bool = False


class FeedClient(_Section):
    """A system of an insurer that may read the insurer's feed. token_hash_file: hex SHA-256 of its bearer token."""

    name: str
    token_hash_file: File


class Insurer(_Section):
    """One Krankenkasse. encryption: certificate and key files of C.HCI.ENC, newest first."""

    ik: IKText
    name: str
    address: str
    encryption: tuple[tuple[File, File], ...]
    signature: tuple[File, File]
    store_key: File
    password_file: File  # for submitting Fehlernachrichten to the kim role
    feed_clients: tuple[FeedClient, ...] = ()


class Account(_Section):
    """A mailbox. owner: `insurer:IK` or `practice:NAME`. password_hash_file: an argon2id hash."""

    address: str
    owner: Annotated[str, Field(pattern=r"^(insurer:[0-9]{9}|practice:[A-Za-z0-9_.-]{1,64})$")]
    password_hash_file: File


class Config(_Section):
    """The whole file. Relative paths are already made absolute."""

    home: Path
    environment: Environment
    hostname: str
    product: str = "Schleuse;0.1.0"
    kim: KimSection
    eau: EauSection
    insurers: tuple[Insurer, ...] = ()
    accounts: tuple[Account, ...] = ()

    @property
    def kim_database(self) -> str:
        """URL of the mail index, or of the mail store itself with PostgreSQL."""
        return self.kim.database or _embedded(self.home / "kim.sqlite")

    @property
    def eau_database(self) -> str:
        """URL of the eAU store."""
        return self.eau.database or _embedded(self.home / "eau.sqlite")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        mistakes = list(_inconsistencies(self))
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


def _embedded(path: Path) -> str:
    from schleuse.database import sqlite_url  # brings all of SQLAlchemy, which most commands never need

    return sqlite_url(path)


def _inconsistencies(config: Config) -> Iterator[str]:
    suffix = config.environment.suffix
    addresses = [account.address.lower() for account in config.accounts]
    for address in sorted({a for a in addresses if addresses.count(a) > 1}):
        yield f"accounts: {address} is listed more than once"
    for address in addresses:
        if not address.endswith(suffix):
            yield f"accounts: {address} does not end with {suffix} of the environment {config.environment.value}"
    iks = [insurer.ik for insurer in config.insurers]
    for ik in sorted({ik for ik in iks if iks.count(ik) > 1}):
        yield f"insurers: {ik} is listed more than once"
    for insurer in config.insurers:
        owners = [a.owner for a in config.accounts if a.address.lower() == insurer.address.lower()]
        if owners != [f"insurer:{insurer.ik}"]:
            yield f"insurers: {insurer.ik} needs an account for its address with owner insurer:{insurer.ik}"
    for account in config.accounts:
        kind, _, name = account.owner.partition(":")
        if kind == "insurer" and name not in iks:
            yield f"accounts: {account.address} belongs to {account.owner}, which is no insurer of this file"


def default_home() -> Path:
    """$SCHLEUSE_HOME, else the XDG data folder of the user."""
    named = os.environ.get("SCHLEUSE_HOME")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "schleuse"


def read_config(path: Path) -> Config:
    """Read the file, or the `schleuse.toml` of a folder. Raises BadConfigError with all mistakes."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        raise BadConfigError([f"{file}: cannot be read ({cause.strerror}); `schleuse init` writes one"]) from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise BadConfigError([f"{file}: is not TOML: {cause}"]) from cause
    home = file.parent.resolve()
    try:
        config = Config.model_validate({**table, "home": home}, context={"home": home})
    except ValidationError as cause:
        raise BadConfigError([_sentence(file, error) for error in cause.errors()]) from cause
    return config


def missing_files(config: Config) -> list[str]:
    """Files that the configuration names and that are not there or cannot be read."""
    return [
        f"{name}: the file {path} is not there or cannot be read"
        for name, path in _paths(config, "")
        if name.rsplit(".", 1)[-1] not in {"home", "spool", "packages", "directory"} and not os.access(path, os.R_OK)
    ]


def _paths(value: object, name: str) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        yield name, value
    elif isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield from _paths(getattr(value, key), f"{name}.{key}".lstrip("."))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _paths(item, f"{name}[{index}]")


def _sentence(file: Path, error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "file"
    reason = {"extra_forbidden": "is not a key that this version knows", "missing": "is missing"}.get(
        error["type"], error["msg"].removeprefix("Value error, ")
    )
    return f"{file.name}: {where}: {reason}"
