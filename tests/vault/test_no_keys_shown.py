"""No key is in what is printed, raised or logged (journal.md § 14.2 step 7)."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.pretty import pretty_repr

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.contracts import Receipt
from schleuse.vault.core import Wanted
from schleuse.vault.details import Details
from schleuse.vault.kek import FILE, SoftwareKek, add_generation, open_kek
from schleuse.vault.sk1 import open_sk1, rewrap, seal_sk1
from schleuse.vault.store import Deposit, SealedOpening
from schleuse.vault.ve1 import open_container, parse_header, seal_container

KEY = bytes(range(0x41, 0x61))  # also readable as text, as a passphrase would be
S_VAULT = b"0123456789abcdefghijklmnopqrstuv"
SK = b"ZYXWVUTSRQPONMLKJIHGFEDCBA987654"
SUBJECT = bytes(range(16))
RECORD = seal_sk1(SoftwareKek(1, KEY), SUBJECT, 1, S_VAULT, bytes(12))
PLAINTEXT = b"what the practice wrote about her"
CONTAINER = seal_container(SK, subject=SUBJECT, key_version=1, object_id=SUBJECT, object_version=1, plaintext=PLAINTEXT)
SECRETS = (KEY, S_VAULT, SK, PLAINTEXT)


def shown(thing: object) -> str:
    """All that a log could get of it: its representations, those of its attributes, its whole traceback."""
    texts = [repr(thing), str(thing), pretty_repr(thing), repr(getattr(thing, "__dict__", ""))]
    if isinstance(thing, BaseException):
        texts += traceback.format_exception(thing)
        for linked in (thing.__cause__, thing.__context__):
            texts += [] if linked is None else [shown(linked)]
    return "\n".join(texts)


def assert_hidden(text: str) -> None:
    for secret in SECRETS:
        for part in (secret[:12], secret[-12:]):
            for form in (part.decode("latin-1"), repr(part)[2:-1], part.hex(), part.hex().upper()):
                assert form not in text


def damaged(container: bytes, place: int) -> bytes:
    return container[:place] + bytes([container[place] ^ 1]) + container[place + 1 :]


FAILURES: dict[str, Callable[[], object]] = {
    "unwrap": lambda: SoftwareKek(1, KEY).unwrap(bytes(12), S_VAULT + bytes(16), b""),
    "unwrap a generation": lambda: SoftwareKek(1, KEY).unwrap(bytes(12), S_VAULT, b"", 2),
    "open a record": lambda: open_sk1(SoftwareKek(1, KEY), damaged(RECORD, 50), SUBJECT, 1),
    "open a record of another": lambda: open_sk1(SoftwareKek(1, KEY), RECORD, SUBJECT, 2),
    "open no record": lambda: open_sk1(SoftwareKek(1, KEY), S_VAULT, SUBJECT, 1),
    "rewrap": lambda: rewrap(SoftwareKek(2, KEY), RECORD, bytes(12)),
    "parse": lambda: parse_header(PLAINTEXT),
    "open a container": lambda: open_container(SK, damaged(CONTAINER, 70)),
    "open its content": lambda: open_container(SK, damaged(CONTAINER, 130)),
}


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_shows_no_key(name: str) -> None:
    with pytest.raises(Error) as caught:
        FAILURES[name]()
    assert_hidden(shown(caught.value))


@pytest.mark.parametrize("secret", [KEY + b"1", KEY[:31], KEY])
def test_an_unlock_file_is_never_quoted(tmp_path: Path, secret: bytes) -> None:
    (tmp_path / "unlock").write_bytes(SK)
    open_kek(tmp_path, "key", tmp_path / "unlock")
    (tmp_path / "unlock").write_bytes(secret)
    for act in (open_kek, add_generation):
        with pytest.raises(Error) as caught:
            act(tmp_path, "key", tmp_path / "unlock")
        assert_hidden(shown(caught.value))


def test_a_damaged_file_is_never_quoted(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"unlock": "' + KEY + b'", "format": "' + KEY.hex().encode())
    (tmp_path / "unlock").write_bytes(SK)
    with pytest.raises(Error) as caught:
        open_kek(tmp_path, "key", tmp_path / "unlock")
    assert_hidden(shown(caught.value))


@pytest.mark.parametrize(
    "thing",
    [
        SoftwareKek(1, KEY),
        SoftwareKek(2, S_VAULT, {1: KEY}),
        parse_header(CONTAINER),
        Wanted(SK, 1, PLAINTEXT.decode()),
        SealedOpening(SUBJECT, SUBJECT, S_VAULT, SK, 1),
        Deposit(IK("109900011"), keys=[(SUBJECT, 1, S_VAULT)]),
        Details(KEY, PLAINTEXT, ((SK, PLAINTEXT.decode(), 1),)),
        Receipt("origin", 1, SUBJECT * 8, 2, S_VAULT),
    ],
    ids=lambda t: type(t).__name__,
)
def test_what_holds_keys_prints_none(thing: object) -> None:
    assert_hidden(shown(thing))
