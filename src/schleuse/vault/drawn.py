"""The kernel's random bytes, read many at a time: a batch needs ten small draws a document, each a system call."""

from __future__ import annotations

import os


class Drawn:
    """Call it as `os.urandom`. Each octet is given out once. For one thread, and for a process that does not fork.

    portion: octets read at a time; what is left goes with the object, so a short life is best for keys.
    """

    def __init__(self, portion: int = 4096) -> None:
        self._portion = portion
        self._octets = b""
        self._at = 0

    def __call__(self, size: int) -> bytes:
        """So many octets, never fewer."""
        end = self._at + size
        if end > len(self._octets):
            self._octets, self._at, end = os.urandom(max(self._portion, size)), 0, size
        found, self._at = self._octets[self._at : end], end
        return found
