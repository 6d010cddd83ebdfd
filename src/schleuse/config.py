"""The configuration of this machine: one file, read whole at start, all mistakes reported at once.

An unknown key is a mistake, a new key has a default so that yesterday's file still works, and a secret is the
path of a file. Paths in the file are relative to the folder that the file is in (the *home*).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from schleuse.environment import Environment
from schleuse.errors import MalformedError
from schleuse.identifiers import IK, BadIKError

FILE_NAME = "schleuse.toml"
#: The file as roles read it at their last start.
LAST = Path("switch") / "last-config.toml"


class BadConfigError(MalformedError):
    """`mistakes` has one line each, all of the file."""

    code = "config.bad"

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def _ik(value: str) -> str:
    try:
        IK(value)
    except BadIKError as cause:
        raise ValueError(str(cause)) from cause
    return value


def _under_home(value: Path, info: ValidationInfo) -> Path:
    home: Path | None = (info.context or {}).get("home")
    return home / Path(os.path.expandvars(value)).expanduser() if home else value


def _host_name(value: str) -> str:
    if len(value) > 253 or not _HOST_NAME.fullmatch(value):  # it stands in greetings, Received fields and Message-IDs
        raise ValueError("expected a host name of ASCII letters, digits, hyphens and dots")
    return value


def _host_and_port(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ValueError("expected HOST:PORT")
    return value


_HOST_NAME = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*", re.ASCII)

#: Values of `switch.documents.Role`; a test compares them.
OperatorRole = Literal[
    "analyst",
    "lead",
    "switch_officer",
    "releaser",
    "forensic_lead",
    "custodian",
    "security_officer",
    "data_protection_officer",
    "notification_officer",
    "communication_lead",
    "tenant_delegate",
    "service_owner",
    "auditor",
    "break_glass",
    "automat",
]

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
    smtp_relay_client_ca: File | None = None  # such hosts must show a certificate of this CA (kim.md § 11)
    pop3_tls: Listen = "127.0.0.1:8995"
    tls: TLS
    database: str | None = None
    spool: File = Field(Path("spool"), validate_default=True)
    directory: File = Field(Path("directory.json"), validate_default=True)
    receipts: Listen = "127.0.0.1:8444"  # HTTPS: signed hold receipts (incident.md § 6.4)
    receipt_mails: bool = False  # an informational KIM mail for each held mail as well, where it is agreed (HD-30)
    receipt_label: str = "Eingangsbestaetigung;Schleuse;V1.0"  # X-KIM-Dienstkennung of such mails
    contact: str = ""  # how senders reach people by another channel (CM-10)
    retention_days: int = Field(90, ge=10, le=365)  # of finished mail; kim.md § 17
    max_mail_octets: int = Field(35_882_577, ge=1_000_000)  # kim.md § 17
    max_connections: int = Field(1000, gt=0)
    max_connections_per_peer: int = Field(200, gt=0)
    min_free_octets: int | None = Field(None, ge=0)  # of the spool's disk; None: 5 %, at most 4 GiB (HD-28)
    metrics: Listen = "127.0.0.1:9101"
    routes: tuple[Route, ...] = ()


class EauSection(_Section):
    """The role that opens, checks and files eAU."""

    workers: int = Field(3, gt=0, le=64)
    batch: int = Field(128, gt=0, le=1024)
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


class JournalSection(_Section):
    """The only writer of the access journals (journal.md)."""

    http: Listen = "127.0.0.1:9480"
    metrics: Listen = "127.0.0.1:9103"
    writers: tuple[str, ...] = ()  # names of the users whose processes may append; none: our own
    vaults: tuple[str, ...] = ()  # of the vault, the only one that gets key shares; none: our own
    publish_seconds: float = Field(1.0, gt=0, le=60)
    shares_per_hour: int = Field(2_000_000, gt=0)  # of each insurer (journal.md § 14.4)
    spare_segments: int = Field(4, gt=2, le=64)  # of 64 MiB; below 3 is an alarm (journal.md § 12.3)
    retention_years: int = Field(3, ge=3, le=30)  # § 309 SGB V; journal.md § 17


class HSM(_Section):
    """A PKCS#11 token that holds the key encryption key (extra `hsm`). key: its label."""

    module: File
    token: str
    pin_file: File
    key: str = "schleuse-kek"


class Budget(_Section):
    """How much may be opened in an hour (journal.md § 14.4). role: who asks: "eau" or "insurer"; ik: None for all."""

    role: Literal["eau", "insurer"]
    ik: IKText | None = None
    releases_per_hour: int = Field(gt=0)
    subjects_per_hour: int = Field(gt=0)


class VaultClient(_Section):
    """A user of this machine whose processes may use the vault in a role."""

    user: str
    role: Literal["eau"]


class VaultSection(_Section):
    """The only holder of keys.

    unlock_file: 32 random octets, or of any length with unlock = "passphrase"; $CREDENTIALS_DIRECTORY and other
    variables are put in. erase_key_files: the insurers' key files are erased once the vault has taken them over.
    accept_older_store: LOG@SIZE, as the error vault.older-store says it: keys that this log names from there on and
    that an older copy of the database lacks are given up. It holds for this one copy only.
    """

    database: str | None = None
    folder: File = Field(Path("vault"), validate_default=True)
    accept_older_store: tuple[str, ...] = ()
    unlock: Literal["key", "passphrase"] = "key"
    unlock_file: File = Field(Path("vault/unlock.key"), validate_default=True)
    hsm: HSM | None = None
    clients: tuple[VaultClient, ...] = ()  # none: our own user, as "eau"
    metrics: Listen = "127.0.0.1:9104"
    erase_key_files: bool = False
    budgets: tuple[Budget, ...] = ()
    releases_per_hour: int = Field(2_000_000, gt=0)  # of the whole platform


class Operator(_Section):
    """A credential of a person who may give orders (incident.md § 10). public_key: Ed25519, PEM.

    person: whose it is, if not only this one: two credentials of one person are one person (RO-01).
    disabled_at: it orders nothing from then on, and what it ordered before stays in force; never take it out instead.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    public_key: File
    person: str | None = None
    roles: tuple[OperatorRole, ...] = ()  # none: may not switch anything
    disabled_at: AwareDatetime | None = None


#: Times of the day in UTC; over midnight when the second is before the first.
Window = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$")]


#: With its arguments.
Program = Annotated[tuple[str, ...], Field(min_length=1)]


class External(_Section):
    """A system that is not ours and is switched with its scope (SW-08): commands without a shell, or HTTP hooks.

    scope: SERVICE/TENANT/DIRECTION/PATH. stop, start, probe: a program with its arguments, or the URL of a hook that
    gets a POST. probe: exit code 0 or status 2xx means that it runs, 1 or 503 that it is stopped, all else that
    nobody knows; before a closing it has a second. drill_window: when it may be stopped in a drill, UTC; without, in
    control.drill_window.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    scope: str
    stop: Program | str
    start: Program | str
    probe: Program | str
    timeout_seconds: float = Field(10.0, gt=0, le=300)
    drill_window: Window | None = None


#: Values of `shutdown.informing.What`; a test compares them.
EventKind = Literal[
    "closed", "not_proven", "opened", "emergency_opened", "drill_failed", "restart_aborted", "news_overdue"
]
#: A post goes out with TLS only.
Hook = Annotated[str, Field(pattern=r"^https://[^\s/@]+(/\S*)?$")]


class Receiver(_Section):
    """Who is informed of what happens to the switch (incident.md § 10, RS-14).

    send_to: a program with its arguments that gets the event on its standard input, or the https URL of a hook that
    gets it as a signed post. events: which ones; none named: all. ca: of the hook's certificate; without, those of this
    machine.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    send_to: Program | Hook
    events: tuple[EventKind, ...] = ()
    ca: File | None = None
    timeout_seconds: float = Field(10.0, gt=0, le=60)


class ControlSection(_Section):
    """The role that carries orders out and proves them: closures, drills, the way back (incident.md § 5, § 9)."""

    metrics: Listen = "127.0.0.1:9105"
    automat_key: File = Field(Path("operators/automat.key"), validate_default=True)  # signs closings by rule (EW-06)
    policies: File = Field(Path("switch/policies"), validate_default=True)  # signed "if X then close Y"
    probe_account: str | None = None  # a practice's mailbox that probes of closures send from
    probe_password_file: File | None = None
    unit_budget_seconds: float = Field(10.0, gt=0, le=25)  # running work is cut after this (SW-10)
    drill_days: int = Field(31, gt=0, le=366)  # a scope that was not switched for so long is an alarm (SW-15)
    drill_window: Window = "02:00-04:00"
    backlog_permille: int = Field(300, gt=0, lt=1000)  # share of the backlog in the capacity (HD-43)
    news_minutes: int = Field(240, gt=0, le=10_080)  # while something is closed there is news so often (CM-03)
    external: tuple[External, ...] = ()
    inform: tuple[Receiver, ...] = ()


class FeedClient(_Section):
    """A system of an insurer that may read the insurer's feed. public_key: Ed25519 in PEM, of its tokens."""

    name: str
    public_key: File


class Insurer(_Section):
    """One Krankenkasse.

    encryption: certificate and key files of C.HCI.ENC, newest first. The vault takes the keys over at its start;
    after that their files may be gone.
    """

    ik: IKText
    name: str
    address: str
    encryption: tuple[tuple[File, File], ...]
    signature: tuple[File, File]
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
    hostname: Annotated[str, AfterValidator(_host_name)]
    product: str = "Schleuse;0.1.0"
    kim: KimSection
    eau: EauSection
    journal: JournalSection = Field(default_factory=dict, validate_default=True)
    vault: VaultSection = Field(default_factory=dict, validate_default=True)
    control: ControlSection = Field(default_factory=dict, validate_default=True)
    operators: tuple[Operator, ...] = ()
    witnesses: tuple[File, ...] = ()  # folders of witnesses that `schleuse up` runs as well, such as a demo's
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

    @property
    def vault_database(self) -> str:
        """URL of the vault's store."""
        return self.vault.database or _embedded(self.home / "vault.sqlite")

    @property
    def switch_folder(self) -> Path:
        """Log, copies and effects of the switch; see `schleuse.switch`."""
        return self.home / "switch"

    @property
    def retention_frozen(self) -> Path:
        """While this file is there nothing is deleted (SW-12); the control role makes it, and ends only its own."""
        return self.home / "run" / "retention.frozen"

    @property
    def journal_socket(self) -> Path:
        """Where roles append to the journal."""
        return self.home / "run" / "journal.sock"

    @property
    def vault_socket(self) -> Path:
        """Where roles ask the vault."""
        return self.home / "run" / "vault.sock"


def _embedded(path: Path) -> str:
    from schleuse.database import sqlite_url  # brings all of SQLAlchemy, which most commands never need

    return sqlite_url(path)


def _inconsistencies(table: Mapping[str, Any]) -> Iterator[str]:
    """What contradicts itself in a file. Works on the raw table, because a mistake elsewhere must not hide these."""
    production = table.get("environment") == Environment.PRODUCTION.value
    environment = Environment.PRODUCTION if production else Environment.TEST
    accounts = [
        (_text(account, "address").lower(), _text(account, "owner")) for account in _tables(table.get("accounts"))
    ]
    insurers = [(_text(insurer, "ik"), _text(insurer, "address").lower()) for insurer in _tables(table.get("insurers"))]
    for address in _repeated(address for address, _ in accounts):
        yield f"accounts: {address} is listed more than once"
    for ik in _repeated(ik for ik, _ in insurers):
        yield f"insurers: {ik} is listed more than once"
    for address, _ in accounts:
        if address and not address.endswith(environment.suffix):
            yield (f"accounts: {address} does not end with {environment.suffix} of the environment {environment.value}")
    for ik, address in insurers:
        if [owner for one, owner in accounts if one == address] != [f"insurer:{ik}"]:
            yield f"insurers: {ik} needs an account for its address with owner insurer:{ik}"
    for address, owner in accounts:
        if owner.startswith("insurer:") and owner.partition(":")[2] not in {ik for ik, _ in insurers}:
            yield f"accounts: {address} belongs to {owner}, which is no insurer of this file"
    for one in _tables(table.get("insurers")):
        for name in _repeated(_text(client, "name") for client in _tables(one.get("feed_clients"))):
            yield f"insurers: {_text(one, 'ik')} has two feed clients of the name {name}"
    for name in _repeated(_text(operator, "name") for operator in _tables(table.get("operators"))):
        yield f"operators: {name} is listed more than once"
    control = table.get("control")
    for key in ("external", "inform"):
        named = _tables(control.get(key)) if isinstance(control, dict) else []
        for name in _repeated(_text(one, "name") for one in named):
            yield f"control.{key}: {name} is listed more than once"
    for listen in _repeated(_listens(table)):
        yield f"{listen} is listened on more than once"
    if _is_open_relay(table.get("kim")):
        yield "kim.smtp_relay: beyond this machine it needs smtp_relay_client_ca, or anybody brings mail (kim.md § 11)"


def _is_open_relay(kim: object) -> bool:
    """Whether hosts of other machines could bring mail without showing who they are."""
    relay = _text(kim, "smtp_relay") if isinstance(kim, dict) else ""
    if not relay or (isinstance(kim, dict) and kim.get("smtp_relay_client_ca")):
        return False
    host = relay.rpartition(":")[0].strip("[]")
    return host != "localhost" and not host.startswith("127.") and host != "::1"


def _listens(table: Mapping[str, Any]) -> Iterator[str]:
    """Where the roles of this file listen, defaults included; port 0 is any free one."""
    sections = (
        ("kim", KimSection),
        ("eau", EauSection),
        ("journal", JournalSection),
        ("vault", VaultSection),
        ("control", ControlSection),
    )
    for name, section in sections:
        given = table.get(name)
        given = given if isinstance(given, dict) else {}
        for key in _LISTENS[name]:
            value = given.get(key, section.model_fields[key].default)
            if isinstance(value, str) and not value.endswith(":0"):
                yield value


_LISTENS = {
    "kim": ("smtp_tls", "smtp_starttls", "smtp_relay", "pop3_tls", "metrics", "receipts"),
    "eau": ("feed", "metrics"),
    "journal": ("http", "metrics"),
    "vault": ("metrics",),
    "control": ("metrics",),
}


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""


def _repeated(values: Iterable[str]) -> list[str]:
    return sorted(value for value, number in Counter(values).items() if number > 1 and value)


def default_home() -> Path:
    """$SCHLEUSE_HOME, else the XDG data folder of the user."""
    named = os.environ.get("SCHLEUSE_HOME")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "schleuse"


def read_config(path: Path) -> Config:
    """Read the file, or the `schleuse.toml` of a folder. Raises BadConfigError with all mistakes."""
    file = path / FILE_NAME if path.is_dir() else path
    return _read(file, file.parent.resolve())


def read_last_config(home: Path) -> Config:
    """What `keep_last_config` has kept of this home, for who closes. Raises BadConfigError."""
    return _read(home / LAST, home.resolve())


def keep_last_config(config: Config) -> None:
    """Keep the file for a closing on a day on which it cannot be read. Raises OSError; BadConfigError if it was changed
    meanwhile into something that cannot be read."""
    file, kept = config.home / FILE_NAME, config.home / LAST
    read_config(file)
    data = file.read_bytes()
    with suppress(OSError):
        if kept.read_bytes() == data:
            return
    draft = kept.with_name(f".{kept.name}.{os.getpid()}")  # roles start side by side
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft.write_bytes(data)
    draft.chmod(file.stat().st_mode & 0o777)  # whoever may read it may close
    draft.replace(kept)


def _read(file: Path, home: Path) -> Config:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        raise BadConfigError([f"{file}: cannot be read ({cause.strerror}); `schleuse init` writes one"]) from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise BadConfigError([f"{file}: is not TOML: {cause}"]) from cause
    contradictions = [f"{file.name}: {mistake}" for mistake in _inconsistencies(table)]
    try:
        config = Config.model_validate({**table, "home": home}, context={"home": home})
    except ValidationError as cause:
        raise BadConfigError([*(_sentence(file, error) for error in cause.errors()), *contradictions]) from cause
    if contradictions:
        raise BadConfigError(contradictions)
    return config


def missing_files(config: Config) -> list[str]:
    """Files that the configuration names and that are not there or cannot be read."""
    return [
        f"{name}: the file {path} is not there or cannot be read"
        for name, path in _paths(config, "")
        if name.rsplit(".", 1)[-1] not in _MADE_BY_ROLES
        and not _VAULTS_OWN.fullmatch(name)
        and not os.access(path, os.R_OK)
    ]


_MADE_BY_ROLES = {"home", "spool", "packages", "directory", "folder", "unlock_file", "policies", "automat_key"}
#: Private keys that the vault may have taken over already; whether it has, it says itself.
_VAULTS_OWN = re.compile(r"insurers\[\d+\]\.(?:encryption\[\d+\]|signature)\[1\]")


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
