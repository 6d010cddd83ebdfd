"""`schleuse kim rebuild` on a real home whose index was lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kim.mails import content, put

from schleuse.cli import app
from schleuse.clock import utc_now
from schleuse.config import Config, read_config
from schleuse.environment import Environment
from schleuse.errors import ConflictError
from schleuse.holding.states import State
from schleuse.identifiers import IK
from schleuse.kim.store import MailStore, open_mail_store
from schleuse.kim.store.parts import IndexMissingError
from schleuse.mail.contracts import Mail, Recipient
from schleuse.processes.home import NewHome, NewInsurer, NewPractice, create_home
from schleuse.processes.kim import load_accounts, store_settings
from schleuse.processes.life import only_instance

KASSE = "eau@kasse.kim.telematik-test"
PRAXIS = "praxis@praxis.kim.telematik-test"


def opened(config: Config) -> MailStore:
    return open_mail_store(store_settings(config), load_accounts(config).account_of, background=False)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """Of a home with one mail, and without its index."""
    mask = os.umask(0o022)
    insurer, practice = NewInsurer(IK("109900011"), "Kasse", "kasse"), NewPractice("praxis", "Praxis")
    new = NewHome(Environment.TEST, "kim.kim.telematik-test", [insurer], [practice])
    create_home(tmp_path / "home", new, utc_now())
    config = read_config(tmp_path / "home")
    with opened(config) as store:
        put(store, Mail(PRAXIS, (Recipient(KASSE),), content(1), utc_now(), user=PRAXIS))
    for file in config.home.glob("kim.sqlite*"):
        file.unlink()
    yield config
    os.umask(mask)


def rebuild(config: Config) -> None:
    with pytest.raises(SystemExit) as left:
        app(["kim", "rebuild", "--home", str(config.home)])
    assert not left.value.code


def test_a_lost_index_is_made_anew_and_the_mail_is_in_its_mailbox(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(IndexMissingError):
        opened(config)
    rebuild(config)
    assert capsys.readouterr().out == "1 mails\n"
    with opened(config) as store:
        assert store.counts() == {KASSE: {State.HELD: 1}}
    (told,) = [path.read_text() for path in (config.home / "trail").glob("cli-*.jsonl")]
    assert "kim.rebuild" in told


def test_nobody_else_may_read_the_new_index(config: Config) -> None:
    rebuild(config)
    assert (config.home / "kim.sqlite").stat().st_mode & 0o077 == 0


def test_a_role_that_runs_is_not_disturbed(config: Config) -> None:
    with only_instance(config.home, "kim"), pytest.raises(ConflictError):
        app(["kim", "rebuild", "--home", str(config.home)])
    assert not (config.home / "kim.sqlite").exists()
