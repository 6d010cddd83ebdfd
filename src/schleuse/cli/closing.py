"""What commands that stop something have in common: no damaged file of ours is in their way (SW-01, SW-05).

They do what they can, and say in the operator's language what is damaged, what was not done, and who mends it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from schleuse.cli.up import said
from schleuse.config import FILE_NAME, LAST, BadConfigError, Config, default_home, read_config, read_last_config
from schleuse.errors import Error


def config_for_closing(home: Path | None) -> Config:
    """The configuration, or what the roles read last where it is damaged, missing or of a newer version.

    Raises BadConfigError when that cannot be read either.
    """
    folder = home or default_home()
    try:
        return read_config(folder)
    except BadConfigError as damaged:
        try:
            config = read_last_config(folder)
        except BadConfigError:
            tell_damage(
                f"{FILE_NAME} und ihre letzte lesbare Fassung ({LAST}) sind nicht lesbar: so lässt sich hier nichts"
                " unterschreiben. Wer die Konfiguration pflegt, stellt sie aus der Sicherung wieder her; bis dahin gilt"
                " das Verfahren auf Papier (`switch paper`).",
                f"neither {FILE_NAME} nor the one that could be read last ({LAST}) can be read: nothing can be signed"
                " here. Whoever keeps the configuration restores it from a backup; until then the procedure on paper"
                " holds (`switch paper`).",
            )
            raise damaged from None
        tell_damage(
            f"{FILE_NAME} ist nicht lesbar ({damaged.mistakes[0]}). Geschlossen wird mit der Fassung, die zuletzt"
            f" lesbar war ({LAST}). Wer die Konfiguration pflegt, stellt sie wieder her;"
            " `schleuse check-config` prüft sie.",
            f"{FILE_NAME} cannot be read ({damaged.mistakes[0]}). What closes uses the one that could be read last"
            f" ({LAST}). Whoever keeps the configuration restores it; `schleuse check-config` checks it.",
        )
        return config


def tell_damage(de: str, en: str) -> None:
    """To the operator, beside what a machine may read."""
    print(f"schleuse: {said(de, en)}", file=sys.stderr)


def tell_undone(fault: Error, de: str, en: str) -> None:
    """What could not be done because of this fault, and what follows."""
    why = f"({fault.code}: {fault})"
    tell_damage(f"Nicht alles ist erledigt {why}. {de}", f"not all is done {why}. {en}")
