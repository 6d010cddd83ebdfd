"""What the vault says of itself while its own store cannot be written."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from schleuse.database import DatabaseUnavailableError
from schleuse.processes.vault import _noted
from schleuse.vault.core import Core


class FakeCore:
    full = True

    def note_counters(self) -> None:
        if self.full:
            raise DatabaseUnavailableError("the disk is full")


def test_a_full_disk_is_told_once_and_its_end_too(capsys: pytest.CaptureFixture[str]) -> None:
    core, reason = FakeCore(), ""
    for _ in range(3):
        reason = asyncio.run(_noted(cast(Core, core), reason))
        assert "disk is full" in reason
    core.full = False
    for _ in range(3):
        reason = asyncio.run(_noted(cast(Core, core), reason))
        assert reason == ""
    told = capsys.readouterr().out
    assert (told.count("vault.store-waits"), told.count("vault.store-back")) == (1, 1)
