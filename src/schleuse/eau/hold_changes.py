"""What the switch means for the hold windows of an insurer's mailbox: its commands since an epoch, as changes. Pure.

The commands themselves are looked at, one by one, and not only where they lead to: a role that was down while an
insurer was closed and opened again must not take what came in between (HD-25).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from schleuse.kim.store import Began, Change, Ended, Released
from schleuse.scopes import Scope
from schleuse.switch.documents import Reason
from schleuse.switch.standing import AFTER_DRILL, Folded, Rule, Standing, fold, standing


def hold_changes(rules: Sequence[Rule], scope: Scope, after: int, is_open: bool, now: datetime) -> list[Change]:
    """What happened to this atom after an epoch, in order.

    rules: all that were accepted, up to the epoch that is followed. is_open: whether a window is open at `after`.
    An emergency opening that has ended begins a window without an epoch of its own (RS-14). What a single process
    keeps to because it believes its copy no more is no command, and begins none.
    """
    concerning = [rule for rule in rules if rule.command is None or _covers(rule, scope)]
    found: list[Change] = []
    folded = fold(Folded(), [rule for rule in concerning if rule.epoch <= after], scope)
    at = folded.at
    for rule in concerning:
        if rule.epoch <= after:
            continue
        folded = fold(folded, [rule], scope)
        before, at = at.at(rule.accepted_at), folded.at
        if not at.state.begins:
            found += [] if is_open else [_began(at if before.state.begins else before, rule.accepted_at)]
            is_open = True
            continue
        if is_open or not before.state.begins:
            found.append(Ended(rule.epoch, _began(before, rule.accepted_at), rule.accepted_at))
            is_open = False
        if _goes_on(rule, at):
            found.append(Released(rule.epoch, own=rule.command is not None and rule.command.stage == AFTER_DRILL))
    lapsed = at.at(now)
    if not lapsed.state.begins and not is_open:
        found.append(_began(lapsed, now))
    return found


def held_between(rules: Sequence[Rule], scope: Scope, start: datetime, end: datetime) -> timedelta:
    """For how long nothing of this atom might begin between two moments (HD-46)."""
    concerning = [rule for rule in rules if rule.command is None or _covers(rule, scope)]
    ends = (rule.command.closes_at for rule in concerning if rule.command is not None)
    moments = {rule.accepted_at for rule in concerning} | {at for at in ends if at is not None}
    borders = [start, *sorted(at for at in moments if start < at < end), end]
    held = timedelta(0)
    for since, until in pairwise(borders):
        at = standing([rule for rule in concerning if rule.accepted_at <= since], scope).at(since)
        held += timedelta(0) if at.state.begins else until - since
    return held


def _covers(rule: Rule, scope: Scope) -> bool:
    return rule.command is not None and any(one.covers(scope) for one in rule.command.scopes)


def _began(at: Standing, otherwise: datetime) -> Began:
    # An emergency opening that has ended says no more why it was needed.
    return Began(at.epoch, at.command, at.reason or Reason.SECURITY_HOLD.value, at.since or otherwise)


def _goes_on(rule: Rule, at: Standing) -> bool:
    """Whether this very opening took effect, and lets what was held go on with it."""
    command = rule.command
    return command is not None and command.opening and at.command == command.id and at.with_backlog
