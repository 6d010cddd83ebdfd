"""Abort time (incident.md § 14): a restart that is under way goes back to S0, by a rule or by a person (RS-06, RS-07).

    python -m bench.abort [--insurers 80] [--rounds 5] [--rate 5] [--backlog 400]

The real roles on loopback. Each round: all insurers are held and a backlog arrives; a restart of two persons opens
them, a release of two persons lets the backlog go batch by batch, a practice sends eAU all the while. Then, in the
middle of the release,

    rule      a decoy is touched: the warning lies in its folder (T-14), and the platform aborts by itself
    person    an operator types `schleuse restart abort`; the start of that program is part of it

From the cause, by what records say: the command is accepted, the last worker is quiet, every mail that was let go is
held again, the last scope is proven closed from outside. What is left of the backlog is part of the next round's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.scenarios import switching
from tests.scenarios.platform import Platform, until

from bench.shutdown import Load, running
from schleuse.clock import to_us, utc_now
from schleuse.database import asking
from schleuse.kim.store import Leases, open_leases
from schleuse.processes.control import closings_of
from schleuse.processes.control_closing import Closings
from schleuse.processes.control_logins import ROUND
from schleuse.processes.control_probes import PlatformProbes
from schleuse.processes.releasing import PURPOSE, open_releases, release_book
from schleuse.processes.restart_home import restarts_of
from schleuse.processes.restarting import Restarts, Signer
from schleuse.processes.switching import open_switch
from schleuse.restart.book import OvertakenError
from schleuse.restart.plan import GateKind, RestartPlan, Stage, StageName, Target, closes_on_abort
from schleuse.scopes import Direction, Scope, ScopeState
from schleuse.shutdown.closure import ClosureProof, Verdict
from schleuse.shutdown.proofs import proofs
from schleuse.switch.approval import approve
from schleuse.switch.documents import Role, time_text
from schleuse.switch.log import Accepted
from schleuse.vault.tokens import read_token_key

RESULTS = Path(__file__).parent / "results"
CAUSES = ("rule", "person")
LIMIT = 120.0
LOOK = 0.05  #: what is not on record is seen so exactly
LATE = sa.text(
    "SELECT count(*) FROM kim_delivery WHERE state = 'DELIVERED' AND account IN :accounts AND changed_us > :quiet"
).bindparams(sa.bindparam("accounts", expanding=True))
#: What a worker has, and what one could take.
LET_GO = sa.text(
    "SELECT count(*) FROM kim_delivery AS d WHERE d.account IN :accounts AND (d.state = 'RELEASING' OR d.state = 'HELD'"
    " AND EXISTS (SELECT 1 FROM kim_hold AS h WHERE h.account = d.account AND h.ended_us IS NOT NULL"
    " AND h.drained_us IS NULL AND d.id <= h.to_id AND d.id <= h.released_to))"
).bindparams(sa.bindparam("accounts", expanding=True))
OPENERS = (("betrieb-1", Role.SWITCH_OFFICER), ("betrieb-2", Role.RELEASER))
RELEASERS = (("betrieb-1", Role.SWITCH_OFFICER), ("betrieb-2", Role.SERVICE_OWNER))


@dataclass(frozen=True)
class Round:
    """Seconds: command from the cause, the others from the command; None: not within LIMIT.

    out: mails that were let go and not finished at the cause. late: finished after the last worker was quiet.
    still_out: let go and not taken back at the end. last: the worker that was quiet last, and when it had seen the
    epoch. waited: what checks saw that were not proven at first, and how often.
    """

    cause: str
    command: float
    quiet: float | None
    held: float | None
    proof: float | None
    released: int
    of: int
    out: int
    late: int
    still_out: int
    last: str
    seen: float
    waited: dict[str, int]


class Bench:
    def __init__(self, one: Platform, closings: Closings, leases: Leases, args: argparse.Namespace) -> None:
        self.one, self.closings, self.leases, self.args = one, closings, leases, args
        self.restarts: Restarts = restarts_of(one.config, lambda _facts, _granted: None)
        self.mailboxes = {insurer.address.lower(): insurer.ik for insurer in one.config.insurers}
        self.number = 0

    def round(self, cause: str) -> Round:
        self.number += 1
        name = f"r{self.number}"
        self.hold_and_fill()
        plan = self.open_by_restart(name)
        release, total = self.begin_release(name)
        book = release_book(self.one.config)
        until(lambda: book.progress(release).released >= total / 3, "the middle of the release", 600)
        at = self.by_rule(name) if cause == "rule" else self.by_person(name)
        return self.measured(cause, plan, release, total, at)

    def hold_and_fill(self) -> None:
        if self.number == 1:
            epoch = switching.close(self.one.home, "eau", ScopeState.HOLD)
            until(lambda: self.closings.seen([Scope("eau_intake")], epoch), "all to be held")
        per = max(1, self.args.backlog // len(self.mailboxes))
        for insurer in range(len(self.mailboxes)):
            self.one.send(self.one.mails(self.one.order(per, insurer=insurer), seed=self.number * 1000 + insurer))
        until(lambda: self.one.conservation().unrouted < 10, "all to be in their mailboxes but what is sent meanwhile")

    def open_by_restart(self, name: str) -> RestartPlan:
        """One stage that opens everything; what its gates look at is measured elsewhere."""
        scopes = tuple(
            Scope("eau_intake", ik, one)
            for one in (Direction.ACCEPT, Direction.PROCESS, Direction.DELIVER)
            for ik in self.mailboxes.values()
        )
        stage = Stage(StageName.S4, "all", (Target(scopes, ScopeState.OPEN),), (GateKind.HUMAN,), timedelta(0))
        last = Stage(StageName.S9, "", (), (GateKind.EVID,), timedelta(days=1))
        plan = RestartPlan(name, 1, utc_now(), "bench", (Scope("eau_intake"),), (stage, last), fast=True)
        signers = [Signer(who, self.key(who)) for who, _ in OPENERS]
        self.restarts.make(plan, "bench")
        for signer, (_, role) in zip(signers, OPENERS, strict=True):
            self.again(lambda signer=signer, role=role: self.restarts.approve_plan(name, signer, role))  # type: ignore[misc]
        self.again(lambda: self.restarts.offer(name, OPENERS[0][0]))
        for signer, (_, role) in zip(signers, OPENERS, strict=True):
            self.again(lambda signer=signer, role=role: self.restarts.sign_offer(name, signer, role))  # type: ignore[misc]
        until(lambda: self.restarts.read(name).place == 0, f"the stage\n{self.one.log('control')[-3000:]}")
        epoch = max(self.restarts.read(name).epochs)
        until(lambda: self.closings.seen(scopes, epoch), "all workers to go on")
        return plan

    def begin_release(self, name: str) -> tuple[str, int]:
        """A person begins it; the control role goes on."""
        with open_releases(self.one.config, lambda _facts, _granted: None, "bench") as releases:
            plan = releases.plan(f"f-{name}", self.mailboxes, first=10)
            releases.keep(plan)
            for who, role in RELEASERS:
                releases.approve(plan, approve(PURPOSE, plan.hash, who, role, self.key(who), utc_now()))
            releases.step(plan.id)
        return plan.id, plan.count

    def by_rule(self, name: str) -> datetime:
        folder = self.one.home / "switch" / "warnings"
        folder.mkdir(exist_ok=True)
        at = utc_now()
        text = json.dumps({"at": time_text(at), "rule": "decoy-mailbox", "action": "auto_hold"})
        (folder / f".{name}").write_text(text)
        (folder / f".{name}").rename(folder / f"{name}.json")
        return at

    def by_person(self, name: str) -> datetime:
        at = utc_now()
        words = ("restart", "abort", name, "--reason", "looks odd", "--operator", "betrieb-1")
        self.one.command(*words, "--home", str(self.one.home))
        return at

    def measured(self, cause: str, plan: RestartPlan, release: str, total: int, at: datetime) -> Round:
        released = release_book(self.one.config).progress(release).released
        out = self.let_go()
        until(lambda: self.entry(plan) is not None, "the command", LIMIT)
        entry = self.entry(plan)
        assert entry is not None
        accounts, scopes = list(self.mailboxes), closes_on_abort(plan)
        none_out: datetime | None = None
        deadline = time.monotonic() + LIMIT
        progress = self.closings.progress(scopes, entry.epoch)
        while time.monotonic() < deadline:
            if none_out is None and self.returned(plan) and self.leases.oldest_claimed(accounts) is None:
                none_out = utc_now()
            progress = self.closings.progress(scopes, entry.epoch)
            if progress.proven_at is not None and none_out is not None:
                break
            time.sleep(LOOK)
        begun, quiet = entry.accepted_at, progress.quiet_at
        made = Round(
            cause,
            (begun - at).total_seconds(),
            _since(begun, quiet),
            _since(begun, none_out),
            _since(begun, progress.proven_at),
            released,
            total,
            out,
            self.late(quiet) if quiet else -1,
            self.let_go(),
            *self.last(entry.epoch, begun),
            dict(Counter(one.observed for one in proofs(self.closings.proofs, entry.epoch) if not _is_proven(one))),
        )
        found = self.one.conservation()
        assert found.holds, found.findings
        print(made, flush=True)
        return made

    def last(self, epoch: int, begun: datetime) -> tuple[str, float]:
        """The worker that was quiet last, and seconds until it had seen the epoch."""
        known = [one for one in self.closings.sources.effects(epoch) if one.epoch == epoch and one.quiet_at]
        if not known:
            return "", 0.0
        found = max(known, key=lambda one: one.quiet_at or begun)
        return found.worker, (found.seen_at - begun).total_seconds()

    def entry(self, plan: RestartPlan) -> Accepted | None:
        mine = (f"{plan.id}.rule.", f"{plan.id}.abort.")
        entries = self.closings.switch.entries()
        return next((one for one in entries if one.command is not None and one.command.id.startswith(mine)), None)

    def returned(self, plan: RestartPlan) -> bool:
        return self.restarts.read(plan.id).aborted is not None and self.restarts.read(plan.id).backlog_returned

    def late(self, quiet: datetime) -> int:
        return self.count(LATE, quiet=to_us(quiet))

    def let_go(self) -> int:
        return self.count(LET_GO)

    def count(self, query: sa.TextClause, **values: object) -> int:
        with asking(self.one.config.kim_database) as connection:
            return int(connection.execute(query, {"accounts": list(self.mailboxes), **values}).scalar_one())

    def key(self, who: str) -> Ed25519PrivateKey:
        return read_token_key(self.one.home / "operators" / f"{who}.key")

    def again(self, act: Callable[[], object]) -> None:
        """The control role writes into the same book."""
        while True:
            try:
                act()
            except OvertakenError:
                continue
            return


def _is_proven(one: ClosureProof) -> bool:
    return one.verdict is Verdict.PROVEN


def _since(begun: datetime, end: datetime | None) -> float | None:
    return (end - begun).total_seconds() if end is not None else None


def _most(names: Sequence[str]) -> str:
    kinds = Counter(name.rstrip("0123456789-") for name in names)
    return ", ".join(f"{kind} {count} times" for kind, count in kinds.most_common())


def flushes(folder: Path, seconds: float = 1.0) -> float:
    """Durable appends of 512 octets a second: each record of an abort waits for one."""
    end, count = time.monotonic() + seconds, 0
    with (folder / "raw").open("wb", buffering=0) as file:
        while time.monotonic() < end:
            file.write(bytes(512))
            os.fsync(file.fileno())
            count += 1
    return count / seconds


MEASURES = (
    ("cause → command accepted", "command", "5 s by a rule, 60 s by a person (§ 5.2)"),
    ("command → last worker quiet", "quiet", "p95 ≤ 5 s, 30 s (§ 14)"),
    ("command → every mail that was let go is HELD", "held", "60 s (T-14)"),
    ("command → S0 proven from outside", "proof", "60 s (§ 14)"),
)


def table(rounds: Sequence[Round]) -> str:
    lines = ["| cause | measure | median | worst | limit |", "|---|---|---|---|---|"]
    for cause in CAUSES:
        mine = [one for one in rounds if one.cause == cause]
        for name, field, limit in MEASURES:
            values = [value for one in mine if (value := getattr(one, field)) is not None]
            short = "" if len(values) == len(mine) else f" ({len(mine) - len(values)} not within {LIMIT:.0f} s)"
            figures = f"{statistics.median(values):.2f} s | {max(values):.2f} s" if values else "– | –"
            lines.append(f"| {cause} | {name} | {figures}{short} | {limit} |")
    out = [one.out for one in rounds]
    lines += [
        "",
        f"{len(rounds)} rounds. At the cause {min(out)} to {max(out)} mails were let go and not finished; finished"
        f" after the last worker was quiet: {sum(one.late for one in rounds)}; let go and not taken back in the end:"
        f" {sum(one.still_out for one in rounds)}. Conservation held after each round.",
        "",
        f"Quiet last was {_most([one.last for one in rounds])}, which had seen the epoch"
        f" {statistics.median(one.seen for one in rounds):.2f} s after it was accepted (median), because a worker looks"
        " between two batches; what it did not file was put back. A person's command begins with the start of the"
        " program, and up to a second passes until the platform sees that somebody else has closed and takes back.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--insurers", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5, help="of each cause")
    parser.add_argument("--rate", type=float, default=5, help="live eAU a second")
    parser.add_argument("--backlog", type=int, default=400, help="eAU that arrive in each hold")
    parser.add_argument(
        "--settle", type=float, default=ROUND.total_seconds() + 10, help="seconds of a normal day before"
    )
    parser.add_argument("--dry", action="store_true", help="print only, write no results")
    args = parser.parse_args()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "home", args.insurers) as one:
        raw = flushes(Path(folder))
        probes = PlatformProbes(one.config)
        closings = closings_of(one.config, open_switch(one.config, "bench"), probes, "bench")
        time.sleep(args.settle)
        with open_leases(one.config.kim_database, one.config.kim.spool) as leases:
            bench = Bench(one, closings, leases, args)
            load = Load(one, args.rate, int(args.rate * 30 * args.rounds))
            load.start()
            rounds = [bench.round(cause) for _ in range(args.rounds) for cause in CAUSES]
            load.over.set()
        probes.close()
        if args.dry:
            print("\n".join(one.log("control").splitlines()[-60:]))
    text = (
        f"{args.insurers} insurers, {os.cpu_count()} cores that roles, probes and load share; load average before"
        f" {load_average:.1f} (above 0.5 somebody else was working); {raw:,.0f} durable appends a second, raw. About"
        f" {args.rate:g} eAU a second came in, and {args.backlog} while it was held.\n\n{table(rounds)}\n"
    )
    print(text)
    if not args.dry:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "abort.md").write_text(text)
        raw_figures = {"flushes_per_second": raw, "rounds": [asdict(one) for one in rounds]}
        (RESULTS / "abort.json").write_text(json.dumps(raw_figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
