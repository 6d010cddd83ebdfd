"""Seconds of a release over many insurers, and what they were waited for (HD-42, HD-43).

    python -m bench.release [--insurers 80] [--backlog 800] [--first 10]

The real roles on loopback; all insurers are held and a backlog arrives, two persons open them without it and approve a
release, and this process carries it out as the command does, so that each look is timed. Nothing else is sent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.scenarios import switching
from tests.scenarios.platform import Platform, until
from tests.scenarios.test_switch_eau import everybody_saw

from bench.shutdown import running
from schleuse.clock import utc_now
from schleuse.database import asking
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Purpose
from schleuse.processes.releasing import LOOK_SECONDS, PURPOSE, Releases, open_releases
from schleuse.processes.trail import OUTSIDE, open_trail, teller
from schleuse.scopes import ScopeState
from schleuse.switch.approval import approve
from schleuse.switch.documents import Role
from schleuse.vault.tokens import read_token_key

RESULTS = Path(__file__).parent / "results"
RELEASERS = (("betrieb-1", Role.SWITCH_OFFICER), ("betrieb-2", Role.SERVICE_OWNER))
DONE = sa.text(
    "SELECT account, min(changed_us) AS first, max(changed_us) AS last FROM kim_delivery"
    " WHERE state = 'DELIVERED' AND account IN :accounts GROUP BY account"
).bindparams(sa.bindparam("accounts", expanding=True))


@dataclass
class Spent:
    """Seconds of looks, by what they did; and how many looks there were."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    looks: int = 0

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - begun

    def timed(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            with self.on(what):
                return call(*args, **named)

        return wrapped

    def watch(self, releases: Releases) -> None:
        """Time the parts of a look that ask the stores, the disk and the journal."""
        leases = releases._leases
        for part, names in (
            (leases.holds, ("release", "release_to", "backlog")),
            (leases.release_view, ("outcome", "outcomes", "peek")),
            (releases.book, ("note", "progress", "read", "approvals", "running", "stop_order")),
            (releases, ("_said", "is_approved")),
        ):
            for name in (one for one in names if hasattr(part, one)):
                setattr(part, name, self.timed(f"{type(part).__name__}.{name}", getattr(part, name)))


@dataclass(frozen=True)
class Figures:
    """Seconds from the first batch. last_begun: until something of the last insurer was filed; drained: of all.

    each: median of an insurer, from its first mail to its last.
    """

    mails: int
    drained: float
    last_begun: float
    each: float
    looks: int
    in_looks: float
    between: float
    spent: dict[str, float]


def fill(one: Platform, mails: int) -> None:
    everybody_saw(one, switching.close(one.home, "eau", ScopeState.HOLD))
    count = len(one.config.insurers)
    for insurer in range(count):
        one.send(one.mails(one.order(max(1, mails // count), insurer=insurer), seed=insurer))
    until(lambda: one.conservation().unrouted == 0, "all to be in their mailboxes")
    everybody_saw(one, switching.open(one.home, "eau", with_backlog=False))


def measure(one: Platform, first: int) -> Figures:
    mailboxes = {insurer.address.lower(): insurer.ik for insurer in one.config.insurers}
    trail = open_trail(one.config, OUTSIDE, JournalClient(one.config.journal_socket))
    spent = Spent()
    with open_releases(one.config, teller(trail, Purpose.INCIDENT, user="bench"), "bench") as releases:
        plan = releases.plan("b1", mailboxes, first=first)
        releases.keep(plan)
        for who, role in RELEASERS:
            key = read_token_key(one.home / "operators" / f"{who}.key")
            releases.approve(plan, approve(PURPOSE, plan.hash, who, role, key, utc_now()))
        spent.watch(releases)
        begun, at = time.time(), None
        while True:
            with spent.on("looks"):
                moved = releases.step(plan.id)
            spent.looks += 1
            if moved.finished or moved.stopped:
                assert not moved.stopped, moved.stopped
                break
            if moved == at:
                with spent.on("between"):
                    time.sleep(LOOK_SECONDS)
            at = moved
    with asking(one.config.kim_database) as connection:
        rows = connection.execute(DONE, {"accounts": list(mailboxes)}).all()
    firsts, lasts = [row.first / 1e6 - begun for row in rows], [row.last / 1e6 - begun for row in rows]
    each = statistics.median(last - first for first, last in zip(firsts, lasts, strict=True))
    looks, between = spent.seconds.pop("looks"), spent.seconds.pop("between", 0.0)
    figures = (max(lasts), max(firsts), each, spent.looks, looks, between)
    return Figures(plan.count, *figures, dict(sorted(spent.seconds.items(), key=lambda one: -one[1])))


def table(made: Figures, insurers: int) -> str:
    rate = made.mails / made.drained
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in made.spent.items() if seconds >= 0.05)
    return "\n".join(
        [
            "| measure | value |",
            "|---|---|",
            f"| first batch → the last of {made.mails} mails is filed | {made.drained:.1f} s, {rate:.1f} a second |",
            f"| first batch → the first mail of the last insurer is filed | {made.last_begun:.1f} s |",
            f"| an insurer, its first mail → its last (median) | {made.each:.1f} s |",
            f"| the whole, for each insurer | {made.drained / insurers:.2f} s |",
            f"| looks | {made.looks}, {made.in_looks / made.looks * 1000:.0f} ms each |",
            f"| in looks / between them, while workers work | {made.in_looks:.1f} s / {made.between:.1f} s |",
            "",
            f"Of the looks: {parts}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--insurers", type=int, default=80)
    parser.add_argument("--backlog", type=int, default=1600, help="eAU that arrive in the hold")
    parser.add_argument("--first", type=int, default=10, help="mails of the first batch")
    parser.add_argument("--dry", action="store_true", help="print only, write no results")
    args = parser.parse_args()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "home", args.insurers) as one:
        one.kill("control")  # it would carry the release out beside us
        fill(one, args.backlog)
        made = measure(one, args.first)
    text = (
        f"{args.insurers} insurers, {os.cpu_count()} cores that roles and this process share; load average before"
        f" {load_average:.1f} (above 0.5 somebody else was working).\n\n{table(made, args.insurers)}\n"
    )
    print(text)
    if not args.dry:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "release.md").write_text(text)
        (RESULTS / "release.json").write_text(json.dumps(asdict(made), indent=1) + "\n")


if __name__ == "__main__":
    main()
