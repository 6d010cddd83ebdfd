"""The two ways in which a fake can fail: before it acted, and after, when only the reply was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from schleuse.errors import Error, UnavailableError


class Faults:
    """Each planned fault happens once, in the order planned, at the next call of that method."""

    def __init__(self) -> None:
        self._before: dict[str, deque[Error]] = {}
        self._after: dict[str, deque[Error]] = {}

    def before(self, method: str, error: Error | None = None) -> None:
        self._before.setdefault(method, deque()).append(error or UnavailableError("planned, nothing was done"))

    def after(self, method: str, error: Error | None = None) -> None:
        self._after.setdefault(method, deque()).append(error or UnavailableError("planned, it was done"))

    @contextmanager
    def around(self, method: str) -> Iterator[None]:
        if queue := self._before.get(method):
            raise queue.popleft()
        yield
        if queue := self._after.get(method):
            raise queue.popleft()
