"""`schleuse witness reconcile`: whose number is compared with the entries (journal.md § 14.5)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.journal.samples import LOG, ORIGIN
from tests.witness.test_config_cli import PLAIN
from tests.witness.test_monitor import Watch, event, release

from schleuse.cli import main
from schleuse.journal.entry import Kind, Purpose

HERE = f'{PLAIN}url = "http://127.0.0.1:1/"\n[logs.monitor]\npolicy = "policy"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A witness whose monitor has read two releases and the vault's report of them."""
    (tmp_path / "witness.toml").write_text(HERE)
    (tmp_path / "policy").write_text(f"log {LOG.key.vkey}\nquorum none\n")
    watch = Watch(tmp_path)
    report = event(9, kind=Kind.ADMINISTRATION, purpose=Purpose.OPERATION, release_counter=2)
    watch.shows([release(0, 1).encode(), release(1, 2).encode(), report.encode()])
    watch.look()
    watch.store.close()
    return tmp_path


def ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    words = ["schleuse", "witness", "reconcile", ORIGIN, "--config", str(folder), "--json", *arguments]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def vault_status(folder: Path, counter: object, size: int = 3) -> str:
    path = folder / "vault.json"
    path.write_text(json.dumps({"logs": {ORIGIN: {"counter": counter, "size": size, "in_doubt": 0}}}))
    return str(path)


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
class TestReconcile:
    def test_the_vaults_word_is_in_the_log_itself(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, out, _ = ended(folder, monkeypatch, capsys)
        assert (code, json.loads(out)["entries"], json.loads(out)["vault"]) == (0, 2, 2)

    @pytest.mark.parametrize(("counter", "expected"), [(2, 0), (1, 0), (3, 75)])
    def test_its_status_may_not_count_more_than_there_are_entries(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        counter: int,
        expected: int,
    ) -> None:
        code, out, _ = ended(folder, monkeypatch, capsys, "--status", vault_status(folder, counter))
        assert (code, json.loads(out)["vault"], len(json.loads(out)["findings"])) == (expected, counter, expected // 75)

    def test_a_status_that_is_ahead_of_the_monitor_accuses_nobody(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, out, err = ended(folder, monkeypatch, capsys, "--status", vault_status(folder, 9, size=12))
        assert (code, out) == (69, "")
        assert "has read 3" in err

    @pytest.mark.parametrize("counter", ["many", None])
    def test_a_file_that_is_no_status_is_named(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], counter: object
    ) -> None:
        code, _, err = ended(folder, monkeypatch, capsys, "--status", vault_status(folder, counter))
        assert code == 65
        assert "vault.json" in err

    def test_numbers_can_be_typed(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert ended(folder, monkeypatch, capsys, "--vault", "2", "--hsm", "1")[0] == 0
        code, out, _ = ended(folder, monkeypatch, capsys, "--vault", "3", "--hsm", "4")
        assert (code, len(json.loads(out)["findings"])) == (75, 2)
