"""A synchronous HTTP client for an ASGI application in this process; no socket is opened."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp


class Http:
    """One call is one request; an application that crashes answers like a server would."""

    def __init__(self, app: ASGIApp, headers: dict[str, str] | None = None) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._headers = headers or {}

    def request(self, method: str, url: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="https://feed.example") as client:
                return await client.request(method, url, headers=self._headers | (headers or {}), **more)

        return asyncio.run(send())

    def get(self, url: str, **more: Any) -> httpx.Response:
        return self.request("GET", url, **more)

    def delete(self, url: str, **more: Any) -> httpx.Response:
        return self.request("DELETE", url, **more)

    def post(self, url: str, **more: Any) -> httpx.Response:
        return self.request("POST", url, **more)
