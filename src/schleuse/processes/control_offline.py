"""The closings of a home for a command: the same as the `control` role has, with or without that role (SW-05, T-04)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from schleuse.clock import utc_now
from schleuse.config import Config
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Purpose
from schleuse.processes.control import closings_of, external_of
from schleuse.processes.control_closing import Closings
from schleuse.processes.control_drills import desk
from schleuse.processes.control_probes import PlatformProbes
from schleuse.processes.control_watch import Tell
from schleuse.processes.observe import configure_log
from schleuse.processes.operators import rights_of
from schleuse.processes.switching import COMMAND, open_switch, switch_log
from schleuse.processes.trail import OUTSIDE, open_trail, teller
from schleuse.shutdown.drill_run import Desk
from schleuse.shutdown.external_keeper import ExternalKeeper


@dataclass(frozen=True, slots=True)
class Offline:
    """tell: into the trail that the `kim` role sends for commands. external: to look at, not to switch."""

    closings: Closings
    external: ExternalKeeper
    desk: Desk
    tell: Tell


@contextmanager
def offline(config: Config) -> Iterator[Offline]:
    """Open what a command needs, and close it."""
    log_before = structlog.get_config()
    configure_log("command", logging.ERROR)  # to stderr: what a command prints is for people or machines
    switch = open_switch(config, COMMAND)
    probes = PlatformProbes(config)
    try:
        closings = closings_of(config, switch, probes, "command")
        tell = teller(open_trail(config, OUTSIDE, JournalClient(config.journal_socket)), Purpose.OPERATION)
        rights = rights_of(config)
        external = external_of(config, switch, rights, tell)
        yield Offline(
            closings,
            external,
            desk(closings, switch_log(config, rights), rights, utc_now, external.not_running),
            tell,
        )
    finally:
        probes.close()
        structlog.configure(**log_before)
