"""The switch at the vault's door: a closed scope's keys are not released, whoever asks (SW-04, SW-06, SW-13)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.switch_double import FakeSwitch
from tests.vault.vaults import EAU, KASSE, OTHER, Vault, build, mail, store_in, take_over, with_vault

from schleuse.errors import Error
from schleuse.journal.entry import Result
from schleuse.scopes import ScopeState
from schleuse.vault.contracts import ScopeClosedError
from schleuse.vault.gate import gated

LESS_OPEN = [state for state in ScopeState if not state.begins]
Ask = Callable[[Vault, bytes], Awaitable[object]]


async def _open_a_mail(vault: Vault, _container: bytes) -> object:
    return await vault.service.open_mails(EAU, KASSE, [mail(1)])


async def _fetch(vault: Vault, container: bytes) -> object:
    return await vault.fetched("urn:uuid:1", container)


async def _sign(vault: Vault, _container: bytes) -> object:
    return await vault.service.sign(EAU, KASSE, b"to be signed")


async def _file(vault: Vault, _container: bytes) -> object:
    return await vault.filed("urn:uuid:2", b"<eau/>")


async def _erase(vault: Vault, _container: bytes) -> object:
    return await vault.erased()


@pytest.mark.parametrize(
    ("scope", "ask"),
    [
        ("eau_intake/*/process", _open_a_mail),
        ("eau_intake/109900011/process", _file),
        ("eau_intake/*/deliver", _fetch),
        ("eau_intake/*/deliver", _sign),
        ("keys/109900011/process", _open_a_mail),
        ("keys/*/process", _fetch),
        ("keys/*/process", _sign),
        ("keys/*/admin", _erase),
        ("all", _open_a_mail),
    ],
)
@pytest.mark.parametrize("state", LESS_OPEN)
def test_a_closed_scope_releases_nothing_and_two_open_it_again(
    tmp_path: Path, scope: str, ask: Ask, state: ScopeState
) -> None:
    switch = FakeSwitch()

    async def test(vault: Vault) -> None:
        container = await vault.filed("urn:uuid:1", b"<eau/>")
        switch.set(scope, state)
        before, unwraps = len(vault.journal.releases()), vault.kek.subject_unwraps
        with pytest.raises(ScopeClosedError, match=str(state)):
            await ask(vault, container)
        assert len(vault.journal.releases()) == before
        assert vault.kek.subject_unwraps == unwraps
        switch.set("*", ScopeState.OPEN)
        await ask(vault, container)

    with_vault(tmp_path, test, switch=switch)


def test_what_is_tried_at_a_closed_scope_leaves_an_entry(tmp_path: Path) -> None:
    switch = FakeSwitch()

    async def test(vault: Vault) -> None:
        switch.set("eau/*", ScopeState.HOLD)
        with pytest.raises(ScopeClosedError):
            await _open_a_mail(vault, b"")
        (denial,) = vault.journal.denials()
        assert denial.result is Result.DENIED

    with_vault(tmp_path, test, switch=switch)


def test_a_closed_insurer_leaves_the_others_open(tmp_path: Path) -> None:
    """T-24: shared workers, one insurer held."""
    switch = FakeSwitch()

    async def test(vault: Vault) -> None:
        switch.set(f"all/{KASSE}", ScopeState.CLOSED)
        await vault.filed("urn:uuid:1", b"<eau/>", ik=OTHER)
        with pytest.raises(ScopeClosedError):
            await vault.filed("urn:uuid:1", b"<eau/>", ik=KASSE)

    with_vault(tmp_path, test, switch=switch)


def test_a_closing_between_entry_and_key_wins(tmp_path: Path) -> None:
    """The entry is durable and says "may have been read"; no key is used after the closing (SW-06)."""
    switch = FakeSwitch()

    async def run() -> None:
        vault = build(store_in(tmp_path), switch=switch)
        await take_over(vault)
        container = await vault.filed("urn:uuid:1", b"<eau/>")
        vault.journal.gate = asyncio.Event()
        asked = asyncio.create_task(vault.fetched("urn:uuid:1", container))
        for _ in range(20):  # until the entry is on its way
            await asyncio.sleep(0)
        switch.set("eau/*", ScopeState.CLOSED)
        vault.journal.gate.set()
        with pytest.raises(ScopeClosedError):
            await asked
        assert vault.kek.subject_unwraps == 0
        vault.store.close()

    asyncio.run(run())


def test_every_lock_of_the_vault_is_a_scope_that_it_reports(tmp_path: Path) -> None:
    """What may be refused is in the effects and the figures, too."""
    switch = FakeSwitch()
    refused: set[str] = set()

    async def test(vault: Vault) -> None:
        for scope in map(str, gated([KASSE])):
            switch.set("*", ScopeState.OPEN)
            container = await vault.filed("urn:uuid:1", b"<eau/>")
            switch.set(scope, ScopeState.HOLD)
            for ask in (_open_a_mail, _fetch, _erase):
                try:
                    await ask(vault, container)
                except ScopeClosedError:
                    refused.add(scope)
                except Error:
                    continue  # of a person that was erased the round before

    with_vault(tmp_path, test, switch=switch)
    assert refused == set(map(str, gated([KASSE])))
