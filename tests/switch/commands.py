"""Commands for tests of the switch, also drawn at random; operators and keys are those of `tests/shutdown`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from tests.shutdown.operators import NOW, closing
from tests.switch.test_scopes import SCOPES

from schleuse.scopes import ScopeState, parse_scopes
from schleuse.switch.documents import Command, Kind, Limit, Person, Reason, Role
from schleuse.switch.standing import Rule

LIMITED, HOLD, OPEN = ScopeState.LIMITED, ScopeState.HOLD, ScopeState.OPEN

LIMITS = st.builds(Limit, st.integers(0, 1000), st.none() | st.integers(0, 10_000)) | st.builds(
    Limit, st.none(), st.integers(0, 10_000)
)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def commands(draw: st.DrawFn, opening: bool | None = None) -> Command:
    """Any valid command."""
    opens = draw(st.booleans()) if opening is None else opening
    state = draw(st.sampled_from([one for one in ScopeState if opens or one is not OPEN]))
    more: dict[str, Any] = {}
    if opens:
        more = {
            "opening": True,
            "basis": draw(st.integers(0, 12)),
            "expires_at": draw(TIMES),
            "closes_at": draw(st.none() | TIMES),
            "with_backlog": draw(st.booleans()),
            "plan": draw(TEXTS),
            "stage": draw(st.sampled_from(["", "S1", "S6"])),
        }
    return Command(
        id=draw(st.uuids()).hex,
        scopes=tuple(draw(st.lists(SCOPES, min_size=1, max_size=3))),
        state=state,
        kind=draw(st.sampled_from([one for one in Kind if not opens or one is not Kind.AUTOMATIC])),
        reason=draw(st.sampled_from(Reason)),
        actor="officer",
        requested_at=draw(TIMES),
        text=draw(TEXTS),
        incident=draw(TEXTS),
        policy=draw(TEXTS),
        expected=draw(TEXTS),
        told=tuple(draw(st.lists(TEXTS, max_size=2))),
        limit=draw(LIMITS) if state is LIMITED else None,
        **more,
    )


def rules_of(commands: Sequence[Command | None]) -> list[Rule]:
    """As accepted one minute after the other."""
    return [Rule(epoch, NOW + timedelta(minutes=epoch), one) for epoch, one in enumerate(commands, 1)]


def close(scopes: str, state: ScopeState = HOLD, limit: Limit | None = None) -> Command:
    return closing(scopes, f"c-{scopes}-{state}", state, limit)


def open_to(scopes: str, basis: int, state: ScopeState = OPEN, **more: Any) -> Command:
    valid = Command(
        f"o-{scopes}-{basis}",
        parse_scopes(scopes),
        HOLD,
        Kind.RECOVERY,
        Reason.SECURITY_HOLD,
        "officer",
        NOW,
        opening=True,
        basis=basis,
        expires_at=NOW + timedelta(hours=4),
    )
    return replace(valid, state=state, **more)


def person(name: str, *roles: Role, of: str = "", until: datetime | None = None) -> tuple[Person, Ed25519PrivateKey]:
    """A credential and its key. of: whose it is, if not a person of its own."""
    key = Ed25519PrivateKey.generate()
    return Person(name, of or name, frozenset(roles), key.public_key(), until), key
