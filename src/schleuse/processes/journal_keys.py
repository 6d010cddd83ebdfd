"""What the journal role is made of, and the files that each of its logs needs (journal.md § 7, § 10, § 17).

Beside the configuration it makes at its first start, under `<home>/journal`: a signing key for each log, k_J for each
insurer (§ 14.1), and a policy file for each log, which the operator replaces by the agreed one.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.clock import Now, utc_now
from schleuse.errors import CorruptError
from schleuse.identifiers import IK
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.log import LogConfig
from schleuse.journal.note import LogSigner
from schleuse.journal.policy import parse_policy

PUBLISH_SECONDS = 1.0


class KeyMissingError(CorruptError):
    """A log exists whose signing key, or its insurer's share, is gone; the operator has the backup."""

    code = "journal.key-missing"


@dataclass(frozen=True, slots=True)
class JournalRole:
    """What the role is made of. vaults: user ids of the vault; empty: our own user, as with `schleuse up`.

    metrics: None in tests that look at nothing.
    """

    home: Path
    host: str
    insurers: tuple[IK, ...]
    http: str = "127.0.0.1:9480"
    metrics: str | None = None
    spares: int = 2
    retention_years: int = 3
    vaults: frozenset[int] = frozenset()
    writers: frozenset[int] = frozenset()
    shares_per_hour: int = 2_000_000
    segment_size: int = 64 << 20
    publish_seconds: float = PUBLISH_SECONDS
    now: Now = field(default=utc_now)

    @property
    def folder(self) -> Path:
        """All that the role keeps."""
        return self.home / "journal"

    @property
    def socket(self) -> Path:
        """Where clients append."""
        return self.home / "run" / "journal.sock"


def now_us() -> int:
    """Microseconds since 1970 UTC, for the frames and for judging entries' clocks; read for every entry."""
    return time.time_ns() // 1000


def origin_of(host: str, insurer: IK | str, year: int) -> str:
    """`journal.<host>/<tenant>/<shard>` (§ 7); the shard is a calendar year (§ 17)."""
    return f"journal.{host}/{insurer}/{year}"


def log_config(role: JournalRole, tenant: str, now: datetime) -> LogConfig:
    """The tenant's log of this year, its key and policy made if they do not exist. Raises KeyMissingError."""
    origin = origin_of(role.host, tenant, now.year)
    signer = log_signer(role.folder, origin, new=not _has_log(role.folder, origin))
    policy = policy_file(role.folder, origin)
    if not policy.exists():
        policy.parent.mkdir(parents=True, exist_ok=True)
        replace(OsDisk(), policy, _first_policy(role, tenant, now.year, signer.key.vkey).encode())
    return LogConfig(origin, signer, parse_policy(policy.read_bytes()))


def _first_policy(role: JournalRole, tenant: str, year: int, vkey: str) -> str:
    """Until people agree on another: the witnesses and quorum of the year before, or none.

    Witnesses that do not know the new log yet give no quorum, which is seen; asking for none would not be.
    """
    before = policy_file(role.folder, origin_of(role.host, tenant, year - 1))
    if not before.exists():
        return f"log {vkey}\nquorum none\n"
    lines = before.read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line.split()[:1] != ["log"]]
    return "\n".join([f"log {vkey}", *rules, ""])


def log_signer(folder: Path, origin: str, *, new: bool = True) -> LogSigner:
    """The signing key of a log under `<home>/journal`, made if it does not exist and may be new; a home makes it too.

    Raises KeyMissingError.
    """
    key = _secret(key_file(folder, origin), new=new)
    return LogSigner(origin, Ed25519PrivateKey.from_private_bytes(key))


def policy_file(folder: Path, origin: str) -> Path:
    """Where the policy of a log under `<home>/journal` is."""
    return folder / "policies" / _file_name(origin)


def key_file(folder: Path, origin: str) -> Path:
    """Where the signing key of a log under `<home>/journal` is until its shard is closed."""
    return folder / "keys" / f"log-{_file_name(origin)}"


def share_key(folder: Path, tenant: str, *, new: bool) -> bytes:
    """k_J of an insurer, for all of its shards: documents of earlier years must open (§ 14.1).

    Made if it may be new. Raises KeyMissingError: another one would open nothing that is sealed.
    """
    return _secret(folder / "keys" / f"share-{tenant}", new=new)


def _file_name(origin: str) -> str:
    _, tenant, shard = origin.rsplit("/", 2)
    return f"{tenant}-{shard}"


def _has_log(folder: Path, origin: str) -> bool:
    state = folder / "state"
    return state.exists() and json.dumps(origin).encode() in state.read_bytes()


def _secret(path: Path, *, new: bool = True) -> bytes:
    """32 random bytes, kept in a file that only this role reads. Raises KeyMissingError."""
    if path.exists():
        return path.read_bytes()
    if not new:
        raise KeyMissingError(f"{path.name} is not there, and its log is; a new key could not take its place")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    value = secrets.token_bytes(32)
    replace(OsDisk(), path, value)
    return value
