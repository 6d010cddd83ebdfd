"""`schleuse switch start`: two persons start a system of which nobody knows whether it ran before a closing (RO-01)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.up import said
from schleuse.clock import utc_now
from schleuse.config import default_home, read_config
from schleuse.processes.control_starts import sign_start, start_book, start_order
from schleuse.processes.switching import COMMAND, open_switch


def start(
    name: str,
    *,
    operator: Operator,
    operator_key: KeyFile = None,
    yes: Annotated[bool, Parameter(name="--yes", negative=(), help="Sign; without, only the order is shown")] = False,
    home: Annotated[
        Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")
    ] = None,
) -> None:
    """Sign that a system that is not ours is started, of which nobody knows whether it ran before it was stopped.

    `control` starts it once a switch officer and a releaser have signed, two persons; a signature ends after 4 hours.

    Parameters
    ----------
    name
        Of the system, as `control.external` has it and `switch show` names it.
    """
    config = read_config(home or default_home())
    order = start_order(config, open_switch(config, COMMAND), name, utc_now())
    print(
        said(
            f"{name} ({order.scope}) starten, geöffnet mit Epoche {order.epoch}",
            f"start {name} ({order.scope}), opened by epoch {order.epoch}",
        )
    )
    if not yes:
        print(said("--yes unterschreibt", "--yes signs it"))
        return
    book = start_book(config)
    signers = sign_start(config, book, order, operator, operator_key, utc_now())
    print(said(f"unterschrieben: {', '.join(signers)}", f"signed: {', '.join(signers)}"))
    if book.suffices(order, utc_now()):
        print(said("die Rolle control startet es", "the control role starts it"))
    else:
        print(said("es fehlt eine zweite Person", "a second person is missing"))
