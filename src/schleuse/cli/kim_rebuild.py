"""`schleuse kim rebuild`: the index of the mail store from its segments, after the database was lost."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from schleuse.config import default_home, read_config
from schleuse.journal.entry import Kind, Result
from schleuse.journal.opening import Json
from schleuse.kim.store import rebuild_index
from schleuse.processes.kim import load_accounts, store_settings
from schleuse.processes.life import keep_private, only_instance
from schleuse.processes.switch_orders import tell
from schleuse.processes.trail import PLATFORM


def rebuild(
    *,
    home: Annotated[
        Path | None, Parameter(help="Folder of configuration and data [default: the user's data folder]")
    ] = None,
) -> None:
    """Make the index of the mail store anew from its segments and marks, while the `kim` role stands still.

    What was finished stays finished, UIDLs stay the same, and mail whose index was lost is in its mailbox again. With
    PostgreSQL there is nothing to rebuild: restore its backup.
    """
    keep_private()
    config = read_config(home or default_home())
    with only_instance(config.home, "kim"):
        detail: dict[str, Json] = {"act": "kim.rebuild", "user": getpass.getuser()}
        tell(config, [PLATFORM], Kind.ADMINISTRATION, Result.GRANTED, "", detail)
        mails = rebuild_index(store_settings(config), load_accounts(config).account_of)
    print(f"{mails} mails")
