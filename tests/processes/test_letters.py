"""A Fehlernachricht reaches a practice whichever of its cards it opens its mail with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.vault_double import VaultDouble, vault_of

from schleuse.config import read_config
from schleuse.eau.letter_store import Unsent
from schleuse.environment import Environment
from schleuse.identifiers import IK
from schleuse.kim.directory import DirectoryFile, write_directory
from schleuse.kim.message import open_kim_mail
from schleuse.kim.pki import PRACTICE_OID, Algorithm, DevelopmentCA, Identity
from schleuse.processes.home import NewHome, NewInsurer, NewPractice, create_home
from schleuse.processes.letters import finisher
from schleuse.vault import WrappedKey
from schleuse.vault.contracts import UnsupportedWrapError, VaultUnavailableError
from schleuse.vault.private_keys import unwrap_with

NOW = datetime.now(UTC)
INSURER = IK("109900011")
SENDER, RECIPIENT = "eau@eins.kim.telematik-test", "praxis@praxis.kim.telematik-test"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "home"
    insurers = [NewInsurer(INSURER, "Kasse Eins", "eins")]
    new = NewHome(Environment.TEST, "kim.test.kim.telematik-test", insurers, [NewPractice("praxis", "Praxis")])
    create_home(folder, new, NOW)
    return folder


def letter(home: Path, cards: list[Identity], vault: VaultDouble | None = None) -> bytes:
    """One finished mail to a practice that has these cards."""
    config = read_config(home)
    entries = DirectoryFile(config.kim.directory).current().entries
    certificates = tuple(card.certificate_der for card in cards)
    write_directory(
        config.kim.directory,
        [replace(one, certificates=certificates) if RECIPIENT in one.addresses else one for one in entries],
    )
    vault = vault or vault_of(config)
    draft = f"From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: x\r\nMessage-ID: <a@b>\r\n\r\nHallo\r\n".encode()
    sealed = vault.seal_letter(INSURER, "<a@b>", draft)
    return finisher(config, vault)(Unsent(1, INSURER, 101, "<a@b>", SENDER, RECIPIENT, sealed, None, 0))


def card(home: Path, algorithm: Algorithm) -> Identity:
    ca = DevelopmentCA.load(home / "pki")
    return ca.issue_institution("Praxis", "1-praxis", PRACTICE_OID, now=NOW, algorithm=algorithm)


def opens(raw: bytes, card: Identity) -> bool:
    def unwrap(wrapped: WrappedKey) -> bytes:
        return unwrap_with(card.key, wrapped)

    opened = open_kim_mail(
        raw, address=RECIPIENT, certificates=[card.certificate_der], unwrap=unwrap, trust=None, now=NOW
    )
    return opened.inner is not None and opened.intact


def test_every_rsa_card_of_the_practice_opens_it_whatever_else_the_practice_has(home: Path) -> None:
    first, second = card(home, "rsa"), card(home, "rsa")
    raw = letter(home, [card(home, "brainpool"), first, second])
    assert opens(raw, first)
    assert opens(raw, second)


def test_a_practice_with_ec_cards_alone_is_named_as_not_supported_yet(home: Path) -> None:
    with pytest.raises(UnsupportedWrapError):
        letter(home, [card(home, "brainpool")])


def test_opening_and_signing_a_letter_is_each_asked_of_the_vault_once(home: Path) -> None:
    vault = vault_of(read_config(home))
    letter(home, [card(home, "rsa")], vault)
    assert (vault.trips("open_letter"), vault.trips("sign")) == ([1], [1])


@pytest.mark.parametrize("method", ["open_letter", "signer", "sign"])
@pytest.mark.parametrize("after", [False, True])
def test_a_letter_waits_for_a_vault_that_does_not_serve(home: Path, method: str, after: bool) -> None:
    vault = vault_of(read_config(home))
    vault.fail(method, after=after)
    with pytest.raises(VaultUnavailableError):
        letter(home, [card(home, "rsa")], vault)
