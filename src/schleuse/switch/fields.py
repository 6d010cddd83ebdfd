"""Fields of a document that came as JSON: each has the type that its reader expects, or the document is none. Pure.

All raise TypeError, and KeyError where a field must be there; whoever reads a document says what it is instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table_of(value: object) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise TypeError("expected an object")
    return value


def text_of(table: Mapping[str, Any], key: str) -> str:
    """A text that must be there."""
    value = table[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is a text")
    return value


def number_of(table: Mapping[str, Any], key: str) -> int | None:
    """A whole number, or None where it is absent; true is no number."""
    value = table.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"{key} is a number")
    return value


def list_of(table: Mapping[str, Any], key: str) -> list[Any]:
    """A list that must be there."""
    value = table[key]
    if not isinstance(value, list):
        raise TypeError(f"{key} is a list")
    return value
