"""The orders of the platform, typed: `schleuse NOUN VERB`. One file per noun, loaded when it is called.

What a command prints for people goes to stdout in German (English with SCHLEUSE_LANG=en) except the technical
messages of operators' tools, `--json` is for machines, and the exit code follows the kind of error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from cyclopts import App

from schleuse import __version__
from schleuse.errors import ConflictError, CorruptError, Error, MalformedError, RefusedError, UnavailableError

#: sysexits.h: data error, no permission, temporary failure, service unavailable, internal error.
EXIT_CODES: Mapping[type[Error], int] = {
    MalformedError: 65,
    RefusedError: 77,
    ConflictError: 75,
    UnavailableError: 69,
    CorruptError: 70,
}

app = App(name="schleuse", help="Exchange services of health insurers: held, not refused.", version=__version__)
app.command("schleuse.cli.up:up", name="up")
app.command("schleuse.cli.up:run", name="run")
app.command("schleuse.cli.init:init", name="init")
app.command("schleuse.cli.init:check_config", name="check-config")
app.command("schleuse.cli.practice:app", name="practice")
app.command("schleuse.cli.kim:app", name="kim")
app.command("schleuse.cli.eau:app", name="eau")
app.command("schleuse.cli.fhir:app", name="fhir")
app.command("schleuse.cli.hold:app", name="hold")
app.command("schleuse.cli.journal:app", name="journal")
app.command("schleuse.cli.vault:app", name="vault")
app.command("schleuse.cli.witness:app", name="witness")
app.command("schleuse.cli.closure:app", name="closure")
app.command("schleuse.cli.invariants:app", name="invariants")
app.command("schleuse.cli.drill:app", name="drill")
app.command("schleuse.cli.restart:app", name="restart")
app.command("schleuse.cli.switch:app", name="switch")
app.command("schleuse.cli.operator:app", name="operator")
app.command("schleuse.cli.maintenance:app", name="maintenance")


def exit_code(error: Error) -> int:
    """The exit code of an error's kind."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 70)


def main() -> None:
    """Run the command of sys.argv."""
    try:
        app()
    except Error as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"schleuse: {line}", file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
