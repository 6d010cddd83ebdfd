"""From one year's log to the next, without anybody's word (journal.md § 17)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.journal.samples import LOG, ORIGIN, WA, WB, leaves
from tests.witness.parties import URL, FakeLog, Party

from schleuse.errors import MalformedError
from schleuse.journal.checkpoint import Checkpoint
from schleuse.journal.entry import Entry, Kind, Purpose, Result
from schleuse.journal.note import LogKey, LogSigner
from schleuse.journal.opening import Opening, canonical_json, detail_commitment
from schleuse.journal.policy import NoQuorumError, parse_policy
from schleuse.journal.proof import inclusion_path
from schleuse.journal.proof_file import ProofFile
from schleuse.journal.successor import ENTRY, PROOF, announcement
from schleuse.witness.alarm import Finding
from schleuse.witness.config import FOLLOWED, WitnessConfig, read_witness_config
from schleuse.witness.follow import CannotFollowError, Follower, NotYetOursError
from schleuse.witness.pull import Puller
from schleuse.witness.remote import RemoteLog

FOLLOWING = "journal.example/kasse-a/2028"
NEXT = LogSigner(FOLLOWING, Ed25519PrivateKey.from_private_bytes(b"n" * 32))
SALT = b"s" * 16
FILE = f'''\
name = "witness.example/kasse-a"
[[logs]]
keys = ["{LOG.key.vkey}"]
url = "{URL}"
pull_seconds = 5
[logs.monitor]
policy = "policy-2027"
canaries = "geheim \\" \u00e4"
denials_in_series = 7
'''
POLICY = f"# agreed\nlog {LOG.key.vkey}\nwitness a {WA.key.vkey}\nquorum a\n"


class Site:
    """A witness that pulls a log, which announces its successor."""

    def __init__(self, folder: Path, file: str = FILE) -> None:
        self.folder = folder
        (folder / "witness.toml").write_text(file, encoding="utf-8")
        (folder / "policy-2027").write_text(POLICY)
        self.party = Party(folder)
        self.trusted = {ORIGIN: (LogKey(LOG.key),)}
        self.log = FakeLog(leaves(3))
        self.announces(NEXT)

    @property
    def config(self) -> WitnessConfig:
        return read_witness_config(self.folder)

    def announces(self, following: LogSigner) -> None:
        record = canonical_json(announcement(ORIGIN, following.key))
        at, detail = datetime(2027, 12, 4, tzinfo=UTC), detail_commitment(SALT, record)
        entry = Entry(Kind.POLICY_CHANGED, Result.GRANTED, Purpose.OPERATION, at, UUID(int=7), detail=detail).encode()
        self.log.now_holds([*self.log.entries, entry])
        self._opening, self._entry = Opening(detail=(SALT, record)).encode(), entry

    def cosigns(self) -> None:
        log = RemoteLog(URL, self.log)
        Puller(ORIGIN, log, self.party.witness, self.party.clock, self.party.alarms.append).poll()

    def serves(self) -> None:
        size = len(self.log.entries)
        path = inclusion_path(size - 1, size, self.log.tree)
        proof = ProofFile(size - 1, tuple(path), self.log.note, self._opening)
        self.log.other = {f"{URL}/{PROOF}": proof.encode(), f"{URL}/{ENTRY}": self._entry}

    def follower(self) -> Follower:
        (section,) = (log for log in self.config.logs if log.origin == ORIGIN)
        log = RemoteLog(URL, self.log)
        return Follower(self.folder, section, log, self.party.witness, self.trusted, self.party.alarms.append)


def test_a_log_that_announces_nothing_is_followed_by_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert site.follower().look() is None
    assert not (tmp_path / FOLLOWED).exists()


def test_the_next_log_is_cosigned_and_watched_as_this_one_is(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.cosigns()
    site.serves()
    assert site.follower().look() == FOLLOWING
    assert site.follower().look() == FOLLOWING  # until the role has read its files, and written once
    this, following = site.config.logs
    assert (this.origin, following.log_keys) == (ORIGIN, (LogKey(NEXT.key),))
    assert following.url == URL.replace("2027", "2028")
    assert (following.pull_seconds, following.follow) == (5, True)
    assert this.monitor is not None
    assert following.monitor is not None
    changed = {"policy": tmp_path / "policy-2028", "database": tmp_path / "monitor-2028.sqlite"}
    assert following.monitor == this.monitor.model_copy(update=changed)
    policy = parse_policy(following.monitor.policy.read_bytes())
    assert policy.log_keys == (LogKey(NEXT.key),)
    assert (policy.witness_keys, policy.quorum) == (parse_policy(POLICY.encode()).witness_keys, "a")
    assert Checkpoint(FOLLOWING, 0, b"r" * 32).signed_by(NEXT)


def test_a_policy_that_the_insurer_has_put_there_stays_and_its_own_file_counts(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.cosigns()
    site.serves()
    (tmp_path / "policy-2028").write_text("# ours\n")
    site.follower().look()
    assert (tmp_path / "policy-2028").read_text() == "# ours\n"
    with (tmp_path / "witness.toml").open("a") as file:
        file.write(f'[[logs]]\nkeys = ["{NEXT.key.vkey}"]\nurl = "https://other/"\npull_seconds = 9\n')
    assert [log.pull_seconds for log in site.config.logs] == [5, 9]


def test_an_announcement_under_a_checkpoint_that_we_have_not_cosigned_waits(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.serves()
    with pytest.raises(NotYetOursError):
        site.follower().look()
    site.log.note = site.log.note.with_lines([WB.cosign(site.log.checkpoint(4), 1_800_000_000)])
    site.serves()
    with pytest.raises(NotYetOursError):
        site.follower().look()
    assert not (tmp_path / FOLLOWED).exists()


def test_an_announcement_without_the_insurers_quorum_waits(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "policy-2027").write_text(f"log {LOG.key.vkey}\nwitness b {WB.key.vkey}\nquorum b\n")
    site.cosigns()
    site.serves()
    with pytest.raises(NoQuorumError):
        site.follower().look()
    assert not (tmp_path / FOLLOWED).exists()


def test_another_key_than_the_trusted_one_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    other = LogSigner(FOLLOWING, Ed25519PrivateKey.generate())
    site.trusted[FOLLOWING] = (LogKey(other.key),)
    site.cosigns()
    site.serves()
    follower = site.follower()
    for _ in range(2):
        assert follower.look() is None
    assert site.party.findings == [Finding.OTHER_SUCCESSOR]
    assert not (tmp_path / FOLLOWED).exists()


def test_the_trusted_key_is_no_news(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.trusted[FOLLOWING] = (LogKey(NEXT.key),)
    site.cosigns()
    site.serves()
    assert site.follower().look() is None
    assert site.party.alarms == []


def test_a_url_without_the_year_is_left_to_the_insurer(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.cosigns()
    site.serves()
    (tmp_path / "witness.toml").write_text(FILE.replace(URL, "https://journal.example/now"), encoding="utf-8")
    with pytest.raises(CannotFollowError, match="by hand"):
        site.follower().look()


def test_nonsense_in_place_of_a_proof_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.cosigns()
    site.log.other = {f"{URL}/{PROOF}": b"nonsense", f"{URL}/{ENTRY}": b""}
    with pytest.raises(MalformedError):
        site.follower().look()
    assert not (tmp_path / FOLLOWED).exists()
