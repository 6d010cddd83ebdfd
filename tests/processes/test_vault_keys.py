"""Key files on their way into the vault: taken over once, erased only where nothing is lost, others never touched."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.vault.vaults import Clock, Fate, MemoryJournal, Vault, build, mail, store_in, token

from schleuse.config import BadConfigError, Config, VaultClient, read_config
from schleuse.environment import Environment
from schleuse.identifiers import IK
from schleuse.processes.home import NewHome, NewInsurer, create_home
from schleuse.processes.vault import insured, roles, token_keys
from schleuse.processes.vault_figures import TimedJournal, VaultFigures
from schleuse.processes.vault_keys import Found, KeyState, erase_file, key_files, take_over
from schleuse.vault.actors import Caller
from schleuse.vault.contracts import BadTokenError
from schleuse.vault.server import Door

KASSE, OTHER = IK("109900011"), IK("109900022")
EAU = Caller("eau", 1)
CLIENT = VaultClient(user="root", role="eau")


@pytest.fixture(scope="module")
def a_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "home"
    insurers = [NewInsurer(KASSE, "Kasse Eins", "eins"), NewInsurer(OTHER, "Kasse Zwei", "zwei")]
    create_home(folder, NewHome(Environment.TEST, "kim.test", insurers, [], 9), datetime.now(UTC))
    return folder


@pytest.fixture
def home(a_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(a_home, tmp_path / "home"))


def keeping(home: Path) -> Config:
    change(home, "erase_key_files = true", "erase_key_files = false")
    return read_config(home)


def change(home: Path, old: str, new: str) -> None:
    file = home / "schleuse.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def with_service(home: Path, test: Callable[[Vault], Awaitable[None]]) -> None:
    async def run() -> None:
        vault = build(store_in(home), insurers=insured(read_config(home)))
        try:
            await test(vault)
        finally:
            vault.store.close()

    asyncio.run(run())


def states(found: list[Found]) -> list[KeyState]:
    return [one.state for one in found]


def test_what_is_taken_over_opens_mail_and_is_known_the_next_time(home: Path) -> None:
    config = keeping(home)

    async def test(vault: Vault) -> None:
        assert states(await take_over(vault.service, config)) == [KeyState.TAKEN_OVER] * 4
        again = await take_over(vault.service, config)
        assert states(again) == [KeyState.KNOWN] * 4
        assert all(one.on_disk for one in again)
        (certificate,) = await vault.service.certificates(EAU, KASSE)
        assert await vault.service.open_mails(EAU, KASSE, [mail(1, b"c" * 32, recipient=certificate)]) == [b"c" * 32]

    with_service(home, test)


def test_files_are_erased_when_the_vault_has_them_and_may_then_be_gone(home: Path) -> None:
    config = read_config(home)
    files = [one.key for one in key_files(config)]

    async def test(vault: Vault) -> None:
        found = await take_over(vault.service, config)
        assert states(found) == [KeyState.TAKEN_OVER] * 4
        assert [one for one in files if one.exists()] == []
        assert not any(one.on_disk for one in found)
        assert states(await take_over(vault.service, config)) == [KeyState.KNOWN] * 4

    with_service(home, test)


def test_while_the_journal_takes_no_entry_nothing_is_taken_over_and_nothing_erased(home: Path) -> None:
    config = read_config(home)

    async def test(vault: Vault) -> None:
        vault.journal.fates.extend([Fate.LOST] * 20)
        assert states(await take_over(vault.service, config)) == [KeyState.WAITING] * 4
        assert all(one.key.exists() for one in key_files(config))
        vault.journal.fates.clear()
        vault.clock.move(300)
        assert set(states(await take_over(vault.service, config))) == {KeyState.TAKEN_OVER}

    with_service(home, test)


def test_one_insurers_trouble_keeps_no_other_waiting(home: Path) -> None:
    config = read_config(home)
    files = key_files(config)
    files[0].key.unlink()
    files[1].key.write_bytes(files[2].key.read_bytes())  # another certificate's

    async def test(vault: Vault) -> None:
        found = await take_over(vault.service, config)
        assert states(found) == [KeyState.MISSING, KeyState.UNUSABLE, KeyState.TAKEN_OVER, KeyState.TAKEN_OVER]
        assert files[1].key.exists(), "it is not what the vault has"
        assert [found[number].told()["on_disk"] for number in range(4)] == ["no", "yes", "no", "no"]

    with_service(home, test)


def test_a_file_that_is_another_key_by_now_is_not_erased(home: Path) -> None:
    config = keeping(home)
    first = key_files(config)[0].key

    async def test(vault: Vault) -> None:
        await take_over(vault.service, config)
        first.write_bytes(key_files(config)[1].key.read_bytes())
        change(home, "erase_key_files = false", "erase_key_files = true")
        await take_over(vault.service, read_config(home))
        assert [one.key.exists() for one in key_files(config)] == [True, False, False, False]

    with_service(home, test)


def test_a_file_with_two_uses_is_erased_only_when_the_vault_has_both(home: Path) -> None:
    """Here the mail server reads the same file, which no vault takes over."""
    change(home, 'key = "pki/tls.key" }', 'key = "insurers/109900011/enc.key" }')
    config = read_config(home)

    async def test(vault: Vault) -> None:
        await take_over(vault.service, config)
        assert [one.key.exists() for one in key_files(config)] == [True, False, False, False]

    with_service(home, test)


def test_an_erased_file_is_overwritten_under_every_name(tmp_path: Path) -> None:
    file, other = tmp_path / "a.key", tmp_path / "b"
    file.write_bytes(b"secret" * 2000)
    os.link(file, other)
    erase_file(file)
    assert not file.exists()
    assert other.read_bytes() == bytes(12000)


def test_our_own_user_is_the_eau_role_or_with_clients_an_operator(home: Path) -> None:
    config = read_config(home)
    assert roles(config) == {os.getuid(): "eau"}
    root = config.vault.model_copy(update={"clients": (CLIENT,)})
    found = roles(config.model_copy(update={"vault": root}))
    assert found[0] == "eau"
    assert found[os.getuid()] == ("eau" if os.getuid() == 0 else "operator")


def test_a_client_whose_user_does_not_exist_is_a_mistake_of_the_configuration(home: Path) -> None:
    config = read_config(home)
    section = config.vault.model_copy(update={"clients": (CLIENT.model_copy(update={"user": "nobody-here"}),)})
    with pytest.raises(BadConfigError, match="nobody-here"):
        roles(config.model_copy(update={"vault": section}))


def test_a_public_key_or_certificate_that_cannot_be_read_is_one_insurers_trouble(home: Path) -> None:
    (home / "insurers" / KASSE.value / "feed.pub.pem").write_text("nonsense")
    (home / "insurers" / KASSE.value / "osig.pem").unlink()
    config = read_config(home)
    keys = token_keys(config, datetime.now(UTC))
    assert ("zwei", OTHER.value) in keys
    assert ("eins", KASSE.value) not in keys
    # A rule of the platform closes; it orders nothing about keys.
    people = {operator.name for operator in config.operators if "automat" not in operator.roles}
    assert {name for name, ik in keys if not ik} == people
    found = insured(config)
    assert (len(found[KASSE].encryption), found[KASSE].signature) == (1, None)
    assert found[OTHER].signature is not None


def test_a_credential_that_has_ended_orders_nothing_about_keys(home: Path) -> None:
    config = read_config(home)
    now = datetime(2026, 11, 26, 8, tzinfo=UTC)
    first, second, *rest = [one for one in config.operators if "automat" not in one.roles]
    ends = {first.name: now, second.name: now + timedelta(seconds=1)}
    operators = tuple(one.model_copy(update={"disabled_at": ends.get(one.name)}) for one in config.operators)
    keys = token_keys(config.model_copy(update={"operators": operators}), now)
    assert {name for name, ik in keys if not ik} == {one.name for one in (second, *rest)}


def test_figures_count_what_was_released_and_name_nobody(home: Path) -> None:
    config = keeping(home)

    async def test(vault: Vault) -> None:
        await take_over(vault.service, config)
        (certificate,) = await vault.service.certificates(EAU, KASSE)
        await vault.service.open_mails(EAU, KASSE, [mail(1, recipient=certificate), mail(2, recipient=certificate)])
        with pytest.raises(BadTokenError):
            await vault.service.fetch(EAU, KASSE, token(vault.clock, "n", issuer="x"), "n", "xml", bytes(200))
        registry = CollectorRegistry()
        registry.register(VaultFigures(vault.core, Door(strangers=3)))
        text = generate_latest(registry).decode()
        for line in (
            'schleuse_vault_releases_total{ik="109900011",purpose="EAU_INTAKE"} 2.0',
            'schleuse_vault_denied_total{ik="109900011"} 1.0',
            "schleuse_vault_cache_misses_total 1.0",
            "schleuse_vault_strangers_total 3.0",
            'schleuse_vault_release_counter{log="journal.test.example/109900011/2026"} 2.0',
        ):
            assert line in text

    with_service(home, test)


def test_waiting_for_the_journal_is_measured_also_when_it_fails() -> None:
    ticks = iter([1.0, 1.25, 2.0, 4.0])
    registry, journal = CollectorRegistry(), MemoryJournal(Clock())
    timed = TimedJournal(journal, registry, lambda: next(ticks))

    async def run() -> None:
        await timed.append_all("journal.test.example/109900011/2026", [])
        journal.fates.append(Fate.LOST)
        with pytest.raises(Exception, match="lost"):
            await timed.append_all("journal.test.example/109900011/2026", [])

    asyncio.run(run())
    assert registry.get_sample_value("schleuse_vault_journal_wait_seconds_sum") == 2.25
    assert registry.get_sample_value("schleuse_vault_journal_wait_seconds_count") == 2
