"""The witness's files, read again while it runs: what counts at once, what waits, and that a mistake is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs
from tests.journal.samples import LOG, ORIGIN, WA, WB, leaves
from tests.witness.parties import FakeLog, Party
from tests.witness.test_follow import FILE, FOLLOWING, NEXT, POLICY

from schleuse.config import BadConfigError
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.note import LogKey, LogSigner, NoteRefusedError
from schleuse.processes.witness_logs import FOLLOW_SECONDS, Logs, Task
from schleuse.witness.alarm import Finding
from schleuse.witness.config import read_witness_config
from schleuse.witness.service import Cosigned, UnknownOriginError, Witness

PLAIN = FILE.replace('canaries = "geheim \\" \u00e4"\n', "")
FURTHER = f'\n[[logs]]\nkeys = ["{NEXT.key.vkey}"]\nurl = "https://journal.example/kasse-a/2028"\npull_seconds = 5\n'


class Role:
    """The part of the role that knows logs; tasks are collected instead of run."""

    def __init__(self, folder: Path) -> None:
        self.file, self.policy = folder / "witness.toml", folder / "policy-2027"
        self.file.write_text(PLAIN)
        self.policy.write_text(POLICY)
        self.party = Party(folder)
        self.log = FakeLog(leaves(3))
        self.tasks: list[tuple[float, Task]] = []
        self.logs = Logs(
            read_witness_config(folder),
            self.log,
            self.party.clock,
            self.party.alarms.append,
            lambda seconds, task: self.tasks.append((seconds, task)),
        )
        self.witness = Witness(self.logs.trusted, [WA], self.party.store, self.party.clock, self.party.alarms.append)
        self.logs.start(self.witness)

    @property
    def named(self) -> list[tuple[str, str]]:
        return [(task.name, task.origin) for _, task in self.tasks]

    def look(self) -> list[Finding]:
        for _, task in self.tasks:
            if task.name == "monitor":
                task.act()
        return self.party.findings


@pytest.fixture
def role(tmp_path: Path) -> Role:
    return Role(tmp_path)


def test_a_log_is_pulled_watched_and_followed(role: Role) -> None:
    assert role.named == [("pull", ORIGIN), ("monitor", ORIGIN), ("follow", ORIGIN)]
    assert [seconds for seconds, _ in role.tasks] == [5, 60, FOLLOW_SECONDS]
    role.logs.close()


def test_a_log_that_is_added_is_cosigned_without_a_restart(role: Role) -> None:
    request = FakeLog(leaves(1)).request(0, 1)
    with pytest.raises(UnknownOriginError):
        role.witness.trusted(request.note, FOLLOWING)
    role.file.write_text(PLAIN + FURTHER)
    with capture_logs() as told:
        role.logs.reread()
        role.logs.reread()
    assert [one["event"] for one in told] == ["witness.log-added"]
    assert role.named[3:] == [("pull", FOLLOWING), ("follow", FOLLOWING)]
    assert role.logs.origins == [ORIGIN, FOLLOWING]
    role.witness.trusted(Checkpoint(FOLLOWING, 1, b"r" * 32).signed_by(NEXT), FOLLOWING)
    assert isinstance(role.witness.add_checkpoint(request), Cosigned)  # the log of before is cosigned still
    role.logs.close()


def test_a_key_that_is_exchanged_counts_at_once(role: Role) -> None:
    note = role.log.note
    role.witness.trusted(note, ORIGIN)
    other = LogSigner(ORIGIN, Ed25519PrivateKey.generate())
    role.file.write_text(PLAIN.replace(LOG.key.vkey, other.key.vkey))
    role.logs.reread()
    assert role.logs.trusted[ORIGIN] == (LogKey(other.key),)
    with pytest.raises(NoteRefusedError):
        role.witness.trusted(note, ORIGIN)
    role.logs.close()


def test_a_policy_that_is_changed_counts_with_the_next_look(role: Role) -> None:
    role.log.note = role.log.note.with_lines([WA.cosign(role.log.checkpoint(3), 1_800_000_000)])
    assert Finding.NO_QUORUM not in role.look()
    role.policy.write_text(f"log {LOG.key.vkey}\nwitness b {WB.key.vkey}\nquorum b\n")
    with capture_logs() as told:
        role.logs.reread()
    assert [one["event"] for one in told] == ["witness.policy-changed"]
    assert Finding.NO_QUORUM in role.look()
    role.logs.close()


@pytest.mark.parametrize("mistake", ["name = ", PLAIN + FURTHER.replace("+", "-", 1), PLAIN + FURTHER + "x = 1\n"])
def test_a_mistake_changes_nothing_and_is_told_until_it_is_corrected(role: Role, mistake: str) -> None:
    role.file.write_text(mistake)
    for _ in range(2):
        with pytest.raises(BadConfigError):
            role.logs.reread()
    assert role.logs.origins == [ORIGIN]
    role.file.write_text(PLAIN + FURTHER)
    role.logs.reread()
    assert role.logs.origins == [ORIGIN, FOLLOWING]
    role.logs.close()


def test_a_further_log_whose_policy_is_not_there_yet_is_not_trusted_by_half(role: Role) -> None:
    monitor = '[logs.monitor]\npolicy = "policy-2028"\ndatabase = "m"\n'
    role.file.write_text(PLAIN + FURTHER + monitor)
    with pytest.raises(BadConfigError, match="policy-2028"):
        role.logs.reread()
    assert FOLLOWING not in role.logs.trusted
    (role.file.parent / "policy-2028").write_text(f"log {NEXT.key.vkey}\nquorum none\n")
    role.logs.reread()
    assert role.named[3:] == [("pull", FOLLOWING), ("monitor", FOLLOWING), ("follow", FOLLOWING)]
    role.logs.close()


@pytest.mark.parametrize("text", [PLAIN.replace("= 5", "= 6"), PLAIN + "\n", PLAIN])
def test_what_needs_a_restart_is_said(role: Role, text: str) -> None:
    role.file.write_text(text)
    with capture_logs() as told:
        role.logs.reread(anyway=True)
    assert [one["event"] for one in told] == (["witness.needs-restart"] if "= 6" in text else [])
    role.logs.close()
