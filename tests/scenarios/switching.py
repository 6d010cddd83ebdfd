"""Switching a running home: commands signed with the keys of its own operators, appended to its log.

Nothing of the platform need run for it (SW-05); every role sees the log by itself.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from schleuse.config import read_config
from schleuse.processes.switching import switch_log
from schleuse.scopes import ScopeState, parse_scopes
from schleuse.switch.documents import Command, Kind, Limit, Reason, Role, SignedCommand, sign
from schleuse.vault.tokens import read_token_key

#: Operators that `create_home` makes, and the role in which each signs here.
CLOSER = ("betrieb-1", Role.LEAD)
OPENERS = (("betrieb-1", Role.SWITCH_OFFICER), ("betrieb-2", Role.RELEASER))


def close(home: Path, scopes: str, state: ScopeState, limit: Limit | None = None, **more: Any) -> int:
    """One person orders the state; returns the epoch. scopes: as an operator types them, such as "eau/*"."""
    command = _command(scopes, state, CLOSER[0], limit, **more)
    return _append(home, command, [CLOSER])


def open(
    home: Path,
    scopes: str,
    state: ScopeState = ScopeState.OPEN,
    limit: Limit | None = None,
    with_backlog: bool = False,
    **more: Any,
) -> int:
    """Two persons order the state, having seen all that was ordered before; returns the epoch."""
    more = {"basis": epoch(home), "expires_at": datetime.now(UTC) + timedelta(hours=4), **more}
    command = _command(scopes, state, OPENERS[0][0], limit, opening=True, with_backlog=with_backlog, **more)
    return _append(home, command, OPENERS)


def epoch(home: Path) -> int:
    """The last accepted epoch."""
    return len(switch_log(read_config(home)).read_all())


def effects(home: Path, epoch: int) -> dict[str, dict[str, Any]]:
    """What each worker noted of this epoch, by its name."""
    folder = home / "switch" / "effects" / f"{epoch:010d}"
    return {path.stem: json.loads(path.read_bytes()) for path in folder.glob("*.json")}


def _command(scopes: str, state: ScopeState, actor: str, limit: Limit | None, **more: Any) -> Command:
    return Command(
        id=secrets.token_hex(8),
        scopes=parse_scopes(scopes),
        state=state,
        kind=Kind.DRILL,
        reason=more.pop("reason", Reason.DRILL),
        actor=actor,
        requested_at=datetime.now(UTC),
        limit=limit,
        **more,
    )


def _append(home: Path, command: Command, signers: Any) -> int:
    signatures = tuple(
        sign(command, name, role, read_token_key(home / "operators" / f"{name}.key")) for name, role in signers
    )
    return switch_log(read_config(home)).append(SignedCommand(command, signatures), datetime.now(UTC)).epoch
