"""A sentence for people, in both languages; records and machines get the English one."""

from __future__ import annotations

from typing import NamedTuple


class Said(NamedTuple):
    """One sentence."""

    de: str
    en: str

    def __str__(self) -> str:
        return self.en


def as_it_is(text: str) -> Said:
    """What has one language only: somebody typed it, or a library said it."""
    return Said(text, text)
