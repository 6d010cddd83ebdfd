"""Time to hold and time to proof for many insurers, all services, while mail comes in (incident.md § 5.2, § 14).

    python -m bench.shutdown [--insurers 80] [--rounds 3] [--rate 10] [--scopes all …]
    python -m bench.shutdown --insurers 1 --backlog 8000 --settle 1 --rate 1 --scopes eau_intake/*/process

The real roles on loopback. Each round: one person closes everything with one command, the `control` role proves it, two
persons open it again. To hold: from acceptance until the last worker was quiet, as the workers say. To proof: until
the last check of the last scope was proven. A practice sends eAU to changing insurers all the while. With a backlog all
workers are in the middle of a full batch when the command comes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from tests.scenarios import switching
from tests.scenarios.platform import Platform, until
from tests.scenarios.soak import new_insurers

from bench.processing import fill, wire_mails
from schleuse.config import read_config
from schleuse.database import asking
from schleuse.environment import Environment
from schleuse.practice.outbox import hand_over
from schleuse.practice.transport import MailServerError, submission
from schleuse.processes.control import closings_of
from schleuse.processes.control_closing import Closings
from schleuse.processes.control_logins import ROUND
from schleuse.processes.control_probes import PlatformProbes
from schleuse.processes.home import NewHome, NewPractice, create_home
from schleuse.processes.switching import open_switch
from schleuse.scopes import ScopeState, parse_scopes
from schleuse.shutdown.closure import Verdict
from schleuse.shutdown.proofs import claims

RESULTS = Path(__file__).parent / "results"
FIRST_PORT = int(os.environ.get("BENCH_PORT", "31000"))
LIMIT = 120.0


@dataclass(frozen=True)
class Round:
    """Seconds. proven: of `scopes` at the end; sent: mails that were accepted while it was closed."""

    to_hold: float | None
    to_proof: float | None
    scopes: int
    proven: int
    open_checks: list[str]
    sent: int


@contextmanager
def running(folder: Path, count: int, backlog: int) -> Iterator[Platform]:
    """backlog: mails that wait in the first insurer's mailbox."""
    new = NewHome(
        Environment.TEST,
        "kim.test.kim.telematik-test",
        new_insurers(count),
        [NewPractice("praxis", "Praxis Test")],
        first_port=FIRST_PORT,
    )
    create_home(folder, new, datetime.now(UTC))
    one = Platform(folder, read_config(folder))
    if backlog:
        fill(one.config, list(wire_mails(one.config, backlog, 1)))
    try:
        one.start_all()
        one.start("control")
        until(lambda: one.ready("control"), "control")
        yield one
    finally:
        for role in list(one.processes):
            one.kill(role)


class Load(threading.Thread):
    """A practice that sends `rate` mails a second, made beforehand."""

    def __init__(self, one: Platform, rate: float, mails: int) -> None:
        super().__init__(daemon=True)
        self._one = one
        self._rate = rate
        count = len(one.config.insurers)
        per = max(1, mails // count)
        self._mails = [mail for at in range(count) for mail in one.mails(one.order(per, insurer=at), seed=at)]
        self.sent = 0
        self.over = threading.Event()

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        practice, ledger, left = self._one.practice, self._one.ledger, self._mails[::-1]
        while left and not self.over.is_set():
            try:
                async with submission(self._one.server) as session:
                    while left and not self.over.is_set():
                        self.sent += (await hand_over(session, practice, left.pop(), ledger)).code == 250
                        await asyncio.sleep(1 / self._rate)
            except MailServerError:
                await asyncio.sleep(0.5)


def measure(one: Platform, closings: Closings, scopes: str, load: Load) -> Round:
    before = load.sent
    named = parse_scopes(scopes)
    epoch = switching.close(one.home, scopes, ScopeState.HOLD)
    entry = next(found for found in closings.switch.entries() if found.epoch == epoch)
    deadline = time.monotonic() + LIMIT
    progress = closings.progress(named, epoch)
    while progress.proven_at is None and time.monotonic() < deadline:
        time.sleep(0.2)
        progress = closings.progress(named, epoch)
    found = claims(closings.proofs, closings.needed(), datetime.now(UTC))
    left = [one_.need.text for one_ in found if one_.verdict is not Verdict.PROVEN]
    made = Round(
        (progress.quiet_at - entry.accepted_at).total_seconds() if progress.quiet_at else None,
        (progress.proven_at - entry.accepted_at).total_seconds() if progress.proven_at else None,
        len(found),
        len(found) - len(left),
        left[:5],
        load.sent - before,
    )
    switching.open(one.home, scopes, with_backlog=True)
    until(lambda: closings.seen(named, epoch + 1), "all workers to go on")
    return made


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(rounds: Sequence[Round], scopes: str) -> str:
    hold = [one.to_hold for one in rounds if one.to_hold is not None]
    proof = [one.to_proof for one in rounds if one.to_proof is not None]
    lines = [
        f"`{scopes}`: {rounds[0].scopes} scopes closed by one command, {len(rounds)} rounds.",
        "",
        "| measure | p50 | p95 | worst | aim | limit (§ 14) |",
        "|---|---|---|---|---|---|",
        _row("command accepted → last worker quiet", hold, "< 1 s", "p95 ≤ 5 s, 30 s"),
        _row("command accepted → all of it proven from outside", proof, "< 10 s", "60 s"),
        "",
        f"Proven at the end of each round: {', '.join(f'{one.proven} of {one.scopes}' for one in rounds)}. "
        f"Mails accepted meanwhile: {sum(one.sent for one in rounds)}.",
    ]
    return "\n".join(lines)


def unfiled(one: Platform) -> int:
    """Mails that no worker has finished."""
    with asking(one.config.kim_database) as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM kim_delivery WHERE state = 'HELD'")).scalar_one())


def head(args: argparse.Namespace, load_average: float, left: int) -> str:
    backlog = f" {left:,} of a backlog of {args.backlog:,} eAU were left after the last round." if args.backlog else ""
    return (
        f"{args.insurers} insurers, {os.cpu_count()} cores that roles, probes and load share; load average before "
        f"{load_average:.1f} (above 0.5 somebody else was working). About {args.rate:g} eAU a second came in; "
        f"the first closing came {args.settle:.0f} s after the start.{backlog}"
    )


def _row(name: str, values: Sequence[float], aim: str, limit: str) -> str:
    if not values:
        return f"| {name} | – | – | not reached | {aim} | {limit} |"
    figures = (statistics.median(values), quantile(values, 0.95), max(values))
    return f"| {name} | {' | '.join(f'{one:.2f} s' for one in figures)} | {aim} | {limit} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--insurers", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--scopes", nargs="+", default=["all"])
    parser.add_argument("--backlog", type=int, default=0)
    parser.add_argument(
        "--settle", type=float, default=ROUND.total_seconds() + 10, help="seconds of a normal day before"
    )
    parser.add_argument("--dry", action="store_true", help="print only, write no results")
    args = parser.parse_args()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "home", args.insurers, args.backlog) as one:
        switch = open_switch(one.config, "bench")
        probes = PlatformProbes(one.config)
        closings = closings_of(one.config, switch, probes, "bench")
        load = Load(one, args.rate, 400)
        time.sleep(args.settle)
        load.start()
        rounds = {scopes: [measure(one, closings, scopes, load) for _ in range(args.rounds)] for scopes in args.scopes}
        left = unfiled(one) if args.backlog else 0
        load.over.set()
        probes.close()
        if args.dry:
            attempts = [line for line in one.log("control").splitlines() if '"closure.' in line]
            print("\n".join(attempts), file=sys.stderr)
    tables = [table(made, scopes) for scopes, made in rounds.items()]
    text = "\n\n".join([head(args, load_average, left), *tables]) + "\n"
    print(text)
    if not args.dry:
        RESULTS.mkdir(exist_ok=True)
        name = "shutdown_backlog" if args.backlog else "shutdown"
        (RESULTS / f"{name}.md").write_text(text)
        plain = {scopes: [asdict(made) for made in rounds[scopes]] for scopes in rounds}
        (RESULTS / f"{name}.json").write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
