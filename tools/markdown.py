"""Tables of Markdown, and the words of an object by its keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


class MissingWordsError(Exception):
    """`tools/words.py` and the code know different keys."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """One table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def code(text: str) -> str:
    """`text`."""
    return f"`{text}`"


def same_keys(what: str, words: Mapping[str, object], found: Iterable[str]) -> None:
    """Raises MissingWordsError unless the two have the same keys."""
    wanted = set(found)
    missing, extra = sorted(wanted - set(words)), sorted(set(words) - wanted)
    if missing or extra:
        raise MissingWordsError(
            f"tools/words.py, {what}: "
            + "; ".join(
                part
                for part in (
                    f"write words for {', '.join(missing)}" if missing else "",
                    f"remove {', '.join(extra)}, which the code no longer has" if extra else "",
                )
                if part
            )
        )


def first_sentence(text: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())
