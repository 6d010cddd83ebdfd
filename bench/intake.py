"""Durable mails a second and CPU a mail of our intake, beside Postfix and the bare disk, in one run on one disk.

    python bench/intake.py [--seconds 3] [--rounds 3] [--dir /var/tmp]

Both servers take 50 KB mails and acknowledge each after it is on the disk: ours with the listener, the session
and the embedded mail store with its router; Postfix (the installed Debian package, a private instance) with its
own queue and delivery to `discard`. Rounds are interleaved and a point is the median of its rounds. Clients are
`smtp-source` (Postfix's own) and bench/load.py. Writes bench/results/intake.{json,md,png}.

CPU is user and system time of the server's processes, kernel work of its system calls included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent)]

SIZE = 50_000  #: octets; a real eAU mail of 25 KB XML is 50.6 KB on the wire (limits.md)
TICK = os.sysconf("SC_CLK_TCK")
AIM_RATIO, AIM_CPU_MS = 3.0, 0.35  # issue 2, part F
PATIENCE = 20.0


@dataclass(frozen=True)
class Point:
    """One way of loading a server."""

    client: str  # smtp-source | load
    connections: int
    tls: bool = False
    new: bool = False

    @property
    def name(self) -> str:
        kind = ("TLS" if self.tls else "plain") + (", new connection" if self.new else "")
        return f"{self.client} {kind} c={self.connections}"


POINTS = [
    *(Point("smtp-source", connections) for connections in (1, 20, 100)),
    Point("smtp-source", 20, new=True),
    *(Point("load", connections) for connections in (1, 20, 100)),
    *(Point("load", connections, tls=True) for connections in (1, 20, 100)),
    Point("load", 20, tls=True, new=True),
]


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


# Our server --------------------------------------------------------------------------------------------


class _AllowAll:
    def sender_allowed(self, user: str | None, sender: str) -> None:
        return None

    def recipient(self, address: str) -> None:
        return None

    def content_allowed(self, mail: object) -> None:
        return None


def serve(folder: Path, plain: int, tls: int) -> None:
    """Our intake until SIGTERM: what the kim role runs, without login."""
    import asyncio

    import uvloop

    from schleuse.clock import utc_now
    from schleuse.database import sqlite_url
    from schleuse.kim.store import Settings as StoreSettings
    from schleuse.kim.store import open_mail_store
    from schleuse.mail.listener import Limits, listen_smtp
    from schleuse.mail.smtp import Settings
    from schleuse.mail.tls_pipe import tls_context
    from schleuse.processes.kim import SWITCH_SECONDS

    sys.setswitchinterval(SWITCH_SECONDS)
    store = open_mail_store(
        StoreSettings(url=sqlite_url(folder / "kim.db"), spool=folder / "spool", host="bench.test"),
        lambda address: address.lower(),
    )

    async def run() -> None:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        context = tls_context(folder / "server.crt", folder / "server.key")
        limits = Limits(connections=500, per_peer=500)
        async with contextlib.AsyncExitStack() as stack:
            for port, implicit in ((plain, False), (tls, True)):
                await stack.enter_async_context(
                    listen_smtp(
                        "127.0.0.1",
                        port,
                        settings=Settings("bench.test", require_auth=False, starttls=False),
                        policy=_AllowAll(),
                        intake=store,
                        now=utc_now,
                        tls=context,
                        implicit_tls=implicit,
                        limits=limits,
                        grace=1.0,
                    )
                )
            await stopped.wait()

    uvloop.run(run())
    store.close()


@contextmanager
def ours(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    _copy_certificate(folder)
    plain, tls = _free_port(), _free_port()
    command = [sys.executable, __file__, "--serve", str(folder), str(plain), str(tls)]
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


# Measuring ---------------------------------------------------------------------------------------------


def measure(server: Server, point: Point, seconds: float) -> dict[str, float]:
    before = server.cpu()
    result = (smtp_source if point.client == "smtp-source" else own_load)(server, point, seconds)
    result["cpu_ms"] = (server.cpu() - before) / max(result["mails"], 1) * 1e3
    return result


def smtp_source(server: Server, point: Point, seconds: float) -> dict[str, float]:
    """smtp-source sends a number of mails, so some go first to learn how many fill the time."""
    trial = max(4 * point.connections, 40)
    count = int(max(trial, trial / _smtp_source(server, point, trial) * seconds))
    elapsed = _smtp_source(server, point, count)
    return {"mails": count + trial, "rate": count / elapsed}


def _smtp_source(server: Server, point: Point, count: int) -> float:
    command = [
        *("smtp-source", "-s", str(point.connections), "-m", str(count), "-l", str(SIZE)),
        *("-f", "a@bench.test", "-t", "b@bench.test", *([] if point.new else ["-d"])),
        f"inet:127.0.0.1:{server.plain}",
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return time.perf_counter() - started


def own_load(server: Server, point: Point, seconds: float) -> dict[str, float]:
    command = [
        *(sys.executable, str(HERE / "load.py"), str(server.tls if point.tls else server.plain)),
        *("-c", str(point.connections), "-t", str(seconds), "--size", str(SIZE)),
        *(["--tls"] if point.tls else []),
        *(["--new"] if point.new else []),
    ]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True)
    result: dict[str, float] = json.loads(done.stdout)
    if result["errors"]:
        raise RuntimeError(f"{point.name}: {result['errors']} mails were refused")
    return result


def raw_disk(folder: Path, seconds: float = 1.0) -> dict[str, float]:
    """Appends of SIZE octets a second with one fdatasync after each, and after groups of 16 and 64."""
    data, rates = os.urandom(SIZE), {}
    for group in (1, 16, 64):
        path = folder / "raw"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            os.writev(handle, [data] * group)
            os.fdatasync(handle)
            count += group
        rates[str(group)] = count / (time.perf_counter() - started)
        os.close(handle)
        path.unlink()
    return rates


def run(folder: Path, seconds: float, rounds: int, points: list[Point]) -> dict[str, Any]:
    missing = why_no_postfix()
    load_before = os.getloadavg()[0]
    makers = {"schleuse": ours} if missing else {"schleuse": ours, "postfix": postfix}
    raw: list[dict[str, float]] = []
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in makers}
    for number in range(rounds):
        raw.append(raw_disk(folder))
        with ExitStack() as stack:
            servers = {name: stack.enter_context(maker(folder / f"{name}-{number}")) for name, maker in makers.items()}
            for point in points:
                if point.client == "smtp-source" and shutil.which("smtp-source") is None:
                    continue
                for name, server in servers.items():
                    result = measure(server, point, seconds)
                    found[name].setdefault(point.name, []).append(result)
                    print(f"  {number + 1}/{rounds} {name:9} {point.name:34} {result['rate']:7.0f}/s", file=sys.stderr)
    return {
        "size": SIZE,
        "seconds": seconds,
        "rounds": rounds,
        "cpus": os.cpu_count(),
        "load_before": load_before,
        "postfix_missing": missing,
        "fdatasync": {group: statistics.median(one[group] for one in raw) for group in raw[0]},
        "points": {name: {point: _median(rows) for point, rows in table.items()} for name, table in found.items()},
    }


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


# Showing -----------------------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    raw = results["fdatasync"]
    lines = [
        f"Durable 50 KB mails a second, median of {results['rounds']} rounds of {results['seconds']} s,"
        f" {results['cpus']} cores shared by server and client;"
        f" load average before the run {results['load_before']:.1f}"
        " (above 0.5 somebody else was working, and only the CPU figures can be trusted).",
        "",
        f"Bare disk, append 50 KB + fdatasync: {raw['1']:.0f}/s; one fdatasync for 16: {raw['16']:.0f}/s,"
        f" for 64: {raw['64']:.0f}/s.",
        "",
        "| load | Schleuse /s | CPU ms | Postfix /s | CPU ms | ratio | of bare fdatasync |",
        "|---|---|---|---|---|---|---|",
    ]
    for point, our in results["points"]["schleuse"].items():
        other = results["points"].get("postfix", {}).get(point)
        theirs = (
            f"{other['rate']:.0f} | {other['cpu_ms']:.2f} | {our['rate'] / other['rate']:.1f}" if other else "- | - | -"
        )
        share = our["rate"] / raw["1"]
        lines.append(f"| {point} | {our['rate']:.0f} | {our['cpu_ms']:.2f} | {theirs} | {share:.2f} |")
    if results["postfix_missing"]:
        lines += ["", f"Postfix was not measured: {results['postfix_missing']}."]
    lines += ["", f"Aims (issue 2, part F): ratio >= {AIM_RATIO}, CPU <= {AIM_CPU_MS} ms a mail."]
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(results["points"]["schleuse"])
    figure, (rates, cpu) = pyplot.subplots(1, 2, figsize=(12, 0.45 * len(names) + 1.5), sharey=True)
    for offset, (server, rows) in zip((-0.2, 0.2), results["points"].items(), strict=False):
        places = [index + offset for index in range(len(names))]
        rates.barh(places, [rows[name]["rate"] for name in names], 0.38, label=server)
        cpu.barh(places, [rows[name]["cpu_ms"] for name in names], 0.38, label=server)
    rates.axvline(results["fdatasync"]["1"], color="grey", linestyle="--", label="one fdatasync a mail, bare disk")
    cpu.axvline(AIM_CPU_MS, color="grey", linestyle="--", label=f"aim {AIM_CPU_MS} ms")
    rates.set_yticks(range(len(names)), names)
    rates.invert_yaxis()
    rates.set_xlabel("durable 50 KB mails / s")
    cpu.set_xlabel("CPU ms / mail (server)")
    rates.legend()
    cpu.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


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


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each point in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on the disk to measure")
    parser.add_argument("--only", default="", help="only points whose name contains this")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    asked = parser.parse_args()
    from tests.mail.smtp_server import make_certificate

    folder = Path(tempfile.mkdtemp(prefix="schleuse-intake-", dir=asked.dir))
    folder.chmod(0o755)  # Postfix drops root and must reach its queue
    try:
        make_certificate(folder)
        results = run(folder, asked.seconds, asked.rounds, [point for point in POINTS if asked.only in point.name])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    asked.results.mkdir(exist_ok=True)
    (asked.results / "intake.json").write_text(json.dumps(results, indent=1) + "\n")
    (asked.results / "intake.md").write_text(table(results))
    plot(results, asked.results / "intake.png")
    print(table(results))


if __name__ == "__main__":
    main()
