"""A fresh SoftHSM2 token for tests of the vault's keys; skipped where Debian's softhsm2 is not installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "correct-horse"

needs_softhsm = pytest.mark.skipif(
    not MODULE.exists() or shutil.which("softhsm2-util") is None,
    reason="SoftHSM2 is not installed (Debian: softhsm2)",
)


def new_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty token "schleuse" that only this test sees. Returns the file with its PIN."""
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(conf))
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "schleuse", "--pin", PIN, "--so-pin", "5678"],
        check=True,
        capture_output=True,
    )
    pin = folder / "pin"
    pin.write_text(PIN + "\n")
    return pin
