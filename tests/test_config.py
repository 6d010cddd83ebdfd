"""The configuration file: read whole, all mistakes at once, unknown keys are mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from schleuse.config import BadConfigError, Environment, host_and_port, missing_files, read_config

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
    text = MINIMAL.replace('"test"', '"testing"').replace(
        "[kim]", "[kim]\nsmpt_tls = 'x'\npop3_tls = 'nowhere'"
    )
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
