"""Tables that follow from states and reasons."""

from __future__ import annotations

import re

from schleuse.eau.findings import Trouble
from schleuse.eau.outcome import Quarantine
from schleuse.holding import states as holding
from schleuse.holding.states import MOVES, WAITING, State
from tools import words
from tools.markdown import code, same_keys, table

_MEANING = re.compile(r"^    ([A-Z_]+) +(\S.*)$", re.M)


def diagram() -> str:
    """The moves as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> ACCEPTED"]
    for before, afters in MOVES.items():
        lines += [f"    {before} --> {after}" for after in State if after in afters]
    lines += [f"    {state} --> [*]" for state in State if not MOVES[state]]
    return "\n".join([*lines, "```"])


def states() -> str:
    """What each state means."""
    meanings = {**words.STATES, **dict(_MEANING.findall(holding.__doc__ or ""))}
    same_keys("STATES", meanings, [state.value for state in State])
    return table(
        ("state", "means", "somebody still has to act"),
        [(code(state), meanings[state.value], "yes" if state in WAITING else "no") for state in State],
    )


def moves() -> str:
    """What makes each move."""
    found = {f"{before} {after}": (before, after) for before, afters in MOVES.items() for after in afters}
    same_keys("MOVES", words.MOVES, found)
    return table(
        ("from", "to", "when"),
        [(code(found[key][0]), code(found[key][1]), text) for key, text in words.MOVES.items()],
    )


def quarantine() -> str:
    """Why people must look, and what they do."""
    same_keys("QUARANTINE", words.QUARANTINE, [reason.value for reason in Quarantine])
    rows = [(code(reason), *words.QUARANTINE[reason.value]) for reason in Quarantine]
    return table(("reason", "what was found", "what people do"), rows)


def waits() -> str:
    """What is off at our side when a mail waits, and who mends it how."""
    same_keys("TROUBLE", words.TROUBLE, [trouble.value for trouble in Trouble])
    rows = [(code(trouble), *words.TROUBLE[trouble.value]) for trouble in Trouble]
    return table(("reason", "what is off", "what to do"), rows)
