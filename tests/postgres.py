"""A PostgreSQL server for tests: the one of SCHLEUSE_TEST_POSTGRES, or a private one from the installed Debian package.

One server per test run, in a directory of its own under /tmp, on a Unix socket; each caller gets a database of its own.
As root the server runs as the user `postgres`, because it refuses to run as root.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sa

VARIABLE = "SCHLEUSE_TEST_POSTGRES"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
_USER = "postgres"
_numbers = itertools.count()


@contextmanager
def fresh_database() -> Iterator[str]:
    """URL of an empty database, dropped afterwards. Skips the test where there is no server to be had."""
    admin = sa.create_engine(_server(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    name = f"schleuse_test_{os.getpid()}_{next(_numbers)}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield admin.url.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def _server() -> str:
    found = os.environ.get(VARIABLE) or _private_server(durable=False)
    if found is None:
        pytest.skip(f"no PostgreSQL: set {VARIABLE} to an administrator's URL, or install the package postgresql")
    return found


@cache
def _private_server(*, durable: bool) -> str | None:
    """Started once; stopped when this process ends. durable: with fsync, for measurements."""
    if not BINARIES:
        return None
    folder = Path(tempfile.mkdtemp(prefix="schleuse-pg-"))
    user = _USER if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"
    initdb: list[str | Path] = [
        BINARIES[-1] / "initdb",
        "-D",
        data,
        "-U",
        _USER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "-N",
    ]
    subprocess.run(initdb, user=user, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    if not durable:
        options += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    with (folder / "log").open("wb") as log:
        command: list[str | Path] = [BINARIES[-1] / "postgres", "-D", data, *options]
        server = subprocess.Popen(command, user=user, stdout=log, stderr=log, cwd=folder)
    atexit.register(_stop, os.getpid(), server, folder)
    _wait_until_ready(folder)
    return f"postgresql+psycopg://{_USER}@/{_USER}?host={folder}"


def durable_server() -> str | None:
    """URL of a private server that flushes as a real one does; None if PostgreSQL is not installed."""
    return _private_server(durable=True)


def _wait_until_ready(folder: Path) -> None:
    deadline = time.monotonic() + 30
    ready: list[str | Path] = [BINARIES[-1] / "pg_isready", "-q", "-h", folder]
    while subprocess.run(ready, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {(folder / 'log').read_text()}")
        time.sleep(0.05)


def _stop(owner: int, server: subprocess.Popen[bytes], folder: Path) -> None:
    if os.getpid() != owner:
        return  # a forked child ends; the server is its parent's
    server.send_signal(signal.SIGINT)  # "fast shutdown"
    server.wait(30)
    shutil.rmtree(folder, ignore_errors=True)
