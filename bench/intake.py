"""Durable mails a second and CPU a mail of our intake, beside Postfix and the bare disk, in one run on one disk.

    python -m bench.intake [--seconds 3] [--rounds 3] [--dir /var/tmp]

Both servers take 50 KB mails and acknowledge each after it is on the disk: ours with the listener, the session
and the embedded mail store with its router; Postfix (the installed Debian package, a private instance) with its
own queue and delivery to `discard`. A third one is our session without a store: what it cannot do, no store can.
Rounds are interleaved and a point is the median of its rounds. Clients are `smtp-source` (Postfix's own) and
bench/load.py. Writes bench/results/intake.{json,md,png}.

CPU is user and system time of the server's processes, kernel work of its system calls included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent)]

from bench.servers import Server, ours, postfix, session_only, why_no_postfix  # noqa: E402  (the path comes first)

SIZE = 50_000  #: octets; a real eAU mail of 25 KB XML is 50.6 KB on the wire (limits.md)
AIM_RATIO, AIM_CPU_MS = 3.0, 0.35  # issue 2, part F
SETTLE = 0.5  #: seconds until what was acknowledged is routed (Postfix: delivered), so that its CPU is counted, too
ROOM = 128 << 20  #: octets that are written before flushes onto written blocks are counted


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


# Measuring ---------------------------------------------------------------------------------------------


def measure(server: Server, point: Point, seconds: float) -> dict[str, float]:
    before = server.cpu()
    result = (smtp_source if point.client == "smtp-source" else own_load)(server, point, seconds)
    time.sleep(SETTLE)
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


def raw_disk(folder: Path, seconds: float = 0.7) -> dict[str, float]:
    """Writes of SIZE octets a second with one fdatasync for each, for 16, for 64: to a growing file, and onto written
    blocks, where a flush need not wait for the file system's journal."""
    return {
        f"{kind} {group}": _flushes(folder / "raw", group, seconds, room=ROOM if kind == "written" else 0)
        for group in (1, 16, 64)
        for kind in ("growing", "written")
    }


def _flushes(path: Path, group: int, seconds: float, *, room: int) -> float:
    data = [os.urandom(SIZE)] * group
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for start in range(0, room, 1 << 20):
            os.pwrite(handle, bytes(1 << 20), start)
        os.fsync(handle)
        count = offset = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            offset += os.pwritev(handle, data, offset)
            os.fdatasync(handle)
            count += group
            if room and offset > room - SIZE * group:
                offset = 0
    finally:
        os.close(handle)
        path.unlink()
    return count / elapsed


def run(folder: Path, seconds: float, rounds: int, points: list[Point]) -> dict[str, Any]:
    missing = why_no_postfix()
    makers = {"schleuse": ours, "session": session_only} | ({} if missing else {"postfix": postfix})
    loads: list[float] = []
    raw: list[dict[str, float]] = []
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in makers}
    for number in range(rounds):
        loads.append(os.getloadavg()[0])
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
        "load_before": loads[0],
        "postfix_missing": missing,
        "fdatasync": {kind: statistics.median(one[kind] for one in raw) for kind in raw[0]},
        "points": {name: {point: _median(rows) for point, rows in table.items()} for name, table in found.items()},
        "ratios": {
            name: {point: _ratio(found["schleuse"][point], rows) for point, rows in table.items()}
            for name, table in found.items()
        },
    }


def _ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """Of rates that were measured one after the other; a busy minute then spoils one round for both."""
    return statistics.median(our["rate"] / other["rate"] for our, other in zip(ours, theirs, strict=True))


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


# Showing -----------------------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    raw = results["fdatasync"]
    lines = [
        f"Durable 50 KB mails a second, median of {results['rounds']} rounds of {results['seconds']} s,"
        f" {results['cpus']} cores shared by server and client;"
        f" load average before the run {results['load_before']:.1f}"
        " (above 0.5 somebody else was working, and only the CPU figures can be trusted)."
        " Ratios are of neighbours in one round.",
        "",
        "| raw limit of this run: 50 KB writes/s with one fdatasync | for each | for 16 | for 64 |",
        "|---|---|---|---|",
        *(
            f"| {name} | " + " | ".join(f"{raw[f'{kind} {group}']:.0f}" for group in (1, 16, 64)) + " |"
            for kind, name in (("growing", "growing file"), ("written", "onto written blocks"))
        ),
        "",
        "| load | Schleuse /s | CPU ms | Postfix /s | CPU ms | **ratio** | of our session without a store |"
        " of one flush a mail |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for point, our in results["points"]["schleuse"].items():
        other = results["points"].get("postfix", {}).get(point)
        theirs = (
            f"{other['rate']:.0f} | {other['cpu_ms']:.2f} | **{results['ratios']['postfix'][point]:.1f}**"
            if other
            else "- | - | -"
        )
        bare = results["points"]["session"][point]
        lines.append(
            f"| {point} | {our['rate']:.0f} | {our['cpu_ms']:.2f} | {theirs}"
            f" | {results['ratios']['session'][point]:.0%} of {bare['rate']:.0f}/s, {bare['cpu_ms']:.2f} ms"
            f" | {our['rate'] / raw['written 1']:.2f} |"
        )
    if results["postfix_missing"]:
        lines += ["", f"Postfix was not measured: {results['postfix_missing']}."]
    lines += [
        "",
        f"Aims (issue 2, part F): ratio >= {AIM_RATIO}, CPU <= {AIM_CPU_MS} ms a mail.",
        "",
        "One connection sends its next mail only after the last one was answered: it cannot share a flush; it waits for"
        " four round trips of the protocol and one flush a mail. Our session without a store and the raw flush rate are"
        " the two parts of its ceiling.",
    ]
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(results["points"]["schleuse"])
    labels = {"schleuse": "Schleuse", "postfix": "Postfix", "session": "our session, nothing kept"}
    figure, (rates, cpu) = pyplot.subplots(1, 2, figsize=(12, 0.5 * len(names) + 1.5), sharey=True)
    for number, (server, rows) in enumerate(results["points"].items()):
        places = [index + 0.27 * (number - 1) for index in range(len(names))]
        rates.barh(places, [rows[name]["rate"] for name in names], 0.25, label=labels[server])
        cpu.barh(places, [rows[name]["cpu_ms"] for name in names], 0.25, label=labels[server])
    raw = results["fdatasync"]["written 1"]
    rates.axvline(raw, color="grey", linestyle="--", label="one fdatasync a mail, bare disk")
    cpu.axvline(AIM_CPU_MS, color="grey", linestyle="--", label=f"aim {AIM_CPU_MS} ms")
    rates.set_yticks(range(len(names)), names)
    rates.invert_yaxis()
    rates.set_xlabel("durable 50 KB mails / s")
    cpu.set_xlabel("CPU ms / mail (server)")
    rates.legend()
    cpu.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
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
