"""Numbers as the reader of the command writes them."""

from __future__ import annotations

import pytest

from schleuse.cli.numbers import number, short


@pytest.mark.parametrize(
    ("language", "texts"),
    [(None, ["1.234.568", "1.234,57", "0,50", "2,5", "24"]), ("en", ["1,234,568", "1,234.57", "0.50", "2.5", "24"])],
)
def test_german_is_the_default_and_english_a_choice(
    monkeypatch: pytest.MonkeyPatch, language: str | None, texts: list[str]
) -> None:
    monkeypatch.delenv("SCHLEUSE_LANG", raising=False)
    if language:
        monkeypatch.setenv("SCHLEUSE_LANG", language)
    found = [number(1_234_567.5), number(1_234.567, 2), number(0.5, 2), short(2.5), short(24.0)]
    assert found == texts
