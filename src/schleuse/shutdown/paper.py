"""The offline procedure of one home on one page of paper, for the safe (SW-05, T-04). Pure.

Closing needs this machine, the program and one key; not the network, not the identity provider, nothing that runs. What
is left when not even the program starts is at the end of the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

WIDTH, HEIGHT = 90, 60  #: A4 in a fixed font of 10 points
MOST_OPERATORS, MOST_INSURERS = 10, 8
_RULE = "─" * WIDTH


@dataclass(frozen=True, slots=True)
class PaperOperator:
    """roles: as configured. fingerprint: of the public key."""

    name: str
    roles: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PaperFacts:
    """What the page is made of. program: how it is called, with absolute paths. insurers: IK and name.

    epoch, digest: of the last command of the log, 0 and "" if there is none.
    """

    home: Path
    hostname: str
    program: str
    operators: Sequence[PaperOperator]
    insurers: Sequence[tuple[str, str]]
    epoch: int
    digest: str
    made_at: datetime


def fingerprint(key: bytes) -> str:
    """The first 80 bits of a digest, in groups that a person can compare. key: 32 octets of a public key, hashed."""
    text = key.hex()[:20]
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def paper(facts: PaperFacts) -> str:
    """At most HEIGHT lines of WIDTH characters, in German."""
    lines = [
        _RULE,
        f"SCHLEUSE · NOTABSCHALTUNG OHNE NETZ · {facts.hostname}"[:WIDTH],
        _RULE,
        f"Stand {facts.made_at:%d.%m.%Y %H:%M} UTC · Epoche {facts.epoch} · SHA-256 des letzten Befehls:",
        f"  {facts.digest or 'noch kein Befehl'}",
        "Zuschalten kann diese Seite nicht: dafür braucht es zwei Personen und einen Plan.",
        "",
        "1  AN DIESE MASCHINE (Konsole). Vor allen Befehlen; ↩ heißt: ohne Leerzeichen weiter.",
        *_command(f"export SCHLEUSE_HOME={facts.home}"),
        *_command(f's() {{ {facts.program} "$@"; }}'),
        *_command("K=/Pfad/zu/NAME.key    # Schlüssel der Person, auf ihrem Datenträger"),
        "2  ABSCHALTEN. Eine Person genügt, nichts muss laufen, es wird nicht nachgefragt:",
        *_command("s switch hold all --reason security_hold --operator NAME --operator-key $K"),
        "   all = alles außer Auskunft und Kontakt. Statt all kleiner, auch mehrere:",
        "     eau  kim  keys  eau/IK  'eau_intake/*/process'  kim_mail/-/accept  '*/*/maintenance'",
        "   hold  = annehmen und aufbewahren, nichts öffnen, nichts ausliefern (erste Wahl)",
        "   defer = nicht annehmen, der Absender versucht es selbst wieder;  close = gar nichts",
        "   reason: security_hold dependency_off tenant_request authority_order drill",
        "3  WIRKT ES? Jeder Prozess meldet, dass er die Epoche gesehen hat und ruhig ist.",
        "   „angeordnet, nicht bewiesen“ heißt: noch nicht aus.",
        *_command("s switch show; s closure prove"),
        "4  BEFEHL VON EINEM ANDEREN RECHNER (dort: switch sign …, hier die Datei einlesen):",
        *_command("s switch import /Pfad/befehl.json"),
        "5  DAS PROGRAMM STARTET NICHT: Prozesse beenden. Absender versuchen es später selbst.",
        *_command("systemctl stop schleuse.target 'schleuse@*'    # als root"),
        "   ohne systemd, und für Wartungssitzungen (ihre Nummern stehen in den Dateien):",
        *_command("pkill -f 'schleuse up'; pkill -9 -f 'schleuse run'"),
        *_command('cd "$SCHLEUSE_HOME/run/maintenance" && cat *.json    # kill -9 -- -NUMMER'),
        "   Nichts löschen, nichts neu aufsetzen (SW-12). Vor dem nächsten Start: Punkt 2.",
        _RULE,
        *_operators(facts.operators),
        *_insurers(facts.insurers),
        _RULE,
        "Begonnen (UTC): ____________________  Epoche: ________  Vorfall: _________________________",
        "",
        "Name: ______________________________  Unterschrift: ______________________________________",
        _RULE,
    ]
    return "\n".join(lines) + "\n"


def _command(text: str) -> Iterator[str]:
    """Indented, and continued as a shell reads it; a path that is longer than a line has a sign of its own."""
    room, line = WIDTH - 8, ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if len(joined) <= room:
            line = joined
            continue
        if line and len(word) <= room:
            yield f"     {line} \\"
            line = word
            continue
        while len(joined) > room:
            yield f"     {joined[:room]}↩"
            joined = joined[room:]
        line = joined
    yield f"     {line}"


def _operators(operators: Sequence[PaperOperator]) -> Iterator[str]:
    yield "PERSONEN (Name, Fingerabdruck des Schlüssels, Rollen):"
    for one in operators[:MOST_OPERATORS]:
        yield f"  {one.name[:20]:20}  {one.fingerprint:24}  {', '.join(one.roles)}"[:WIDTH].rstrip()
    yield from _rest(len(operators) - MOST_OPERATORS, "operator list")


def _insurers(insurers: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield "KASSEN (IK, Name):"
    shown = [f"{ik}  {name[:30]:30}" for ik, name in insurers[:MOST_INSURERS]]
    for pair in _pairs(shown):
        yield f"  {'  '.join(pair)}"[:WIDTH].rstrip()
    yield from _rest(len(insurers) - MOST_INSURERS, "switch show")


def _pairs(shown: Sequence[str]) -> Iterable[Sequence[str]]:
    return (shown[at : at + 2] for at in range(0, len(shown), 2))


def _rest(count: int, command: str) -> Iterator[str]:
    if count > 0:
        yield f"  … und {count} weitere: {command}"
