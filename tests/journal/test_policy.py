"""Policies (C2SP tlog-policy): what a file may say, and whom it believes."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.samples import LOG, POLICY_LINES, PQ, T0, WA, WB, WC, checkpoint, cosigned, policy

from schleuse.errors import MalformedError
from schleuse.journal.cosignature import Ed25519Cosigner
from schleuse.journal.note import Note, NoteRefusedError, SignatureLine
from schleuse.journal.policy import BadPolicyError, NoQuorumError, parse_policy

LOG_LINE = f"log {LOG.key.vkey}\n"
WITNESSES = f"witness wa {WA.key.vkey}\nwitness wb {WB.key.vkey}\nwitness wc {WC.key.vkey}\n"
HERE = checkpoint(9)


def test_a_policy_is_read_with_its_addresses() -> None:
    here = policy("alle")
    assert [log.url for log in here.logs] == ["https://journal.example/kasse-a/2027"]
    assert [(witness.name, witness.url) for witness in here.witnesses] == [
        ("wa", "https://witness.example/"),
        ("wb", None),
        ("wc", None),
    ]
    assert [(group.name, group.threshold) for group in here.groups] == [("kassen", 1), ("alle", 2)]


@pytest.mark.parametrize("threshold", ["1", "2", "3", "any", "all"])
def test_a_group_is_satisfied_by_its_threshold(threshold: str) -> None:
    here = parse_policy(f"{LOG_LINE}{WITNESSES}group g {threshold} wa wb wc\nquorum g\n".encode())
    needed = {"any": 1, "all": 3}.get(threshold) or int(threshold)
    for count in range(4):
        for present in combinations(["wa", "wb", "wc"], count):
            assert here.is_satisfied(present) == (count >= needed)


def test_own_insurer_and_any_two_others_needs_the_own_one() -> None:
    """The recommended form: no majority of others replaces the owner of the log."""
    lines = f"{LOG_LINE}{WITNESSES}witness pq {PQ.key.vkey}\ngroup others 2 wb wc pq\ngroup q all wa others\nquorum q\n"
    here = parse_policy(lines.encode())
    assert here.is_satisfied({"wa", "wb", "pq"})
    assert not here.is_satisfied({"wb", "wc", "pq"})
    assert not here.is_satisfied({"wa", "pq"})


def test_one_witness_can_be_the_quorum() -> None:
    here = parse_policy(f"{LOG_LINE}{WITNESSES}quorum wb\n".encode())
    assert here.judge(cosigned(9)).since_s == T0 + 1
    with pytest.raises(NoQuorumError):
        here.judge(HERE.signed_by(LOG).with_lines([WA.cosign(HERE, T0)]))


def test_spaces_tabs_comments_and_empty_lines_do_not_matter() -> None:
    lines = f"# who\n\n \t log\t{LOG.key.vkey}  \n  # quorum wa\n{WITNESSES}quorum   wa"
    assert parse_policy(lines.encode()).quorum == "wa"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("", "empty"),
        (LOG_LINE, "no quorum"),
        ("quorum none\n", "no log"),
        (f"{LOG_LINE}quorum none\nquorum none\n", "two quorums"),
        (f"{LOG_LINE}quorum wa\n{WITNESSES}", "the quorum stands before its name"),
        (f"{LOG_LINE}{WITNESSES}quorum other\n", "an unknown quorum"),
        (f"{LOG_LINE}group g any wa\n{WITNESSES}quorum g\n", "a member stands before its name"),
        (f"{LOG_LINE}{WITNESSES}group g any wa g\nquorum g\n", "a group in itself"),
        (f"{LOG_LINE}{WITNESSES}group g any wa wa\nquorum g\n", "a member twice"),
        (f"{LOG_LINE}{WITNESSES}group g any wa\ngroup h any wa\nquorum h\n", "a member of two groups"),
        (f"{LOG_LINE}{WITNESSES}group g 0 wa\nquorum g\n", "threshold 0"),
        (f"{LOG_LINE}{WITNESSES}group g 2 wa\nquorum g\n", "a threshold above the members"),
        (f"{LOG_LINE}{WITNESSES}group g +1 wa\nquorum g\n", "another spelling of 1"),
        (f"{LOG_LINE}{WITNESSES}group g most wa\nquorum g\n", "no threshold"),
        (f"{LOG_LINE}{WITNESSES}group g any\nquorum none\n", "no members"),
        (f"{LOG_LINE}{WITNESSES}group wa any wb\nquorum wa\n", "a name twice"),
        (f"{LOG_LINE}{WITNESSES}group none any wb\nquorum none\n", "a group called none"),
        (f"{LOG_LINE}{WITNESSES}witness wd {WA.key.vkey}\nquorum none\n", "a key twice"),
        (f"{LOG_LINE}{LOG_LINE}quorum none\n", "a log twice"),
        (f"log {WA.key.vkey}\nquorum none\n", "a witness as log"),
        (f"{LOG_LINE}witness wa {LOG.key.vkey}\nquorum none\n", "a log as witness"),
        (f"{LOG_LINE}witness wa\nquorum none\n", "no key"),
        (f"log\n{LOG_LINE}quorum none\n", "no vkey"),
        (f"{LOG_LINE.strip()} url more\nquorum none\n", "a word too many"),
        (f"{LOG_LINE}quorum none none\n", "a word too many"),
        (f"{LOG_LINE}quorums none\n", "an unknown word"),
        (f"{LOG_LINE}quorum none # why\n", "a comment behind"),
    ],
)
def test_a_file_that_says_something_twice_too_early_or_not_at_all_is_malformed(lines: str, why: str) -> None:
    with pytest.raises(BadPolicyError):
        parse_policy(lines.encode())


def test_one_key_under_two_names_does_not_count_twice() -> None:
    """The same public key, once under another name, so that even its key id differs."""
    twin = Ed25519Cosigner("witness.example/twin", WA._private_key)
    with pytest.raises(BadPolicyError):
        parse_policy(f"{LOG_LINE}{WITNESSES}witness wd {twin.key.vkey}\ngroup g 2 wa wd\nquorum g\n".encode())


def test_a_mistake_is_told_with_its_line() -> None:
    with pytest.raises(BadPolicyError, match="line 3"):
        parse_policy(f"{LOG_LINE}\ngroup g any wa\n".encode())


@given(st.binary(max_size=80) | st.text("loguritnesp \n#+12", max_size=80).map(str.encode))
def test_any_file_is_a_policy_or_malformed(data: bytes) -> None:
    for content in (data, (POLICY_LINES + "quorum alle\n").encode() + data):
        try:
            assert parse_policy(content).logs
        except MalformedError:
            continue


def test_a_file_that_is_no_text_or_too_large_is_malformed() -> None:
    for data in (b"\xff", b"#" * (1 << 20) + b"\n"):
        with pytest.raises(BadPolicyError):
            parse_policy(data)


class TestJudging:
    def test_the_quorum_is_complete_with_its_last_needed_witness(self) -> None:
        late, early = WC.cosign(HERE, T0 + 50), WB.cosign(HERE, T0 + 9)
        judged = policy("alle").judge(HERE.signed_by(LOG).with_lines([late, early, WA.cosign(HERE, T0 + 70)]))
        assert judged.since_s == T0 + 50
        assert judged.times == {"wa": T0 + 70, "wb": T0 + 9, "wc": T0 + 50}

    def test_the_earliest_line_of_a_witness_counts(self) -> None:
        lines = [WA.cosign(HERE, T0 + 9), WA.cosign(HERE, T0), WA.cosign(HERE, T0 + 5)]
        assert policy("kassen").judge(HERE.signed_by(LOG).with_lines(lines)).since_s == T0

    def test_a_witness_of_the_other_kind_counts_as_well(self) -> None:
        here = parse_policy(f"{LOG_LINE}witness pq {PQ.key.vkey}\nquorum pq\n".encode())
        assert here.judge(HERE.signed_by(LOG).with_lines([PQ.cosign(HERE, T0)])).since_s == T0

    def test_a_false_line_of_a_witness_spoils_even_a_satisfied_quorum(self) -> None:
        false = SignatureLine(WB.key.name, WB.key.id, bytes(72))
        for quorum in ("kassen", "none"):
            with pytest.raises(NoteRefusedError):
                policy(quorum).judge(cosigned(9).with_lines([false]))

    def test_witnesses_without_the_log_are_worth_nothing(self) -> None:
        for quorum in ("alle", "none"):
            with pytest.raises(NoteRefusedError):
                policy(quorum).judge(Note(HERE.text, cosigned(9).lines[1:]))

    def test_only_true_lines_of_its_witnesses_are_taken_over(self) -> None:
        stranger = SignatureLine("stranger", bytes(4), bytes(72))
        taken = policy("none").witness_lines(cosigned(9).with_lines([stranger, PQ.cosign(HERE, T0)]))
        assert [(witness.name, line) for witness, line in taken] == list(
            zip(("wa", "wb", "wc"), cosigned(9).lines[1:], strict=True)
        )
        assert policy("none").witness_lines(HERE.signed_by(LOG)) == []

    def test_a_missing_quorum_says_who_has_cosigned(self) -> None:
        with pytest.raises(NoQuorumError, match=r"wa, wb.*alle"):
            policy("alle").judge(Note(HERE.text, cosigned(9).lines[:3]))
        with pytest.raises(NoQuorumError, match="nobody"):
            policy("kassen").judge(HERE.signed_by(LOG))
