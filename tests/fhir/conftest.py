"""Official packages, installed once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fhir import official

from schleuse.fhir import Definitions, RuleSet, compile_rules, packages


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all official packages, the base definitions and gematik's configuration."""
    reason = official.missing()
    if reason:
        pytest.skip(reason)
    core = official.core()
    assert core is not None
    folder = tmp_path_factory.mktemp("fhir")
    packages.add([*sorted(official.SPEC.glob("*.tgz")), core], folder, config=official.SPEC / "refv-config.yaml")
    return folder


@pytest.fixture(scope="session")
def definitions(installed: Path) -> Definitions:
    return packages.load(installed, "kbv.ita.eau.1.2.1")


@pytest.fixture(scope="session")
def rules(definitions: Definitions) -> RuleSet:
    """The official rules of eAU 1.2.1, compiled, not from a cache."""
    return compile_rules(definitions, official.ROOTS)
