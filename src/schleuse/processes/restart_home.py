"""The restarts of a home, for the control role and for commands: where they are kept, and what they ask the stores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from schleuse import __version__
from schleuse.clock import utc_now
from schleuse.config import FILE_NAME, Config
from schleuse.errors import Error
from schleuse.kim.store import open_leases
from schleuse.processes.eau_following import changes_of, mailbox_scopes
from schleuse.processes.operators import rights_of
from schleuse.processes.releasing import open_releases
from schleuse.processes.restarting import Restarts, Tell
from schleuse.processes.switching import switch_log
from schleuse.restart.book import Book
from schleuse.restart.plan import RestartPlan
from schleuse.scopes import ANY, Direction, Scope, Service
from schleuse.switch.log import Accepted

log = structlog.get_logger()


def restarts_of(config: Config, tell: Tell, entries: Callable[[], Sequence[Accepted]] | None = None) -> Restarts:
    """tell: see `Tell`. entries: see `Restarts`."""
    return Restarts(
        Book(config.switch_folder / "restart"),
        switch_log(config),
        rights_of(config),
        backlog_of(config),
        tell,
        utc_now,
        fingerprint_of(config),
        entries,
    )


def backlog_of(config: Config) -> Callable[[RestartPlan], int | None]:
    """How many mails of ended holds of this plan's mailboxes wait for their release."""

    def backlog(plan: RestartPlan) -> int | None:
        try:
            with open_leases(config.kim_database, config.kim.spool, _retention(config)) as leases:
                return sum(len(leases.holds.backlog(account)) for account in mailboxes(config, plan.scopes))
        except Error as error:  # not zero: nobody knows (RS-04)
            log.error("restart.backlog-unknown", code=error.code, reason=str(error))
            return None

    return backlog


def take_back_of(config: Config, tell: Tell) -> Callable[[RestartPlan], int]:
    """See `take_back`, for the control role."""
    return lambda plan: take_back(config, tell, plan.id, plan.scopes)


def take_back(config: Config, tell: Tell, plan: str, scopes: Sequence[Scope]) -> int:
    """After an abort: releases stop, and what was let go and nobody has taken is held again (RS-06, T-14).

    The windows follow the switch first: a worker that sees an opening with backlog and its abort only later would let
    go then what is taken back here. Returns how many mails of releases without a plan it was; a stopped release says
    its own number. Raises Error.
    """
    accounts = mailboxes(config, scopes)
    entries = switch_log(config).read_all()
    with open_leases(config.kim_database, config.kim.spool, _retention(config)) as leases:
        changes = changes_of(entries, mailbox_scopes(config), utc_now)
        leases.holds.follow({}, len(entries), accounts, changes, utc_now())
        try:
            with open_releases(config, tell, "control-release") as releases:
                releases.stop_all(accounts, f"the restart {plan} was aborted", "control")
        finally:
            returned = leases.holds.take_back_all(accounts)
    return returned


def mailboxes(config: Config, scopes: Sequence[Scope]) -> list[str]:
    """Of the insurers whose eAU these scopes bring back."""
    return [
        one.address.lower()
        for one in config.insurers
        if any(scope.meets(Scope(Service.EAU_INTAKE, one.ik, Direction.PROCESS, ANY)) for scope in scopes)
    ]


def _retention(config: Config) -> timedelta:
    return timedelta(days=config.kim.retention_days)


def fingerprint_of(config: Config) -> Callable[[], str]:
    """What must not change in a soak: the configuration and the version of this program (RS-11)."""

    def fingerprint() -> str:
        try:
            data = (config.home / FILE_NAME).read_bytes()
        except OSError:
            return ""  # nobody knows; the roles have read theirs at their start
        return hashlib.sha256(__version__.encode() + b"\n" + data).hexdigest()

    return fingerprint
