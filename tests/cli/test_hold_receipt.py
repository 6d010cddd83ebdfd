"""`schleuse hold receipt`: offline, and without a running platform (§ 6.4)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Shell
from tests.kim.test_receipts import KEY, OTHER, a_document, a_file

from schleuse.cli import EXIT_CODES
from schleuse.errors import MalformedError, RefusedError, UnavailableError
from schleuse.kim.receipts import jwks


def public(tmp_path: Path, *, own: bool = True) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(jwks([(KEY if own else OTHER).public_key()])))
    return path


def receipt(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "receipt.json"
    path.write_bytes(data)
    return path


def test_a_genuine_receipt_is_shown_as_it_was_signed(shell: Shell, tmp_path: Path) -> None:
    file = receipt(tmp_path, a_file(a_document()))
    ended = shell("hold", "receipt", str(file), "--keys", str(public(tmp_path)), "--json")
    assert (ended.code, json.loads(ended.out)) == (0, a_document())
    assert (
        "Bitte senden Sie sie nicht noch einmal"
        in shell("hold", "receipt", str(file), "--keys", str(public(tmp_path))).out
    )


def test_a_receipt_of_somebody_else_is_refused(shell: Shell, tmp_path: Path) -> None:
    file = receipt(tmp_path, a_file(a_document()))
    ended = shell("hold", "receipt", str(file), "--keys", str(public(tmp_path, own=False)))
    assert (ended.code, ended.out) == (EXIT_CODES[RefusedError], "")


def test_a_file_that_is_none_and_one_that_is_not_there_are_told_apart(shell: Shell, tmp_path: Path) -> None:
    keys = str(public(tmp_path))
    assert shell("hold", "receipt", str(receipt(tmp_path, b"x")), "--keys", keys).code == EXIT_CODES[MalformedError]
    missing = shell("hold", "receipt", str(tmp_path / "gone"), "--keys", keys)
    assert missing.code == EXIT_CODES[UnavailableError]
