from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, build_home, platform


@pytest.fixture(scope="session")
def base_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_home(tmp_path_factory.mktemp("base") / "home")


@pytest.fixture(scope="module")
def running(base_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Both roles up; shared by the tests of a module."""
    with platform(base_home, tmp_path_factory.mktemp("home")) as one:
        one.start_all()
        yield one
