"""What a Storno does, in whatever order it and its eAU arrive (eau.md § 11, HD-06).

A rejected eAU that comes again and is accepted then is not cancelled by a Storno that was refused before: code 105 told
the practice that it took no effect, so one that still wants to cancel sends a new Storno.
"""

from __future__ import annotations

from collections.abc import Sequence

from schleuse.eau.codes import Fault
from schleuse.eau.document import Facts, Kind
from schleuse.eau.outcome import (
    Again,
    DeliveredAgain,
    DocumentState,
    ForeignStorno,
    Known,
    Memory,
    Policy,
    Quarantine,
    Quarantined,
    StornoFiled,
    StornoPending,
)


def settle_storno(
    facts: Facts, practice: bytes | None, memory: Memory, policy: Policy
) -> StornoFiled | StornoPending | DeliveredAgain | Quarantined | Fault:
    """One row of the table in eau.md § 11. A Fault is one that has to be answered.

    practice: keyed pseudonym of the practice that sent the Storno.
    """
    target = memory.target
    if target is None or target.kind is not Kind.EAU:
        waiting = cancelling(practice, memory.stornos, policy)
        if waiting is not None:  # another Storno already waits for the same eAU
            return DeliveredAgain(waiting, Again.ALREADY_CANCELLED, facts)
        return StornoPending(facts)
    match target.state:
        case DocumentState.REJECTED:
            return Fault.STORNO_OF_REJECTED
        case DocumentState.CANCELLED:
            return DeliveredAgain(target, Again.ALREADY_CANCELLED, facts)
        case _:
            foreign = other_practice(practice, target.practice)
            if foreign and policy.foreign_storno is ForeignStorno.QUARANTINE:
                return Quarantined(Quarantine.FOREIGN_STORNO)
            return StornoFiled(facts, target, foreign)


def refused(memory: Memory) -> tuple[Known, ...]:
    """The waiting Storno that are refused with code 105 once this eAU is rejected, oldest first.

    memory: of the eAU. Under an id that a kept document has, nothing is rejected as far as a Storno is concerned.
    """
    if memory.same_id is not None and memory.same_id.state is not DocumentState.REJECTED:
        return ()
    return tuple(storno for storno in memory.stornos if storno.state is DocumentState.PENDING)


def cancelling(practice: bytes | None, stornos: Sequence[Known], policy: Policy) -> Known | None:
    """The oldest waiting Storno that may cancel an eAU of this practice, None if there is none."""
    return next(
        (
            storno
            for storno in stornos
            if storno.state is DocumentState.PENDING
            and not (policy.foreign_storno is ForeignStorno.QUARANTINE and other_practice(practice, storno.practice))
        ),
        None,
    )


def other_practice(one: bytes | None, other: bytes | None) -> bool:
    """Two practices that are known to differ; an unknown one accuses nobody."""
    return one is not None and other is not None and one != other
