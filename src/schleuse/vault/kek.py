"""The key encryption keys: what wraps every subject key, in memory while the vault runs, sealed on disk (§ 14.1, § 17).

`kek.sealed` has all generations, sealed under a key from a file (such as a credential of the service manager) or under
a passphrase through scrypt (RFC 7914). Opening them is their own check: a wrong key file is told, and never used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from schleuse.journal.disk import OsDisk, replace
from schleuse.vault.contracts import KeyMissingError, SealBrokenError
from schleuse.vault.memory import wipe

Unlock = Literal["key", "passphrase"]
Random = Callable[[int], bytes]

FILE = "kek.sealed"
KEY = 32
NONCE = 12
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**17, 8, 1  #: 128 MiB and about half a second a guess
_SCRYPT_MOST = 2**20
_PASSPHRASE_LEAST = 12


class Kek(Protocol):
    """Key encryption keys that this process may use, and perhaps cannot see (HSM). id: the newest generation."""

    @property
    def id(self) -> int:
        """The generation that wraps."""
        ...

    @property
    def unwraps(self) -> int:
        """How often it unwrapped since the start: the third number of § 14.5 where no HSM counts."""
        ...

    @property
    def generations(self) -> tuple[int, ...]:
        """All that are here, oldest first."""
        ...

    def wrap(self, nonce: bytes, plaintext: bytes, aad: bytes, generation: int | None = None) -> bytes:
        """AES-256-GCM, tag at the end. nonce: 12 bytes. generation: None for the newest. Raises KeyMissingError."""
        ...

    def unwrap(self, nonce: bytes, ciphertext: bytes, aad: bytes, generation: int | None = None) -> bytes:
        """The plaintext. generation: None tries all, newest first. Raises SealBrokenError, KeyMissingError."""
        ...

    def renew(self) -> int:
        """Make the next generation, durably; from now on it wraps. Its number. Blocks. Raises KeyMissingError."""
        ...

    def destroy(self, generation: int) -> None:
        """For good, what it wraps included; never the newest. Blocks. Raises KeyMissingError."""
        ...


class SoftwareKek:
    """Keys in this process's memory. older: earlier generations, which only unwrap."""

    def __init__(self, id: int, key: bytes | bytearray, older: Mapping[int, bytes | bytearray] | None = None) -> None:
        self._id = id
        self._ciphers = {one: AESGCM(other) for one, other in sorted((older or {}).items(), reverse=True)}
        self._ciphers = {id: AESGCM(key), **self._ciphers}
        self._unwraps = 0

    @property
    def id(self) -> int:
        """See `Kek`."""
        return self._id

    @property
    def unwraps(self) -> int:
        """See `Kek`."""
        return self._unwraps

    @property
    def generations(self) -> tuple[int, ...]:
        """See `Kek`."""
        return tuple(sorted(self._ciphers))

    def wrap(self, nonce: bytes, plaintext: bytes, aad: bytes, generation: int | None = None) -> bytes:
        """See `Kek`."""
        return self._chosen(self._id if generation is None else generation)[0].encrypt(nonce, plaintext, aad)

    def unwrap(self, nonce: bytes, ciphertext: bytes, aad: bytes, generation: int | None = None) -> bytes:
        """See `Kek`."""
        self._unwraps += 1
        for cipher in self._chosen(generation):
            try:
                return cipher.decrypt(nonce, ciphertext, aad)
            except (InvalidTag, ValueError):  # ValueError: a nonce of the wrong length
                continue
        raise SealBrokenError("a wrapped key does not open under this key encryption key")

    def renew(self) -> int:
        """See `Kek`; here in memory only."""
        self._add(self._id + 1, os.urandom(KEY))
        return self._id

    def destroy(self, generation: int) -> None:
        """See `Kek`; here in memory only."""
        check_old(generation, self._ciphers)
        self._ciphers = {one: cipher for one, cipher in self._ciphers.items() if one != generation}

    def _add(self, id: int, key: bytes | bytearray) -> None:
        # Other threads use these meanwhile: the new key is there before its number is.
        self._ciphers = {id: AESGCM(key), **self._ciphers}
        self._id = id

    def _chosen(self, generation: int | None) -> list[AESGCM]:
        ciphers = self._ciphers
        if generation is None:
            return list(ciphers.values())
        if generation not in ciphers:
            raise no_generation(generation, ciphers)
        return [ciphers[generation]]


class SealedKek(SoftwareKek):
    """The generations of `kek.sealed`; what changes, changes there first."""

    def __init__(self, path: Path, unlock: Unlock, unlock_file: Path) -> None:
        self._path, self._unlock, self._unlock_file = path, unlock, unlock_file
        keys = _opened(path, unlock, unlock_file)
        newest = max(keys)
        try:
            super().__init__(newest, keys[newest], {id: key for id, key in keys.items() if id != newest})
        finally:
            _wipe_all(keys)

    def renew(self) -> int:
        """See `Kek`."""
        newest = add_generation(self._path.parent, self._unlock, self._unlock_file)
        keys = _opened(self._path, self._unlock, self._unlock_file)  # what cannot be opened again must not wrap
        try:
            self._add(newest, keys[newest])
        finally:
            _wipe_all(keys)
        return newest

    def destroy(self, generation: int) -> None:
        """See `Kek`."""
        keys = _opened(self._path, self._unlock, self._unlock_file)
        try:
            check_old(generation, keys)
            left = {id: key for id, key in keys.items() if id != generation}
            _write(self._path, left, self._unlock, self._unlock_file)
        finally:
            _wipe_all(keys)
        super().destroy(generation)


def check_old(generation: int, known: Collection[int]) -> None:
    """Whether it may be destroyed: it is here, and another one wraps. Raises KeyMissingError."""
    if generation not in known or generation == max(known):
        raise KeyMissingError(
            f"generation {generation} of the key encryption key is not an older one of {sorted(known)}; only such are"
            " destroyed"
        )


def no_generation(wanted: int, known: Mapping[int, object]) -> KeyMissingError:
    """The error for a record that is wrapped by a generation that is not here."""
    return KeyMissingError(
        f"a key is wrapped by generation {wanted} of the key encryption key, here are {sorted(known)};"
        " the vault's operator restores it"
    )


def open_kek(folder: Path, unlock: Unlock, unlock_file: Path, *, must_exist: bool = False) -> SealedKek:
    """All generations of `folder`. Without `kek.sealed` the first is made, unless must_exist: all would be lost.

    Raises KeyMissingError.
    """
    path = folder / FILE
    if not _is_there(path):
        if must_exist:
            raise KeyMissingError(f"{path} is not there, but keys that it wraps are; the vault's operator restores it")
        return _made(path, unlock, unlock_file)
    return SealedKek(path, unlock, unlock_file)


def add_generation(folder: Path, unlock: Unlock, unlock_file: Path) -> int:
    """A new generation in `kek.sealed` (§ 17: yearly). Raises KeyMissingError, and nothing changed."""
    path = folder / FILE
    keys = _opened(path, unlock, unlock_file)
    try:
        newest = max(keys) + 1
        _write(path, {**keys, newest: os.urandom(KEY)}, unlock, unlock_file)
    finally:
        _wipe_all(keys)
    return newest


def _made(path: Path, unlock: Unlock, unlock_file: Path) -> SealedKek:
    _folder(path.parent)
    if unlock == "key" and not _is_there(unlock_file):
        _folder(unlock_file.parent)
        _replace(unlock_file, os.urandom(KEY))
    _write(path, {1: os.urandom(KEY)}, unlock, unlock_file)
    # What was written is read back: a vault must not wrap its first key under something that cannot be opened again.
    return SealedKek(path, unlock, unlock_file)


def _wipe_all(keys: Mapping[int, bytearray]) -> None:
    for key in keys.values():
        wipe(key)


def _write(path: Path, keys: Mapping[int, bytes | bytearray], unlock: Unlock, unlock_file: Path) -> None:
    how: dict[str, Any] = {"with": unlock, "salt": os.urandom(16).hex()}
    if unlock == "passphrase":
        how |= {"n": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P}
    cipher = _unlocking(how, unlock_file)
    generations = []
    for id, key in keys.items():
        nonce = os.urandom(NONCE)
        sealed = cipher.encrypt(nonce, key, _bound(how, id))
        generations.append({"id": id, "nonce": nonce.hex(), "sealed": sealed.hex()})
    _replace(path, json.dumps({"format": 1, "unlock": how, "generations": generations}, indent=1).encode())


def _opened(path: Path, unlock: Unlock, unlock_file: Path) -> dict[int, bytearray]:
    try:
        parsed = _parsed(path.read_bytes())
    except OSError as cause:
        raise KeyMissingError(
            f"{path} cannot be read ({cause.strerror}); the vault's operator can change it"
        ) from cause
    except (ValueError, KeyError, TypeError, RecursionError):
        parsed = None
    if parsed is None:  # raised here, because the cause quotes the file
        raise KeyMissingError(f"{path} is damaged; the vault's operator restores it from a backup")
    how, generations = parsed
    if how["with"] != unlock:
        raise KeyMissingError(
            f"{path} is sealed with unlock = {how['with']!r}, configured is {unlock!r};"
            " the vault's operator can change the configuration"
        )
    cipher = _unlocking(how, unlock_file)
    keys = {id: bytearray(KEY) for id in generations}
    for id, (nonce, sealed) in generations.items():
        try:
            cipher.decrypt_into(nonce, sealed, _bound(how, id), keys[id])
        except InvalidTag as cause:
            raise KeyMissingError(
                f"{unlock_file} does not unlock {path}, or that is damaged; the vault's operator has the right one"
            ) from cause
    return keys


def _parsed(content: bytes) -> tuple[dict[str, Any], dict[int, tuple[bytes, bytes]]]:
    """How it is unlocked, and (nonce, sealed) by generation. Raises ValueError, KeyError, TypeError, RecursionError."""
    table = json.loads(content)
    how = table["unlock"]
    kinds = {"key": {"with", "salt"}, "passphrase": {"with", "salt", "n", "r", "p"}}
    if table["format"] != 1 or set(how) != kinds[how["with"]] or len(bytes.fromhex(how["salt"])) != 16:
        raise ValueError("unknown format")
    if how["with"] == "passphrase" and not _is_affordable(how["n"], how["r"], how["p"]):
        raise ValueError("unknown parameters of scrypt")
    generations = {}
    for one in table["generations"]:
        id, nonce, sealed = one["id"], bytes.fromhex(one["nonce"]), bytes.fromhex(one["sealed"])
        if type(id) is not int or not 0 < id < 2**32 or id in generations:
            raise ValueError("generations are numbers, each once")
        if len(nonce) != NONCE or len(sealed) != KEY + 16:
            raise ValueError("a key has 32 bytes")
        generations[id] = nonce, sealed
    if not generations:
        raise ValueError("no generation")
    return how, generations


def _is_affordable(n: object, r: object, p: object) -> bool:
    """Whether scrypt takes these and a damaged file cannot ask for all memory."""
    return type(n) is int and 2 <= n <= _SCRYPT_MOST and n & (n - 1) == 0 and (r, p) == (SCRYPT_R, SCRYPT_P)


def _bound(how: Mapping[str, Any], id: int) -> bytes:
    return b"schleuse kek %d " % id + json.dumps(how, sort_keys=True).encode()


def _unlocking(how: Mapping[str, Any], unlock_file: Path) -> AESGCM:
    secret, key, salt = _secret(unlock_file), bytearray(KEY), bytes.fromhex(how["salt"])
    try:
        if how["with"] == "key":
            if len(secret) != KEY:
                raise KeyMissingError(
                    f"{unlock_file} has {len(secret)} octets, expected are {KEY}; the vault's operator can change it"
                )
            HKDF(hashes.SHA256(), KEY, salt, b"schleuse kek").derive_into(secret, key)
        else:
            while secret and secret[-1] in b"\r\n":  # editors end the line
                secret[-1:] = b""
            if len(secret) < _PASSPHRASE_LEAST:
                raise KeyMissingError(
                    f"the passphrase in {unlock_file} has fewer than {_PASSPHRASE_LEAST} octets;"
                    " the vault's operator can change it"
                )
            Scrypt(salt, KEY, how["n"], how["r"], how["p"]).derive_into(secret, key)
        return AESGCM(key)
    finally:
        wipe(secret)
        wipe(key)


def _secret(file: Path) -> bytearray:
    try:
        with file.open("rb", buffering=0) as opened:
            secret = bytearray(os.fstat(opened.fileno()).st_size)
            read = opened.readinto(secret)
    except OSError as cause:
        raise KeyMissingError(
            f"the unlock file {file} cannot be read ({cause.strerror}); the vault's operator can change it"
        ) from cause
    return secret[:read]


def _is_there(path: Path) -> bool:
    """What cannot be looked at is not taken for missing: a new key would be made in its place."""
    try:
        return path.exists()
    except OSError as cause:
        raise KeyMissingError(
            f"{path} cannot be looked at ({cause.strerror}); the vault's operator can change it"
        ) from cause


def _folder(folder: Path) -> None:
    if _is_there(folder):
        return
    try:
        folder.mkdir(mode=0o700, parents=True)
        OsDisk().sync_directory(folder.parent)
    except OSError as cause:
        raise KeyMissingError(
            f"the folder {folder} cannot be made ({cause.strerror}); the vault's operator can change it"
        ) from cause


def _replace(path: Path, content: bytes) -> None:
    try:
        replace(OsDisk(), path, content)  # 0600, synced, whole or not at all
    except OSError as cause:
        raise KeyMissingError(
            f"{path} cannot be written ({cause.strerror}); the vault's operator can change it"
        ) from cause
