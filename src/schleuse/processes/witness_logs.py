"""The logs that the `witness` role cosigns and watches, while it runs: its files are read again when they change.

A log that is added is cosigned from then on, a key or policy that is changed counts from then on. What is taken out,
and every other setting, waits for the next start, because what is under way with it cannot be ended from here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from schleuse.clock import Now
from schleuse.config import BadConfigError
from schleuse.journal.note import LogKey, Note
from schleuse.journal.policy import Witness as Peer
from schleuse.journal.policy import parse_policy
from schleuse.witness.alarm import OnAlarm
from schleuse.witness.config import FOLLOWED, LogSection, MonitorSection, WitnessConfig, read_canaries
from schleuse.witness.config import read_witness_config as read
from schleuse.witness.follow import Follower
from schleuse.witness.monitor import Monitor
from schleuse.witness.monitor_store import MonitorStore
from schleuse.witness.pull import Puller
from schleuse.witness.remote import Remote, RemoteLog, cosigned_by_peer
from schleuse.witness.rules import Settings
from schleuse.witness.service import Witness

log = structlog.get_logger()

#: A successor is announced weeks ahead; asking is two small requests.
FOLLOW_SECONDS = 3600.0
REREAD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do again and again, in a thread. name: "pull", "monitor", "follow" about one log, or "reread"."""

    name: str
    origin: str
    act: Callable[[], object]


class Logs:
    """trusted, origins: of all logs that are cosigned now; both grow.

    begin: starts a task, every so many seconds; called from any thread.
    """

    def __init__(
        self,
        config: WitnessConfig,
        remote: Remote,
        now: Now,
        on_alarm: OnAlarm,
        begin: Callable[[float, Task], None],
    ) -> None:
        self.trusted: dict[str, tuple[LogKey, ...]] = {}
        self.origins: list[str] = []
        self._config = config
        self._remote = remote
        self._now = now
        self._on_alarm = on_alarm
        self._begin = begin
        self._stores = ExitStack()
        self._monitors: dict[str, tuple[Monitor, bytes]] = {}
        self._seen: object = None
        self._one_reading = threading.Lock()

    def close(self) -> None:
        """Give the monitors' databases back."""
        self._stores.close()

    def start(self, witness: Witness) -> None:
        """Begin with what the role was started with. Raises BadConfigError, MalformedError."""
        self._witness = witness
        self._seen = _stamp(self._config)
        for section in self._config.logs:
            self._add(section)

    def reread(self, *, anyway: bool = False) -> None:
        """Look whether a file has changed (or whether or not, `anyway`), and go by what it says now.

        Raises BadConfigError, MalformedError; then all goes on as before, and the next call tries again.
        """
        with self._one_reading:
            if not anyway and _stamp(self._config) == self._seen:
                return
            self._seen = None
            config = read(self._config.file)
            before = set(self.trusted)
            for section in config.logs:
                if section.origin in self.trusted:
                    self._change(section)
                else:
                    self._add(section)
                    log.info("witness.log-added", origin=section.origin)
            if _fixed(config, before) != _fixed(self._config, before):
                log.warning("witness.needs-restart", file=config.file.name)
            self._config, self._seen = config, _stamp(config)

    def _add(self, section: LogSection) -> None:
        tasks = list(self._tasks(section))  # a mistake in it shows here, before anything is trusted
        self.trusted[section.origin] = section.log_keys
        self.origins.append(section.origin)
        for seconds, task in tasks:
            self._begin(seconds, task)

    def _change(self, section: LogSection) -> None:
        self.trusted[section.origin] = section.log_keys
        if section.monitor is None or section.origin not in self._monitors:
            return
        monitor, before = self._monitors[section.origin]
        text = _policy(section.monitor)
        if text != before:
            monitor.judge_by(parse_policy(text))
            self._monitors[section.origin] = monitor, text
            log.info("witness.policy-changed", origin=section.origin)

    def _tasks(self, section: LogSection) -> Iterator[tuple[float, Task]]:
        url, origin, witness = section.url, section.origin, self._witness
        if url is None:
            return
        remote = RemoteLog(url, self._remote)
        if section.pull_seconds is not None:
            puller = Puller(origin, remote, witness, self._now, self._on_alarm)
            yield section.pull_seconds, Task("pull", origin, puller.poll)
        if section.monitor is not None:
            monitor = self._monitor(section, section.monitor, remote)
            yield section.monitor.every_seconds, Task("monitor", origin, monitor.look)
        if section.follow:
            follower = Follower(self._config.home, section, remote, witness, self.trusted, self._on_alarm)
            yield FOLLOW_SECONDS, Task("follow", origin, follower.look)

    def _monitor(self, section: LogSection, monitor: MonitorSection, remote: RemoteLog) -> Monitor:
        text = _policy(monitor)
        canaries = frozenset[bytes]() if monitor.canaries is None else read_canaries(monitor.canaries)
        policy = parse_policy(text)
        store = MonitorStore(monitor.database, section.origin)
        self._stores.callback(store.close)
        made = Monitor(
            section.origin,
            policy,
            Settings(canaries, monitor.subjects_per_hour, monitor.denials_in_series),
            remote,
            store,
            self._now,
            self._on_alarm,
            partial(_ask_peer, section.origin, self._remote),
            keep=self._witness.keep,
            reread=monitor.reread_bundles,
        )
        self._monitors[section.origin] = made, text
        return made


def _fixed(config: WitnessConfig, origins: Collection[str]) -> object:
    """What only a start changes: everything but further logs, keys and what stands in policies."""
    kept = {log.origin: log.model_copy(update={"keys": ()}) for log in config.logs if log.origin in origins}
    return config.model_copy(update={"logs": ()}), kept


def _stamp(config: WitnessConfig) -> object:
    """Changes when somebody has written one of the files."""
    policies = [section.monitor.policy for section in config.logs if section.monitor]
    return [(path, _written(path)) for path in (config.file, config.home / FOLLOWED, *policies)]


def _written(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _policy(monitor: MonitorSection) -> bytes:
    try:
        return monitor.policy.read_bytes()
    except OSError as cause:
        raise BadConfigError([f"{monitor.policy}: cannot be read ({cause.strerror})"]) from cause


def _ask_peer(origin: str, remote: Remote, peer: Peer) -> Note:
    return cosigned_by_peer(peer.url or "", origin, remote)
