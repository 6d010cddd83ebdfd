"""A home's switch with restarts and the control role's part of them, for tests: clock, looks and deaths are set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.journal.opening import Json
from schleuse.processes.restart_control import PlanMandates, RestartController
from schleuse.processes.restarting import Restarts, Signer
from schleuse.restart.book import Book
from schleuse.restart.documents import SIGNERS, Document, sign_document
from schleuse.restart.gates import DOCUMENTED, MEASURED, Evidence, Result
from schleuse.restart.plan import GateKind, RestartPlan
from schleuse.restart.progress import Event, Progress
from schleuse.said import as_it_is
from schleuse.scopes import Direction, Scope, ScopeState, Service, parse_scopes
from schleuse.shutdown.automat import Automat
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.documents import Command, Kind, Person, Reason, Rights, Role, SignedCommand, sign
from schleuse.switch.log import Accepted, SwitchLog, create_log
from schleuse.switch.standing import Standing

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
EINS, ZWEI = "109900011", "109900022"
KEYS = {name: Ed25519PrivateKey.generate() for name in ("anna", "bert", "carl", "automat")}
ANNA, BERT, CARL = (Signer(name, KEYS[name]) for name in ("anna", "bert", "carl"))
_ROLES = {
    "anna": {Role.SWITCH_OFFICER, Role.LEAD},
    "bert": {Role.RELEASER, Role.SECURITY_OFFICER, Role.SERVICE_OWNER, Role.CUSTODIAN},
    "carl": {Role.SWITCH_OFFICER, Role.RELEASER, Role.LEAD, Role.SECURITY_OFFICER},  # both sides of each pair
    "automat": {Role.AUTOMAT},
}
RIGHTS = Rights([Person(name, name, frozenset(_ROLES[name]), key.public_key()) for name, key in KEYS.items()])
SIGNERS_BY_NAME = {one.name: one for one in (ANNA, BERT, CARL)}


class DeathError(Exception):
    """The process died here."""


@dataclass
class Deaths:
    """Kills at the n-th durable step from now, before it or after it."""

    left: int | None = None
    after: bool = False

    def step(self, do: Callable[[], object]) -> object:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                if self.after:
                    do()
                raise DeathError
        return do()


class DyingLog(SwitchLog):
    """A switch's log whose process may die at an append."""

    def __init__(self, folder: Path, deaths: Deaths) -> None:
        super().__init__(folder, RIGHTS)
        self._deaths = deaths

    def append(self, signed: SignedCommand, now: datetime) -> Accepted:
        found = self._deaths.step(lambda: SwitchLog.append(self, signed, now))
        assert isinstance(found, Accepted)
        return found


class DyingBook(Book):
    """A book whose process may die at an append."""

    def __init__(self, folder: Path, deaths: Deaths) -> None:
        super().__init__(folder)
        self._deaths = deaths

    def append(self, plan: str, event: Event, after: int) -> str:
        return str(self._deaths.step(lambda: Book.append(self, plan, event, after)))


@dataclass
class Site:
    """Everything is on disk; `again` is the same home after a restart of the process."""

    folder: Path
    now: datetime = NOW
    deaths: Deaths = field(default_factory=Deaths)
    results: dict[GateKind, Result] = field(default_factory=lambda: dict.fromkeys(MEASURED, Result.PASS))
    trouble: str = ""
    configuration: str = "c1"
    backlog: int | None = 0
    released: int = 0  # mails that a release has let go and nobody has taken
    told: list[Mapping[str, Json]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (self.folder / "log").exists():
            create_log(self.folder / "log")
        self.start()

    def start(self) -> None:
        """A new process on the same disk."""
        self.log = DyingLog(self.folder / "log", self.deaths)
        self.switch = LocalSwitch(self.log, self.folder / "copies" / "test.json", self.clock)
        self.book = DyingBook(self.folder / "restart", self.deaths)
        self.restarts = Restarts(
            self.book, self.log, RIGHTS, lambda _plan: self.backlog, self._tell, self.clock, lambda: self.configuration
        )
        automat = Automat(self.log, "automat", lambda: KEYS["automat"], PlanMandates(self.restarts), self.clock)
        self.control = RestartController(
            self.restarts,
            self.switch.entries,
            {kind: self._look(kind) for kind in MEASURED},
            lambda _plan, _at: self.trouble,
            automat,
            self.clock,
            self._take_back,
        )

    def clock(self) -> datetime:
        return self.now

    def _tell(self, facts: Mapping[str, Json], _granted: bool) -> None:
        self.told.append(facts)

    def _look(self, kind: GateKind) -> Callable[[RestartPlan, Progress], Evidence]:
        return lambda plan, _at: Evidence(kind, plan.id, self.results[kind], self.now, "test", as_it_is("seen"))

    def _take_back(self, _plan: RestartPlan) -> int:
        count, self.released = self.released, 0
        return count

    def settle(self) -> None:
        """The control role works until nothing is left to do."""
        for _ in range(200):
            if not self.control.step():
                return
        raise AssertionError("the control role does not come to rest")

    def close(self, scopes: str, kind: Kind = Kind.MANUAL) -> Accepted:
        id = f"c{len(self.log.read_all())}"
        command = Command(id, parse_scopes(scopes), ScopeState.HOLD, kind, Reason.SECURITY_HOLD, "anna", self.now)
        return self.log.append(SignedCommand(command, (sign(command, "anna", Role.LEAD, ANNA.key),)), self.now)

    def standing(self, scope: Scope) -> Standing:
        return self.switch.standing(Service(scope.service), scope.tenant, Direction(scope.direction))

    def state(self, ik: str, direction: Direction = Direction.PROCESS) -> ScopeState:
        return self.switch.standing(Service.EAU_INTAKE, ik, direction).state

    def at(self, plan: str = "r1") -> Progress:
        return self.restarts.read(plan)

    def give(self, kind: GateKind, plan: str = "r1", result: Result = Result.PASS) -> None:
        """A signed document of bert."""
        seen = (("report", "ab" * 32),)
        document = Document(f"d-{kind}", plan, kind, result, self.now, "seen", references=seen, methods=("a", "b"))
        role = next(one for one in sorted(_ROLES["bert"]) if one in SIGNERS[kind])
        self.restarts.document(plan, sign_document(document, "bert", role, BERT.key))

    def give_documents(self, plan: str = "r1") -> None:
        for kind in sorted(DOCUMENTED):
            self.give(kind, plan)

    def approve(self, plan: str = "r1") -> None:
        self.restarts.approve_plan(plan, ANNA, Role.SWITCH_OFFICER)
        self.restarts.approve_plan(plan, BERT, Role.RELEASER)

    def sign_both(self, plan: str = "r1") -> None:
        self.restarts.offer(plan, "anna")
        self.restarts.sign_offer(plan, ANNA, Role.SWITCH_OFFICER)
        self.restarts.sign_offer(plan, BERT, Role.RELEASER)

    def climb(self, plan: str = "r1") -> None:
        """One stage up, with everything that it needs."""
        stage = self.at(plan).next_stage
        assert stage is not None
        self.now += timedelta(seconds=3)
        self.settle()  # what is measured, is measured in this stage
        if stage.targets:
            self.sign_both(plan)
        self.settle()
