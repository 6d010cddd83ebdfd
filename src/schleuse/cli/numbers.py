"""The one place in which commands write numbers for people: 1.234,5 in German, 1,234.5 in English; JSON has neither."""

from __future__ import annotations

from schleuse.cli.up import german

_GERMAN = str.maketrans(",.", ".,")


def number(value: float, digits: int = 0) -> str:
    """With so many digits after the sign, and thousands apart."""
    return _in_our_language(f"{value:,.{digits}f}")


def signed(value: float, digits: int) -> str:
    """With + or -."""
    return _in_our_language(f"{value:+,.{digits}f}")


def short(value: float) -> str:
    """With as many digits as it needs, at most six."""
    return _in_our_language(f"{value:g}")


def _in_our_language(english: str) -> str:
    return english.translate(_GERMAN) if german() else english
