"""Random values assigned to names, so that an entry names nobody (journal.md § 4)."""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path

from schleuse.errors import UnavailableError
from schleuse.journal.disk import OsDisk, replace


class Pseudonyms:
    """Kept in a JSON file. From any thread. `of` raises UnavailableError if a new one cannot be kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, name: str) -> bytes:
        """16 octets, the same for the same name."""
        with self._lock:
            if name not in self._known:
                known = {**self._known, name: secrets.token_hex(16)}
                write_whole(self._path, json.dumps(known, indent=1, ensure_ascii=False).encode())
                self._known = known  # only now: what is not on disk would be another after a restart
            return bytes.fromhex(self._known[name])


def write_whole(path: Path, data: bytes) -> None:
    """A small file, old or new, never half of it. Raises UnavailableError."""
    try:
        replace(OsDisk(), path, data)
    except OSError as cause:
        raise UnavailableError(f"{path.name} cannot be written ({cause.strerror}); its operator must look") from cause
