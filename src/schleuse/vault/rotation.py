"""New generations of the key encryption key, while the vault works (journal.md § 17).

An operator orders the next generation, which wraps from then on. A sweep brings what older ones wrap under it, in
batches; what the store and `kek.sealed` say is all that it knows, so a vault that was killed goes on at its next start.
When nothing is left, an operator orders the end of an older generation.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.entry import Kind, Purpose
from schleuse.journal.opening import Json
from schleuse.vault.actors import Caller, Operation, require
from schleuse.vault.askers import Askers
from schleuse.vault.contracts import BadTokenError, RotationRefusedError, SealBrokenError
from schleuse.vault.core import Core
from schleuse.vault.sk1 import rewrap
from schleuse.vault.store import KeyRecord

log = structlog.get_logger()

BATCH = 500  #: subject keys between two transactions: others wait for the store as long
AGAIN_S = 60.0  #: until the sweep tries again what it could not do
_SWEEP = "vault"


class Rotation:
    """insurers: all that are configured; each has an entry of every order. keys, audience: see `Askers`."""

    def __init__(
        self,
        core: Core,
        insurers: Sequence[IK],
        keys: Mapping[tuple[str, str], Ed25519PublicKey],
        audience: str,
        *,
        batch: int = BATCH,
    ) -> None:
        self._core = core
        self._insurers = insurers
        self._askers = Askers(core, keys, audience)
        self._batch = batch
        self._made_here = 0
        self._ordered = asyncio.Lock()
        self._wake = asyncio.Event()

    async def status(self, caller: Caller) -> dict[str, Json]:
        """Generations, how many subject keys older ones wrap, and whether the vault ought to be started again first."""
        require(caller, Operation.STATUS)
        kek = self._core.keyring.kek
        left = await asyncio.to_thread(self._left)
        return {"generations": [*kek.generations], "left": left, "restart_first": kek.id == self._made_here}

    async def renew(self, caller: Caller, tokens: Mapping[str, str], generation: int) -> dict[str, Json]:
        """Make this generation, unless it is the newest already. tokens: an operator's order for each insurer, by IK.

        An entry ADMINISTRATION in each insurer's log comes first. Raises BadTokenError, RotationRefusedError.
        """
        require(caller, Operation.ROTATE)
        async with self._ordered:
            kek = self._core.keyring.kek
            operator = await self._judged(tokens, ("ROTATE", str(generation)))
            if generation not in (kek.id, kek.id + 1):
                raise RotationRefusedError(f"the newest generation is {kek.id}; the next is {kek.id + 1}")
            if generation == kek.id + 1:
                await self._note_order(operator, "rotate", generation)
                await asyncio.to_thread(kek.renew)
                self._made_here = kek.id
                log.info("vault.generation-made", generation=kek.id)
        self._wake.set()
        return await self.status(caller)

    async def retire(self, caller: Caller, tokens: Mapping[str, str], generation: int) -> dict[str, Json]:
        """Destroy an older generation that wraps nothing any more. The rest as `renew`."""
        require(caller, Operation.ROTATE)
        async with self._ordered:
            kek = self._core.keyring.kek
            operator = await self._judged(tokens, ("RETIRE", str(generation)))
            if generation == kek.id or generation not in kek.generations:
                raise RotationRefusedError(f"{generation} is not an older generation of {list(kek.generations)}")
            if kek.id == self._made_here:
                # A batch that began under the old generation may still be on its way into the store.
                raise RotationRefusedError("start the vault again first: work that began before may still be under way")
            if left := await asyncio.to_thread(self._left):
                raise RotationRefusedError(f"older generations still wrap {left} keys; the vault is at it")
            await self._note_order(operator, "retire", generation)
            await asyncio.to_thread(kek.destroy, generation)
            log.info("vault.generation-destroyed", generation=generation)
        return await self.status(caller)

    async def keep(self) -> None:
        """Sweep for ever: at the start, after each order, and again while something could not be done."""
        while True:
            self._wake.clear()
            done = False
            try:
                done = await self.sweep()
            except Error as error:
                log.warning("vault.sweep-waits", code=error.code, reason=str(error))
            try:
                async with asyncio.timeout(None if done else AGAIN_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> bool:
        """Bring everything under the newest generation; whether all could be.

        An entry KEY_ROTATED with the number of keys precedes each batch: it explains what the token counts (§ 14.5).
        """
        core, newest = self._core, self._core.keyring.kek.id
        if not await asyncio.to_thread(self._left):
            return True
        await asyncio.to_thread(core.keyring.renew_tenants)
        done, after = 0, (b"", 0)
        while batch := await asyncio.to_thread(core.store.keys_below, newest, self._batch, after):
            after = batch[-1].subject, batch[-1].version
            for ik in dict.fromkeys(one.ik for one in batch):
                done += await self._rewrap(ik, [one for one in batch if one.ik == ik], newest)
        left = await asyncio.to_thread(self._left)
        (log.error if left else log.info)("vault.sweep-ended", generation=newest, keys=done, left=left)
        return not left

    async def _rewrap(self, ik: IK, keys: Sequence[KeyRecord], generation: int) -> int:
        if ik not in self._insurers:  # without a log there is no entry, and without an entry nothing is unwrapped
            log.error("vault.sweep-stranger", ik=ik.value, keys=len(keys))
            return 0
        detail: dict[str, Json] = {"act": "re-wrap", "generation": generation}
        await self._note(ik, Kind.KEY_ROTATED, _SWEEP, detail, len(keys))
        return await asyncio.to_thread(self._rewrap_all, ik, keys)

    def _rewrap_all(self, ik: IK, keys: Sequence[KeyRecord]) -> int:
        replaced = []
        for one in keys:
            try:
                new = rewrap(self._core.keyring.kek, one.record, secrets.token_bytes(12))
            except SealBrokenError as error:  # it opens for nobody; the others go on, its generation stays
                log.error("vault.sweep-broken", ik=ik.value, code=error.code)
                continue
            if new is not None:
                replaced.append((one, new))
        self._core.store.replace_keys(replaced)
        return len(replaced)

    def _left(self) -> int:
        """Keys under older generations; an insurer's own counts as one, all together."""
        keyring = self._core.keyring
        if len(keyring.kek.generations) == 1:
            return 0
        return self._core.store.count_below(keyring.kek.id) + (not keyring.tenants_are_renewed())

    async def _judged(self, tokens: Mapping[str, str], what: tuple[str, str]) -> str:
        """Name of the operator whose orders these are, one for each insurer. Raises BadTokenError."""
        names = set()
        for ik in self._insurers:
            claims = await self._askers.judged(ik, tokens.get(ik.value, ""), "rotate", Purpose.OPERATION, [what])
            names.add(claims.name)
        if len(names) != 1:
            raise BadTokenError("expected the orders of one operator, one for each insurer")
        return names.pop()

    async def _note_order(self, operator: str, act: str, generation: int) -> None:
        for ik in self._insurers:
            await self._note(ik, Kind.ADMINISTRATION, f"operator {operator}", {"act": act, "generation": generation})

    async def _note(self, ik: IK, kind: Kind, name: str, detail: dict[str, Json], count: int | None = None) -> None:
        version = 0 if kind is Kind.KEY_ROTATED else None
        entry, opening = await self._core.order_entry(
            ik, kind, [name], "key encryption key", detail, count=count, version=version
        )
        await self._core.write(ik, [entry])
        await self._core.writer.keep(opening)
