"""The writer of the tables itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel
from tools import tables_of_edges, write_docs
from tools.markdown import MissingWordsError, first_sentence, same_keys, table


def test_a_bar_in_a_cell_stays_in_its_cell() -> None:
    assert table(("a", "b"), [("x|y", "z")]) == "| a | b |\n| --- | --- |\n| x\\|y | z |"


def test_a_name_without_words_and_words_without_a_name_are_both_told() -> None:
    same_keys("THINGS", {"a": "1"}, ["a"])
    with pytest.raises(MissingWordsError, match="write words for b; remove a, which"):
        same_keys("THINGS", {"a": "1"}, ["b"])


def test_only_the_first_paragraph_of_a_docstring_is_told() -> None:
    assert first_sentence("One\n    line.\n\n    Another.") == "One line."
    assert first_sentence(None) == ""


def test_a_page_without_the_place_for_its_table_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.md").write_text("# Metrics\n", encoding="utf-8")
    monkeypatch.setattr(write_docs, "DOCS", tmp_path)
    with pytest.raises(write_docs.BadPageError, match="begin: metrics"):
        write_docs.written("metrics.md")


def test_only_the_place_of_the_table_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "x.md"
    page.write_text("before\n<!-- begin: t -->\nold\n<!-- end: t -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(write_docs, "DOCS", tmp_path)
    monkeypatch.setattr(write_docs, "PAGES", {"x.md": {"t": lambda: r"new \1"}})
    assert write_docs.main(["--check"]) == 1
    assert page.read_text(encoding="utf-8").count("old") == 1
    assert write_docs.main([]) == 0
    assert page.read_text(encoding="utf-8") == "before\n<!-- begin: t -->\nnew \\1\n<!-- end: t -->\nafter\n"
    assert write_docs.main(["--check"]) == 0


def test_sections_of_a_list_are_told_apart_from_plain_ones() -> None:
    class Inner(BaseModel):
        x: int

    assert tables_of_edges._section(Inner) == (Inner, False)
    assert tables_of_edges._section(tuple[Inner, ...]) == (Inner, True)
    assert tables_of_edges._section(tuple[int, ...]) == (None, False)
