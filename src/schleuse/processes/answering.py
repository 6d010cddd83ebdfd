"""What the running roles of this home say of themselves, for whoever looks: `up`, the control role, the vault."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from schleuse.config import Config
from schleuse.errors import UnavailableError
from schleuse.journal import audit


class StrangerError(UnavailableError):
    """What answers at a role's address is not that role; the operator looks at the ports of the configuration."""

    code = "role.stranger"


@dataclass(frozen=True, slots=True)
class LogHealth:
    """Sizes of one log, in entries: as signed and served, and as witnesses have read it."""

    published: int
    witnessed: int


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """state: RUNNING, STOPPED or QUARANTINE. findings: what the journal found wrong with itself. logs: by origin."""

    state: str
    findings: tuple[str, ...]
    logs: Mapping[str, LogHealth]

    @property
    def behind(self) -> list[str]:
        """Origins of the logs that are published further than witnessed."""
        return [origin for origin, log in self.logs.items() if log.witnessed < log.published]


def journal_health(config: Config) -> JournalHealth:
    """Asked now. Raises SourceError (nobody answers), StrangerError."""
    answer = audit.from_url(f"http://{config.journal.http}")("health")
    try:
        table = json.loads(answer)
        logs = {at: LogHealth(int(one["published"]), int(one["witnessed"])) for at, one in table["logs"].items()}
        return JournalHealth(str(table["state"]), tuple(map(str, table["findings"])), logs)
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise StrangerError("what answers at the journal's address is no journal") from cause


def working_roles(config: Config) -> dict[str, str]:
    """Where the roles that do the work show metrics and health, in the order in which they can begin."""
    return {
        "journal": config.journal.metrics,
        "vault": config.vault.metrics,
        "kim": config.kim.metrics,
        "eau": config.eau.metrics,
    }


def is_ready(listen: str, seconds: float) -> bool:
    """Whether the role with this port can do its work now; one that does not answer cannot."""
    try:
        with urllib.request.urlopen(f"http://{listen}/readyz", timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False
