"""The vault as a real process whose key encryption key never leaves its token, here SoftHSM2 (§ 14.5, 14.6)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.scenarios.platform import Platform, build_home, platform, until
from tests.softhsm import MODULE, needs_softhsm, new_token

from schleuse.identifiers import IK
from schleuse.journal.entry import Kind, Result
from schleuse.kim.message import SealedKIMMail, read_envelope
from schleuse.vault.client import VaultClient
from schleuse.vault.contracts import Document, Named, SealedMail, feed_paths
from schleuse.vault.tokens import audience, make_token, read_token_key

KASSE = IK("109900011")
NAME = "urn:uuid:0b8f1b5e-1111-4222-8333-444455556666"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    needs_softhsm,
    pytest.mark.skipif(importlib.util.find_spec("pkcs11") is None, reason="python-pkcs11 is not installed (extra hsm)"),
]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A home whose vault is configured for a new, empty token."""
    pin = new_token(tmp_path, monkeypatch)
    hsm = f'hsm = {{ module = "{MODULE}", token = "schleuse", pin_file = "{pin}" }}'
    with platform(build_home(tmp_path / "base"), tmp_path / "home", {"[vault]\n": f"[vault]\n{hsm}\n"}) as one:
        yield one


@pytest.fixture
def client(site: Platform) -> Iterator[VaultClient]:
    client = VaultClient(site.config.vault_socket)
    yield client
    client.close()


def up(site: Platform) -> None:
    if "journal" not in site.processes:
        site.start("journal")
    site.start("vault")
    until(lambda: site.ready("vault"), "the vault to be ready")


def fetched(site: Platform, client: VaultClient, container: bytes) -> bytes:
    key = read_token_key(site.home / "insurers" / KASSE.value / "feed.key")
    what = ("GET", feed_paths(KASSE, NAME)[0])
    token = make_token(key, "eins", KASSE, audience(site.config.hostname), "feed", what, datetime.now(UTC))
    return client.fetch(KASSE, token, NAME, "xml", container)


def opened(site: Platform, client: VaultClient) -> object:
    (mail,) = site.mails(site.order(1))
    found = read_envelope(mail.wire, address=site.config.insurers[0].address, certificates=client.certificates(KASSE))
    assert isinstance(found, SealedKIMMail)
    return client.open_mails(KASSE, [SealedMail(1, found.wrapped)])[0]


def filed(client: VaultClient) -> bytes:
    (whose,) = client.pseudonyms(KASSE, [Named(b"A123456780", b"content")])
    return client.file(KASSE, [Document(whose.subject, NAME, "xml", b"<eAU/>")])[0]


def operator(site: Platform) -> tuple[str, ...]:
    return ("--operator", "betrieb-1", "--operator-key", str(site.home / "operators" / "betrieb-1.key"))


def test_open_file_and_fetch_and_the_token_counts_what_the_journal_has(site: Platform, client: VaultClient) -> None:
    home = ("--home", str(site.home))
    assert "key made" in site.command("vault", "init-hsm", *home).stdout
    assert "already" in site.command("vault", "init-hsm", *home).stdout
    up(site)
    before = client.status()["unwraps_since_start"]
    assert isinstance(opened(site, client), bytes)
    container = filed(client)
    assert fetched(site, client, container) == b"<eAU/>"
    status = client.status()
    (log,) = [one for origin, one in status["logs"].items() if f"/{KASSE}/" in origin]
    until(lambda: len(site.entries()) >= log["size"], "the entries to be published")
    released = [one for one in site.entries() if one.kind is Kind.KEY_RELEASED and one.result is Result.GRANTED]
    # Each released subject was new to the process, so there was one C_Decrypt for each. SoftHSM2 itself counts nothing.
    assert status["unwraps_since_start"] - before == len(released) == log["counter"] == 2
    assert not (site.config.vault.folder / "kek.sealed").exists()
    refused = site.command("vault", "init-hsm", *home, check=False)
    assert refused.returncode != 0, "not while the vault runs"

    site.kill("vault")
    up(site)
    assert fetched(site, client, container) == b"<eAU/>"


def test_a_token_without_a_key_or_with_another_opens_nothing_and_no_key_is_made(site: Platform) -> None:
    site.start("journal")
    site.start("vault")
    assert site.processes.pop("vault").wait(60) == 69
    assert "the token's operator makes one" in site.log("vault")


def test_once_keys_are_wrapped_no_other_first_key_is_made(site: Platform, client: VaultClient) -> None:
    home = ("--home", str(site.home))
    site.command("vault", "init-hsm", *home)
    up(site)
    filed(client)
    site.stop("vault")
    refused = site.command("vault", "init-hsm", *home, check=False)
    assert refused.returncode == 77
    assert "a new one would not open them" in refused.stderr


def test_generations_are_rotated_in_the_token_while_the_vault_works(site: Platform, client: VaultClient) -> None:
    home = ("--home", str(site.home))
    site.command("vault", "init-hsm", *home)
    up(site)
    container = filed(client)
    shown = site.command("vault", "rotate", *operator(site), *home)
    assert "generation 2 is made" in shown.stdout
    assert client.generations()["generations"] == [1], "without --yes only the plan is shown"
    site.command("vault", "rotate", *operator(site), "--yes", *home)
    until(lambda: not client.generations()["left"], "the sweep")
    assert fetched(site, client, container) == b"<eAU/>"
    early = site.command("vault", "retire", "1", *operator(site), "--yes", *home, check=False)
    assert "start the vault again" in early.stderr
    site.kill("vault")
    up(site)
    found = site.command("vault", "retire", "1", *operator(site), "--yes", "--json", *home)
    assert json.loads(found.stdout)["generations"] == [2]
    assert fetched(site, client, container) == b"<eAU/>"
    until(lambda: any(one.kind is Kind.KEY_ROTATED for one in site.entries()), "the entries to be published")
    rotated = [one.count for one in site.entries() if one.kind is Kind.KEY_ROTATED]
    assert sum(one or 0 for one in rotated) == 3  # a person, two identities


def test_without_the_extra_the_role_says_what_to_install(site: Platform, tmp_path: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "pkcs11.py").write_text("raise ImportError('not installed')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'shadow')!r}); sys.argv = ['schleuse', 'run', 'vault',"
        f" '--home', {str(site.home)!r}]; from schleuse.cli import main; main()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert found.returncode == 69
    assert "schleuse[hsm]" in found.stdout + found.stderr
