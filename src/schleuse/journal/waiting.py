"""Who waits in this process for entries to become durable: one future for each, or one for many (`log.Sink`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from schleuse.errors import Error


class Futures:
    """Resolves one future per entry; the token is the future."""

    def resolve(self, tokens: Sequence[Any], indexes: Sequence[int]) -> None:
        for future, index in zip(tokens, indexes, strict=True):
            try:
                future.set_result(index)
            except asyncio.InvalidStateError:  # whoever waited was cancelled
                continue

    def reject(self, tokens: Sequence[Any], error: Error) -> None:
        for future in tokens:
            if not future.done():
                future.set_exception(error)


FUTURES = Futures()


class Many:
    """Resolves one future for many entries; the token is the entry's place."""

    def __init__(self, count: int) -> None:
        self.future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._indexes = [0] * count
        self._left = count

    def resolve(self, tokens: Sequence[Any], indexes: Sequence[int]) -> None:
        for place, index in zip(tokens, indexes, strict=True):
            self._indexes[place] = index
        self._left -= len(tokens)
        if not self._left and not self.future.done():
            self.future.set_result(self._indexes)

    def reject(self, tokens: Sequence[Any], error: Error) -> None:
        if not self.future.done():
            self.future.set_exception(error)
