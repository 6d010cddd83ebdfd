"""T-01: 54 hours of hold for many insurers, repeated sendings, kill -9 on the way, and the release (incident.md § 16).

    python -m bench soak
    python -m bench.soak [--insurers 8] [--practices 4] [--mails 400] [--seconds 60] [--live 100] [--live-rate 5] …

The real roles on loopback, with the witness of each insurer. The 54 hours are compressed into `--seconds`; certificates
come constantly meanwhile, practices repeat themselves every 4 h, generate anew, hand a mail over twice, cancel, or set
the outage flag and send everything when it is cleared, while live traffic flows. Roles are killed one after the other.
Back by a restart plan and a release plan, each approved by two. Every figure is read from records afterwards.
Results go to `soak-INSURERS-MAILS.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from tests.postgres import fresh_database
from tests.scenarios.soak import KILLED, Size, home_of, run
from tests.scenarios.soak_records import RECEIPTS_SHARE, Figures, judge

from schleuse.holding.capacity import Arrival, HoldPlan

RESULTS = Path(__file__).parent / "results"
#: eAU in 54 h of a house with 80 insurers (25 of 74 million insured), of 10 million a month nationwide (eau.md § 2).
HOUSE = 25 / 74 * 10_000_000 / (30 * 24) * 54
#: The design case that `processing` measures with, too.
DESIGN = 350_000
HOURS = timedelta(hours=54)


def table(size: Size, figures: Figures, wrong: list[str], took: dict[str, float]) -> str:
    rows = [
        ("mails accepted", figures.accepted, "constant arrivals, repeated sendings, the wave afterwards, live traffic"),
        ("of which held", figures.held, ""),
        ("released by the plan", figures.released, ""),
        ("linked as duplicates", figures.duplicates, "same document or same mail again (HD-05, HD-26)"),
        ("proposed as the same certificate", figures.proposals, "generated anew: filed and proposed, never dropped"),
        ("rejected", figures.rejected, "0"),
        ("lost", figures.lost, "0: accepted by the practice's book, and not in the insurer's feed"),
        ("attempts without an answer", figures.attempts_lost, "a role was killed; the practice sent again"),
        ("hold receipts", f"{figures.receipts:.2%}", f"≥ {RECEIPTS_SHARE:.1%}, verified signatures"),
        ("DSN at the practice", f"{figures.dsn:.2%}", f"≥ {RECEIPTS_SHARE:.1%}"),
        ("store for each held mail", f"{figures.octets / 1024:.1f} KiB", "disk blocks of segments and index"),
        ("release, first batch to last mail", f"{figures.release_seconds:.1f} s", "with a killed command and eAU role"),
        (
            "drained / live while it ran",
            f"{figures.drained_per_second:.1f} / {figures.live_per_second:.1f} a second",
            "",
        ),
        ("best 10 s of it", f"{figures.peak_per_second:.1f} eAU/s", "what the roles could do beside the senders"),
    ]
    lines = ["| measured from records | value | asked for, or what it is |", "|---|---|---|"]
    lines += [f"| {name} | {value} | {what} |" for name, value, what in rows]
    took_text = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
    verdict = (
        "Every check of T-01 held." if not wrong else "What did not hold:\n\n" + "\n".join(f"- {one}" for one in wrong)
    )
    return "\n".join([*lines, "", f"Time: {took_text}.", "", verdict, "", derived(figures)])


def derived(figures: Figures) -> str:
    """§ 6.7 with measured rates; says what is not measured."""
    repeats = figures.duplicates / max(figures.accepted - figures.duplicates, 1)
    capacity = figures.drained_per_second + figures.live_per_second
    lines = [
        "Derived, not measured (§ 6.7: backlog / (capacity - arrival)), with the whole release's rate as capacity "
        f"({capacity:.1f} eAU/s, of which the repeats of this run, {repeats:.0%}, are a part):",
        "",
        "| house | certificates in 54 h | arrival | capacity / arrival | drain | drain at the best 10 s |",
        "|---|---|---|---|---|---|",
    ]
    for name, count in (("design case", DESIGN), ("80 insurers, 25 of 74 million insured", HOUSE)):
        arrival = Arrival(count / HOURS.total_seconds(), figures.octets, repeats)
        plan = HoldPlan(HOURS)
        whole, best = plan.drained_in(arrival, capacity), plan.drained_in(arrival, figures.peak_per_second)
        lines.append(
            f"| {name} | {count:,.0f} | {arrival.per_second:.2f}/s | {capacity / arrival.per_second:.1f} |"
            f" {_hours(whole)} | {_hours(best)} |"
        )
    return "\n".join(lines)


def _hours(time: timedelta | None) -> str:
    return "never" if time is None else f"{time / timedelta(hours=1):.1f} h"


def in_database(url: str) -> Callable[[str], str]:
    """What makes a configuration one with all stores in this database; none: the embedded ones."""

    def changed(text: str) -> str:
        for part in ("[kim]", "[eau]", "[vault]") if url else ():
            text = text.replace(part, f'{part}\ndatabase = "{url}"')
        return text

    return changed


def main() -> None:
    default = Size()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("insurers", "practices", "mails", "live", "first", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    parser.add_argument("--seconds", type=float, default=default.seconds)
    parser.add_argument("--live-rate", type=float, default=default.live_rate)
    parser.add_argument("--kills", nargs="*", default=list(KILLED), help="roles killed while it is held")
    parser.add_argument("--no-plan", action="store_true", help="open by two persons, without the restart ladder")
    parser.add_argument("--postgres", action="store_true", help="all stores in a private PostgreSQL")
    parser.add_argument("--keep", type=Path, help="make the home here and leave it")
    parser.add_argument("--dry", action="store_true", help="print only, write no results")
    args = parser.parse_args()
    size = Size(
        insurers=args.insurers, practices=args.practices, mails=args.mails, seconds=args.seconds, live=args.live,
        live_rate=args.live_rate, first=args.first, kills=args.kills, restart=not args.no_plan, seed=args.seed,
    )  # fmt: skip
    load_average, begun = os.getloadavg()[0], time.monotonic()
    with ExitStack() as stack:
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "home"
        url = stack.enter_context(fresh_database()) if args.postgres else ""
        one = stack.enter_context(home_of(folder, size, in_database(url)))
        soak = run(one, size, lambda text: print(f"{time.monotonic() - begun:7.1f} s  {text}", flush=True))
        figures, wrong = judge(soak)
    marks = [*soak.times.marks.items()]
    took = {name: at - before for (_, before), (name, at) in pairwise(marks)}
    head = (
        f"{size.insurers} insurers, {size.practices} practices, {size.mails} certificates in {size.seconds:g} s that"
        f" stand for {size.hours:g} h; {os.cpu_count()} cores that roles, witnesses and practices share; load average"
        f" before {load_average:.1f} (above 0.5 somebody else was working). Killed: {', '.join(size.kills)}."
    )
    text = f"{head}\n\n{table(size, figures, wrong, took)}\n"
    print(text)
    if not args.dry:
        RESULTS.mkdir(exist_ok=True)
        name = f"soak-{size.insurers}-{size.mails}"
        (RESULTS / f"{name}.md").write_text(text)
        raw = {"size": asdict(size), "figures": figures.as_json(), "wrong": wrong, "took": took}
        (RESULTS / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
