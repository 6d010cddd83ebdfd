"""`./schleuse` in a tree without an environment builds its own from the lock files, and says so only once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from schleuse import __version__

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bootstrap.lock")


def index() -> str:
    """Where pip gets its packages on this machine."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return os.environ.get("PIP_INDEX_URL") or found or "https://pypi.org/simple"


def reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/uv/", timeout=10):
            return True
    except urllib.error.HTTPError:
        return True  # it answers, which is enough to try
    except OSError:
        return False


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With a PATH that has no uv, so that the tree must fetch its own."""
    python = Path(sys.executable).resolve()
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "SCHLEUSE", "VIRTUAL"))}
    environment = {**kept, "PATH": "/usr/bin:/bin", "SCHLEUSE_PYTHON": str(python)}
    return subprocess.run(
        [tree / "schleuse", *arguments], env=environment, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    if not reachable(index()):
        pytest.skip(f"the package index {index()} cannot be reached from here")
    folder = tmp_path / "a tree"  # a path with a blank
    folder.mkdir()
    for name in ("schleuse", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
def test_a_fresh_tree_builds_its_environment_once(tree: Path) -> None:
    first = run(tree, "--version")
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == __version__
    assert "building its environment" in first.stderr

    again = run(tree, "--version")
    assert (again.returncode, again.stdout.strip(), again.stderr) == (0, __version__, "")

    lock = tree / "requirements.lock"
    lock.write_text(lock.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    changed = run(tree, "--version")
    assert changed.returncode == 0, changed.stderr
    assert "building its environment" in changed.stderr  # a changed lock file is noticed


@pytest.mark.slow
def test_without_a_python_that_will_do_it_says_what_to_install(tmp_path: Path) -> None:
    shutil.copy(ROOT / "schleuse", tmp_path / "schleuse")
    for name in LOCKS:
        shutil.copy(ROOT / name, tmp_path / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "cat", "cksum", "mkdir", "rm", "basename", "sleep"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    ended = subprocess.run(
        [tmp_path / "schleuse", "--version"],
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "Python >= 3.11" in ended.stderr
    assert not (tmp_path / ".tools" / "building").exists()  # the next call is not locked out
