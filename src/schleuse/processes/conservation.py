"""Conservation over both stores: the mail store's own books, and the eAU store's decisions beside them (HD-21).

A decision is durable in the eAU store before the mail store is told, so the mail store is read first: whatever is
finished there must have a decision, and the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from schleuse.config import Config
from schleuse.eau.store import EauStore, open_store
from schleuse.holding.reconcile import Reconciliation, reconcile
from schleuse.holding.states import State
from schleuse.identifiers import IK
from schleuse.kim.store import read_books

#: What the mail store may say of a delivery that the eAU store has decided; the waiting states heal by themselves.
_ALLOWED: Mapping[State, frozenset[State]] = {
    State.DELIVERED: frozenset({State.DELIVERED, State.CONFIRMED}),
    State.RETURNED: frozenset({State.RETURNED}),
    State.QUARANTINED: frozenset({State.QUARANTINED, State.HELD, State.RELEASING}),
}


def check_conservation(config: Config) -> Reconciliation:
    """Read everything once and compare. Raises UnavailableError, CorruptError."""
    result = reconcile(read_books(config.kim_database, config.kim.spool))
    store = open_store(config.eau_database)
    try:
        findings = [
            finding
            for insurer in config.insurers
            for finding in _compare(IK(insurer.ik), insurer.address.lower(), result, store)
        ]
    finally:
        store.close()
    return replace(result, findings=(*result.findings, *findings))


def _compare(ik: IK, account: str, result: Reconciliation, store: EauStore) -> Iterator[str]:
    states = next((one.states for one in result.accounts if one.name == account), {})
    decided = store.outcomes(ik)
    for state, allowed in _ALLOWED.items():
        finished = sum(states.get(one, 0) for one in allowed - {State.HELD, State.RELEASING})
        if finished > decided.get(state, 0):
            yield (
                f"{account}: {finished} deliveries are {state.value} in the mail store, but the eAU store has"
                f" decided only {decided.get(state, 0)} so"
            )
