"""Every rule stands in the code and in a test, or says what it waits for; nobody cites a rule that there is not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tools.rules import LATER, RULES, SCENARIOS
from tools.tables_of_rules import ROOT, cited


@pytest.fixture(scope="module")
def code() -> Mapping[str, list[str]]:
    return cited(ROOT / "src" / "schleuse")


@pytest.fixture(scope="module")
def tests() -> Mapping[str, list[str]]:
    return cited(ROOT / "tests")


def test_every_rule_is_kept_somewhere(code: Mapping[str, list[str]]) -> None:
    assert [id for id in RULES if id not in code and id not in LATER] == []


def test_every_rule_and_scenario_is_asked_for_by_a_test(tests: Mapping[str, list[str]]) -> None:
    assert [id for id in {**RULES, **SCENARIOS} if id not in tests and id not in LATER] == []


def test_what_waits_is_not_there_already(code: Mapping[str, list[str]]) -> None:
    assert [id for id in LATER if id in code and id in RULES] == []


def test_nobody_cites_a_rule_that_there_is_not(code: Mapping[str, list[str]], tests: Mapping[str, list[str]]) -> None:
    assert {id: found for id, found in {**tests, **code}.items() if id not in {**RULES, **SCENARIOS}} == {}
