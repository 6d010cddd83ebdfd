"""The same decision by the other two ways: fetched by the witness, or carried on paper (journal.md § 9.2, § 9.3)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.journal.samples import ORIGIN, WA, leaves, policy
from tests.witness.parties import URL, FakeLog, Party, rewritten, size_of

from schleuse.errors import MalformedError
from schleuse.journal.note import NoteRefusedError, parse_note
from schleuse.witness.alarm import Finding
from schleuse.witness.decision import Conflict, Contradiction
from schleuse.witness.paper import read_answer, read_sheet, sheet
from schleuse.witness.pull import REFRESH_S, OtherOriginError, Puller
from schleuse.witness.remote import HttpRemote, RemoteError, RemoteLog
from schleuse.witness.service import Cosigned


def puller(party: Party, log: FakeLog) -> Puller:
    return Puller(ORIGIN, RemoteLog(URL, log), party.witness, party.clock, party.alarms.append)


def test_a_growing_log_is_cosigned_and_told(tmp_path: Path) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(5))
    pull = puller(party, log)
    for size in (5, 300, 700):
        log.now_holds(leaves(size))
        assert isinstance(pull.poll(), Cosigned)
        assert (size_of(log.posted[-1]), party.size) == (size, size)
    assert policy("wa").judge(log.note).checkpoint.size == 700
    assert party.alarms == []


def test_a_log_that_rests_is_left_alone_and_cosigned_again_in_time(tmp_path: Path) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(5))
    pull = puller(party, log)
    pull.poll()
    assert pull.poll() is None
    party.clock.move(REFRESH_S)
    assert isinstance(pull.poll(), Cosigned)
    assert len(log.posted) == 2


@pytest.mark.parametrize("lost", [True, False])
def test_a_cosignature_that_could_not_be_sent_is_sent_later(tmp_path: Path, lost: bool) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(5))
    pull = puller(party, log)

    class Dying(FakeLog):
        """Goes down between the fetch and the post."""

        def post(self, url: str, body: bytes) -> None:
            self.down, self.lost = not lost, lost
            super().post(url, body)

    dying = Dying(leaves(5))
    with pytest.raises(RemoteError):
        puller(party, dying).poll()
    assert party.size == 5
    party.restart()
    pull = puller(party, log)
    assert isinstance(pull.poll(), Cosigned)
    assert policy("wa").judge(log.note).checkpoint.size == 5


def test_a_tail_that_was_cut_off_is_an_alarm_once(tmp_path: Path) -> None:
    """T-09, seen from a witness that pulls."""
    party, log = Party(tmp_path), FakeLog(leaves(1300))
    pull = puller(party, log)
    pull.poll()
    log.now_holds(leaves(300))
    assert [pull.poll(), pull.poll()] == [None, None]
    assert party.findings == [Finding.ROLLBACK]
    assert "1000 entries are gone" in party.alarms[0].text
    assert party.size == 1300
    (evidence,) = party.store.evidence()
    assert (evidence.finding, evidence.theirs) == (Finding.ROLLBACK, log.note.encode())
    assert evidence.ours is not None
    assert size_of(parse_note(evidence.ours)) == 1300


def test_a_rewritten_entry_is_proven_with_the_logs_own_tiles(tmp_path: Path) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(300))
    pull = puller(party, log)
    pull.poll()
    log.now_holds(rewritten(400, 7))
    answer = pull.poll()
    assert isinstance(answer, Contradiction)
    assert answer.fork
    assert [one.finding for one in party.store.evidence()] == [Finding.FORK]
    assert len(log.posted) == 1


def test_tiles_that_are_not_what_is_signed_are_an_alarm_and_no_evidence(tmp_path: Path) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(300))
    pull = puller(party, log)
    pull.poll()
    log.now_holds(leaves(600))
    log.other[f"{URL}/tile/0/001"] = bytes(8192)
    assert pull.poll() is None
    assert (party.findings, party.store.evidence(), party.size) == ([Finding.FALSE_TILES], [], 300)
    del log.other[f"{URL}/tile/0/001"]
    assert isinstance(pull.poll(), Cosigned)


def test_another_log_at_the_url_is_refused(tmp_path: Path) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(9))
    with pytest.raises(OtherOriginError):
        Puller("journal.example/b/2027", RemoteLog(URL, log), party.witness, party.clock, party.alarms.append).poll()
    log.note = type(log.note)(log.note.text, (WA.cosign(log.checkpoint(9), 1),))
    with pytest.raises(NoteRefusedError):
        puller(party, log).poll()


def test_only_http_is_asked() -> None:
    for url in ("file:///etc/passwd", "ftp://localhost/x"):
        with pytest.raises(RemoteError):
            HttpRemote().get(url, 10)


def test_paper_there_and_back(tmp_path: Path) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(9))
    first = party.witness.add_checkpoint(read_sheet(sheet(None, (), log.request(0, 5).note)))
    assert isinstance(first, Cosigned)
    request = log.request(5, 9)
    answer = party.witness.add_checkpoint(read_sheet(sheet(first.note, request.proof, request.note)))
    assert isinstance(answer, Cosigned)
    back = "".join(map(str, answer.lines)).replace("\u2014", "--").replace("\n", "  \r\n").encode()
    assert policy("wa").judge(read_answer(back, log.note)).checkpoint.size == 9


def test_what_mail_programs_do_to_a_sheet_is_undone_and_no_more(tmp_path: Path) -> None:
    log = FakeLog(leaves(9))
    request = log.request(5, 9)
    text = request.encode().decode()
    for damaged in (
        text.replace("\n", "\r\n"),
        "\ufeff" + text,
        "\n\n" + text + "\n\n",
        text.replace("\n", "  \n"),
        text.replace("\u2014", "\u2013"),
        "\n".join("  " + line for line in text.split("\n")),
    ):
        assert read_sheet(damaged.encode()) == request
    for lost in (text.replace("old 5", "old five"), text.partition("\n\n")[0], "\xff"):
        with pytest.raises(MalformedError):
            read_sheet(lost.encode("latin-1", "replace"))


def test_a_sheet_decides_like_a_request(tmp_path: Path) -> None:
    party, log = Party(tmp_path), FakeLog(leaves(9))
    party.witness.add_checkpoint(read_sheet(log.request(0, 9).encode()))
    assert party.witness.add_checkpoint(read_sheet(log.request(0, 5).encode())) == Conflict(9, fork=False)
    fork = FakeLog(rewritten(9, 1)).request(9, 9)
    assert isinstance(party.witness.add_checkpoint(read_sheet(fork.encode())), Contradiction)
