"""`schleuse journal status|clock|verify|prove|export` as a user runs them: what is said, with which exit code.

In both languages; no mistake of a file's name or content ends in a traceback (issue 3, C and "Done when")."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Shell
from tests.journal.journals import NOW_US, ORIGIN, WITNESS, entry, journal, signer
from tests.journal.test_publish_audit import served_by
from tests.serving import serving

from schleuse.clock import machine_uptime, utc_now
from schleuse.journal import audit, believed
from schleuse.journal.contracts import Level
from schleuse.journal.log import LogConfig
from schleuse.journal.policy import parse_policy
from schleuse.journal.store import Journal
from schleuse.processes.journal_clock import MARK, ORDER, reading

SIZES = (200, 300)


@dataclass(frozen=True, slots=True)
class Site:
    """What an auditor has: a copy of a log, two checkpoints, a proof with its entry, and the insurer's policy."""

    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def proof(self) -> Path:
        return self.folder / "entry-217.tlog-proof"

    @property
    def policy(self) -> str:
        return str(self.folder / "policy")

    @property
    def notes(self) -> tuple[str, str]:
        return str(self.folder / "note-200"), str(self.folder / "note-300")


@pytest.fixture(scope="module")
def a_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("journal")

    async def run() -> None:
        async with journal(folder, logs=()) as opened:
            opened.configure(_config(folder))
            for start, size in ((0, SIZES[0]), SIZES):
                await opened.append_many(ORIGIN, [entry(i) for i in range(start, size)])
                await _cosigned(opened, size)
                audit.export(served_by(opened), folder / "log")
                (folder / f"note-{size}").write_bytes(opened.checkpoint(ORIGIN))

    asyncio.run(run())
    policy = _config(folder).policy
    proof, proven = audit.prove(audit.from_folder(folder / "log"), policy, 217)
    (folder / "entry-217.tlog-proof").write_bytes(proof)
    (folder / "entry-217.entry").write_bytes(proven)
    return Site(folder)


def _config(folder: Path) -> LogConfig:
    text = f"log {signer().key.vkey}\nwitness w {WITNESS.key.vkey}\nquorum w\n"
    (folder / "policy").write_text(text)
    return LogConfig(ORIGIN, signer(), parse_policy(text.encode()))


async def _cosigned(opened: Journal, size: int) -> None:
    opened.tick()
    await opened.wait(ORIGIN, size, Level.PUBLISHED, 5)
    signed = opened.log(ORIGIN).signed
    assert signed is not None
    line = WITNESS.cosign(signed.checkpoint, NOW_US // 1_000_000)
    await opened.add_cosignature(ORIGIN, signed.note.with_lines([line]).encode())


@pytest.fixture
def site(a_site: Site, tmp_path: Path) -> Site:
    """A copy of it, to be damaged."""
    return Site(Path(shutil.copytree(a_site.folder, tmp_path / "site")))


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """A folder as a web server gives it; its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_of: object) -> None:
            pass

    with serving(partial(Quiet, directory=str(folder))) as url:
        yield url


# -- what holds --------------------------------------------------------------------------------------------------

SENTENCES = {
    ("log", "de"): ("Alle 300 Einträge von {origin} sind vollständig und unverändert", "Nicht gezeigt ist, was danach"),
    ("log", "en"): ("All 300 entries of {origin} are complete and unchanged", "Not shown is what came after"),
    ("proof", "de"): ("(READ) steht als Eintrag 217 im Journal {origin}", "ob der Schreiber die Wahrheit sagte"),
    ("proof", "en"): ("(READ) is entry 217 of the journal {origin}", "whether its writer told the truth"),
    ("notes", "de"): ("Beide Stände (200 und 300) sind von {origin} signiert", "zeigen erst die Kacheln"),
    ("notes", "en"): ("Both states (200 and 300) are signed by {origin}", "only the tiles show"),
    ("notes and log", "de"): ("Der Stand 300 von {origin} setzt den Stand 200 unverändert fort", "Inhalt der Einträge"),
    ("notes and log", "en"): ("State 300 of {origin} continues state 200 unchanged", "content of the entries"),
}


@pytest.mark.parametrize(("what", "language"), SENTENCES)
def test_verify_says_in_plain_words_what_is_known_and_what_is_not(
    a_site: Site, shell: Shell, monkeypatch: pytest.MonkeyPatch, what: str, language: str
) -> None:
    shown: dict[str, tuple[str, ...]] = {
        "log": (str(a_site.log),),
        "proof": (str(a_site.proof),),
        "notes": a_site.notes,
        "notes and log": (*reversed(a_site.notes), "--log", str(a_site.log)),
    }
    monkeypatch.setenv("SCHLEUSE_LANG", language)
    ended = shell("journal", "verify", *shown[what], "--policy", a_site.policy)
    known, unknown = SENTENCES[what, language]
    assert (ended.code, ended.err) == (0, "")
    first, second = ended.out.splitlines()
    assert known.format(origin=ORIGIN) in first
    assert unknown in second
    as_json = json.loads(shell("journal", "verify", *shown[what], "--policy", a_site.policy, "--json").out)
    assert {"known", "unknown", "origin"} <= as_json.keys()
    assert as_json["origin"] == ORIGIN


def test_export_prove_and_verify_need_nothing_of_the_platform_after_the_copy(site: Site, shell: Shell) -> None:
    copy, to = site.folder / "copy", site.folder / "to"
    with web(site.log) as url:
        ended = shell("journal", "export", url, str(copy))
        assert (ended.code, ended.out) == (0, f"{ORIGIN}: 300\n")
        again = shell("journal", "export", url, str(copy))
        assert again == ended
        ended = shell("journal", "prove", "299", "--log", url, "--policy", site.policy, "--to", str(to))
        assert ended.code == 0, ended.err
    proof, of = map(Path, ended.out.split())
    assert (proof.name, of.read_bytes()) == ("entry-299.tlog-proof", entry(299))
    for paths in ([copy], [proof], [proof, "--entry", of]):
        assert shell("journal", "verify", *map(str, paths), "--policy", site.policy).code == 0
    same = shell("journal", "prove", "299", "--log", str(copy), "--policy", site.policy, "--to", str(to / "again"))
    assert Path(same.out.split()[0]).read_bytes() == proof.read_bytes()


# -- what does not hold ------------------------------------------------------------------------------------------


def flip(path: Path, at: int = -9) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("language", ["de", "en"])
@pytest.mark.parametrize(
    "path", ["tile/entries/000", "tile/entries/001.p/44", "tile/0/000", "tile/1/000.p/1", "checkpoint"]
)
def test_one_changed_byte_of_a_copy_is_said_by_name_and_not_as_success(
    site: Site, shell: Shell, monkeypatch: pytest.MonkeyPatch, path: str, language: str
) -> None:
    monkeypatch.setenv("SCHLEUSE_LANG", language)
    flip(site.log / path)
    ended = shell("journal", "verify", str(site.log), "--policy", site.policy)
    assert (ended.code in ({65, 77} if path == "checkpoint" else {75}), ended.out) == (True, "")
    # the tiles at the end are checked together, against the signed root
    assert (
        path if path.startswith(("tile/entries", "tile/0")) else ORIGIN if path != "checkpoint" else ""
    ) in ended.err
    assert NOT_KNOWN[language] in ended.err


REFUSED = {65, 75, 77}  #: malformed, contradicting what is signed, not signed by whom the policy names
NOT_KNOWN = {"de": "Bestätigt ist damit nichts", "en": "So nothing is confirmed"}


@pytest.mark.parametrize("what", ["entry-217.entry", "entry-217.tlog-proof"])
def test_one_changed_byte_of_a_proof_or_its_entry_is_no_proof(site: Site, shell: Shell, what: str) -> None:
    size = (site.folder / what).stat().st_size
    original = (site.folder / what).read_bytes()
    for at in range(0, size, max(1, size // 40)):
        (site.folder / what).write_bytes(original)
        flip(site.folder / what, at)
        ended = shell("journal", "verify", str(site.proof), "--policy", site.policy)
        assert (ended.code in REFUSED, ended.out) == (True, ""), at
        assert NOT_KNOWN["de"] in ended.err


def test_a_checkpoint_that_lacks_its_witness_or_is_of_another_log_is_not_believed(site: Site, shell: Shell) -> None:
    note = (site.log / "checkpoint").read_text()
    (site.log / "checkpoint").write_text("\n".join(line for line in note.splitlines() if "witness" not in line) + "\n")
    ended = shell("journal", "verify", str(site.log), "--policy", site.policy)
    assert (ended.code, ended.out) == (77, "")
    assert "nobody, the policy asks for w" in ended.err
    other = signer("journal.example/kasse-b/2027").key.vkey
    (site.folder / "policy").write_text(f"log {other}\nquorum none\n")
    ended = shell("journal", "verify", str(site.proof), "--policy", site.policy)
    assert (ended.code, ended.out) == (77, "")
    shown = json.loads(shell("journal", "verify", str(site.proof), "--policy", site.policy, "--json").out)
    assert (shown["known"], shown["code"]) == (None, "journal.note-refused")


Lacking = Callable[[Site], list[str]]

#: name of what is missing -> command
MISSING: dict[str, Lacking] = {
    "no-policy": lambda site: ["verify", str(site.proof), "--policy", str(site.folder / "no-policy")],
    "no.tlog-proof": lambda site: ["verify", str(site.folder / "no.tlog-proof"), "--policy", site.policy],
    "no.entry": lambda site: [
        "verify",
        str(site.proof),
        "--entry",
        str(site.folder / "no.entry"),
        "--policy",
        site.policy,
    ],
    "no-note": lambda site: ["verify", site.notes[0], str(site.folder / "no-note"), "--policy", site.policy],
    "no-log": lambda site: ["verify", *site.notes, "--log", str(site.folder / "no-log"), "--policy", site.policy],
    "no-opening": lambda site: [
        "prove",
        "3",
        "--log",
        str(site.log),
        "--policy",
        site.policy,
        "--opening",
        str(site.folder / "no-opening"),
    ],
    "not-a-log": lambda site: ["prove", "3", "--log", str(site.folder / "not-a-log"), "--policy", site.policy],
    "checkpoint": lambda site: ["export", str(site.folder), str(site.folder / "copy")],
}


@pytest.mark.parametrize("name", MISSING)
def test_a_file_that_is_not_there_is_named(a_site: Site, shell: Shell, name: str) -> None:
    ended = shell("journal", *MISSING[name](a_site))
    assert (ended.code, ended.out) == (69, "")
    assert ended.err.startswith("schleuse: ")
    assert name in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"c2sp.org/tlog-proof@v1\n", b"{}", b"\n\n"])
def test_a_file_that_is_something_else_is_refused_wherever_it_is_named(site: Site, shell: Shell, data: bytes) -> None:
    junk = site.folder / "junk"
    junk.write_bytes(data)
    for code, *arguments in (
        [65, "verify", str(junk), "--entry", str(site.folder / "entry-217.entry"), "--policy", site.policy],
        [65, "verify", str(site.proof), "--policy", str(junk)],
        [65, "verify", site.notes[0], str(junk), "--policy", site.policy],
        [65, "prove", "3", "--log", str(site.log), "--policy", str(junk)],
        # whatever bytes an entry has, they have a hash: well formed, and another entry
        [77, "verify", str(site.proof), "--entry", str(junk), "--policy", site.policy],
    ):
        ended = shell("journal", *map(str, arguments))
        assert (ended.code, ended.out) == (code, ""), arguments
        assert ended.err.startswith("schleuse: "), arguments


def test_a_folder_where_a_file_is_meant_is_said(a_site: Site, shell: Shell) -> None:
    ended = shell("journal", "verify", str(a_site.proof), "--policy", str(a_site.folder))
    assert (ended.code, ended.out) == (69, "")
    assert a_site.folder.name in ended.err


def test_an_index_beyond_the_log_is_refused_and_writes_nothing(site: Site, shell: Shell) -> None:
    for index in ("300", "-1"):
        ended = shell(
            "journal", "prove", index, "--log", str(site.log), "--policy", site.policy, "--to", str(site.folder)
        )
        assert ended.code != 0
        assert ended.out == ""
    assert not list(site.folder.glob("entry-300*"))


def test_a_tampered_log_gives_no_proof(site: Site, shell: Shell) -> None:
    flip(site.log / "tile/entries/000", 130)
    ended = shell("journal", "prove", "0", "--log", str(site.log), "--policy", site.policy, "--to", str(site.folder))
    assert (ended.code, ended.out) == (75, "")
    assert not list(site.folder.glob("entry-0*"))


# -- status and clock --------------------------------------------------------------------------------------------

HEALTH: dict[str, Any] = {
    "state": "RUNNING",
    "findings": [],
    "clock": None,
    "spare_segments": 4,
    "logs": {ORIGIN: {"durable": 5, "published": 4, "witnessed": 3, "minimum": 0}},
}


@pytest.mark.parametrize(("language", "word"), [("de", "bezeugt"), ("en", "witnessed")])
def test_status_shows_levels_findings_and_a_doubted_clock(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, language: str, word: str
) -> None:
    monkeypatch.setenv("SCHLEUSE_LANG", language)
    with web(tmp_path) as url:
        (tmp_path / "health").write_text(json.dumps(HEALTH))
        ended = shell("journal", "status", "--url", url)
        assert (ended.code, ended.err) == (0, "")
        assert word in ended.out
        assert ORIGIN in ended.out
        assert json.loads(shell("journal", "status", "--url", url, "--json").out) == HEALTH
        (tmp_path / "health").write_text(json.dumps({**HEALTH, "clock": "the clock says 2036-01-01"}))
        ended = shell("journal", "status", "--url", url)
        assert ended.code == 0
        assert "the clock says 2036-01-01" in ended.out
        (tmp_path / "health").write_text(json.dumps({**HEALTH, "state": "QUARANTINE", "findings": ["b00: damaged"]}))
        ended = shell("journal", "status", "--url", url)
        assert ended.code == 69
        assert "b00: damaged" in ended.out


@pytest.mark.parametrize("answer", ["", "<html>", "[]", "{}", '{"state": "RUNNING"}'])
def test_status_of_something_that_is_no_journal_says_so(tmp_path: Path, shell: Shell, answer: str) -> None:
    (tmp_path / "health").write_text(answer)
    with web(tmp_path) as url:
        for more in ([], ["--json"]):
            ended = shell("journal", "status", "--url", url, *more)
            assert (ended.code, ended.out) == (65, "")
            assert url in ended.err


def test_status_of_a_journal_that_is_away_says_where_it_looked(home: Path, shell: Shell) -> None:
    ended = shell("journal", "status", "--home", str(home))
    assert (ended.code, ended.out) == (69, "")
    assert "127.0.0.1" in ended.err
    assert shell("journal", "status", "--url", "ftp://x").code == 69


@pytest.mark.parametrize("language", ["de", "en"])
def test_clock_shows_what_is_believed_and_an_order_shows_its_plan_first(
    home: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setenv("SCHLEUSE_LANG", language)
    order, mark = home / "journal" / ORDER, home / "journal" / MARK
    ended = shell("journal", "clock", "--home", str(home))
    assert (ended.code, ended.out) == (69, "")  # the journal never ran here
    assert MARK in ended.err
    at = reading(utc_now(), machine_uptime())
    mark.write_bytes(believed.encode(believed.first(at)))
    ended = shell("journal", "clock", "--home", str(home))
    assert ended.code == 0
    assert ("geglaubt" if language == "de" else "believed") in ended.out
    year_ago = believed.Reading(at.wall.replace(year=at.wall.year - 1), at.boot, at.uptime)
    mark.write_bytes(believed.encode(believed.first(year_ago)))
    ended = shell("journal", "clock", "--home", str(home))
    assert ended.code == 69
    assert ("nicht geglaubt" if language == "de" else "not believed") in ended.out
    ended = shell("journal", "clock", "--believe", "--home", str(home))
    assert "--yes" in ended.out
    assert not order.exists()
    ended = shell("journal", "clock", "--believe", "--yes", "--home", str(home), "--json")
    assert ended.code == 0
    assert order.exists()
    assert (json.loads(ended.out)["believed"], json.loads(ended.out)["ordered"]) == (False, True)
    mark.write_bytes(b"?")
    assert shell("journal", "clock", "--home", str(home)).code == 65
    order.unlink()
    assert shell("journal", "clock", "--yes", "--home", str(home)).code != 0
    assert not order.exists()
    plan = shell("journal", "clock", "--believe", "--home", str(home)).out
    assert ("gelöscht" if language == "de" else "deleted") in plan


@pytest.mark.parametrize("damaged", [b"?", None])
def test_a_clock_is_vouched_for_when_the_mark_is_damaged_or_gone_and_the_order_says_by_whom(
    home: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, damaged: bytes | None
) -> None:
    monkeypatch.setenv("SUDO_USER", "petra")
    order, mark = home / "journal" / ORDER, home / "journal" / MARK
    if damaged is not None:
        mark.write_bytes(damaged)
    ended = shell("journal", "clock", "--believe", "--yes", "--home", str(home), "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["ordered"]
    assert MARK in ended.err or "mark" in ended.err
    assert order.read_text().endswith(" petra")


def test_verify_of_too_many_files_says_what_to_name_and_nothing_of_evidence(shell: Shell, a_site: Site) -> None:
    ended = shell("journal", "verify", "a", "b", "c", "--policy", a_site.policy)
    assert (ended.code, ended.out) == (77, "")
    assert "name one proof file" in ended.err
    assert "evidence" not in ended.err
