"""Had a rule the mandate for what it closed? Asked of each closing by rule by every role that takes it (EW-06, § 5.2).

A closing is in force whatever the answer: off is always allowed (SW-01). But one that no agreed policy covers is an
alarm: the platform's own key was used for something that nobody had agreed to. Three things give a mandate:

    an agreed policy               "NAME@VERSION": signed, cosigned, in force at that time, and it covers the closing
    a restart that was approved    its own abort (RS-07)
    an opening in an emergency     its own end, which those who signed it have signed (RS-14)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime

from schleuse.shutdown.automat import END, Agreed, mandate
from schleuse.shutdown.policy import PolicyBook, missing
from schleuse.switch.documents import Command

#: What a restart's abort cites, before the name and version of its plan.
RESTART = "restart "
#: Finds the mandate of an approved plan by the reference that its abort cites; None: no such plan was approved.
Restart = Callable[[str], Agreed | None]
#: A text that begins with the name of a warning rule or signal. Closings from before they were named have none.
_NAMED = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+: ", re.ASCII)


class Mandates:
    """Satisfies `switch.copy.Mandates`."""

    def __init__(self, policies: PolicyBook, restart: Restart) -> None:
        self._policies = policies
        self._restart = restart

    def fault(self, command: Command, at: datetime, earlier: Sequence[Command]) -> str:
        """Why nothing had agreed to this closing when it was accepted, or "". Never raises: what cannot be read proves
        nothing.

        earlier: the commands that count, before this one.
        """
        try:
            if command.id.startswith(END):
                return _emergency(command, at, earlier)
            if command.policy.startswith(RESTART):
                agreed = self._restart(command.policy)
                return f"no plan {command.policy!r} was approved" if agreed is None else mandate(agreed, command)
            return self._policy(command, at)
        except Exception as cause:  # whatever it is, every role goes on to close
            return f"what it cites, {command.policy!r}, cannot be read: {cause}"

    def _policy(self, command: Command, at: datetime) -> str:
        signed = self._policies.read(command.policy)
        lacks = missing(signed, self._policies.rights, self._policies.keys, at)
        if lacks:
            return f"policy {command.policy} was not in force; it lacked {', '.join(lacks)}"
        named = _NAMED.match(command.text)
        if named and not command.text.startswith(f"{signed.policy.trigger}: "):
            return f"policy {command.policy} is triggered by {signed.policy.trigger!r}, and the closing names another"
        fault = mandate(signed.policy, command)
        return fault and f"policy {command.policy}: {fault}"


def _emergency(command: Command, at: datetime, earlier: Sequence[Command]) -> str:
    opening = next((one for one in earlier if one.id == command.id.removeprefix(END) and one.opening), None)
    if opening is None or opening.closes_at is None or opening.closes_at > at:
        return "no opening in an emergency that it could end had ended"
    if not all(any(mine.covers(one) for mine in opening.scopes) for one in command.scopes):
        return f"it closes more than the opening {opening.id} had opened"
    return ""
