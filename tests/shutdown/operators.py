"""Operators with keys, and a switch log on disk, for tests of closing and drilling."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.scopes import ScopeState, parse_scopes
from schleuse.switch.documents import Command, Kind, Limit, Person, Reason, Rights, Role, SignedCommand, sign
from schleuse.switch.log import Accepted, SwitchLog, create_log

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = {name: Ed25519PrivateKey.generate() for name in ("officer", "releaser", "automat", "breaker-1", "breaker-2")}
ROLES = {
    "officer": {Role.SWITCH_OFFICER, Role.LEAD},
    "releaser": {Role.RELEASER},
    "automat": {Role.AUTOMAT},
    "breaker-1": {Role.BREAK_GLASS},
    "breaker-2": {Role.BREAK_GLASS},
}
RIGHTS = Rights([Person(name, name, frozenset(ROLES[name]), key.public_key()) for name, key in KEYS.items()])
CLOSER = (("officer", Role.SWITCH_OFFICER),)
OPENERS = (("officer", Role.SWITCH_OFFICER), ("releaser", Role.RELEASER))
BREAKERS = (("breaker-1", Role.BREAK_GLASS), ("breaker-2", Role.BREAK_GLASS))


class Clock:
    """Stands still until a test moves it."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def signed(command: Command, signers: Sequence[tuple[str, Role]]) -> SignedCommand:
    return SignedCommand(command, tuple(sign(command, name, role, KEYS[name]) for name, role in signers))


def closing(scopes: str, id: str = "c", state: ScopeState = ScopeState.HOLD, limit: Limit | None = None) -> Command:
    return Command(id, parse_scopes(scopes), state, Kind.MANUAL, Reason.SECURITY_HOLD, "officer", NOW, limit=limit)


def opening(scopes: str, basis: int, id: str = "o", actor: str = "officer", **more: object) -> Command:
    return Command(
        id,
        parse_scopes(scopes),
        ScopeState.OPEN,
        Kind.RECOVERY,
        Reason.SECURITY_HOLD,
        actor,
        NOW,
        opening=True,
        basis=basis,
        expires_at=NOW + timedelta(hours=4),
        **more,  # type: ignore[arg-type]
    )


def new_log(folder: Path) -> SwitchLog:
    create_log(folder)
    return SwitchLog(folder, RIGHTS)


def close(log: SwitchLog, scopes: str, id: str = "c", state: ScopeState = ScopeState.HOLD) -> Accepted:
    return log.append(signed(closing(scopes, id, state), CLOSER), NOW)


def open_again(log: SwitchLog, scopes: str, id: str = "o") -> Accepted:
    return log.append(signed(opening(scopes, len(log.read_all()), id), OPENERS), NOW)
