"""`schleuse hold deferred`: a list to phone, or to write to (§ 6.5)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.cli.conftest import Shell

from schleuse.cli import EXIT_CODES
from schleuse.config import read_config
from schleuse.errors import UnavailableError
from schleuse.kim.deferred import Gathered
from schleuse.kim.store import open_mail_store
from schleuse.processes.kim import load_accounts, store_settings

PRACTICE = "praxis@fern.kim.telematik-test"


def deferred(home: Path, at: datetime, sender: str = PRACTICE) -> None:
    config = read_config(home)
    accounts = load_accounts(config)
    gathered = Gathered(accounts.account_of)
    gathered.note(sender, config.insurers[0].address, None, at)
    with open_mail_store(store_settings(config), accounts.account_of, background=False) as store:
        store.deferrals.write(gathered.take())


def test_who_never_came_back_is_listed(shell: Shell, home: Path) -> None:
    deferred(home, datetime.now(UTC) - timedelta(hours=5))
    ended = shell("hold", "deferred", "--home", str(home), "--json")
    line = json.loads(ended.out)
    assert (ended.code, line["sender"], line["attempts"]) == (0, PRACTICE, 1)
    assert PRACTICE in shell("hold", "deferred", "--home", str(home)).out


def test_who_was_deferred_long_ago_is_listed_when_asked_for(shell: Shell, home: Path) -> None:
    deferred(home, datetime.now(UTC) - timedelta(days=60))
    assert shell("hold", "deferred", "--home", str(home), "--json").out == ""
    assert PRACTICE in shell("hold", "deferred", "--home", str(home), "--since", "2020-01-01", "--json").out


def test_an_address_that_looks_like_markup_is_an_address(shell: Shell, home: Path) -> None:
    """A quoted local part may be anything; one sender must not take the list from whoever has to phone."""
    odd = '"[/red]"@fern.kim.telematik-test'
    deferred(home, datetime.now(UTC) - timedelta(hours=5), odd)
    ended = shell("hold", "deferred", "--home", str(home))
    assert ended.code == 0
    assert odd in ended.out


def test_a_store_that_is_not_there_is_no_empty_list(shell: Shell, home: Path) -> None:
    ended = shell("hold", "deferred", "--home", str(home))
    assert (ended.code, ended.out) == (EXIT_CODES[UnavailableError], "")
