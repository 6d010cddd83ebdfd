"""Random values assigned to names, so that an entry names nobody (journal.md § 4)."""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path

from schleuse.errors import CorruptError, UnavailableError
from schleuse.journal.disk import OsDisk, replace


class PseudonymsDamagedError(CorruptError):
    """The file cannot be read; its operator restores it, or moves it away: then names get new pseudonyms."""

    code = "trail.pseudonyms-damaged"


class Pseudonyms:
    """Kept in a JSON file. From any thread. `of` raises UnavailableError if a new one cannot be kept.

    Raises PseudonymsDamagedError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = _read(path)

    def of(self, name: str) -> bytes:
        """16 octets, the same for the same name."""
        with self._lock:
            if name not in self._known:
                known = {**self._known, name: secrets.token_hex(16)}
                write_whole(self._path, json.dumps(known, indent=1, ensure_ascii=False).encode())
                self._known = known  # only now: what is not on disk would be another after a restart
            return bytes.fromhex(self._known[name])


def _read(path: Path) -> dict[str, str]:
    try:
        table = json.loads(path.read_bytes())
        return {str(name): bytes.fromhex(value).hex() for name, value in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as cause:
        raise PseudonymsDamagedError(f"{path.name} cannot be read ({type(cause).__name__})") from cause


def write_whole(path: Path, data: bytes) -> None:
    """A small file, old or new, never half of it. Raises UnavailableError."""
    try:
        replace(OsDisk(), path, data)
    except OSError as cause:
        raise UnavailableError(f"{path.name} cannot be written ({cause.strerror}); its operator must look") from cause
