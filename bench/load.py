"""A bounded SMTP load: C connections send 50 KB mails for some seconds, each waiting for its 250.

    python bench/load.py PORT [-c 20] [-t 3] [--size 50000] [--tls] [--new]

Prints one JSON object: mails, seconds, rate, p50_ms, p99_ms, errors. `--new`: a new connection for each mail.
Commands are sent one by one as `smtp-source` does, so that both clients cost a server the same turns.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import ssl
import time
from dataclasses import dataclass, field

import uvloop

ENVELOPE = (b"MAIL FROM:<a@bench.test>\r\n", b"RCPT TO:<b@bench.test>\r\n", b"DATA\r\n")


@dataclass
class Run:
    """What all connections share. latencies: seconds from MAIL (or the connect, with `new`) to the 250."""

    port: int
    until: float
    body: bytes
    tls: ssl.SSLContext | None
    new: bool
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    number: int = 0

    def mail(self) -> bytes:
        """The next mail with its end; its Message-ID is its own, so that no store takes it for a duplicate."""
        self.number += 1
        head = f"From: a@bench.test\r\nTo: b@bench.test\r\nMessage-ID: <{os.getpid()}.{self.number}@bench.test>\r\n"
        return head.encode() + self.body

    @property
    def over(self) -> bool:
        return time.perf_counter() > self.until


class Connection(asyncio.Protocol):
    """States: -2 greeting, -1 EHLO, 0..2 the envelope, 3 content, 4 QUIT."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.state = -2
        self.buffer = b""
        self.since = time.perf_counter()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\n")) >= 0:
            line, self.buffer = self.buffer[:end], self.buffer[end + 1 :]
            if line[3:4] == b"-":
                continue
            if line[:1] in b"45":
                self.run.errors += 1
                self.transport.close()
                return
            self.step()

    def step(self) -> None:
        self.state += 1
        if self.state == -1:
            self.transport.write(b"EHLO load.bench.test\r\n")
        elif self.state in (0, 1, 2):
            if self.state == 0:
                self.begin()
            else:
                self.transport.write(ENVELOPE[self.state])
        elif self.state == 3:
            self.transport.write(self.run.mail())
        elif self.state == 4:
            self.run.latencies.append(time.perf_counter() - self.since)
            self.state = 0
            if self.run.new:
                self.quit()
            else:
                self.begin()
        else:
            self.transport.close()

    def begin(self) -> None:
        if self.run.over:
            self.quit()
            return
        if not self.run.new:
            self.since = time.perf_counter()
        self.transport.write(ENVELOPE[0])

    def quit(self) -> None:
        self.state = 4
        self.transport.write(b"QUIT\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def one(run: Run) -> None:
    loop = asyncio.get_running_loop()
    while not run.over:
        _, protocol = await loop.create_connection(lambda: Connection(run), "127.0.0.1", run.port, ssl=run.tls)
        await protocol.ended
        if run.errors > 100:
            return


async def load(run: Run, connections: int) -> None:
    await asyncio.gather(*(one(run) for _ in range(connections)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("port", type=int)
    parser.add_argument("-c", "--connections", type=int, default=20)
    parser.add_argument("-t", "--seconds", type=float, default=3)
    parser.add_argument("--size", type=int, default=50_000)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--new", action="store_true")
    asked = parser.parse_args()
    text = base64.encodebytes(os.urandom(asked.size * 3 // 4)).replace(b"\n", b"\r\n")
    context = None
    if asked.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # loopback; the cost is the same
    started = time.perf_counter()
    run = Run(
        asked.port, started + asked.seconds, b"Subject: KOM-LE-Nachricht\r\n\r\n" + text + b".\r\n", context, asked.new
    )
    uvloop.run(load(run, asked.connections))
    seconds = time.perf_counter() - started
    sorted_latencies = sorted(run.latencies) or [0.0]
    count = len(run.latencies)
    print(
        json.dumps(
            {
                "mails": count,
                "seconds": seconds,
                "rate": count / seconds,
                "p50_ms": sorted_latencies[len(sorted_latencies) // 2] * 1e3,
                "p99_ms": sorted_latencies[int(len(sorted_latencies) * 0.99)] * 1e3,
                "errors": run.errors,
            }
        )
    )


if __name__ == "__main__":
    main()
