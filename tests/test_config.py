"""The configuration file: read whole, all mistakes at once, unknown keys are mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from schleuse.config import BadConfigError, host_and_port, missing_files, read_config
from schleuse.environment import Environment

MINIMAL = """
environment = "test"
hostname = "kim.demo.kim.telematik-test"

[kim]
tls = { certificate = "tls.pem", key = "tls.key" }

[eau]
feed_tls = { certificate = "tls.pem", key = "tls.key" }
trust = ["ca.pem"]
submit_ca = "ca.pem"
"""

INSURER = """
[[insurers]]
ik = "109000001"
name = "Beispielkasse"
address = "eau@kasse.kim.telematik-test"
encryption = [["enc.pem", "enc.key"]]
signature = ["sig.pem", "sig.key"]
store_key = "store.key"
password_file = "password"
"""


def written(folder: Path, text: str) -> Path:
    (folder / "schleuse.toml").write_text(text, encoding="utf-8")
    return folder


def test_paths_are_relative_to_the_folder_of_the_file(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, MINIMAL))
    assert config.kim.tls.key == tmp_path / "tls.key"
    assert config.eau.trust == (tmp_path / "ca.pem",)
    assert config.kim_database == f"sqlite:///{tmp_path}/kim.sqlite"


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = MINIMAL.replace('"test"', '"testing"').replace("[kim]", "[kim]\nsmpt_tls = 'x'\npop3_tls = 'nowhere'")
    with pytest.raises(BadConfigError) as caught:
        read_config(written(tmp_path, text))
    mistakes = "\n".join(caught.value.mistakes)
    assert len(caught.value.mistakes) == 3
    assert "environment" in mistakes
    assert "kim.smpt_tls: is not a key that this version knows" in mistakes
    assert "kim.pop3_tls: expected HOST:PORT" in mistakes


def test_an_insurer_without_a_mailbox_of_its_own_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match="109000001 needs an account for its address"):
        read_config(written(tmp_path, MINIMAL + INSURER))


def test_an_address_of_the_other_environment_is_a_mistake(tmp_path: Path) -> None:
    account = """
[[accounts]]
address = "praxis@praxis.kim.telematik"
owner = "practice:praxis"
password_hash_file = "hash"
"""
    with pytest.raises(BadConfigError, match=r"does not end with \.kim\.telematik-test"):
        read_config(written(tmp_path, MINIMAL + account))


def test_a_bad_ik_is_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match="nine digits"):
        read_config(written(tmp_path, MINIMAL + INSURER.replace("109000001", "1090")))


def test_a_file_that_is_not_toml_is_a_mistake_and_no_crash(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match="is not TOML"):
        read_config(written(tmp_path, "a = = 1"))


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match="schleuse init"):
        read_config(tmp_path)


def test_files_that_are_not_there_are_listed(tmp_path: Path) -> None:
    missing = missing_files(read_config(written(tmp_path, MINIMAL)))
    assert len(missing) == 6
    assert any(line.startswith("eau.trust[0]:") for line in missing)


@pytest.mark.parametrize(
    ("environment", "suffix", "prefix"),
    [(Environment.PRODUCTION, ".kim.telematik", "E"), (Environment.TEST, ".kim.telematik-test", "T")],
)
def test_environments_never_mix(environment: Environment, suffix: str, prefix: str) -> None:
    assert (environment.suffix, environment.prefix) == (suffix, prefix)


def test_an_ipv6_listener_loses_its_brackets() -> None:
    assert host_and_port("[::1]:8465") == ("::1", 8465)


def test_a_mistake_in_one_place_hides_no_contradiction_in_another(tmp_path: Path) -> None:
    twice = '[[accounts]]\naddress = "a@b.kim.telematik-test"\nowner = "practice:p"\npassword_hash_file = "h"\n' * 2
    with pytest.raises(BadConfigError) as caught:
        read_config(written(tmp_path, MINIMAL.replace("[kim]", "[kim]\nsmpt_tls = 'x'") + twice))
    assert [mistake.partition(": ")[2] for mistake in caught.value.mistakes] == [
        "kim.smpt_tls: is not a key that this version knows",
        "accounts: a@b.kim.telematik-test is listed more than once",
    ]


@pytest.mark.parametrize("name", ["föö.example", "two words", "a..b", "x\\r\\nReceived: y", ""])
def test_a_host_name_that_cannot_stand_in_a_greeting_is_a_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfigError, match="hostname: expected a host name"):
        read_config(written(tmp_path, MINIMAL.replace("kim.demo.kim.telematik-test", name)))


def test_two_listeners_on_one_port_are_a_mistake_defaults_included(tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match=r"127\.0\.0\.1:8465 is listened on more than once"):
        read_config(written(tmp_path, MINIMAL.replace("[kim]", '[kim]\npop3_tls = "127.0.0.1:8465"')))


def test_any_free_port_may_be_asked_for_several_times(tmp_path: Path) -> None:
    free = '[kim]\nsmtp_tls = "127.0.0.1:0"\npop3_tls = "127.0.0.1:0"'
    assert read_config(written(tmp_path, MINIMAL.replace("[kim]", free))).kim.pop3_tls == "127.0.0.1:0"


@pytest.mark.parametrize(
    ("listen", "open_to_all"), [("127.0.0.1:25", False), ("[::1]:25", False), ("0.0.0.0:25", True)]
)
def test_a_relay_beyond_this_machine_must_ask_for_certificates(tmp_path: Path, listen: str, open_to_all: bool) -> None:
    text = MINIMAL.replace("[kim]", f'[kim]\nsmtp_relay = "{listen}"')
    if not open_to_all:
        assert read_config(written(tmp_path, text)).kim.smtp_relay == listen
        return
    with pytest.raises(BadConfigError, match="smtp_relay_client_ca"):
        read_config(written(tmp_path, text))
    closed = text.replace("[kim]", '[kim]\nsmtp_relay_client_ca = "ca.pem"')
    assert read_config(written(tmp_path, closed)).kim.smtp_relay_client_ca == tmp_path / "ca.pem"
