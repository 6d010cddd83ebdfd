"""New generations of the key encryption key while the vault works, and whoever is killed in between (§ 17)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.vault.vaults import (
    AUDIENCE,
    EAU,
    KASSE,
    OPERATOR,
    OTHER,
    SYSTEM,
    Fate,
    Vault,
    build,
    store_in,
    take_over,
    token,
)

from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.vault.actors import Caller
from schleuse.vault.contracts import (
    BadTokenError,
    KeyMissingError,
    NotAllowedError,
    RotationRefusedError,
    VaultUnavailableError,
)
from schleuse.vault.kek import SealedKek, open_kek
from schleuse.vault.rotation import Rotation
from schleuse.vault.sk1 import kek_id
from schleuse.vault.store import KeyRecord, VaultStore

BOTH = (KASSE, OTHER)
KEYS = {("op", ""): OPERATOR.public_key(), ("system", str(KASSE)): SYSTEM.public_key()}


class Killed(BaseException):
    """What ends a process here."""


class Site:
    """What survives a process: store, kek.sealed, journal. `start` is the next process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = store_in(folder)
        first = build(self.store)
        self.journal, self.clock = first.journal, first.clock

    def start(self) -> tuple[Vault, Rotation, SealedKek]:
        must_exist = self.store.has_wrapped_records()
        kek = open_kek(self.folder / "vault", "key", self.folder / "unlock", must_exist=must_exist)
        vault = build(self.store, clock=self.clock, journal=self.journal)
        vault.core.keyring.kek = kek
        return vault, Rotation(vault.core, BOTH, KEYS, AUDIENCE, batch=2), kek

    def orders(self, act: str, generation: int, **changes: object) -> dict[str, str]:
        what = (act, str(generation))
        about: dict[str, object] = {"signer": OPERATOR, "issuer": "op", "purpose": "rotate", "what": what, **changes}
        return {ik.value: token(self.clock, "", ik=ik, **about) for ik in BOTH}  # type: ignore[arg-type]

    def generations(self) -> set[int]:
        with_all = self.store.keys_below(2**32 - 1, 1000)
        return {kek_id(one.record) for one in with_all}


def site_with(folder: Path, test: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        site = Site(folder)
        try:
            await test(site)
        finally:
            site.store.close()

    asyncio.run(run())


NAMES = [f"urn:uuid:{number}" for number in range(5)]


async def filled(vault: Vault) -> list[bytes]:
    await take_over(vault)
    return [await vault.filed(name, name.encode(), person=name.encode()) for name in NAMES]


async def assert_readable(vault: Vault, containers: list[bytes]) -> None:
    vault.core.keyring.drop()
    for name, container in zip(NAMES, containers, strict=True):
        assert await vault.fetched(name, container) == name.encode()


def test_everything_is_rewrapped_and_the_old_generation_ends(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, rotation, kek = site.start()
        containers = await filled(vault)
        state = await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        assert state == {"generations": [1, 2], "left": 8, "restart_first": True}  # 5 persons, 2 keys, insurers' own
        assert kek.id == 2
        assert await rotation.sweep()
        assert site.generations() == {2}
        await assert_readable(vault, containers)

        vault, rotation, kek = site.start()
        assert await rotation.status(EAU) == {"generations": [1, 2], "left": 0, "restart_first": False}
        assert (await rotation.retire(EAU, site.orders("RETIRE", 1), 1))["generations"] == [2]
        await assert_readable(vault, containers)
        vault, _, kek = site.start()
        assert kek.generations == (2,)
        await assert_readable(vault, containers)

    site_with(tmp_path, test)


def test_each_order_and_each_batch_has_its_entry_first(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, rotation, _ = site.start()
        await filled(vault)
        before = {ik: len(site.journal.entries(ik)) for ik in BOTH}
        await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        await rotation.sweep()
        for ik in BOTH:
            (order,) = [
                one
                for one in site.journal.entries(ik)[before[ik] :]
                if one.kind is Kind.ADMINISTRATION and one.actor != bytes(16)
            ]
            assert (order.purpose, order.result) == (Purpose.OPERATION, Result.GRANTED)
        rotated = [one for one in site.journal.entries() if one.kind is Kind.KEY_ROTATED]
        assert sum(one.count or 0 for one in rotated) == 7
        assert max(one.count or 0 for one in rotated) == 2

    site_with(tmp_path, test)


def test_what_is_filed_meanwhile_is_under_the_new_generation(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, rotation, _ = site.start()
        await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        container = await vault.filed("urn:uuid:new", b"new")
        assert site.generations() == {2}
        assert await vault.fetched("urn:uuid:new", container) == b"new"

    site_with(tmp_path, test)


def test_the_same_order_again_makes_no_other_generation(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        _, rotation, kek = site.start()
        for _ in range(2):
            await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        assert kek.generations == (1, 2)
        for wrong in (1, 4):
            with pytest.raises(RotationRefusedError, match="the next is 3"):
                await rotation.renew(EAU, site.orders("ROTATE", wrong), wrong)

    site_with(tmp_path, test)


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "erase"},
        {"signer": SYSTEM},
        {"what": ("ROTATE", "3")},
        {"what": ("RETIRE", "2")},
        {"issuer": "system", "signer": SYSTEM, "purpose": "feed"},
    ],
)
def test_without_an_operators_order_for_this_nothing_is_made_and_the_attempt_is_noted(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    async def test(site: Site) -> None:
        _, rotation, kek = site.start()
        with pytest.raises(BadTokenError):
            await rotation.renew(EAU, site.orders("ROTATE", 2, **changes), 2)
        assert kek.generations == (1,)
        assert [one.result for one in site.journal.denials()] == [Result.DENIED]

    site_with(tmp_path, test)


def test_an_order_is_for_every_insurer_or_none(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        _, rotation, kek = site.start()
        orders = site.orders("ROTATE", 2)
        for some in ({KASSE.value: orders[KASSE.value]}, {ik.value: orders[KASSE.value] for ik in BOTH}, {}):
            with pytest.raises(BadTokenError):
                await rotation.renew(EAU, some, 2)
        assert kek.generations == (1,)

    site_with(tmp_path, test)


def test_a_role_that_may_not_is_refused(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        _, rotation, kek = site.start()
        with pytest.raises(NotAllowedError):
            await rotation.renew(Caller("kim", 1), site.orders("ROTATE", 2), 2)
        assert kek.generations == (1,)

    site_with(tmp_path, test)


def test_without_the_journal_nothing_is_made_and_nothing_is_unwrapped(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, rotation, kek = site.start()
        await filled(vault)
        site.journal.fates.extend([Fate.LOST] * 3)
        with pytest.raises(VaultUnavailableError):
            await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        assert kek.generations == (1,)
        site.journal.fates.clear()
        await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        site.journal.fates.extend([Fate.LOST] * 3)
        with pytest.raises(VaultUnavailableError):
            await rotation.sweep()
        assert site.generations() == {1}
        site.journal.fates.clear()
        assert await rotation.sweep()
        assert site.generations() == {2}

    site_with(tmp_path, test)


def test_an_old_generation_does_not_end_while_it_wraps_anything_or_work_may_be_under_way(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, rotation, kek = site.start()
        containers = await filled(vault)
        await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        await rotation.sweep()
        with pytest.raises(RotationRefusedError, match="start the vault again"):
            await rotation.retire(EAU, site.orders("RETIRE", 1), 1)
        # A filing that began before the order comes into the store after the sweep.
        (one,) = site.store.keys_below(3, 1)
        late = kek.wrap(bytes(12), b"s" * 32, (one.record[:28] + (1).to_bytes(4)), 1)
        site.store.replace_keys([(one, one.record[:28] + (1).to_bytes(4) + bytes(12) + late)])
        _, rotation, kek = site.start()
        with pytest.raises(RotationRefusedError, match="still wrap 1 keys"):
            await rotation.retire(EAU, site.orders("RETIRE", 1), 1)
        assert await rotation.sweep()
        await rotation.retire(EAU, site.orders("RETIRE", 1), 1)
        for wrong in (1, 2, 3):
            with pytest.raises(RotationRefusedError, match="not an older generation"):
                await rotation.retire(EAU, site.orders("RETIRE", wrong), wrong)
        assert len(containers) == len(NAMES)

    site_with(tmp_path, test)


@pytest.mark.parametrize("batches", range(5))
def test_a_sweep_that_was_killed_goes_on_at_the_next_start(tmp_path: Path, batches: int) -> None:
    async def test(site: Site) -> None:
        vault, rotation, _ = site.start()
        containers = await filled(vault)
        await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        vault.core.store = MortalStore(site.store, batches)
        with pytest.raises(Killed):
            await rotation.sweep()
        assert site.store.count_below(2) == 7 - 2 * min(batches, 3) - (batches > 3)

        vault, rotation, _ = site.start()
        await assert_readable(vault, containers)
        assert await rotation.sweep()
        assert site.generations() == {2}
        await assert_readable(vault, containers)

    site_with(tmp_path, test)


class MortalStore(VaultStore):
    """The same store in a process that is killed when it replaces keys once more, or after the last."""

    def __init__(self, store: VaultStore, batches: int) -> None:
        self.__dict__.update(store.__dict__)
        self._left = batches

    def replace_keys(self, keys: object) -> None:
        if not self._left:
            raise Killed
        self._left -= 1
        super().replace_keys(keys)  # type: ignore[arg-type]

    def keys_below(self, generation: int, limit: int, after: tuple[bytes, int] = (b"", 0)) -> list[KeyRecord]:
        found = super().keys_below(generation, limit, after)
        if not found:
            raise Killed
        return found


def test_a_vault_killed_between_order_and_new_generation_takes_the_order_again(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, rotation, kek = site.start()
        containers = await filled(vault)

        def dies() -> int:
            raise Killed

        kek.renew = dies  # type: ignore[method-assign]
        with pytest.raises(Killed):
            await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        vault, rotation, kek = site.start()
        assert kek.generations == (1,)
        await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        assert await rotation.sweep()
        await assert_readable(vault, containers)

    site_with(tmp_path, test)


def test_a_record_that_does_not_open_stays_and_keeps_its_generation_alive(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, rotation, _ = site.start()
        await filled(vault)
        (one,) = site.store.keys_below(2, 1)
        site.store.replace_keys([(one, one.record[:-1] + bytes([one.record[-1] ^ 1]))])
        await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        assert not await rotation.sweep()
        assert site.store.count_below(2) == 1
        _, rotation, _ = site.start()
        with pytest.raises(RotationRefusedError):
            await rotation.retire(EAU, site.orders("RETIRE", 1), 1)

    site_with(tmp_path, test)


def test_the_loop_sweeps_at_its_start_and_after_an_order(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, rotation, _ = site.start()
        await filled(vault)
        task = asyncio.create_task(rotation.keep())
        await rotation.renew(EAU, site.orders("ROTATE", 2), 2)
        async with asyncio.timeout(30):
            while site.generations() != {2}:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    site_with(tmp_path, test)


def test_without_kek_sealed_a_store_with_keys_makes_no_new_one(tmp_path: Path) -> None:
    async def test(site: Site) -> None:
        vault, _, _ = site.start()
        await vault.filed("urn:uuid:one", b"one")
        assert site.store.counters() == {}, "the counter has not been noted yet"
        (tmp_path / "vault" / "kek.sealed").unlink()
        with pytest.raises(KeyMissingError, match="keys that it wraps are"):
            site.start()
        assert not (tmp_path / "vault" / "kek.sealed").exists()

    site_with(tmp_path, test)
