"""Making a home: configuration, keys, accounts and a directory, for `schleuse init` and `up --demo`.

Everything a home needs is a file under it (0600 where secret), so a home can be copied, inspected and thrown away.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from schleuse.config import FILE_NAME, JournalSection
from schleuse.environment import Environment
from schleuse.errors import ConflictError
from schleuse.identifiers import IK
from schleuse.kim.directory import INSURER_ENTRY_TYPE, Entry, write_directory
from schleuse.kim.pki import INSURER_OID, PRACTICE_OID, Algorithm, DevelopmentCA, write_private
from schleuse.mail.passwords import hash_password
from schleuse.processes.home_witnesses import NewWitness, create_witnesses
from schleuse.switch.log import create_log

PRACTICE_ENTRY_TYPE = 3  #: any type but 5; the practice's is not evaluated here (kim.md § 16.1)
Step = Callable[[str], object]
#: Persons with different roles, because what opens needs two (incident.md § 10), and the platform's own rules.
OPERATORS = {
    "betrieb-1": ("lead", "switch_officer"),
    "betrieb-2": ("releaser", "security_officer", "service_owner"),
    "betrieb-3": ("forensic_lead", "custodian", "notification_officer", "tenant_delegate"),
    "automat": ("automat",),
}
#: Port of the first witness, counted from the first port or, without one, this.
FIRST_WITNESS, FIRST_WITNESS_PORT = 11, 9490


class HomeExistsError(ConflictError):
    """The folder has a configuration already; choose another, or remove it yourself."""

    code = "home.exists"


class SameNameTwiceError(ConflictError):
    """Two insurers or practices would get the same folder or address; who typed the command renames one."""

    code = "home.same-name-twice"


@dataclass(frozen=True, slots=True)
class NewInsurer:
    """An insurer to set up. slug: first label of its mail domain."""

    ik: IK
    name: str
    slug: str

    def address(self, environment: Environment) -> str:
        return f"eau@{self.slug}{environment.suffix}"


@dataclass(frozen=True, slots=True)
class NewPractice:
    """A practice to set up. algorithm: of its signature keys."""

    slug: str
    name: str
    algorithm: Algorithm = "rsa"

    def address(self, environment: Environment) -> str:
        return f"{self.slug}@praxis{environment.suffix}"


@dataclass(frozen=True, slots=True)
class NewHome:
    """What a home is made from. first_port: ports are counted up from it; None takes the defaults."""

    environment: Environment
    hostname: str
    insurers: Sequence[NewInsurer]
    practices: Sequence[NewPractice]
    first_port: int | None = None


def create_home(folder: Path, new: NewHome, now: datetime, step: Step = lambda _: None) -> None:
    """Write a complete home. The configuration comes last, so that a home cut short is none.

    Raises HomeExistsError, SameNameTwiceError, and then nothing was changed.
    """
    if (folder / FILE_NAME).exists():
        raise HomeExistsError(f"{folder} already has a {FILE_NAME}; choose another folder or remove it yourself")
    for what, names in (
        ("insurer", [name for one in new.insurers for name in (one.ik.value, one.slug)]),
        ("practice", [one.slug for one in new.practices]),
    ):
        if len(set(names)) < len(names):
            raise SameNameTwiceError(f"each {what} needs a name (IK, slug) of its own; one is given twice")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    step("development PKI")
    ca = DevelopmentCA.create(now)
    ca.save(folder / "pki")
    ca.issue_tls(["localhost", "127.0.0.1", "::1", new.hostname], now=now).write(folder / "pki", "tls")
    entries: list[Entry] = []
    for insurer in new.insurers:
        step(f"insurer {insurer.ik} {insurer.name}")
        entries.append(_insurer(folder, new.environment, insurer, ca, now))
    for practice in new.practices:
        step(f"practice {practice.name}")
        entries.append(_practice(folder, new.environment, practice, ca, now))
    write_directory(folder / "directory.json", entries)
    for name in OPERATORS:
        _key_pair(folder / "operators", name)
    if not (folder / "switch" / "log").exists():  # a home that was cut short keeps what it had
        create_log(folder / "switch" / "log")
    (folder / "switch" / "policies").mkdir(mode=0o755, exist_ok=True)
    step("journal keys and witnesses")
    create_witnesses(folder / "journal", new.hostname, _http(new.first_port), _witnesses(folder, new), now.year)
    step("configuration")
    write_private(folder / FILE_NAME, _configuration(new).encode())


def _insurer(home: Path, environment: Environment, new: NewInsurer, ca: DevelopmentCA, now: datetime) -> Entry:
    folder = home / "insurers" / new.ik.value
    telematik_id = f"8-{new.ik}"
    encryption = ca.issue_institution(new.name, telematik_id, INSURER_OID, kind="enc", now=now)
    encryption.write(folder, "enc")
    ca.issue_institution(new.name, telematik_id, INSURER_OID, kind="osig", now=now).write(folder, "osig")
    _password(folder)
    _key_pair(folder, "feed")
    address = new.address(environment)
    return Entry(telematik_id, INSURER_ENTRY_TYPE, (new.ik.value,), (address,), (encryption.certificate_der,))


def _practice(home: Path, environment: Environment, new: NewPractice, ca: DevelopmentCA, now: datetime) -> Entry:
    folder = home / "practices" / new.slug
    telematik_id = f"1-{new.slug}"
    encryption = ca.issue_institution(new.name, telematik_id, PRACTICE_OID, kind="enc", now=now)
    encryption.write(folder, "enc")
    for kind in ("osig", "qes"):
        ca.issue_institution(new.name, telematik_id, PRACTICE_OID, kind=kind, algorithm=new.algorithm, now=now).write(
            folder, kind
        )
    _password(folder)
    address = new.address(environment)
    return Entry(telematik_id, PRACTICE_ENTRY_TYPE, (), (address,), (encryption.certificate_der,))


def _witnesses(home: Path, new: NewHome) -> list[NewWitness]:
    first = FIRST_WITNESS_PORT if new.first_port is None else new.first_port + FIRST_WITNESS
    return [
        NewWitness(
            one.ik.value,
            f"witness.{one.slug}{new.environment.suffix}",
            home / _witness_folder(one),
            f"127.0.0.1:{first + 2 * index}",
            f"127.0.0.1:{first + 2 * index + 1}",
        )
        for index, one in enumerate(new.insurers)
    ]


def _witness_folder(new: NewInsurer) -> str:
    return f"insurers/{new.ik}/witness"


def _http(first_port: int | None) -> str:
    """Where the journal is read; see `_configuration`."""
    return JournalSection.model_validate({}).http if first_port is None else f"127.0.0.1:{first_port + 6}"


def _key_pair(folder: Path, name: str) -> None:
    """`NAME.key` and `NAME.pub.pem`, Ed25519 in PEM: who signs with it shows the vault who he is."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_private(folder / f"{name}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_private(folder / f"{name}.pub.pem", public)


def _password(folder: Path) -> None:
    password = secrets.token_urlsafe(18)
    write_private(folder / "password", password.encode())
    write_private(folder / "password.argon2", hash_password(password).encode())


def _configuration(new: NewHome) -> str:
    return "\n".join(
        [
            "# Schleuse. Paths are relative to the folder of this file; `schleuse check-config` reports all mistakes.",
            f'environment = "{new.environment.value}"   # "production" or "test": address suffix and prefix letter',
            f'hostname = "{new.hostname}"',
            "# Witnesses run at their insurers; these run here, so that this machine shows all of it.",
            f"witnesses = {json.dumps([_witness_folder(one) for one in new.insurers])}",
            "",
            "[kim]",
            'tls = { certificate = "pki/tls.pem", key = "pki/tls.key" }',
            *_ports(new.first_port, "smtp_tls", "smtp_starttls", "pop3_tls", "metrics", offset=0),
            *_ports(new.first_port, "receipts", offset=10),
            "",
            "[eau]",
            'feed_tls = { certificate = "pki/tls.pem", key = "pki/tls.key" }',
            'trust = ["pki/ca.pem"]',
            'submit_ca = "pki/ca.pem"',
            *_ports(new.first_port, "feed", "metrics", offset=4),
            *([f'submit = "127.0.0.1:{new.first_port}"'] if new.first_port else []),
            "",
            "[journal]",
            *_ports(new.first_port, "http", "metrics", offset=6),
            "",
            "[vault]",
            "# These are keys of a development PKI: the vault takes them over at its start and erases their files.",
            "erase_key_files = true",
            *_ports(new.first_port, "metrics", offset=8),
            "",
            "[control]",
            *_ports(new.first_port, "metrics", offset=9),
            *_probe_lines(new),
            *(line for name, roles in OPERATORS.items() for line in _operator_lines(name, roles)),
            *(line for insurer in new.insurers for line in _insurer_lines(new.environment, insurer)),
            *(line for practice in new.practices for line in _practice_lines(new.environment, practice)),
            "",
        ]
    )


def _ports(first: int | None, *keys: str, offset: int) -> list[str]:
    if first is None:
        return []
    return [f'{key} = "127.0.0.1:{first + offset + index}"' for index, key in enumerate(keys)]


def _insurer_lines(environment: Environment, new: NewInsurer) -> list[str]:
    folder = f"insurers/{new.ik}"
    return [
        "",
        "[[insurers]]",
        f'ik = "{new.ik}"',
        f'name = "{new.name}"',
        f'address = "{new.address(environment)}"',
        f'encryption = [["{folder}/enc.pem", "{folder}/enc.key"]]',
        f'signature = ["{folder}/osig.pem", "{folder}/osig.key"]',
        f'password_file = "{folder}/password"',
        f'feed_clients = [{{ name = "{new.slug}", public_key = "{folder}/feed.pub.pem" }}]',
        "",
        *_account_lines(new.address(environment), f"insurer:{new.ik}", folder),
    ]


def _operator_lines(name: str, roles: Sequence[str]) -> list[str]:
    return [
        "",
        "[[operators]]",
        f'name = "{name}"',
        f'public_key = "operators/{name}.pub.pem"',
        f"roles = {json.dumps(list(roles))}",
    ]


def _probe_lines(new: NewHome) -> list[str]:
    """Probes of closures send from a practice's mailbox; the first one's, until the operator names one for them."""
    if not new.practices:
        return []
    first = new.practices[0]
    return [
        f'probe_account = "{first.address(new.environment)}"',
        f'probe_password_file = "practices/{first.slug}/password"',
    ]


def _practice_lines(environment: Environment, new: NewPractice) -> list[str]:
    return ["", *_account_lines(new.address(environment), f"practice:{new.slug}", f"practices/{new.slug}")]


def _account_lines(address: str, owner: str, folder: str) -> list[str]:
    return [
        "[[accounts]]",
        f'address = "{address}"',
        f'owner = "{owner}"',
        f'password_hash_file = "{folder}/password.argon2"',
    ]
