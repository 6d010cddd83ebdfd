"""What the running roles of this home say of themselves, for whoever looks: `up`, the control role, the vault."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from schleuse.config import Config
from schleuse.errors import UnavailableError
from schleuse.journal import audit
from schleuse.switch.fields import table_of


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
    return why_not_ready(listen, seconds) is None


def why_not_ready(listen: str, seconds: float) -> str | None:
    """What the role with this port says why it cannot do its work now, "" if it says nothing; None: it can."""
    try:
        with urllib.request.urlopen(f"http://{listen}/readyz", timeout=seconds):
            return None
    except urllib.error.HTTPError as refused:
        with refused, suppress(OSError, http.client.HTTPException, ValueError, TypeError):
            return str(table_of(json.load(refused)).get("reason", ""))
    except (OSError, http.client.HTTPException):
        pass
    return ""
