"""The words of the switch as operators read them, in German and English; the values themselves stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

from schleuse.scopes import ScopeState
from schleuse.switch.documents import Reason

#: What each state means to somebody who sends (§ 1.4).
STATES: Mapping[ScopeState, tuple[str, str]] = {
    ScopeState.OPEN: ("offen", "open"),
    ScopeState.LIMITED: ("begrenzt offen", "partly open"),
    ScopeState.DRAIN: ("läuft aus", "draining"),
    ScopeState.HOLD: ("gehalten: angenommen und aufbewahrt", "held: taken in and kept"),
    ScopeState.DEFER: ("vertagt: später erneut senden", "deferred: send again later"),
    ScopeState.CLOSED: ("geschlossen", "closed"),
}

REASONS: Mapping[Reason, tuple[str, str]] = {
    Reason.SECURITY_HOLD: ("Sicherheit", "security"),
    Reason.DEPENDENCY_OFF: ("Abhängigkeit aus", "a dependency is off"),
    Reason.TENANT_REQUEST: ("Wunsch der Kasse", "the insurer asked"),
    Reason.AUTHORITY_ORDER: ("Anordnung einer Behörde", "an authority ordered it"),
    Reason.DRILL: ("Übung", "drill"),
}


def state_text(state: ScopeState, german: bool) -> str:
    """In words."""
    return STATES[state][0 if german else 1]


def reason_text(reason: str, german: bool) -> str:
    """In words; what is no reason class stays as it is."""
    return REASONS[Reason(reason)][0 if german else 1] if reason in frozenset(Reason) else reason


def span_text(seconds: float, german: bool) -> str:
    """How long: "45 s", "12 min", "3 h 5 min", "2 Tage 4 h"."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} {'Tage' if german else 'days'} {whole % 86_400 // 3600} h"
