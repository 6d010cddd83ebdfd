"""`check-config` finds what the roles would find later, when mail already waits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from schleuse.clock import utc_now
from schleuse.config import read_config
from schleuse.environment import Environment
from schleuse.identifiers import IK
from schleuse.kim.store import open_mail_store
from schleuse.processes.home import NewHome, NewInsurer, NewPractice, SameNameTwiceError, create_home
from schleuse.processes.kim import Deliveries, load_accounts, readiness, store_settings
from schleuse.processes.rehearsal import rehearse

KASSE = NewInsurer(IK("109900011"), "Kasse", "kasse")
PRAXIS = NewPractice("praxis", "Praxis")
KEYS = Path("insurers/109900011")
ROUTE = '[[kim.routes]]\nhost = "mail.example"\n'


def new_home(*insurers: NewInsurer) -> NewHome:
    return NewHome(Environment.TEST, "kim.test.kim.telematik-test", insurers or [KASSE], [PRAXIS], 20100)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("good") / "home"
    create_home(home, new_home(), utc_now())
    return home


@pytest.fixture
def home(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "home"))


def test_a_new_home_has_nothing_to_complain_about(home: Path) -> None:
    assert rehearse(read_config(home)) == []


def put(name: str | Path, content: bytes) -> Callable[[Path], object]:
    return lambda home: (home / name).write_bytes(content)


def add(text: str) -> Callable[[Path], object]:
    return lambda home: (home / "schleuse.toml").write_text((home / "schleuse.toml").read_text() + text)


def another_key(home: Path) -> None:
    shutil.copy(home / KEYS / "osig.key", home / KEYS / "enc.key")


def relay_ca_that_is_none(home: Path) -> None:
    file = home / "schleuse.toml"
    file.write_text(file.read_text().replace("[kim]", '[kim]\nsmtp_relay_client_ca = "directory.json"'))


def odd_address(home: Path) -> None:
    file = home / "schleuse.toml"
    file.write_text(file.read_text().replace("praxis@praxis", "pra xis@praxis"))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (put("pki/tls.key", b"x"), "kim.tls: "),
        (put("pki/ca.pem", b"x"), "eau.trust: "),
        (put("directory.json", b"{"), "kim.directory: "),
        (put("practices/praxis/password.argon2", b"geheim"), "accounts praxis@praxis.kim.telematik-test: "),
        (put(KEYS / "feed.pub.pem", b"no key"), "insurers.feed_clients: "),
        (put(KEYS / "osig.pem", b"no certificate"), "insurers 109900011: the certificate file osig.pem"),
        (another_key, "insurers 109900011: the key file enc.key is not that of"),
        (relay_ca_that_is_none, "kim.smtp_relay_client_ca: "),
        (odd_address, "accounts pra xis@praxis.kim.telematik-test: "),
        (add(ROUTE + 'tls = "none"\n'), "kim.routes: the route to mail.example is without TLS"),
        (add(ROUTE + 'user = "u"\n'), "kim.routes: the route to mail.example needs both of user and password_file"),
        (add(ROUTE + ROUTE), "kim.routes: two routes lead to *"),
    ],
)
def test_each_file_that_a_role_cannot_use_is_named(home: Path, spoil: Callable[[Path], object], expected: str) -> None:
    spoil(home)
    assert any(line.startswith(expected) for line in rehearse(read_config(home)))


def test_key_files_that_the_vault_has_taken_over_and_erased_are_no_mistake(home: Path) -> None:
    for key in ("enc.key", "osig.key"):
        (home / KEYS / key).unlink()
    assert rehearse(read_config(home)) == []


def test_all_mistakes_are_found_at_once(home: Path) -> None:
    put(KEYS / "feed.pub.pem", b"no key")(home)
    another_key(home)
    assert len(rehearse(read_config(home))) == 2


def test_two_insurers_with_one_name_leave_no_half_made_home(tmp_path: Path) -> None:
    with pytest.raises(SameNameTwiceError):
        create_home(tmp_path / "home", new_home(KASSE, NewInsurer(IK("109900022"), "Andere", "kasse")), utc_now())
    assert not (tmp_path / "home").exists()


def test_the_mail_role_is_not_ready_without_its_database_and_counts_what_it_can(home: Path) -> None:
    config = read_config(home)
    accounts = load_accounts(config)
    with open_mail_store(store_settings(config), accounts.account_of, background=False) as store:
        assert readiness(config, store) is True
        for file in config.home.glob("kim.sqlite*"):
            file.write_bytes(b"no database any more" * 10_000)
        answer = readiness(config, store)
        assert isinstance(answer, str)
        assert "database" in answer
        (family,) = Deliveries(store, accounts).collect()
        assert family.samples == []
