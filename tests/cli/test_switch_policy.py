"""`schleuse switch policy …`: written by one, in force by two, cosigned by insurers (§ 5.2, § 10)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from tests.cli.conftest import Shell
from tests.cli.test_switch import IK, told

from schleuse.config import read_config
from schleuse.processes.operators import rights_of
from schleuse.processes.policies import policies_of
from schleuse.shutdown.policy import PolicyBook

ADD = ("--trigger", "egress.volume", "--cost", "eine Stunde Verzug", "--operator", "betrieb-1")


def book_of(home: Path) -> PolicyBook:
    config = read_config(home)
    return policies_of(config, rights_of(config))


def test_a_policy_is_in_force_when_two_have_signed(shell: Shell, home: Path) -> None:
    where = ("--home", str(home))
    first = shell("switch", "policy", "add", "abfluss", "eau", *ADD, *where)
    assert "fehlt: two persons" in first.out
    assert book_of(home).valid("abfluss", datetime.now(UTC)) is None
    assert "fehlt" in shell("switch", "policy", "list", *where).out
    second = shell("switch", "policy", "sign", "abfluss@1", "--operator", "betrieb-2", *where)
    assert (second.code, second.out) == (0, "abfluss@1\n")
    assert "in Kraft" in shell("switch", "policy", "list", *where).out
    found = book_of(home).valid("abfluss", datetime.now(UTC))
    assert found is not None
    assert found.insurers == (IK,)
    assert {one["detail"]["act"] for one in told(home)} == {"switch.policy"}


def test_the_next_one_of_a_name_is_the_next_version(shell: Shell, home: Path) -> None:
    for version in (1, 2):
        out = shell("switch", "policy", "add", "abfluss", "eau", *ADD, "--home", str(home)).out
        assert out.startswith(f"abfluss@{version}\n")


def test_an_insurer_cosigns_with_the_key_of_its_system(shell: Shell, home: Path) -> None:
    where = ("--home", str(home))
    shell("switch", "policy", "add", "abfluss", "eau", *ADD, "--cosign", *where)
    shell("switch", "policy", "sign", "abfluss@1", "--operator", "betrieb-2", *where)
    key = home / "insurers" / IK / "feed.key"
    words = ("--insurer", IK, "--client", "eins", "--client-key", str(key))
    assert shell("switch", "policy", "cosign", "abfluss@1", *words, *where).out == "abfluss@1\n"
    [line] = shell("switch", "policy", "list", "--json", *where).out.splitlines()
    assert (json.loads(line)["cosigned"], json.loads(line)["missing"]) == ([IK], [])
    shown = json.loads(shell("switch", "policy", "show", "abfluss@1", *where).out)
    assert f"eins as insurer:{IK}" in shown["signed_by"]


def test_who_may_not_agree_is_refused_and_told(shell: Shell, home: Path) -> None:
    where = ("--home", str(home))
    assert shell("switch", "policy", "add", "x", "eau", *ADD[:4], "--operator", "automat", *where).code == 77
    shell("switch", "policy", "add", "x", "eau", *ADD, *where)
    key = home / "operators" / "betrieb-2.key"
    words = ("--insurer", IK, "--client", "eins", "--client-key", str(key))
    assert shell("switch", "policy", "cosign", "x@1", *words, *where).code == 77
    assert told(home)[-1]["result"] == 1
    assert shell("switch", "policy", "sign", "y@1", "--operator", "betrieb-2", *where).code == 69


def test_a_file_that_is_no_policy_is_named(shell: Shell, home: Path) -> None:
    (home / "switch" / "policies" / "z@1.json").write_text("{}")
    done = shell("switch", "policy", "list", "--home", str(home))
    assert "z@1.json is no policy" in done.err
    assert "keine" in done.out
