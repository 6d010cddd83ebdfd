"""Conservation over both stores: the mail store's own books, and the eAU store's decisions beside them (HD-21).

A decision is durable in the eAU store before the mail store is told. So the mail store is read first: whatever is
finished there must have a decision, and the same one; what is decided and still open there heals by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from schleuse.config import Config
from schleuse.eau.store import open_store
from schleuse.holding.reconcile import SHOWN, Reconciliation, reconcile
from schleuse.holding.states import WAITING, State
from schleuse.identifiers import IK
from schleuse.kim.store import read_books, read_deliveries


def check_conservation(config: Config) -> Reconciliation:
    """Read everything once and compare. Raises UnavailableError, CorruptError."""
    result = reconcile(read_books(config.kim_database, config.kim.spool))
    deliveries = read_deliveries(config.kim_database, [insurer.address.lower() for insurer in config.insurers])
    findings: list[str] = []
    remarks: list[str] = []
    store = open_store(config.eau_database)
    try:
        for insurer in config.insurers:
            account, ik = insurer.address.lower(), IK(insurer.ik)
            decided = store.audit.decisions(ik)
            findings += compare(account, deliveries[account], decided)
            findings += [f"{account}: {number} {what}" for what, number in store.audit.contradictions(ik).items()]
            remarks += undecided(account, deliveries[account], decided)
    finally:
        store.close()
    return replace(result, findings=(*result.findings, *findings), remarks=(*result.remarks, *remarks))


def compare(account: str, delivered: Mapping[int, State], decided: Mapping[int, State]) -> Iterator[str]:
    """What the mail store says against what the eAU store decided, delivery by delivery."""
    differing = [
        id
        for id, state in delivered.items()
        if id in decided and state not in WAITING and state != decided[id] and not _is_confirmed(state, decided[id])
    ]
    if differing:
        yield f"{account}: the two stores tell different things of {_named(differing)}"
    unheard = [
        id for id, state in delivered.items() if state in (State.RETURNED, State.CONFIRMED) and id not in decided
    ]
    if unheard:
        yield f"{account}: finished in the mail store without a decision in the eAU store: {_named(unheard)}"
    unknown = [id for id in decided if id not in delivered]
    if unknown:
        yield f"{account}: decided in the eAU store and unknown to the mail store: {_named(unknown)}"


def undecided(account: str, delivered: Mapping[int, State], decided: Mapping[int, State]) -> Iterator[str]:
    """Mails that left the mailbox by another way than the eAU role: an insurer's own POP3 client deleted them."""
    taken = [id for id, state in delivered.items() if state is State.DELIVERED and id not in decided]
    if taken:
        yield f"{account}: taken out by POP3, so not filed here: {_named(taken)}"


def _is_confirmed(state: State, decided: State) -> bool:
    return state is State.CONFIRMED and decided is State.DELIVERED


def _named(ids: list[int]) -> str:
    return f"{len(ids)}: " + ", ".join(str(id) for id in sorted(ids)[:SHOWN]) + (", …" if len(ids) > SHOWN else "")
