"""More than a budget allows, for a while, because two persons say so (journal.md § 14.4).

Their orders are judged here, the entry BUDGET_OVERRIDE with both is witnessed, and only then the limits are raised: of
the role at the insurer, and of all actors of the insurer together. The platform's limit and the journal's own limit of
key shares stay. It ends by itself, by an operator alone, and with the process; a restart brings nothing back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.contracts import Level
from schleuse.journal.entry import Kind, Purpose
from schleuse.journal.opening import Json
from schleuse.vault.actors import Caller, Operation, require
from schleuse.vault.askers import Askers
from schleuse.vault.budgets import DEFAULTS
from schleuse.vault.contracts import BadTokenError, OverrideRefusedError, VaultUnavailableError
from schleuse.vault.core import Actor, Core
from schleuse.vault.tokens import END_OVERRIDE, LEEWAY, Claims, override_order

log = structlog.get_logger()

MAX_HOURS = 24
MAX_REASON = 500  #: characters


@dataclass(frozen=True, slots=True)
class More:
    """What is wanted. role: "eau" or "insurer". releases: an hour, and as many subjects. reason: stands in the opening
    of the entry only.
    """

    role: str
    releases: int
    hours: int
    reason: str


class Overrides:
    """keys, audience: see `Askers`. people: whose credential it is, by operator, where one person has several."""

    def __init__(
        self,
        core: Core,
        insurers: Collection[IK],
        keys: Mapping[tuple[str, str], Ed25519PublicKey],
        audience: str,
        people: Mapping[str, str] | None = None,
    ) -> None:
        self._core = core
        self._insurers = insurers
        self._keys = keys
        self._people = people or {}
        self._askers = Askers(core, keys, audience)
        self._ordered = asyncio.Lock()
        self._ended: Counter[tuple[IK, str]] = Counter()
        self._used: dict[tuple[str, str], datetime] = {}

    async def begin(self, caller: Caller, ik: IK, more: More, tokens: Sequence[str]) -> dict[str, Json]:
        """Raise the limits, once the entry is witnessed; what is in force then. It replaces one of the same role.

        tokens: orders of two different persons for exactly this, each good for one override. Raises BadTokenError,
        OverrideRefusedError, ScopeClosedError, VaultUnavailableError: then nothing was raised.
        """
        require(caller, Operation.OVERRIDE)
        self._check(ik, more.role)
        self._core.gate.order(ik)
        async with self._ordered:
            ended, claims = self._ended[ik, more.role], await self._judged(ik, more, tokens)
            self._check_size(ik, more)
            until = self._core.now() + timedelta(hours=more.hours)
            await self._note(ik, more, claims)
            self._core.gate.order(ik)
            if self._ended[ik, more.role] != ended:
                raise OverrideRefusedError("an operator ended it before it began")
            self._used |= {(one.name, one.id): one.expires + LEEWAY for one in claims}
            self._core.raised.begin(ik, more.role, more.releases, until)
        log.warning("vault.override-began", ik=ik.value, role=more.role, releases=more.releases, hours=more.hours)
        return {"ik": ik.value, "role": more.role, "releases": more.releases, "until": until.isoformat()}

    async def end(self, caller: Caller, ik: IK, role: str, token: str) -> bool:
        """The configured limits hold again, at once; then the entry POLICY_CHANGED. False if nothing was raised.

        token: of one operator. Raises BadTokenError; VaultUnavailableError: it has ended, and the entry is in doubt.
        """
        require(caller, Operation.OVERRIDE)
        self._check(ik, role)
        claims = await self._askers.judged(ik, token, "override", Purpose.OPERATION, [(END_OVERRIDE, role)])
        self._ended[ik, role] += 1  # one whose entry still waits for its witnesses does not begin
        was = self._core.raised.end(ik, role)
        log.warning("vault.override-ended", ik=ik.value, role=role, was_in_force=was)
        try:
            await self._write(ik, Kind.POLICY_CHANGED, [claims], {"act": "end-override", "role": role}, Level.DURABLE)
        except Error as error:
            raise VaultUnavailableError(f"the limits are as configured again; its entry waits ({error})") from error
        return was

    def _check(self, ik: IK, role: str) -> None:
        if ik not in self._insurers:
            raise OverrideRefusedError(f"the vault knows no insurer {ik}")
        if role not in DEFAULTS:
            raise OverrideRefusedError(f"budgets are of {' and '.join(DEFAULTS)}; found another role")

    def _check_size(self, ik: IK, more: More) -> None:
        if not 1 <= more.hours <= MAX_HOURS:
            raise OverrideRefusedError(f"an override lasts 1 to {MAX_HOURS} hours; found {more.hours}")
        if not (more.reason.strip() and len(more.reason) <= MAX_REASON and more.reason.isprintable()):
            raise OverrideRefusedError(f"a reason is one line of 1 to {MAX_REASON} characters")
        now, most = self._core.limits(more.role, ik), self._core.platform
        if more.releases <= min(now.releases_per_hour, now.subjects_per_hour):
            raise OverrideRefusedError(f"{more.role} at {ik} may open as much as {more.releases} an hour already")
        if most is not None and more.releases > most.releases_per_hour:
            raise OverrideRefusedError(
                f"all insurers together may open {most.releases_per_hour} an hour (vault.releases_per_hour), and no "
                "override raises that"
            )

    async def _judged(self, ik: IK, more: More, tokens: Sequence[str]) -> list[Claims]:
        """Two persons' orders. Raises BadTokenError; the attempt leaves an entry."""
        what = override_order(more.role, more.releases, more.hours, more.reason)
        found = [await self._askers.judged(ik, one, "override", Purpose.OPERATION, [what]) for one in tokens[:2]]
        now = self._core.now()
        self._used = {key: expires for key, expires in self._used.items() if expires > now}
        if any((one.name, one.id) in self._used for one in found):
            refusal = "an order is good for one override, and this one was used; sign again"
        elif len(tokens) != 2 or self._are_one_person(found):
            refusal = "an override needs the orders of two different persons, and no more"
        else:
            return found
        name = f"operator {found[0].name}" if found else "unknown"
        await self._core.deny(ik, Actor("insurer", name), Purpose.OPERATION)
        raise BadTokenError(refusal)

    def _are_one_person(self, found: Sequence[Claims]) -> bool:
        """One key is one person, whatever its names (T-12)."""
        people = {self._people.get(one.name, one.name) for one in found}
        return len(people) < 2 or len({self._keys[one.name, ""].public_bytes_raw() for one in found}) < 2

    async def _note(self, ik: IK, more: More, claims: Sequence[Claims]) -> None:
        detail: dict[str, Json] = {
            "act": "override",
            "role": more.role,
            "releases": more.releases,
            "hours": more.hours,
            "reason": more.reason,
            "second_actor": f"operator {claims[1].name}",
        }
        await self._write(ik, Kind.BUDGET_OVERRIDE, claims, detail, Level.WITNESSED)

    async def _write(self, ik: IK, kind: Kind, claims: Sequence[Claims], detail: dict[str, Json], level: Level) -> None:
        names, tokens = [f"operator {one.name}" for one in claims], [one.id for one in claims]
        told: dict[str, Json] = {**detail, "tokens": [*tokens]}
        entry, opening = await self._core.order_entry(ik, kind, names, f"budget:{detail['role']}", told)
        # First what makes it readable: the journal may have the entry though nobody hears of it.
        await self._core.writer.keep(opening)
        await self._core.write(ik, [entry], level)
