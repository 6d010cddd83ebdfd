"""What the journal role is made of, and the files that each of its logs needs (journal.md § 7, § 10, § 17).

Beside the configuration it makes, under `<home>/journal`: a signing key for each log, k_J for each insurer (§ 14.1),
and a policy file for each log, which the operator replaces by the agreed one. A key is made once: what was announced of
it is kept beside it, and if the key is gone all the same, no other takes its place.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.clock import Now, Uptime, machine_uptime, utc_now
from schleuse.errors import CorruptError, MalformedError
from schleuse.identifiers import IK
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.log import LogConfig
from schleuse.journal.note import LogSigner
from schleuse.journal.policy import BadPolicyError, Policy, parse_policy

PUBLISH_SECONDS = 1.0
SECRET = 32  #: bytes of a signing key, and of k_J
#: Weeks, not days: at an insurer a change of configuration goes through several hands.
ANNOUNCE = timedelta(weeks=4)


class KeyMissingError(CorruptError):
    """A log exists whose signing key, or its insurer's share, is gone; the operator has the backup."""

    code = "journal.key-missing"


class KeyReplacedError(CorruptError):
    """A log's signing key, or its insurer's share, is damaged or another than before; the operator has the backup."""

    code = "journal.key-replaced"


def now_us() -> int:
    """Microseconds since 1970 UTC, for the frames and for judging entries' clocks; read for every entry."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class JournalRole:
    """What the role is made of. vaults: user ids of the vault; empty: our own user, as with `schleuse up`.

    metrics: None in tests that look at nothing. announce: so long before the year the keys of its logs are made and
    named in the logs of this one, so that witnesses know them in time.
    """

    home: Path
    host: str
    insurers: tuple[IK, ...]
    http: str = "127.0.0.1:9480"
    metrics: str | None = None
    spares: int = 4
    retention_years: int = 3
    vaults: frozenset[int] = frozenset()
    writers: frozenset[int] = frozenset()
    shares_per_hour: int = 2_000_000
    segment_size: int = 64 << 20
    publish_seconds: float = PUBLISH_SECONDS
    announce: timedelta = ANNOUNCE
    now: Now = field(default=utc_now)
    now_us: Callable[[], int] = field(default=now_us)
    uptime: Callable[[], Uptime] = field(default=machine_uptime)

    @property
    def folder(self) -> Path:
        """All that the role keeps."""
        return self.home / "journal"

    @property
    def socket(self) -> Path:
        """Where clients append."""
        return self.home / "run" / "journal.sock"


def origin_of(host: str, insurer: IK | str, year: int) -> str:
    """`journal.<host>/<tenant>/<shard>` (§ 7); the shard is a calendar year (§ 17)."""
    return f"journal.{host}/{insurer}/{year}"


def log_config(role: JournalRole, tenant: str, year: int) -> LogConfig:
    """The tenant's log of a year, its key and policy made if they have never been there.

    Raises KeyMissingError, KeyReplacedError.
    """
    origin = origin_of(role.host, tenant, year)
    signer = log_signer(role.folder, origin)
    policy = policy_file(role.folder, origin)
    if not policy.exists():
        policy.parent.mkdir(parents=True, exist_ok=True)
        replace(OsDisk(), policy, _first_policy(role, tenant, year, signer.key.vkey).encode())
    return LogConfig(origin, signer, read_policy(policy))


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
    """The signing key of a log under `<home>/journal`, made if nothing shows that there was one; a home makes it too.

    new: False if it must be there. What anybody is told of the key is durable before he is told, so a key that somebody
    knows is never replaced.
    Raises KeyMissingError, KeyReplacedError.
    """
    path = key_file(folder, origin)
    with _alone(path.parent):
        shown = _shown_by(folder, origin) or (None if new else "it was used before")
        if not path.exists() and shown:
            raise KeyMissingError(
                f"{path} is not there, and {shown}; another key would be a second log under the same name. The "
                "operator of the journal's host puts the file back, or agrees with the insurers what becomes of the log"
            )
        signer = LogSigner(origin, Ed25519PrivateKey.from_private_bytes(_secret(path)))
        _keep_same(vkey_file(folder, origin), path, signer.key.vkey)
    return signer


def known_vkey(folder: Path, origin: str) -> str | None:
    """What was announced of a log's key, from files without secrets; None if nothing was."""
    path = vkey_file(folder, origin)
    if path.exists():
        return path.read_text(encoding="utf-8", errors="replace").strip()
    policy = policy_file(folder, origin)
    if not policy.exists():
        return None
    keys = [log.key.key for log in read_policy(policy).logs]
    return next((key.vkey for key in keys if key.name == origin), None)


def vkey_file(folder: Path, origin: str) -> Path:
    """Where the public half of a log's key is for good."""
    return folder / "vkeys" / _file_name(origin)


def policy_file(folder: Path, origin: str) -> Path:
    """Where the policy of a log under `<home>/journal` is."""
    return folder / "policies" / _file_name(origin)


def read_policy(path: Path) -> Policy:
    """A policy file. Raises BadPolicyError, which names it, OSError."""
    try:
        return parse_policy(path.read_bytes())
    except MalformedError as cause:
        raise BadPolicyError(f"{path}: {cause}") from cause


def key_file(folder: Path, origin: str) -> Path:
    """Where the signing key of a log under `<home>/journal` is until its shard is closed."""
    return folder / "keys" / f"log-{_file_name(origin)}"


def share_key(folder: Path, tenant: str, *, new: bool) -> bytes:
    """k_J of an insurer, for all of its shards: documents of earlier years must open (§ 14.1).

    Made if it may be new. Raises KeyMissingError: another one would open nothing that is sealed.
    """
    path = folder / "keys" / f"share-{tenant}"
    with _alone(path.parent):
        if not new and not path.exists():
            raise KeyMissingError(
                f"{path} is not there, and logs of its insurer are; another one would open nothing. The operator of "
                "the journal's host puts the file back"
            )
        key = _secret(path)
        # A digest of 32 random bytes tells nobody anything.
        _keep_same(folder / "vkeys" / path.name, path, f"the SHA-256 {sha256(key).hexdigest()}")
    return key


def _shown_by(folder: Path, origin: str) -> str | None:
    """What says that this log had a key; None if nothing does."""
    if (vkey := known_vkey(folder, origin)) is not None:
        return f"{vkey} was announced"
    state = folder / "state"
    if state.exists() and json.dumps(origin, ensure_ascii=False).encode() in state.read_bytes():
        return f"{origin} has entries"
    return None


def _keep_same(path: Path, key: Path, shown: str) -> None:
    """shown: what may be told of the key, which is kept in `path` for good."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(OsDisk(), path, f"{shown}\n".encode())
    elif (before := path.read_text(encoding="utf-8", errors="replace").strip()) != shown:
        raise KeyReplacedError(
            f"{key} is the key {shown}, and {before} was noted in {path}; nothing is signed or given out. The operator "
            "of the journal's host puts back the one of the two that is damaged"
        )


def _file_name(origin: str) -> str:
    _, tenant, shard = origin.rsplit("/", 2)
    return f"{tenant}-{shard}"


def _secret(path: Path) -> bytes:
    """32 random bytes, kept in a file that only this role reads; made if they are not there."""
    if path.exists():
        found = path.read_bytes()
        if len(found) != SECRET:  # half of a key, or none, would still make a share of each leaf
            raise KeyReplacedError(
                f"{path} has {len(found)} bytes, expected {SECRET}; the operator of the journal's host puts it back"
            )
        return found
    value = secrets.token_bytes(SECRET)
    replace(OsDisk(), path, value)
    return value


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes that both find no key make one, not two."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / "lock", "a", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
