"""HTTP connections to strangers: how many, how large a head, and how long a request may take to arrive.

What it costs to keep a stranger's connection is paid before he has said who he is, and by the process that also
publishes the feed and sends Fehlernachrichten. h11 bounds the head of a request to 64 KB; httptools, which uvicorn
prefers, does not bound it at all.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Open connections; an insurer's system needs one or a few.
MAX_CONNECTIONS = 256
#: From the first moment of a connection, or of the next request, until the head of the request is there.
HEAD_SECONDS = 20.0


class BoundedProtocol(H11Protocol):
    """For `uvicorn.Config(http=…)`. A connection over the bounds is closed without an answer."""

    max_connections = MAX_CONNECTIONS
    head_seconds = HEAD_SECONDS
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._stop_waiting()

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
