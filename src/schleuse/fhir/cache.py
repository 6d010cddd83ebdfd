"""Compiled rules on disk, so that a process need not compile them at each start.

What is read from here is executed. So a file counts only if it is a plain file of our own user in directories
that nobody else may write to, and if its content has the digest that it says. Anything else is as good as
nothing: the rules are compiled again.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_DIGEST_BYTES: Final = 32
_MAX_KEPT: Final = 24  #: 4 MB each; a machine uses some eight rule sets
_MAX_BYTES: Final = 256 * 1024 * 1024
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def default_cache() -> Path:
    """$XDG_CACHE_HOME/schleuse/fhir, or ~/.cache/schleuse/fhir."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "schleuse" / "fhir"


def engine_digest() -> str:
    """What compiled rules depend on besides the definitions: our own source, and Python's byte code."""
    total = hashlib.sha256(f"{sys.implementation.cache_tag} {sys.version}".encode())
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        total.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def read(directory: Path, key: str) -> Any:
    """The plain value kept under a key, or None."""
    try:
        content = _private_bytes(directory / key) if _is_ours_alone(directory) else None
    except OSError:
        return None
    if content is None:
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(key.encode() + body).digest() != digest:
        return None
    try:
        return marshal.loads(body)  # noqa: S302 - our own file, see above
    except (EOFError, ValueError, TypeError):
        return None


def _private_bytes(path: Path) -> bytes | None:
    """The content of a plain file that only we may write to, looked at and read through one handle."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or not _is_private(state) or state.st_size > _MAX_BYTES:
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def write(directory: Path, key: str, value: Any) -> bool:
    """Keep a plain value under a key. False if that cannot be done safely here: a full disk, an unsafe directory."""
    try:
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        if not _is_ours_alone(directory):
            return False
        body = marshal.dumps(value)
        handle, name = tempfile.mkstemp(dir=directory, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(key.encode() + body).digest() + body)
            os.replace(name, directory / key)
            _forget_oldest(directory)
        except OSError:
            with suppress(OSError):
                os.unlink(name)
            return False
    except OSError:
        return False
    return True


def _forget_oldest(directory: Path) -> None:
    """Rules of earlier engines and packages are never read again."""
    kept = sorted(directory.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
    for path in kept[_MAX_KEPT:]:
        path.unlink(missing_ok=True)


def _is_private(state: os.stat_result) -> bool:
    return state.st_uid == os.geteuid() and not state.st_mode & _OTHERS_MAY_WRITE


def _is_ours_alone(directory: Path) -> bool:
    """Whether only we can put files into a directory, or another one in its place."""
    whole = directory.resolve(strict=True)
    if not _is_private(os.lstat(whole)):
        return False
    for parent in whole.parents:
        state = os.lstat(parent)
        sticky = state.st_mode & stat.S_ISVTX
        if state.st_uid not in (0, os.geteuid()) or (state.st_mode & _OTHERS_MAY_WRITE and not sticky):
            return False
    return True
