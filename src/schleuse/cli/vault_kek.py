"""`schleuse vault rotate|retire|init-hsm`: generations of the key encryption key (journal.md § 17)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from schleuse.cli.operator_key import KeyFile, Operator
from schleuse.cli.up import Home, german
from schleuse.cli.vault_orders import Json, Yes, client_of, order_of
from schleuse.config import Config, default_home, read_config
from schleuse.errors import RefusedError
from schleuse.identifiers import IK
from schleuse.processes.life import keep_private, only_instance


class NoHSMError(RefusedError):
    """No key is made in a token: none is configured, or the vault has keys that another key wraps."""

    code = "cli.no-hsm"


def rotate(
    *, operator: Operator, operator_key: KeyFile = None, yes: Yes = False, home: Home = None, json_output: Json = False
) -> None:
    """Make the next generation of the key encryption key; the vault brings all keys under it while it works."""
    config = read_config(home or default_home())
    with client_of(config) as client:
        state = client.generations()
        # An order that was cut off is repeated, not followed by another: while something is left, it is this one.
        generation = max(state["generations"]) + (not state["left"])
        if yes:
            state = client.rotate(generation, _orders(config, operator, operator_key, "ROTATE", generation))
    _print_generations(state, json_output)
    if not yes and not json_output:
        _print_plan(_ROTATE_DE if german() else _ROTATE, generation, operator)


def retire(
    generation: int,
    *,
    operator: Operator,
    operator_key: KeyFile = None,
    yes: Yes = False,
    home: Home = None,
    json_output: Json = False,
) -> None:
    """Destroy an older generation of the key encryption key that wraps nothing any more.

    Parameters
    ----------
    generation
        Its number.
    """
    config = read_config(home or default_home())
    with client_of(config) as client:
        state = client.generations()
        if yes:
            state = client.retire(generation, _orders(config, operator, operator_key, "RETIRE", generation))
    _print_generations(state, json_output)
    if not yes and not json_output:
        _print_plan(_RETIRE_DE if german() else _RETIRE, generation, operator)


def init_hsm(*, home: Home = None) -> None:
    """Make the first key encryption key in the token of vault.hsm, unless it is there. Run it as the vault's user."""
    from schleuse.vault.pkcs11 import create_key  # needs the extra `hsm`
    from schleuse.vault.store import open_vault_store

    config = read_config(home or default_home())
    if config.vault.hsm is None:
        raise NoHSMError("vault.hsm is not configured; it names module, token, PIN file and label of the key")
    keep_private()
    # Not while the role runs: two processes of one home would decide about one key.
    with only_instance(config.home, "vault"):
        store = open_vault_store(config.vault_database)
        try:
            if store.has_wrapped_records():
                raise NoHSMError(
                    f"{config.vault_database.rpartition('/')[2]} has keys that another key wraps; a new one would not"
                    " open them, so none is made"
                )
        finally:
            store.close()
        made = create_key(config.vault.hsm)
    if german():
        print("Schlüssel im Token angelegt" if made else "der Schlüssel ist schon im Token")
    else:
        print("key made in the token" if made else "the key is in the token already")


def _orders(config: Config, operator: str, key: Path | None, act: str, generation: int) -> dict[IK, str]:
    what = (act, str(generation))
    insurers = [IK(one.ik) for one in config.insurers]
    return {ik: order_of(config, ik, operator, key, "rotate", what) for ik in insurers}


def _print_generations(state: Mapping[str, Any], json_output: bool) -> None:
    if json_output:
        print(json.dumps(state))
        return
    de, numbers = german(), ", ".join(map(str, state["generations"]))
    print(f"Generationen: {numbers}" if de else f"generations: {numbers}")
    if state["left"]:
        print(f"noch umzupacken: {state['left']}" if de else f"still to be wrapped again: {state['left']}")
    elif len(state["generations"]) > 1:
        print("keine ältere verpackt noch etwas" if de else "no older one wraps anything any more")
        if state["restart_first"]:
            print("vor `retire` den Tresor neu starten" if de else "start the vault again before `retire`")


def _print_plan(lines: Sequence[str], generation: int, operator: str) -> None:
    for line in lines:
        Console().print(line.format(generation=generation, operator=operator), soft_wrap=True, highlight=False)


_ROTATE = (
    "--yes does it:",
    "  1. an entry in the name of {operator} in every insurer's journal",
    "  2. generation {generation} is made; it wraps from then on",
    "  3. in the background every key is wrapped again under it, an entry for each batch; nothing stops meanwhile",
    "Make a backup of the vault afterwards: one from before opens nothing that is filed from now on.",
)
_ROTATE_DE = (
    "--yes führt es aus:",
    "  1. ein Eintrag im Namen von {operator} im Journal jeder Kasse",
    "  2. Generation {generation} entsteht und verpackt von da an",
    "  3. im Hintergrund wird jeder Schlüssel neu verpackt, ein Eintrag je Stapel; nichts steht dabei still",
    "Danach den Tresor sichern: Eine Sicherung von vorher öffnet nichts, was ab jetzt abgelegt wird.",
)
_RETIRE = (
    "--yes does it: generation {generation} is destroyed, in the name of {operator}; what it wraps in old backups never"
    " opens again. The vault refuses while it wraps anything here.",
)
_RETIRE_DE = (
    "--yes führt es aus: Generation {generation} wird im Namen von {operator} vernichtet; was sie in alten Sicherungen"
    " verpackt, öffnet nie wieder. Der Tresor weigert sich, solange sie hier etwas verpackt.",
)
