"""May this stage be entered? Each gate is judged from evidence that ages (incident.md § 9.3). Pure.

Missing data is inconclusive and never passes (RS-01, RS-04); a pass that is too old has expired (RS-02); a waiver
needs two persons, a reason and an end, and is shown for ever (RS-03). What our program can look at itself it looks at;
for the other kinds somebody signs a document about what was found, and the gate says that it rests on his word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from schleuse.restart.plan import GateKind
from schleuse.said import Said


class Result(StrEnum):
    """Values of appendix A."""

    PASS = "pass"  # noqa: S105  not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    EXPIRED = "expired"
    WAIVED = "waived"


#: How long a result holds: § 9.3, last column. None: until something newer says otherwise.
VALIDITY: Mapping[GateKind, timedelta | None] = {
    GateKind.EVID: None,
    GateKind.CRED: timedelta(days=30),
    GateKind.BASE: None,
    GateKind.DATA: timedelta(minutes=15),
    GateKind.WATCH: timedelta(hours=24),
    GateKind.TECH: timedelta(minutes=15),
    GateKind.OFF: None,
    GateKind.LEGAL: None,
    GateKind.PART: None,
    GateKind.HUMAN: timedelta(hours=4),
    GateKind.TIME: None,
}
#: What the platform looks at itself, again and again. A rehearsal of a closing (OFF) is started by people.
MEASURED = frozenset({GateKind.DATA, GateKind.WATCH, GateKind.TECH, GateKind.OFF})
#: Whose signed document other kinds need; the only kinds that people answer themselves are HUMAN and PART (RS-05).
DOCUMENTED = frozenset({GateKind.EVID, GateKind.CRED, GateKind.BASE, GateKind.LEGAL, GateKind.PART})
#: Sources that never satisfy EVID: a host that runs again is not a host that is clean (RS-13).
NOT_CLEAN = frozenset({"restore", "decryption", "reinstallation"})
NOT_REHEARSED = Said(
    "in dieser Stufe wurde noch kein Schließen geübt und bewiesen; `schleuse drill plan` bereitet es vor",
    "no closing was rehearsed and proven in this stage yet; `schleuse drill plan` prepares one",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a gate rests on. plan: id of the plan. at: when it was found. source: what looked, or who answers for it.

    custodian: name of the operator who signed a document; "" for what the platform measured. digest: SHA-256 of the
    document or of all that was observed. text: one sentence, without personal data. until: when it ends, if that is
    earlier than its kind's validity.
    """

    kind: GateKind
    plan: str
    result: Result
    at: datetime
    source: str
    text: Said
    digest: str = ""
    custodian: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Waiver:
    """Two persons let a gate be, until a day (RS-03). by: their names."""

    kind: GateKind
    until: datetime
    reason: str
    by: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """until: when the result ends, None if it does not by itself. reason: a sentence for whoever has to act."""

    kind: GateKind
    result: Result
    reason: Said
    until: datetime | None = None

    @property
    def lets_in(self) -> bool:
        """Whether the stage may be entered as far as this gate is concerned."""
        return self.result in (Result.PASS, Result.WAIVED)


def judge(kind: GateKind, evidence: Iterable[Evidence], waivers: Iterable[Waiver], now: datetime) -> Judged:
    """From the newest evidence of this kind. HUMAN is judged from signatures, TIME from the soak: see `progress`."""
    waiver = next((one for one in waivers if one.kind is kind and now < one.until), None)
    if waiver is not None:
        one, other = waiver.by
        reason = Said(
            f"Verzicht von {one} und {other}: {waiver.reason}", f"waived by {one} and {other}: {waiver.reason}"
        )
        return Judged(kind, Result.WAIVED, reason, waiver.until)
    usable = [one for one in evidence if one.kind is kind and not _says_nothing(one)]
    newest = max(usable, key=lambda one: one.at, default=None)
    if newest is None:
        return Judged(kind, Result.INCONCLUSIVE, _missing(kind))
    if newest.result is not Result.PASS:
        return Judged(kind, newest.result, newest.text)
    validity = VALIDITY[kind]
    ends = [one for one in (newest.until, None if validity is None else newest.at + validity) if one is not None]
    until = min(ends, default=None)
    if until is not None and now >= until:
        last = f"{newest.at:%Y-%m-%d %H:%M:%S}"
        return Judged(kind, Result.EXPIRED, Said(f"zuletzt erfüllt am {last}", f"the last pass is of {last}"), until)
    return Judged(kind, Result.PASS, _rests_on(newest), until)


def _rests_on(newest: Evidence) -> Said:
    if not newest.custodian:
        return newest.text
    de, en = newest.text
    return Said(f"{de} (Dokument von {newest.custodian})", f"{en} (document of {newest.custodian})")


def _says_nothing(one: Evidence) -> bool:
    if one.kind is GateKind.EVID and one.source in NOT_CLEAN:
        return True
    return one.kind in DOCUMENTED and not one.custodian


def _missing(kind: GateKind) -> Said:
    if kind in DOCUMENTED:
        return Said(
            "noch kein unterschriebenes Dokument; `schleuse restart evidence` nimmt eines an",
            "no signed document yet; `schleuse restart evidence` takes one",
        )
    if kind is GateKind.OFF:
        return NOT_REHEARSED
    return Said("noch nicht gemessen", "nothing was measured yet")
