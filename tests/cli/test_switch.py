"""`schleuse switch …` on a home where nothing runs (SW-01, SW-05, SW-14, SW-17, T-04)."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.cli.conftest import Shell
from tests.scenarios import switching

from schleuse.config import read_config
from schleuse.processes.switching import effect_book, enforced_atoms, open_switch
from schleuse.scopes import Direction, ScopeState, Service
from schleuse.shutdown.closure import METHOD, ClosureProof, Need, Verdict, checks, provable
from schleuse.shutdown.proofs import keep
from schleuse.switch.effects import SwitchEffect

IK = "109900011"
WHY = ("--reason", "security_hold", "--text", "Verdacht", "--incident", "V-1")
NOT_AUTHORISED, MALFORMED, CONFLICT = 77, 65, 75


def state(home: Path, service: Service, tenant: str, direction: Direction) -> ScopeState:
    """As a role of this home has it when it starts."""
    return open_switch(read_config(home), "kim").standing(service, tenant, direction).state


def told(home: Path) -> list[dict[str, Any]]:
    """What waits for the journal, with its detail."""
    year = datetime.now(UTC).year
    path = home / "trail" / f"cli-{year}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{**line, "detail": json.loads(line["detail"])} for line in lines]


@pytest.mark.parametrize(("verb", "expected"), [("hold", "HOLD"), ("defer", "DEFER"), ("close", "CLOSED")])
def test_one_person_closes_with_nothing_running(shell: Shell, home: Path, verb: str, expected: str) -> None:
    """SW-05, T-04: no process, no network; each role is closed when it starts."""
    done = shell("switch", verb, "eau/*", *WHY, "--home", str(home))
    assert done.code == 0
    assert "Epoche 1 angeordnet" in done.out
    assert "läuft gerade nichts" in done.out
    assert "unterschrieben von betrieb-1" in done.err
    assert state(home, Service.EAU_INTAKE, IK, Direction.PROCESS) is ScopeState(expected)
    assert state(home, Service.KIM_MAIL, "", Direction.ACCEPT) is ScopeState.OPEN


def test_draining_and_limiting_are_closings_too(shell: Shell, home: Path) -> None:
    assert shell("switch", "limit", "eau", "--permille", "100", *WHY, "--home", str(home)).code == 0
    assert state(home, Service.EAU_INTAKE, IK, Direction.PROCESS) is ScopeState.LIMITED
    assert shell("switch", "drain", "eau", *WHY, "--home", str(home)).code == 0
    assert state(home, Service.EAU_INTAKE, IK, Direction.PROCESS) is ScopeState.DRAIN
    assert shell("switch", "limit", "eau", "--permille", "900", *WHY, "--home", str(home)).code == 0
    assert state(home, Service.EAU_INTAKE, IK, Direction.PROCESS) is ScopeState.DRAIN


def test_everything_stands_in_the_command_and_in_the_journals_concerned(shell: Shell, home: Path) -> None:
    """SW-14: reason, incident, expected effects, who is told; an entry for each insurer and for the platform."""
    more = ("--expected", "keine Auslieferung", "--told", "Kasse", "--told", "BSI", "--policy", "P@1")
    done = shell("switch", "hold", "eau", "keys", *WHY, *more, "--json", "--home", str(home))
    command = json.loads(done.out)
    assert (command["epoch"], command["reason"], command["incident"]) == (1, "security_hold", "V-1")
    assert set(command["scopes"]) == {"eau_intake", "eau_employer_answer", "keys"}
    entries = told(home)
    assert [one["tenant"] for one in entries] == [IK, "platform"]
    for one in entries:
        assert (one["detail"]["act"], one["detail"]["epoch"]) == ("switch.order", 1)
        assert one["detail"]["command"] == command["command"]
        assert one["detail"]["who"] == "betrieb-1"
    kim = shell("switch", "hold", "kim_mail/-", *WHY, "--home", str(home))
    assert kim.code == 0
    assert [one["tenant"] for one in told(home)[2:]] == ["platform"]


def test_a_refused_attempt_is_told_as_well(shell: Shell, home: Path, tmp_path: Path) -> None:
    """SW-14; T-12: who may not close is told, and nothing is ordered."""
    key = home / "operators" / "betrieb-2.key"
    words = ("--state", "HOLD", "--reason", "drill", "--operator", "betrieb-2", "--operator-key", str(key))
    out = tmp_path / "command.json"
    assert shell("switch", "sign", "eau", *words, "--role", "lead", "--out", str(out)).code == 0
    done = shell("switch", "import", str(out), "--home", str(home))
    assert done.code == NOT_AUTHORISED
    assert [(one["tenant"], one["result"]) for one in told(home)] == [(IK, 1), ("platform", 1)]
    assert told(home)[0]["detail"]["code"] == "switch.unknown-signer"
    assert switching.epoch(home) == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("hold", *WHY), MALFORMED),
        (("hold", "fax", *WHY), MALFORMED),
        (("hold", "eau", *WHY, "--operator", "betrieb-2"), NOT_AUTHORISED),
        (("hold", "eau", *WHY, "--operator", "automat"), NOT_AUTHORISED),
        (("hold", "eau", *WHY, "--operator", "nobody"), NOT_AUTHORISED),
        (("limit", "eau", *WHY), MALFORMED),
        (("hold", "eau", "--reason", "mood"), 2),
    ],
)
def test_what_cannot_be_ordered_orders_nothing(shell: Shell, home: Path, words: tuple[str, ...], code: int) -> None:
    assert shell("switch", *words, "--home", str(home)).code == code
    assert switching.epoch(home) == 0


def test_a_text_that_nobody_can_read_keeps_no_closing_back(shell: Shell, home: Path) -> None:
    """SW-01: cut and cleaned, not refused; and it moves nobody's cursor when it is shown."""
    hurried = b"\xff\x1b[2J".decode("utf-8", "surrogateescape") + "x" * 5000
    assert shell("switch", "hold", "eau", "--reason", "drill", "--text", hurried, "--home", str(home)).code == 0
    assert "\x1b[2J" not in shell("switch", "show", "--home", str(home)).out


def rows(shell: Shell, home: Path, scope: str) -> list[dict[str, object]]:
    return [json.loads(one) for one in shell("switch", "show", scope, "--json", "--home", str(home)).out.splitlines()]


def test_who_closes_says_when_there_is_news_and_somebody_renews_it(shell: Shell, home: Path) -> None:
    """CM-03: of the configuration, of the command, or of a person later; it opens nothing (SW-03)."""
    at = ("--home", str(home))
    shell("switch", "hold", "kim_mail", *WHY, *at)
    shell("switch", "hold", "eau", *WHY, "--next-information", "30m", *at)
    kim, eau = rows(shell, home, "kim_mail")[0], rows(shell, home, "eau_intake")[0]

    def minutes(row: dict[str, object]) -> float:
        by, since = (datetime.fromisoformat(str(row[name])) for name in ("next_information_by", "since"))
        return (by - since).total_seconds() / 60

    assert minutes(kim) == 240
    assert 30 <= minutes(eau) < 40
    assert not eau["next_information_overdue"]
    done = shell("switch", "news", "eau", "--next-information", "2d", "--operator", "betrieb-1", *at)
    assert "Nächste Information bis" in done.out
    assert minutes(rows(shell, home, "eau_intake")[0]) > 2_800
    assert switching.epoch(home) == 2
    assert [one["detail"]["act"] for one in told(home)].count("switch.news") == 4
    assert "nächste Information" in shell("switch", "show", *at).out


def test_a_time_that_is_none_is_told_and_keeps_no_closing_back(shell: Shell, home: Path) -> None:
    """SW-01."""
    done = shell("switch", "hold", "eau", *WHY, "--next-information", "morgen", "--home", str(home))
    assert done.code == MALFORMED
    assert "morgen" in done.err
    assert state(home, Service.EAU_INTAKE, IK, Direction.PROCESS) is ScopeState.HOLD
    refused = ("news", "eau", "--next-information", "4h", "--operator", "betrieb-2")
    assert shell("switch", *refused, "--home", str(home)).code == NOT_AUTHORISED


def test_a_switch_that_nobody_has_used_is_shown_as_not_present(shell: Shell, home: Path) -> None:
    """SW-15: ours and those of systems that are not ours."""
    with (home / "schleuse.toml").open("a") as file:
        file.write(
            '\n[[control.external]]\nname = "firewall"\nscope = "payments_support"\n'
            'stop = ["false"]\nstart = ["false"]\nprobe = ["false"]\n'
        )
    [row] = rows(shell, home, "payments_support")
    assert (row["system"], row["switch_counts_as_present"], row["state"]) == ("firewall", False, "OPEN")
    out = shell("switch", "show", "--home", str(home)).out
    assert "gelten als nicht vorhanden" in out
    assert "payments_support [firewall]" in out
    [line] = [line for line in out.splitlines() if line.startswith("payments_support") and "OPEN" in line]
    assert "[firewall]" in line
    shell("switch", "hold", "payments_support", *WHY, "--home", str(home))
    assert "payments_support [firewall]" in shell("closure", "list", "--home", str(home)).out


def test_without_a_name_the_only_key_signs_and_two_ask(shell: Shell, home: Path) -> None:
    key = home / "operators" / "betrieb-1.key"
    moved = key.rename(home / "usb.key")
    done = shell("switch", "hold", "eau", *WHY, "--home", str(home))
    assert done.code == NOT_AUTHORISED
    assert "nobody could sign" in done.err
    named = ("--operator", "betrieb-1", "--operator-key", str(moved))
    assert shell("switch", "hold", "eau", *WHY, *named, "--home", str(home)).code == 0


def test_show_says_where_everything_stands(shell: Shell, home: Path) -> None:
    """SW-17: never off without proof."""
    opened = shell("switch", "show", "--home", str(home))
    assert "Letzte Epoche: 0" in opened.out
    assert "OPEN" in opened.out
    shell("switch", "hold", f"eau/{IK}", *WHY, "--home", str(home))
    held = shell("switch", "show", "--home", str(home)).out
    [line] = [line for line in held.splitlines() if line.startswith(f"eau_intake/{IK}/process ")]
    assert "HOLD" in line
    assert "angeordnet, nicht bewiesen" in line
    assert "Epoche 1: betrieb-1  Sicherheit: Verdacht" in held
    lines = shell("switch", "show", "eau_intake/*/process", "--json", "--home", str(home)).out.splitlines()
    [row] = [json.loads(line) for line in lines]
    assert (row["state"], row["epoch"], row["verdict"], row["signed_by"]) == ("HOLD", 1, "inconclusive", ["betrieb-1"])


def test_what_no_role_enforces_is_shown_as_that(shell: Shell, home: Path) -> None:
    done = shell("switch", "close", "payments_support", *WHY, "--home", str(home))
    assert "nicht beweisbar" in done.out
    assert "niemand setzt es durch" in shell("switch", "show", "payments_support", "--home", str(home)).out


def test_effects_and_proofs_are_shown_as_they_come(shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SW-07, SW-10, SW-17: times of each worker, what was cut, and proven only when everything is."""
    monkeypatch.setenv("SCHLEUSE_LANG", "en")
    first = json.loads(shell("switch", "hold", f"eau_intake/{IK}/accept", *WHY, "--json", "--home", str(home)).out)
    assert (first["quiet"], first["proven"], first["workers"]) == (False, False, {"kim": None})
    config, now = read_config(home), datetime.now(UTC)
    accepted = datetime.fromisoformat(first["accepted_at"])
    effect = SwitchEffect("kim", 1, accepted, accepted, inflight=3, finished=2, cut=1, uncertain=("a",))
    effect_book(config).write(effect)
    again = shell("switch", "export", "1", "--out", str(home / "c.json"), "--home", str(home))
    assert again.code == 0
    seen = shell("switch", "import", str(home / "c.json"), "--home", str(home))
    assert "seen +0.00 s, quiet +0.00 s, 2 finished, 1 cut, 1 uncertain" in seen.out
    assert "commanded, not proven" in seen.out
    atom = next(one for one in provable(enforced_atoms(config)) if str(one) == f"eau_intake/{IK}/accept/-")
    need = Need(atom, ScopeState.HOLD, 1, first["command"], accepted)
    made = [
        ClosureProof(
            f"1-{n}", first["command"], 1, str(atom), one.what, METHOD[one.what], "", "", 1, "here", now, now,
            Verdict.PROVEN, "0" * 64,
        )
        for n, one in enumerate(checks(need))
    ]  # fmt: skip
    keep(config.switch_folder / "proofs", 1, made)
    assert "proven after" in shell("switch", "import", str(home / "c.json"), "--home", str(home)).out
    assert "proven " in shell("switch", "show", f"eau_intake/{IK}/accept", "--home", str(home)).out


def test_waiting_for_what_does_not_get_quiet_is_told_by_the_exit_code(shell: Shell, home: Path) -> None:
    assert shell("switch", "hold", "eau", *WHY, "--wait", "0", "--home", str(home)).code == 75
    assert state(home, Service.EAU_INTAKE, IK, Direction.PROCESS) is ScopeState.HOLD


def test_a_command_signed_elsewhere_is_carried_out_once(shell: Shell, home: Path, tmp_path: Path) -> None:
    """SW-16: the paper procedure from another machine, with a key and nothing else."""
    key = tmp_path / "usb.key"
    (home / "operators" / "betrieb-1.key").rename(key)
    out = tmp_path / "command.json"
    signer = ("--operator", "betrieb-1", "--operator-key", str(key))
    words = ("--state", "HOLD", *signer, "--role", "lead", "--out", str(out), *WHY)
    assert shell("switch", "sign", "all", *words).code == 0
    for _ in range(2):
        assert "Epoche 1 angeordnet" in shell("switch", "import", str(out), "--home", str(home)).out
    assert switching.epoch(home) == 1
    printed = shell("switch", "export", "1", "--home", str(home)).out.strip()
    assert printed == out.read_text()
    out.write_text(printed.replace("HOLD", "CLOSED"))
    assert shell("switch", "import", str(out), "--home", str(home)).code == NOT_AUTHORISED
    assert shell("switch", "import", str(tmp_path / "none"), "--home", str(home)).code == 69


def test_the_log_of_commands_is_shown(shell: Shell, home: Path) -> None:
    shell("switch", "hold", "eau", *WHY, "--home", str(home))
    switching.open(home, "eau")
    lines = shell("switch", "log", "--home", str(home)).out
    assert "schließen HOLD" in lines
    assert "betrieb-1, betrieb-2" in lines
    found = [json.loads(line) for line in shell("switch", "log", "--json", "--home", str(home)).out.splitlines()]
    assert [one["opening"] for one in found] == [0, 1]


def test_an_empty_log_is_made_for_an_older_home_only(shell: Shell, home: Path) -> None:
    """SW-02, SW-03: in the place of a log that was lost it would open everything."""
    log = home / "switch" / "log"
    log.rmdir()
    assert shell("switch", "init", "--home", str(home)).code == 0
    assert log.is_dir()
    assert shell("switch", "init", "--home", str(home)).code == CONFLICT
    shell("switch", "hold", "eau", *WHY, "--home", str(home))
    state(home, Service.EAU_INTAKE, IK, Direction.PROCESS)  # the copy of a role
    (log / "0000000001.json").unlink()
    log.rmdir()
    done = shell("switch", "init", "--home", str(home))
    assert done.code == CONFLICT
    assert "copies/kim.json" in done.err
    assert not log.exists()


def test_a_lost_epoch_is_put_back_before_the_next_command(shell: Shell, home: Path) -> None:
    """Or the new closing would get a number that every role has seen already."""
    shell("switch", "hold", "eau", *WHY, "--home", str(home))
    state(home, Service.EAU_INTAKE, IK, Direction.PROCESS)
    (home / "switch" / "log" / "0000000001.json").unlink()
    assert "Epoche 2 angeordnet" in shell("switch", "hold", "kim", *WHY, "--home", str(home)).out


def test_verify_finds_what_is_wrong(shell: Shell, home: Path) -> None:
    """SW-02, SW-06."""
    shell("switch", "hold", "eau", *WHY, "--home", str(home))
    assert "1 Epochen, lückenlos" in shell("switch", "verify", "--home", str(home)).out
    state(home, Service.EAU_INTAKE, IK, Direction.PROCESS)
    epoch = home / "switch" / "log" / "0000000001.json"
    octets = epoch.read_bytes()
    epoch.write_bytes(octets.replace(b"HOLD", b"OPEN"))
    bad = shell("switch", "verify", "--home", str(home))
    assert bad.code == 70
    assert "✗ epoch 1" in bad.out
    assert "✗ kim.json" in bad.out
    found = json.loads(shell("switch", "verify", "--json", "--home", str(home)).out)
    assert {one["what"] for one in found["findings"]} == {"unreadable", "rewritten"}
    epoch.write_bytes(octets)
    (home / "switch" / "copies" / "kim.json").write_bytes(b"x")
    (home / "switch" / "log" / "0000000003.json").write_bytes(octets)
    found = json.loads(shell("switch", "verify", "--json", "--home", str(home)).out)
    assert {one["what"] for one in found["findings"]} == {"copy", "gap"}


def test_the_paper_is_one_page_with_this_home_and_its_operators(shell: Shell, home: Path) -> None:
    """SW-05."""
    shell("switch", "hold", "eau", *WHY, "--home", str(home))
    out = shell("switch", "paper", "--home", str(home)).out
    lines = out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 90
    for word in ("betrieb-1", "lead, switch_officer", IK, "Kasse Eins", "Epoche 1", "Unterschrift"):
        assert word in out


def test_the_command_on_the_paper_works_as_it_stands_there(shell: Shell, home: Path) -> None:
    """SW-05, T-04: a shell with nothing but this page, without the network and without an environment."""
    out = shell("switch", "paper", "--home", str(home)).out.replace("↩\n     ", "").replace(" \\\n     ", " ")
    lines = [line.strip() for line in out.splitlines()]
    key = f"K={home}/operators/betrieb-1.key"
    script = [
        next(line for line in lines if line.startswith(start)) for start in ("export S", "s() {", "s switch hold")
    ]
    typed = "\n".join([*script[:2], key, script[2].replace("NAME", "betrieb-1")])
    bare = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", typed], check=False, env=bare, cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert state(home, Service.KIM_MAIL, "", Direction.ACCEPT) is ScopeState.HOLD


def test_what_is_more_closed_already_stays_and_the_command_is_recorded_as_refused(shell: Shell, home: Path) -> None:
    """SW-16."""
    shell("switch", "close", "eau_intake", *WHY, "--home", str(home))
    done = shell("switch", "hold", "eau", *WHY, "--home", str(home))
    assert "eau_intake  ist schon geschlossener" in done.out
    assert told(home)[-1]["detail"]["refused"] == ["eau_intake"]
    assert state(home, Service.EAU_INTAKE, IK, Direction.PROCESS) is ScopeState.CLOSED
    assert "Epoche 1: betrieb-1" in shell("switch", "show", "eau_intake", "--home", str(home)).out


def test_a_start_reads_the_operators_keys_once(home: Path) -> None:
    """One that is gone is told once, and not by the switch, its policies and its mandates each."""
    config = read_config(home)
    config.operators[0].public_key.unlink()
    with capture_logs() as logs:
        open_switch(config, "kim")
    assert [one["operator"] for one in logs if one["event"] == "switch.operator-key"] == ["betrieb-1"]
