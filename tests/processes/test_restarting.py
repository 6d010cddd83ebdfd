"""Restarts on real files: what people and the control role do, a crash between any two steps, and what must end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.errors import ConflictError
from schleuse.journal.opening import Json
from schleuse.processes.restart_control import PlanMandates, RestartController
from schleuse.processes.restart_evidence import touched
from schleuse.processes.restarting import NotReadyError, Restarts, RoleMissingError, Signer
from schleuse.restart.book import BadNameError, Book, BookDamagedError, OvertakenError, decode, encode
from schleuse.restart.documents import SIGNERS, Document, DocumentRefusedError, sign_document
from schleuse.restart.gates import DOCUMENTED, MEASURED, Evidence, Result
from schleuse.restart.ladder import default_plan
from schleuse.restart.plan import GateKind, PlanRefusedError, RestartPlan, StageName
from schleuse.restart.progress import Noted, Progress
from schleuse.said import as_it_is
from schleuse.scopes import Direction, ScopeState, Service, parse_scopes
from schleuse.shutdown.automat import Automat
from schleuse.switch.copy import LocalSwitch
from schleuse.switch.documents import Command, Kind, Person, Reason, Rights, Role, SignedCommand, sign
from schleuse.switch.log import SwitchLog, create_log

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
EINS, ZWEI = "109900011", "109900022"
KEYS = {name: Ed25519PrivateKey.generate() for name in ("anna", "bert", "automat")}
ANNA, BERT = Signer("anna", KEYS["anna"]), Signer("bert", KEYS["bert"])
RIGHTS = Rights(
    [
        Person("anna", "anna", frozenset({Role.SWITCH_OFFICER, Role.LEAD}), KEYS["anna"].public_key()),
        Person(
            "bert",
            "bert",
            frozenset({Role.RELEASER, Role.SECURITY_OFFICER, Role.SERVICE_OWNER, Role.CUSTODIAN}),
            KEYS["bert"].public_key(),
        ),
        Person("automat", "automat", frozenset({Role.AUTOMAT}), KEYS["automat"].public_key()),
    ]
)


@dataclass
class Site:
    """A home's switch, its restarts and the control role's part, with a clock and measurements that a test sets."""

    folder: Path
    now: datetime = NOW
    results: dict[GateKind, Result] = field(default_factory=lambda: dict.fromkeys(MEASURED, Result.PASS))
    trouble: str = ""
    told: list[Mapping[str, Json]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = SwitchLog(self.folder / "log", RIGHTS)
        if not self.log.exists:
            create_log(self.folder / "log")
        self.switch = LocalSwitch(self.log, self.folder / "copies" / "test.json", self.clock)
        self.book = Book(self.folder / "restart")
        self.restarts = Restarts(self.book, self.log, RIGHTS, lambda _plan: 0, self._tell, self.clock)
        automat = Automat(self.log, "automat", lambda: KEYS["automat"], PlanMandates(self.restarts), self.clock)
        self.control = RestartController(
            self.restarts,
            self.switch.entries,
            {kind: self._measure(kind) for kind in MEASURED},
            lambda _plan, _at: self.trouble,
            automat,
            self.clock,
        )

    def clock(self) -> datetime:
        return self.now

    def _tell(self, facts: Mapping[str, Json], _granted: bool) -> None:
        self.told.append(facts)

    def _measure(self, kind: GateKind):  # type: ignore[no-untyped-def]
        return lambda plan, _at: Evidence(kind, plan.id, self.results[kind], self.now, "test", as_it_is("seen"))

    def settle(self) -> None:
        """The control role works until nothing is left to do."""
        for _ in range(50):
            if not self.control.step():
                return
        raise AssertionError("the control role does not come to rest")

    def close(self, scopes: str, kind: Kind = Kind.MANUAL) -> int:
        id, held = f"c{len(self.log.read_all())}", ScopeState.HOLD
        command = Command(id, parse_scopes(scopes), held, kind, Reason.SECURITY_HOLD, "anna", self.now)
        return self.log.append(SignedCommand(command, (sign(command, "anna", Role.LEAD, ANNA.key),)), self.now).epoch

    def state(self, ik: str, direction: Direction = Direction.PROCESS) -> ScopeState:
        return self.switch.standing(Service.EAU_INTAKE, ik, direction).state

    def at(self) -> Progress:
        return self.book.read("r1")[0]

    def give_documents(self) -> None:
        for kind in sorted(DOCUMENTED):
            seen = (("report", "ab" * 32),)
            document = Document(f"d-{kind}", "r1", kind, Result.PASS, self.now, "seen", None, references=seen,
                                methods=("a", "b"))  # fmt: skip
            role = next(one for one in sorted(RIGHTS.people()["bert"].roles) if one in SIGNERS[kind])
            self.restarts.document("r1", sign_document(document, "bert", role, BERT.key))

    def sign_both(self) -> None:
        self.restarts.offer("r1", "anna")
        self.restarts.sign_offer("r1", ANNA, Role.SWITCH_OFFICER)
        self.restarts.sign_offer("r1", BERT, Role.RELEASER)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.close("eau/*")
    return site


def plan(**changes: object) -> RestartPlan:
    made = default_plan("r1", [Service.EAU_INTAKE], [EINS, ZWEI], EINS, NOW, fast=True)
    return replace(made, **changes)  # type: ignore[arg-type]


def planned(site: Site) -> Site:
    """With an approved plan, in S2, soaked."""
    site.restarts.make(plan(), "anna")
    site.restarts.approve_plan("r1", ANNA, Role.SWITCH_OFFICER)
    site.restarts.approve_plan("r1", BERT, Role.RELEASER)
    site.give_documents()
    site.settle()
    site.now += timedelta(seconds=3)
    site.settle()
    site.now += timedelta(seconds=3)
    return site


def test_the_whole_ladder_up_to_normal(site: Site) -> None:
    planned(site)
    assert site.at().place == 1  # S1 and S2 open nothing, so the control role enters them by itself
    assert site.state(EINS) is ScopeState.HOLD
    seen: list[tuple[str, ScopeState, ScopeState]] = []
    while not site.at().is_done:
        stage = site.at().next_stage
        assert stage is not None
        if stage.targets:
            site.sign_both()
        site.settle()
        assert site.at().stage == stage
        seen.append((f"{stage.name} {stage.label}".strip(), site.state(EINS), site.state(ZWEI)))
        site.now += timedelta(seconds=3)
    hold, limited, opened = ScopeState.HOLD, ScopeState.LIMITED, ScopeState.OPEN
    assert seen == [
        ("S3 canary", limited, hold),
        ("S4 5 %", opened, hold),
        ("S4 100 %", opened, opened),
        *[(name, opened, opened) for name in ("S5", "S6", "S7 reads", "S7 writes", "S8", "S9")],
    ]
    assert site.state(EINS, Direction.DELIVER) is opened
    assert {one["act"] for one in site.told} >= {
        "restart.made",
        "restart.approved",
        "restart.signed",
        "restart.entered",
    }


def test_an_inconclusive_gate_pauses_the_stage(site: Site) -> None:
    """T-13, RS-01."""
    planned(site)
    site.results[GateKind.DATA] = Result.INCONCLUSIVE
    site.now += timedelta(minutes=20)
    site.sign_both()
    site.settle()
    assert site.state(EINS) is ScopeState.HOLD
    site.results[GateKind.DATA] = Result.PASS
    site.now += timedelta(seconds=11)
    site.settle()
    assert site.state(EINS) is ScopeState.LIMITED


def test_one_person_does_not_open(site: Site) -> None:
    """T-12: neither by both roles, nor by a key that is not his, nor with a role he does not have."""
    planned(site)
    site.restarts.offer("r1", "anna")
    site.restarts.sign_offer("r1", ANNA, Role.SWITCH_OFFICER)
    for signer, role in ((ANNA, Role.SWITCH_OFFICER), (ANNA, Role.RELEASER), (Signer("bert", ANNA.key), Role.RELEASER)):
        with pytest.raises(RoleMissingError):
            site.restarts.sign_offer("r1", signer, role)
    site.settle()
    assert site.state(EINS) is ScopeState.HOLD
    with pytest.raises(NotReadyError, match="releaser"):
        site.restarts.enter("r1")


def test_a_closing_by_anybody_takes_the_restart_back_to_s0(site: Site) -> None:
    """P-02: backward steps are normal; the way up begins anew."""
    planned(site)
    site.sign_both()
    site.settle()
    site.now += timedelta(seconds=1)
    epoch = site.close("eau/*")
    site.settle()
    at = site.at()
    assert (at.place, at.aborted and at.aborted.epoch) == (-1, epoch)


def test_a_drill_is_no_abort(site: Site) -> None:
    """G-OFF: the rehearsed closing gives back what it took."""
    planned(site)
    site.sign_both()
    site.settle()
    site.now += timedelta(seconds=1)
    site.close("eau/*", Kind.DRILL)
    site.settle()
    assert site.at().stage is not None


def test_a_rule_aborts_with_the_key_of_the_platform(site: Site) -> None:
    """T-14, RS-07: closed at once by the automat; the plan that two persons approved is its mandate."""
    planned(site)
    site.sign_both()
    site.settle()
    assert site.state(EINS) is ScopeState.LIMITED
    site.trouble = "a decoy was touched"
    site.settle()
    assert site.state(EINS) is ScopeState.HOLD
    last = site.log.read_all()[-1]
    assert last.signed is not None
    assert (last.signed.command.kind, last.signed.command.actor) == (Kind.AUTOMATIC, "automat")
    assert last.signed.command.policy == "restart r1@1"
    assert site.at().aborted is not None


def test_one_person_aborts_at_any_time(site: Site) -> None:
    """RS-06."""
    planned(site)
    site.sign_both()
    site.settle()
    site.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
    assert site.state(EINS) is ScopeState.HOLD
    assert site.at().place == -1


def test_a_crash_between_opening_and_record_is_completed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """RS-08: the command is in the log, the event is not; whoever comes next records it and opens nothing twice."""
    planned(site)
    site.sign_both()
    real = site.book.append

    def dies(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(site.book, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            site.restarts.enter("r1")
    assert site.book.append == real
    epochs = len(site.log.read_all())
    site.results[GateKind.WATCH] = Result.FAIL  # whatever is measured now, it has been let in already
    again = Site(site.folder, now=site.now)
    again.settle()
    assert len(again.log.read_all()) == epochs
    assert again.at().epochs == (epochs - 1, epochs)


def test_two_who_act_at_once_are_told_apart(site: Site) -> None:
    site.restarts.make(plan(), "anna")
    _, count = site.book.read("r1")
    site.book.append("r1", Noted(NOW, "anna", "first"), count)
    with pytest.raises(OvertakenError):
        site.book.append("r1", Noted(NOW, "bert", "second"), count)


def test_what_the_platform_measures_nobody_types(site: Site) -> None:
    """RS-05."""
    site.restarts.make(plan(), "anna")
    document = Document("d", "r1", GateKind.EVID, Result.PASS, NOW, "seen")
    with pytest.raises(DocumentRefusedError):  # who wants to open does not answer for it
        site.restarts.document("r1", sign_document(document, "anna", Role.LEAD, ANNA.key))
    with pytest.raises(DocumentRefusedError):  # nor does a signature that is not his
        site.restarts.document("r1", sign_document(document, "bert", Role.SECURITY_OFFICER, ANNA.key))
    other = replace(document, plan="r2")
    with pytest.raises(DocumentRefusedError):
        site.restarts.document("r1", sign_document(other, "bert", Role.SECURITY_OFFICER, BERT.key))
    assert site.at().documents == []


def test_every_event_is_read_as_it_was_written(site: Site) -> None:
    planned(site)
    site.restarts.waive("r1", GateKind.PART, BERT, Role.SECURITY_OFFICER, "told by telephone", NOW + timedelta(days=1))
    site.restarts.note("r1", "anna", "night shift: nothing new", owner="bert", until=NOW + timedelta(days=2))
    site.restarts.changed("r1", "anna", "new validator")
    site.sign_both()
    site.restarts.abort("r1", ANNA, Role.LEAD, "end of the test")
    for event in site.book.events("r1"):
        assert decode(encode(event)) == event


def test_a_damaged_event_stops_the_restart_and_says_where(site: Site) -> None:
    site.restarts.make(plan(), "anna")
    (site.folder / "restart" / "r1" / "00001.json").write_text("{")
    with pytest.raises(BookDamagedError, match="00001"):
        site.restarts.all()


@pytest.mark.parametrize("damaged", [1, 2, 9], ids=["the plan", "an approval", "later"])
@pytest.mark.parametrize("text", ["{", '{"event": "of a newer version"}', None], ids=["damaged", "newer", "gone"])
def test_a_damaged_restart_is_aborted_as_any(site: Site, damaged: int, text: str | None) -> None:
    """RS-06, SW-01: by the plan where it can be read, else by what the log says that it has opened."""
    planned(site)
    site.sign_both()
    site.settle()
    assert site.state(EINS).begins
    path = site.folder / "restart" / "r1" / f"{damaged:05d}.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    again = Site(site.folder, now=site.now)
    done = again.restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
    assert isinstance(done.fault, BookDamagedError)
    assert again.log.read_all()[-1].epoch == done.epoch
    assert again.state(EINS) is ScopeState.HOLD


def test_a_damaged_plan_that_has_opened_nothing_closes_nothing_and_says_so(site: Site) -> None:
    site.restarts.make(plan(), "anna")
    (site.folder / "restart" / "r1" / "00001.json").write_text("{")
    done = Site(site.folder).restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
    assert (done.epoch, done.scopes, type(done.fault)) == (0, (), BookDamagedError)


def test_an_abort_that_cannot_be_recorded_has_closed(site: Site) -> None:
    planned(site)
    site.sign_both()
    site.settle()
    folder = site.folder / "restart"
    folder.rename(site.folder / "elsewhere")
    folder.symlink_to(site.folder / "elsewhere")
    next_one = len(site.book.events("r1")) + 1
    (folder / "r1" / f".{next_one:05d}").mkdir()
    (folder / "r1" / f"{next_one:05d}.json").mkdir()
    done = Site(site.folder, now=site.now).restarts.abort("r1", ANNA, Role.LEAD, "looks wrong")
    assert done.fault is not None
    assert site.state(EINS) is ScopeState.HOLD


def test_names_are_no_paths(site: Site) -> None:
    with pytest.raises(BadNameError):
        site.restarts.judged("../log")


def test_plans_that_wait_for_each_other_are_not_made(site: Site) -> None:
    """RS-09."""
    site.restarts.make(plan(), "anna")
    site.restarts.make(plan(id="r2", needs=(("r1", StageName.S4),)), "anna")
    with pytest.raises(PlanRefusedError):
        site.restarts.make(plan(version=2, needs=(("r2", StageName.S4),)), "anna")


def test_what_does_not_answer_is_inconclusive(site: Site) -> None:
    """RS-04."""
    planned(site)

    def fails(_plan: RestartPlan, _at: Progress) -> Evidence:
        raise ConflictError("the journal does not answer")

    site.control._measures = {**site.control._measures, GateKind.WATCH: fails}
    site.now += timedelta(days=2)
    site.control.step()
    newest = [one for one in site.at().evidence if one.kind is GateKind.WATCH][-1]
    assert newest.result is Result.INCONCLUSIVE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"at":"2026-11-25T12:00:01.000Z","rule":"decoy-mailbox","action":"auto_hold"}', True),
        ('{"at":"2026-11-25T11:00:00.000Z","rule":"decoy-mailbox","action":"auto_hold"}', False),  # before the stage
        ('{"at":"2026-11-25T12:00:01.000Z","rule":"odd-hour","action":"propose"}', False),
        ("{", True),  # nobody knows what it said
    ],
)
def test_a_touched_decoy_ends_the_stage(tmp_path: Path, text: str, found: bool) -> None:
    """T-14."""
    (tmp_path / "w1.json").write_text(text)
    assert bool(touched(tmp_path, plan(), NOW)) is found
