"""The `vault` role: the only holder of keys (decision 0016, journal.md § 14).

It starts with or without the journal, and opens nothing without it: until the log of an insurer can be read back and
written, every request about this insurer ends with VaultUnavailableError, and the role says that it is not ready.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from functools import partial

import structlog
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from prometheus_client import CollectorRegistry

from schleuse.clock import Now, utc_now
from schleuse.config import BadConfigError, Config
from schleuse.errors import CorruptError, Error, UnavailableError
from schleuse.identifiers import IK
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.processes.answering import journal_health
from schleuse.processes.following import EpochFollower, Running
from schleuse.processes.journal_keys import origin_of
from schleuse.processes.life import collect_seldom, keep_freed_memory, until_stopped
from schleuse.processes.observe import observed
from schleuse.processes.refusals import Refusals
from schleuse.processes.supervisor import pause_after
from schleuse.processes.switch_figures import SwitchFigures, tell_effect
from schleuse.processes.switching import effect_book, open_switch
from schleuse.processes.trail import PLATFORM, Act, Trail, open_trail
from schleuse.processes.vault_figures import TimedJournal, VaultFigures
from schleuse.processes.vault_keys import KeyState, key_files, take_over
from schleuse.vault.budgets import limits_of, platform_limits, tenant_limits
from schleuse.vault.core import Core
from schleuse.vault.denials import Denials
from schleuse.vault.gate import Gate, gated
from schleuse.vault.history import HistoryReader
from schleuse.vault.kek import Kek, open_kek
from schleuse.vault.keyring import Keyring
from schleuse.vault.memory import guard_memory
from schleuse.vault.overrides import Overrides
from schleuse.vault.private_keys import read_certificate
from schleuse.vault.rotation import Rotation
from schleuse.vault.server import Desk, Door, listen
from schleuse.vault.service import Insured, VaultService
from schleuse.vault.store import VaultStore, open_vault_store
from schleuse.vault.tokens import audience, read_public_key

log = structlog.get_logger()

TICK_SECONDS = 1.0
#: Refusals that got no entry of their own get one together (journal.md § 14.4).
COALESCE_SECONDS = 60.0
#: Between two looks at what is not ready, at most. Each try at a log that can be written but not read leaves entries.
TROUBLE_SECONDS = 5.0
#: The same where only people can help.
CORRUPT_SECONDS = 60.0
#: Between two looks when all is well: a new year has new logs.
CALM_SECONDS = 10.0


def main(config: Config) -> None:
    """Run until stopped."""
    for complaint in guard_memory():
        log.warning("vault.memory", reason=complaint)
    collect_seldom()
    keep_freed_memory()
    uvloop.run(run(config))


async def run(config: Config, now: Now = utc_now) -> None:
    """One screen shows all that the role is made of; leaving the block closes in reverse order."""
    registry, door = CollectorRegistry(), Door()
    async with AsyncExitStack() as stack:
        store = await asyncio.to_thread(open_vault_store, config.vault_database)
        stack.callback(store.close)
        journal = JournalClient(config.journal_socket)
        stack.push_async_callback(journal.close)
        keyring = Keyring(store, await asyncio.to_thread(open_keys, config, store), time.monotonic)
        stack.callback(keyring.drop)
        switch = open_switch(config, "vault")
        core = Core(
            journal=TimedJournal(journal, registry),
            history=HistoryReader(f"http://{config.journal.http}"),
            store=store,
            keyring=keyring,
            limits=lambda kind, ik: limits_of(config.vault.budgets, kind, ik),
            tenant=lambda ik: tenant_limits(config.vault.budgets, ik),
            platform=platform_limits(config.vault.releases_per_hour),
            origin_of=lambda ik, year: origin_of(config.hostname, ik, year),
            now=now,
            monotonic=time.monotonic,
            gate=Gate(switch),
            accept_older_store=config.vault.accept_older_store,
        )
        insurers, keys = insured(config), token_keys(config, now())
        service = VaultService(core, insurers, keys, audience(config.hostname))
        rotation = Rotation(core, list(insurers), keys, audience(config.hostname))
        people = {operator.name: operator.person or operator.name for operator in config.operators}
        overrides = Overrides(core, insurers, keys, audience(config.hostname), people)
        readiness = Readiness(config, core, service)
        registry.register(VaultFigures(core, door))
        await stack.enter_async_context(observed("vault", config.vault.metrics, registry, readiness.ready))
        trail = open_trail(config, "vault", journal)
        strangers = Refusals("vault", Denials(), partial(_tell_stranger, trail), now)
        door.stranger = lambda uid: strangers.refused(str(uid), uid)
        await stack.enter_async_context(
            listen(config.vault_socket, Desk(service, readiness.again, rotation, overrides), roles(config), door)
        )
        follower = EpochFollower(
            switch,
            effect_book(config),
            "vault",
            list(gated(insurers)),
            running=Running(now),  # what is released is over at once; the gate is asked again before a key is used
            fence=lambda _epochs, _head: service.drop(),
            tell=lambda effect: tell_effect(trail, effect),
            now=now,
        )
        registry.register(SwitchFigures(switch, list(gated(insurers))))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one)
                for one in (
                    readiness.keep(),
                    rotation.keep(),
                    _tick(core, readiness),
                    follower.run(),
                    trail.run(),
                    strangers.keep_telling(),
                )
            ]
            await until_stopped()
            for task in tasks:
                task.cancel()
        with suppress(Error):
            await asyncio.to_thread(core.note_counters)


def _tell_stranger(trail: Trail, uid: int, count: int | None) -> None:
    """A user without a role at the door: whatever he wanted, it was an attempt (§ 4)."""
    detail: dict[str, Json] = {"act": "vault.stranger", "uid": uid}
    try:
        trail.tell(Act(PLATFORM, Kind.LOGIN_FAILED, Result.DENIED, Purpose.OPERATION, detail=detail, count=count))
    except UnavailableError as error:  # he is refused all the same
        log.error("vault.trail", code=error.code, reason=str(error))


class Readiness:
    """Brings up what the role needs: the logs of this year read back, key files taken over, a journal that runs."""

    def __init__(self, config: Config, core: Core, service: VaultService) -> None:
        self._config = config
        self._core = core
        self._service = service
        self._insurers = [IK(insurer.ik) for insurer in config.insurers]
        self._reason = "starting"
        self._imported = False
        self._importing = asyncio.Lock()
        self._damaged: dict[IK, tuple[float, str]] = {}
        #: Why the vault's own store cannot be written, or "".
        self.store = ""

    def ready(self) -> bool | str:
        """See `observe.Ready`."""
        if self._reason or self.store:
            return self._reason or self.store
        try:
            state = journal_health(self._config).state
        except Error as error:
            return f"{error.code}: {error}"
        return True if state == "RUNNING" else f"the journal is in state {state}"

    async def again(self) -> list[dict[str, str]]:
        """Take key files over that are new, and say what became of each."""
        async with self._importing:
            found = await take_over(self._service, self._config)
        self._imported = not any(one.state is KeyState.WAITING for one in found)
        remaining = sorted({str(one.file.key) for one in found if one.on_disk})
        if self._imported and remaining and not self._config.vault.erase_key_files:
            log.warning("vault.key-files-remain", files=remaining, setting="vault.erase_key_files")
        for one in found:
            if one.state in (KeyState.MISSING, KeyState.UNUSABLE):
                log.error("vault.key-missing", ik=one.file.ik.value, kind=one.file.kind, reason=one.reason)
        return [one.told() for one in found]

    async def keep(self) -> None:
        """Look for ever."""
        failures = 0
        while True:
            reason = await self._look()
            if reason != self._reason:
                (log.warning if reason else log.info)("vault.waiting" if reason else "vault.ready", reason=reason)
            self._reason = reason
            failures = failures + 1 if reason else 0
            await asyncio.sleep(min(pause_after(failures), TROUBLE_SECONDS) if reason else CALM_SECONDS)

    async def _look(self) -> str:
        """Why the role cannot work, or "". One insurer's trouble does not keep the others waiting."""
        reasons = [reason for ik in self._insurers if (reason := await self._open_log(ik))]
        try:
            if not self._imported:
                await self.again()
        except Error as error:
            reasons.append(f"{error.code}: {error}")
        except Exception as fault:  # a mistake of the program about one key file; what is there works on
            log.error("vault.mistake", error=type(fault).__name__)
            reasons.append(f"a mistake of the program ({type(fault).__name__})")
        if not self._imported:
            reasons.append("key files are not taken over yet")
        return "; ".join(dict.fromkeys(reasons))

    async def _open_log(self, ik: IK) -> str:
        until, reason = self._damaged.get(ik, (0.0, ""))
        if until > time.monotonic():
            return reason
        try:
            await self._core.ledger(ik)
        except Error as error:
            reason = f"{error.code}: {error}"
            if isinstance(error, CorruptError):
                self._damaged[ik] = (time.monotonic() + CORRUPT_SECONDS, reason)
            return reason
        return ""


async def _tick(core: Core, readiness: Readiness) -> None:
    told = time.monotonic()
    while True:
        await asyncio.sleep(TICK_SECONDS)
        core.keyring.forget()
        readiness.store = await _noted(core, readiness.store)
        try:
            if time.monotonic() - told >= COALESCE_SECONDS:
                told = time.monotonic()
                await core.tell_coalesced()
        except Error as error:
            log.error("vault.tick", code=error.code, reason=str(error))


async def _noted(core: Core, before: str) -> str:
    """Why the counters cannot be noted, or "". Told when it changes: this comes each second."""
    reason = ""
    try:
        await asyncio.to_thread(core.note_counters)
    except Error as error:
        reason = f"{error.code}: {error}"
    if reason != before:
        (log.error if reason else log.info)("vault.store-waits" if reason else "vault.store-back", reason=reason)
    return reason


def open_keys(config: Config, store: VaultStore) -> Kek:
    """The key encryption key, in a token or sealed on disk. Raises KeyMissingError."""
    if config.vault.hsm is not None:
        from schleuse.vault.pkcs11 import Pkcs11Kek  # needs the extra `hsm`

        return Pkcs11Kek(config.vault.hsm)
    section = config.vault
    # A store that has worked is worth nothing without its key; a new key would only hide that.
    return open_kek(section.folder, section.unlock, section.unlock_file, must_exist=store.has_wrapped_records())


def roles(config: Config) -> dict[int, str]:
    """Roles by user id. Our own user is "eau" if no clients are configured, else it may give orders of operators.

    Raises BadConfigError.
    """
    if not config.vault.clients:
        return {os.getuid(): "eau"}
    found: dict[int, str] = {os.getuid(): "operator"}
    mistakes = []
    for client in config.vault.clients:
        try:
            found[pwd.getpwnam(client.user).pw_uid] = client.role
        except KeyError:
            mistakes.append(f"vault.clients: this machine has no user {client.user}")
    if mistakes:
        raise BadConfigError(mistakes)
    return found


def insured(config: Config) -> dict[IK, Insured]:
    """Certificates of every insurer; one that cannot be read is its insurer's trouble only."""
    found: dict[IK, Insured] = {IK(insurer.ik): Insured((), None) for insurer in config.insurers}
    for file in key_files(config):
        try:
            certificate = read_certificate(file.certificate)
        except Error as error:
            log.error("vault.certificate-missing", ik=file.ik.value, kind=file.kind, reason=str(error))
            continue
        known = found[file.ik]
        if file.kind == "enc":
            found[file.ik] = Insured((*known.encryption, certificate), known.signature)
        else:
            found[file.ik] = Insured(known.encryption, certificate)
    return found


def token_keys(config: Config, at: datetime) -> Mapping[tuple[str, str], Ed25519PublicKey]:
    """Of the insurers' systems by (name, IK), of operators by (name, ""); a file that cannot be read is told.

    at: credentials that have ended by then order nothing.
    """
    wanted = {(one.name, insurer.ik): one.public_key for insurer in config.insurers for one in insurer.feed_clients}
    # A rule of the platform closes; it never orders anything about keys.
    people = [
        operator
        for operator in config.operators
        if "automat" not in operator.roles and not (operator.disabled_at and operator.disabled_at <= at)
    ]
    wanted |= {(operator.name, ""): operator.public_key for operator in people}
    found = {}
    for who, path in wanted.items():
        try:
            found[who] = read_public_key(path)
        except Error as error:
            log.error("vault.token-key-missing", name=who[0], ik=who[1], reason=str(error))
    return found
