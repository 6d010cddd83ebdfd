"""The servers that `bench.intake` loads: ours, ours without a store, and Postfix; each on its own ports and folder.

    python bench/servers.py ours|session FOLDER PLAIN_PORT TLS_PORT       serve until SIGTERM

`session` answers each mail at once and keeps nothing: what the protocol's four round trips alone cost, so that
nothing with a store can be quicker on this machine with this client.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent)]

from schleuse.mail.contracts import Done, Intake, Mail  # noqa: E402  (the path comes first)

TICK = os.sysconf("SC_CLK_TCK")
PATIENCE = 20.0


@dataclass(frozen=True)
class Server:
    plain: int
    tls: int
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU so far, of the process, its children and those it has buried."""
        return _cpu(self.pid)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICK + sum(_cpu(int(child)) for child in children)


# Ours --------------------------------------------------------------------------------------------------


class _AllowAll:
    def sender_allowed(self, user: str | None, sender: str) -> None:
        return None

    def recipient(self, address: str) -> None:
        return None

    def content_allowed(self, mail: object) -> None:
        return None


class _KeepNothing:
    def accept(self, mail: Mail, done: Done) -> None:
        done(None)


def serve(kind: str, folder: Path, plain: int, tls: int) -> None:
    """What the kim role runs, without login. kind: ours, or session: nothing is kept."""
    from schleuse.database import sqlite_url
    from schleuse.kim.store import Settings as StoreSettings
    from schleuse.kim.store import open_mail_store

    if kind == "session":
        _listen(_KeepNothing(), folder, plain, tls)
        return
    settings = StoreSettings(url=sqlite_url(folder / "kim.db"), spool=folder / "spool", host="bench.test")
    with open_mail_store(settings, lambda address: address.lower()) as store:
        _listen(store, folder, plain, tls)


def _listen(intake: Intake, folder: Path, plain: int, tls: int) -> None:
    import asyncio

    import uvloop

    from schleuse.clock import utc_now
    from schleuse.mail.listener import Limits, listen_smtp
    from schleuse.mail.smtp import Settings
    from schleuse.mail.tls_pipe import tls_context

    async def run() -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        context = tls_context(folder / "server.crt", folder / "server.key")
        async with contextlib.AsyncExitStack() as stack:
            for port, implicit in ((plain, False), (tls, True)):
                await stack.enter_async_context(
                    listen_smtp(
                        "127.0.0.1",
                        port,
                        settings=Settings("bench.test", require_auth=False, starttls=False),
                        policy=_AllowAll(),
                        intake=intake,
                        now=utc_now,
                        tls=context,
                        implicit_tls=implicit,
                        limits=Limits(connections=500, per_peer=500),
                        grace=1.0,
                    )
                )
            await stopped.wait()

    uvloop.run(run())


def ours(folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Listener, session, store and router."""
    return _own("ours", folder)


def session_only(folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Listener and session; nothing is kept."""
    return _own("session", folder)


@contextmanager
def _own(kind: str, folder: Path) -> Iterator[Server]:
    folder.mkdir()
    _copy_certificate(folder)
    plain, tls = _free_port(), _free_port()
    command = [sys.executable, __file__, kind, str(folder), str(plain), str(tls)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(plain)
        _wait_for(tls)
        yield Server(plain, tls, process.pid)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        shutil.rmtree(folder)


# Postfix -----------------------------------------------------------------------------------------------

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = bench.test
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
default_transport = discard:
relay_transport = discard:
local_transport = discard:
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
in_flow_delay = 0
default_process_limit = 200
alias_maps =
local_recipient_maps =
message_size_limit = 50000000
smtpd_tls_cert_file = {folder}/server.crt
smtpd_tls_key_file = {folder}/server.key
smtpd_tls_security_level = may
smtpd_tls_auth_only = no
"""
MASTER_CF = """\
127.0.0.1:{plain} inet n - n - - smtpd
127.0.0.1:{tls} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
"""


@contextmanager
def postfix(folder: Path) -> Iterator[Server]:
    """A private instance with its own configuration, queue and ports; the system's is not touched."""
    folder.mkdir(mode=0o755)
    _copy_certificate(folder)
    for name in ("queue", "data", "etc"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    plain, tls = _free_port(), _free_port()
    (folder / "etc/main.cf").write_text(MAIN_CF.format(folder=folder))
    (folder / "etc/master.cf").write_text(MASTER_CF.format(plain=plain, tls=tls))
    control = ["postfix", "-c", str(folder / "etc")]
    subprocess.run([*control, "start"], check=True, capture_output=True)
    try:
        _wait_for(plain)
        pid = int((folder / "queue/pid/master.pid").read_text())
        yield Server(plain, tls, pid)
    finally:
        subprocess.run([*control, "abort"], check=False, capture_output=True)
        for _ in range(100):
            if subprocess.run([*control, "status"], check=False, capture_output=True).returncode:
                break
            time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def why_no_postfix() -> str | None:
    for program in ("postfix", "smtp-source"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: apt-get install postfix)"
    if os.geteuid() != 0:
        return "a private Postfix needs root"
    return None


# Small parts -------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _copy_certificate(folder: Path) -> None:
    for name in ("server.crt", "server.key"):
        shutil.copy(folder.parent / name, folder / name)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
