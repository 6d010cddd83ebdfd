"""Faults on order, for crash tests and drills: a role kills itself at a named step.

    SCHLEUSE_KILL_AT="filing:0.2,finished:0.05"     step:probability, each time the step is reached

Without the variable nothing happens. The kill is SIGKILL, so nothing gets to clean up.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Mapping

from schleuse.errors import MalformedError

VARIABLE = "SCHLEUSE_KILL_AT"


class BadInjectionError(MalformedError):
    code = "process.bad-injection"


def parse_injection(text: str) -> Mapping[str, float]:
    """{"filing": 0.2}; raises BadInjectionError."""
    found: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        step, separator, chance = item.partition(":")
        try:
            found[step.strip()] = float(chance) if separator else 1.0
        except ValueError as cause:
            raise BadInjectionError(f"{VARIABLE}: {item!r} is not step:probability") from cause
    return found


def injected_steps() -> Callable[[str], None]:
    """What a role calls at each named step."""
    chances = parse_injection(os.environ.get(VARIABLE, ""))
    if not chances:
        return lambda _step: None
    dice = random.Random(os.urandom(8))  # noqa: S311 -- forked workers must not die in step

    def reached(step: str) -> None:
        if dice.random() < chances.get(step, 0.0):
            os.kill(os.getpid(), signal.SIGKILL)

    return reached
