"""Commands run in this process, as a shell would see them."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schleuse.cli import main
from schleuse.environment import Environment
from schleuse.identifiers import IK
from schleuse.processes.home import NewHome, NewInsurer, NewPractice, create_home

NEW = NewHome(
    Environment.TEST,
    "kim.test.kim.telematik-test",
    [NewInsurer(IK("109900011"), "Kasse Eins", "eins")],
    [NewPractice("praxis", "Praxis Test")],
    first_port=9,  # discard and its neighbours: nobody answers there
)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a shell sees of a command."""

    code: int
    out: str
    err: str


Shell = Callable[..., Ended]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs `schleuse …`."""
    monkeypatch.setenv("SCHLEUSE_LANG", "de")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SCHLEUSE_HOME", raising=False)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["schleuse", *arguments])
        capsys.readouterr()
        with warnings.catch_warnings():
            # cyclopts guesses that a test forgot its arguments; ours are in sys.argv, as a shell puts them.
            warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens")
            with pytest.raises(SystemExit) as left:
                main()
        code = left.value.code
        out, err = capsys.readouterr()
        return Ended(code if isinstance(code, int) else 0, out, err)

    return run


@pytest.fixture(scope="session")
def a_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `schleuse init` makes it; not to be changed."""
    folder = tmp_path_factory.mktemp("cli") / "home"
    create_home(folder, NEW, datetime.now(UTC))
    return folder


@pytest.fixture
def home(a_home: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(a_home, tmp_path / "home"))
