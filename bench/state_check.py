"""What the state check costs a message: asking the copy of the switch, the door of the mail role, the fence of a store.

    python -m bench.state_check [--insurers 80] [--epochs 1000]

CPU microseconds of this process, medians over interleaved rounds. The door and the fence are measured as the
difference to the same work without them. A mail passes the door twice (RCPT and keeping); a batch of the eau role asks
its copy and its fence once for all its mails.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.scenarios import switching
from tests.scenarios.soak import new_insurers

from schleuse.clock import utc_now
from schleuse.config import Config, read_config
from schleuse.database import transaction
from schleuse.eau.store import open_store
from schleuse.environment import Environment
from schleuse.holding.capacity import Level
from schleuse.kim.door import Door, GuardedIntake
from schleuse.mail.contracts import Done, Mail, Recipient
from schleuse.processes.following import Running
from schleuse.processes.home import NewHome, NewPractice, create_home
from schleuse.processes.kim import load_accounts
from schleuse.processes.switching import enforced_atoms, open_switch
from schleuse.scopes import Direction, ScopeState, Service, atom
from schleuse.switch import fence

RESULTS = Path(__file__).parent / "results"
ROUNDS, TIMES = 9, 2000


class Kept:
    """An intake that keeps nothing, at once."""

    def accept(self, _mail: Mail, done: Done) -> None:
        done(None)


def cpu_us(work: Callable[[], object]) -> float:
    """CPU microseconds a call."""
    gc.collect()
    before = time.process_time()
    for _ in range(TIMES):
        work()
    return (time.process_time() - before) / TIMES * 1e6


def cases(config: Config) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name: (with the check, without it)."""
    switch, running = open_switch(config, "bench"), Running(utc_now)
    insurer = config.insurers[len(config.insurers) // 2]
    scope = atom(Service.EAU_INTAKE, insurer.ik, Direction.PROCESS)
    door = Door(load_accounts(config), switch, lambda: Level.PLENTY)
    bare, guarded = Kept(), GuardedIntake(Kept(), door, unit=running.unit)
    mail = Mail("praxis@example", (Recipient(insurer.address),), b"", utc_now())
    engine = open_store(config.eau_database)._engine
    epochs = {one: switch.standing(Service(one.service), one.tenant, Direction(one.direction)).epoch
              for one in enforced_atoms(config)}  # fmt: skip
    with transaction(engine) as connection:
        fence.raise_to(connection, epochs, switch.epoch)

    def in_transaction(*, fenced: bool) -> None:
        with transaction(engine) as connection:
            if fenced:
                fence.require(connection, scope, switch.epoch)

    return {
        "a question to the copy": (
            lambda: switch.standing(Service.EAU_INTAKE, insurer.ik, Direction.PROCESS),
            lambda: None,
        ),
        "at RCPT": (lambda: door.refusal(insurer.address), lambda: None),
        "when the mail is kept": (
            lambda: guarded.accept(mail, lambda _: None),
            lambda: bare.accept(mail, lambda _: None),
        ),
        "the fence in a transaction (once a batch)": (
            lambda: in_transaction(fenced=True),
            lambda: in_transaction(fenced=False),
        ),
    }


def table(found: dict[str, float]) -> str:
    mail, spent = found["at RCPT"] + found["when the mail is kept"], _mail_role_us()
    beside = f", {mail * 100 / spent:.1f} % of the {spent:.0f} us that the mail role spends on it" if spent else ""
    lines = ["| check | CPU us |", "|---|---|", *(f"| {name} | {us:.1f} |" for name, us in found.items())]
    return "\n".join([*lines, "", f"A mail at the mail role: {mail:.1f} us{beside}."]) + "\n"


def _mail_role_us() -> float | None:
    """What a mail costs the mail role in all, of the last `bench.intake`."""
    try:
        points = json.loads((RESULTS / "intake.json").read_text())["points"]["schleuse"]
        return float(points["smtp-source plain c=20"]["cpu_ms"]) * 1000
    except (OSError, KeyError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--insurers", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=1000, help="commands in the log")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        practices = [NewPractice("praxis", "Praxis")]
        new = NewHome(Environment.TEST, "kim.test.kim.telematik-test", new_insurers(args.insurers), practices)
        create_home(home, new, utc_now())
        for _ in range(args.epochs // 2):
            switching.close(home, "eau/*", ScopeState.HOLD)
            switching.open(home, "eau/*")
        known = cases(read_config(home))
        rounds = [{name: cpu_us(check) - cpu_us(bare) for name, (check, bare) in known.items()} for _ in range(ROUNDS)]
    found = {name: statistics.median(one[name] for one in rounds) for name in known}
    text = f"{args.insurers} insurers, {args.epochs} commands in the log of the switch.\n\n" + table(found)
    (RESULTS / "state_check.json").write_text(json.dumps({**vars(args), "cpu_us": found}, indent=1) + "\n")
    (RESULTS / "state_check.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
