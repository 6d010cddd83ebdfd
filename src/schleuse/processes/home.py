"""Making a home: configuration, keys, accounts and a directory, for `schleuse init` and `up --demo`.

Everything a home needs is a file under it (0600 where secret), so a home can be copied, inspected and thrown away.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from schleuse.config import FILE_NAME
from schleuse.environment import Environment
from schleuse.errors import ConflictError
from schleuse.identifiers import IK
from schleuse.kim.directory import INSURER_ENTRY_TYPE, Entry, write_directory
from schleuse.kim.pki import INSURER_OID, PRACTICE_OID, Algorithm, DevelopmentCA, write_private
from schleuse.mail.passwords import hash_password

PRACTICE_ENTRY_TYPE = 3  #: any type but 5; the practice's is not evaluated here (kim.md § 16.1)
Step = Callable[[str], object]


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
    step("configuration")
    write_private(folder / FILE_NAME, _configuration(new).encode())


def _insurer(home: Path, environment: Environment, new: NewInsurer, ca: DevelopmentCA, now: datetime) -> Entry:
    folder = home / "insurers" / new.ik.value
    telematik_id = f"8-{new.ik}"
    encryption = ca.issue_institution(new.name, telematik_id, INSURER_OID, kind="enc", now=now)
    encryption.write(folder, "enc")
    ca.issue_institution(new.name, telematik_id, INSURER_OID, kind="osig", now=now).write(folder, "osig")
    write_private(folder / "store.key", secrets.token_bytes(32))
    _password(folder)
    token = secrets.token_urlsafe(32)
    write_private(folder / "feed.token", token.encode())
    write_private(folder / "feed.token.sha256", hashlib.sha256(token.encode()).hexdigest().encode())
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
            "",
            "[kim]",
            'tls = { certificate = "pki/tls.pem", key = "pki/tls.key" }',
            *_ports(new.first_port, "smtp_tls", "smtp_starttls", "pop3_tls", "metrics", offset=0),
            "",
            "[eau]",
            'feed_tls = { certificate = "pki/tls.pem", key = "pki/tls.key" }',
            'trust = ["pki/ca.pem"]',
            'submit_ca = "pki/ca.pem"',
            *_ports(new.first_port, "feed", "metrics", offset=4),
            *([f'submit = "127.0.0.1:{new.first_port}"'] if new.first_port else []),
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
        f'store_key = "{folder}/store.key"',
        f'password_file = "{folder}/password"',
        f'feed_clients = [{{ name = "{new.slug}", token_hash_file = "{folder}/feed.token.sha256" }}]',
        "",
        *_account_lines(new.address(environment), f"insurer:{new.ik}", folder),
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
