"""The key encryption keys: what wraps every subject key, in memory while the vault runs, sealed on disk (§ 14.1, § 17).

`kek.sealed` has all generations, each sealed under a key from a file (such as a credential of the service manager) or
from a passphrase through scrypt. Opening one is its own check: a wrong key file is told, and never used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from schleuse.journal.disk import OsDisk, replace
from schleuse.vault.contracts import KeyMissingError, SealBrokenError

FILE = "kek.sealed"
SCRYPT_N = 2**17  #: 128 MiB and about half a second a guess (RFC 7914)
_MINIMUM_PASSPHRASE = 12


class Kek(Protocol):
    """A key encryption key that this process may use, and perhaps cannot see (HSM). id: its generation."""

    @property
    def id(self) -> int:
        """Which generation."""
        ...

    @property
    def unwraps(self) -> int:
        """How often it unwrapped since the start: the third number of § 14.5 where no HSM counts."""
        ...

    def wrap(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """AES-256-GCM, tag at the end. Raises KeyMissingError."""
        ...

    def unwrap(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """Raises SealBrokenError, KeyMissingError."""
        ...


class SoftwareKek:
    """A key in this process's memory."""

    def __init__(self, id: int, key: bytes) -> None:
        self._id = id
        self._cipher = AESGCM(key)
        self._unwraps = 0

    @property
    def id(self) -> int:
        """See `Kek`."""
        return self._id

    @property
    def unwraps(self) -> int:
        """See `Kek`."""
        return self._unwraps

    def wrap(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """See `Kek`."""
        return self._cipher.encrypt(nonce, plaintext, aad)

    def unwrap(self, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """See `Kek`."""
        self._unwraps += 1
        try:
            return self._cipher.decrypt(nonce, ciphertext, aad)
        except InvalidTag as cause:
            raise SealBrokenError("a wrapped key does not open under this key encryption key") from cause


def open_kek(
    folder: Path, unlock: Literal["key", "passphrase"], unlock_file: Path, *, must_exist: bool = False
) -> SoftwareKek:
    """The newest generation. Without `kek.sealed` the first is made, unless must_exist: then keys would be lost.

    Raises KeyMissingError.
    """
    path = folder / FILE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        if must_exist:
            raise KeyMissingError(f"{path} is not there, and the vault's store is; its operator restores it")
        _make(path, unlock, unlock_file)
    try:
        generations = json.loads(path.read_bytes())["generations"]
        newest = max(generations, key=lambda one: int(one["id"]))
    except (OSError, ValueError, KeyError) as cause:
        raise KeyMissingError(f"{path} cannot be read; its operator restores it") from cause
    return SoftwareKek(int(newest["id"]), _unsealed(path, newest, unlock, unlock_file))


def _make(path: Path, unlock: str, unlock_file: Path) -> None:
    if unlock == "key" and not unlock_file.exists():
        unlock_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(OsDisk(), unlock_file, os.urandom(32))
    salt, nonce = os.urandom(16), os.urandom(12)
    key = os.urandom(32)
    sealed = AESGCM(_unlocking(unlock, unlock_file, salt)).encrypt(nonce, key, _bound(1, unlock))
    one = {"id": 1, "unlock": unlock, "salt": salt.hex(), "nonce": nonce.hex(), "sealed": sealed.hex()}
    replace(OsDisk(), path, json.dumps({"generations": [one]}, indent=1).encode())


def _unsealed(path: Path, one: dict[str, str], unlock: str, unlock_file: Path) -> bytes:
    if one["unlock"] != unlock:
        raise KeyMissingError(f"{path.name} is sealed with unlock = {one['unlock']!r}, configured is {unlock!r}")
    key = _unlocking(unlock, unlock_file, bytes.fromhex(one["salt"]))
    try:
        return AESGCM(key).decrypt(
            bytes.fromhex(one["nonce"]), bytes.fromhex(one["sealed"]), _bound(int(one["id"]), unlock)
        )
    except InvalidTag as cause:
        raise KeyMissingError(f"{unlock_file.name} does not unlock {path}; its operator has the right one") from cause


def _bound(id: int, unlock: str) -> bytes:
    return b"schleuse kek %d " % id + unlock.encode()


def _unlocking(unlock: str, unlock_file: Path, salt: bytes) -> bytes:
    try:
        secret = unlock_file.read_bytes()
    except OSError as cause:
        raise KeyMissingError(f"the unlock file {unlock_file} cannot be read ({cause.strerror})") from cause
    if unlock == "key":
        if len(secret) != 32:
            raise KeyMissingError(f"the unlock file {unlock_file.name} has {len(secret)} octets, expected are 32")
        return HKDF(hashes.SHA256(), 32, salt, b"schleuse kek").derive(secret)
    secret = secret.strip()
    if len(secret) < _MINIMUM_PASSPHRASE:
        raise KeyMissingError(f"the passphrase in {unlock_file.name} has fewer than {_MINIMUM_PASSPHRASE} octets")
    return Scrypt(salt, 32, SCRYPT_N, 8, 1).derive(secret)
