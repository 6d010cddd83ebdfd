"""Taking the insurers' key files over: into the vault, durably, and only then away from the disk (decision 0016)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import structlog

from schleuse.config import Config
from schleuse.errors import CorruptError, Error
from schleuse.identifiers import IK
from schleuse.vault.contracts import KeyMissingError
from schleuse.vault.private_keys import PrivateKey, load_pair, read_certificate

log = structlog.get_logger()

_ZEROS = bytes(4096)


class KeyState(StrEnum):
    """What became of a configured key file."""

    TAKEN_OVER = "taken-over"  # now
    KNOWN = "known"  # the vault had it already
    MISSING = "missing"  # neither the vault nor the disk has it
    UNUSABLE = "unusable"  # its operator must replace it
    WAITING = "waiting"  # the journal does not take the entry


_HERE = (KeyState.TAKEN_OVER, KeyState.KNOWN)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One pair of the configuration. kind: "enc" or "osig"."""

    ik: IK
    kind: str
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Found:
    """state: of the file's key. on_disk: whether the file is still there."""

    file: KeyFile
    state: KeyState
    reason: str = ""
    on_disk: bool = False

    def told(self) -> dict[str, str]:
        """For a command, as text."""
        return {
            "ik": self.file.ik.value,
            "kind": self.file.kind,
            "file": str(self.file.key),
            "state": self.state.value,
            "reason": self.reason,
            "on_disk": "yes" if self.on_disk else "no",
        }


class TakesKeys(Protocol):
    """The part of `VaultService` that is needed."""

    async def has_identity(self, ik: IK, kind: str, certificate: bytes) -> bool:
        """See `VaultService.has_identity`."""
        ...

    async def import_identity(self, ik: IK, kind: str, certificate: bytes, key: PrivateKey) -> bool:
        """See `VaultService.import_identity`."""
        ...


def key_files(config: Config) -> list[KeyFile]:
    """All of the configuration."""
    return [
        KeyFile(IK(insurer.ik), kind, certificate, key)
        for insurer in config.insurers
        for kind, pairs in (("enc", insurer.encryption), ("osig", (insurer.signature,)))
        for certificate, key in pairs
    ]


async def take_over(service: TakesKeys, config: Config) -> list[Found]:
    """Import what the vault does not have, then erase the files if the configuration says so.

    One insurer's trouble is told and does not keep the others waiting.
    """
    found = [await _one(service, file) for file in key_files(config)]
    if config.vault.erase_key_files:
        await asyncio.to_thread(_erase_files, found, set(_other_uses(config)))
        return [Found(one.file, one.state, one.reason, one.file.key.exists()) for one in found]
    return found


async def _one(service: TakesKeys, file: KeyFile) -> Found:
    on_disk = file.key.exists()
    try:
        certificate = await asyncio.to_thread(read_certificate, file.certificate)
        if await service.has_identity(file.ik, file.kind, certificate):
            return Found(file, KeyState.KNOWN, on_disk=on_disk)
        if not on_disk:
            return Found(file, KeyState.MISSING, "neither the vault nor the file has this certificate's key")
        _, key = await asyncio.to_thread(load_pair, file.certificate, file.key)
        await service.import_identity(file.ik, file.kind, certificate, key)
    except KeyMissingError as error:
        return Found(file, KeyState.UNUSABLE, str(error), on_disk)
    except Error as error:
        state = KeyState.UNUSABLE if isinstance(error, CorruptError) else KeyState.WAITING
        return Found(file, state, str(error), on_disk)
    log.info("vault.key-taken-over", ik=file.ik.value, kind=file.kind, file=file.key.name)
    return Found(file, KeyState.TAKEN_OVER, on_disk=True)


def _erase_files(found: Sequence[Found], keep: set[Path]) -> None:
    """Only files whose every use the vault has, and whose content still is that key."""
    uses: dict[Path, list[Found]] = {}
    for one in found:
        uses.setdefault(one.file.key.resolve(), []).append(one)
    for path, ones in uses.items():
        if not path.exists() or path in keep or not all(one.state in _HERE for one in ones):
            continue
        try:
            for one in ones:
                load_pair(one.file.certificate, path)
            erase_file(path)
        except (OSError, Error) as error:
            log.error("vault.key-file-not-erased", ik=ones[0].file.ik.value, file=path.name, error=type(error).__name__)
        else:
            log.info("vault.key-file-erased", ik=ones[0].file.ik.value, file=path.name)


def _other_uses(config: Config) -> Iterator[Path]:
    """Key files that other roles read."""
    yield config.kim.tls.key.resolve()
    yield config.eau.feed_tls.key.resolve()
    for route in config.kim.routes:
        if route.client_key is not None:
            yield route.client_key.resolve()


def erase_file(path: Path) -> None:
    """Overwrite and remove it. Copies that a file system or a disk keeps by itself are beyond us. Raises OSError."""
    with path.open("r+b") as file:
        left = os.fstat(file.fileno()).st_size
        while left > 0:
            left -= file.write(_ZEROS[: min(left, len(_ZEROS))])
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
