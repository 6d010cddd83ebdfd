"""Key encryption keys in a PKCS#11 token, over SoftHSM2, which protects nothing but behaves like one (§ 14.6)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.softhsm import MODULE, PIN, needs_softhsm, new_token

from schleuse.config import HSM
from schleuse.vault.contracts import KeyMissingError, SealBrokenError
from schleuse.vault.pkcs11 import Pkcs11Kek, create_key
from schleuse.vault.sk1 import kek_id, open_sk1, rewrap, seal_sk1

SUBJECT, S_VAULT, NONCE = bytes(range(16)), bytes(range(32)), bytes(12)

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed (extra hsm)")


def finalize() -> None:
    """Everything the module knew is lost: sessions, logins, objects."""
    with contextlib.suppress(pkcs11.PKCS11Error):
        pkcs11.lib(str(MODULE)).finalize()


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HSM]:
    """A new token. The module reads its configuration when it is initialised, so it must forget the token before."""
    pin = new_token(tmp_path, monkeypatch)
    finalize()
    yield HSM.model_construct(module=MODULE, token="schleuse", pin_file=pin, key="schleuse-kek")
    finalize()


@pytest.fixture
def kek(hsm: HSM) -> Pkcs11Kek:
    create_key(hsm)
    return Pkcs11Kek(hsm)


@needs_softhsm
def test_a_subject_key_is_wrapped_and_opened_by_the_token(kek: Pkcs11Kek) -> None:
    record = seal_sk1(kek, SUBJECT, 1, S_VAULT, NONCE)
    assert kek_id(record) == 1
    assert open_sk1(kek, record, SUBJECT, 1) == S_VAULT
    assert kek.unwraps == 1


@needs_softhsm
def test_a_token_without_the_key_says_who_makes_one_and_makes_none_itself(hsm: HSM) -> None:
    for _ in range(2):
        with pytest.raises(KeyMissingError, match="no AES key 'schleuse-kek'; the token's operator makes one"):
            Pkcs11Kek(hsm)


@needs_softhsm
def test_a_key_is_made_once(hsm: HSM) -> None:
    assert create_key(hsm)
    assert not create_key(hsm)
    assert Pkcs11Kek(hsm).id == 1


@needs_softhsm
def test_a_new_generation_wraps_and_the_old_one_still_opens(hsm: HSM) -> None:
    create_key(hsm)
    first = Pkcs11Kek(hsm)
    old = seal_sk1(first, SUBJECT, 1, S_VAULT, NONCE)
    first.close()
    create_key(hsm, 2)
    kek = Pkcs11Kek(hsm)
    assert kek.id == 2
    assert open_sk1(kek, old, SUBJECT, 1) == S_VAULT
    renewed = rewrap(kek, old, NONCE)
    assert renewed is not None
    assert kek_id(renewed) == 2
    assert open_sk1(kek, renewed, SUBJECT, 1) == S_VAULT
    assert kek.unwrap(old[32:44], old[44:], old[:32]) == S_VAULT  # of a generation that nobody names


@needs_softhsm
def test_a_generation_is_made_and_destroyed_while_the_token_is_in_use(hsm: HSM, kek: Pkcs11Kek) -> None:
    old = seal_sk1(kek, SUBJECT, 1, S_VAULT, NONCE)
    assert kek.renew() == kek.id == 2
    assert list(kek.generations) == [1, 2]
    renewed = rewrap(kek, old, NONCE)
    assert renewed is not None
    assert kek_id(renewed) == 2
    with pytest.raises(KeyMissingError, match="only such are destroyed"):
        kek.destroy(2)
    kek.destroy(1)
    assert list(kek.generations) == [2]
    assert open_sk1(kek, renewed, SUBJECT, 1) == S_VAULT
    with pytest.raises(KeyMissingError, match="generation 1"):
        open_sk1(kek, old, SUBJECT, 1)
    kek.close()
    assert list(Pkcs11Kek(hsm).generations) == [2]


@needs_softhsm
def test_a_record_of_a_generation_that_the_token_has_not_says_so(kek: Pkcs11Kek) -> None:
    with pytest.raises(KeyMissingError, match=r"generation 9 .* here are \[1\]"):
        kek.unwrap(NONCE, bytes(48), b"", 9)


@needs_softhsm
@pytest.mark.parametrize("place", [0, 20, 31, 32, 44, 60, 91])
def test_a_damaged_record_does_not_open_and_the_session_lives_on(kek: Pkcs11Kek, place: int) -> None:
    record = seal_sk1(kek, SUBJECT, 1, S_VAULT, NONCE)
    damaged = bytearray(record)
    damaged[place] ^= 4
    with pytest.raises((SealBrokenError, KeyMissingError)) as caught:
        open_sk1(kek, bytes(damaged), SUBJECT, 1)
    assert isinstance(caught.value, KeyMissingError if place == 31 else SealBrokenError)  # 31: the generation
    assert open_sk1(kek, record, SUBJECT, 1) == S_VAULT


@needs_softhsm
@pytest.mark.parametrize(("nonce", "ciphertext"), [(NONCE, b""), (NONCE, b"abc"), (b"", bytes(48)), (bytes(13), b"x")])
def test_what_is_no_ciphertext_is_a_broken_seal(kek: Pkcs11Kek, nonce: bytes, ciphertext: bytes) -> None:
    with pytest.raises(SealBrokenError):
        kek.unwrap(nonce, ciphertext, b"")


@needs_softhsm
def test_the_key_cannot_be_taken_out(hsm: HSM, kek: Pkcs11Kek) -> None:
    session = pkcs11.lib(str(MODULE)).get_token(token_label=hsm.token).open(rw=True)  # the process is logged in
    (key,) = session.get_objects({pkcs11.Attribute.LABEL: hsm.key})
    assert key[pkcs11.Attribute.NEVER_EXTRACTABLE]
    assert key[pkcs11.Attribute.ALWAYS_SENSITIVE]
    with pytest.raises(pkcs11.AttributeSensitive):
        key[pkcs11.Attribute.VALUE]
    for attribute, value in ((pkcs11.Attribute.EXTRACTABLE, True), (pkcs11.Attribute.SENSITIVE, False)):
        with pytest.raises(pkcs11.PKCS11Error):
            key[attribute] = value
    wrapping = session.generate_key(pkcs11.KeyType.AES, 256, label="thief", store=False)
    with pytest.raises(pkcs11.KeyUnextractable):
        wrapping.wrap_key(key)
    with pytest.raises(pkcs11.PKCS11Error):
        key.copy({pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False})


@needs_softhsm
@pytest.mark.parametrize(("sensitive", "extractable"), [(True, True), (False, False)])
def test_a_key_that_could_be_taken_out_is_not_used(hsm: HSM, sensitive: bool, extractable: bool) -> None:
    make(hsm, (1).to_bytes(4), sensitive, extractable)
    with pytest.raises(KeyMissingError, match="could be taken out"):
        Pkcs11Kek(hsm)


@needs_softhsm
@pytest.mark.parametrize("ids", [[b"\1\1", b"\0\0\1\1"], [b""], [b"\0"], [b"12345"]])
def test_a_key_whose_generation_is_not_plain_is_not_used(hsm: HSM, ids: list[bytes]) -> None:
    for id in ids:
        make(hsm, id, True, False)
    with pytest.raises(KeyMissingError, match="CKA_ID"):
        Pkcs11Kek(hsm)


def make(hsm: HSM, id: bytes, sensitive: bool, extractable: bool) -> None:
    session = pkcs11.lib(str(MODULE)).get_token(token_label=hsm.token).open(rw=True, user_pin=PIN)
    template = {pkcs11.Attribute.SENSITIVE: sensitive, pkcs11.Attribute.EXTRACTABLE: extractable}
    session.generate_key(pkcs11.KeyType.AES, 256, id=id, label=hsm.key, store=True, template=template)
    session.close()


@needs_softhsm
def test_many_threads_wait_for_one(kek: Pkcs11Kek) -> None:
    records = [seal_sk1(kek, SUBJECT, number, bytes([number]) * 32, NONCE) for number in range(100)]
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda number: open_sk1(kek, records[number], SUBJECT, number), range(100)))
    assert opened == [bytes([number]) * 32 for number in range(100)]
    assert kek.unwraps == 100
    assert sum(thread.name.startswith("pkcs11") for thread in threading.enumerate()) == 1


@needs_softhsm
def test_an_event_loop_waits_without_blocking(kek: Pkcs11Kek) -> None:
    wrapped = kek.wrap(NONCE, b"key", b"aad")

    async def many() -> list[bytes]:
        return await asyncio.gather(
            *(asyncio.wrap_future(kek.unwrapping(NONCE, wrapped, b"aad", 1)) for _ in range(20))
        )

    assert asyncio.run(many()) == [b"key"] * 20


@needs_softhsm
def test_a_lost_session_is_opened_again(kek: Pkcs11Kek) -> None:
    record = seal_sk1(kek, SUBJECT, 1, S_VAULT, NONCE)
    finalize()
    assert open_sk1(kek, record, SUBJECT, 1) == S_VAULT
    finalize()
    assert seal_sk1(kek, SUBJECT, 1, S_VAULT, NONCE) == record
    kek.close()
    assert open_sk1(kek, record, SUBJECT, 1) == S_VAULT


@needs_softhsm
def test_a_token_that_went_away_is_our_own_trouble_and_is_used_again_when_it_is_back(
    kek: Pkcs11Kek, tmp_path: Path
) -> None:
    record = seal_sk1(kek, SUBJECT, 1, S_VAULT, NONCE)
    (tmp_path / "tokens").rename(tmp_path / "away")
    (tmp_path / "tokens").mkdir()
    finalize()
    for _ in range(2):
        with pytest.raises(KeyMissingError, match="NoSuchToken"):
            open_sk1(kek, record, SUBJECT, 1)
    (tmp_path / "tokens").rmdir()
    (tmp_path / "away").rename(tmp_path / "tokens")
    finalize()
    assert open_sk1(kek, record, SUBJECT, 1) == S_VAULT


@needs_softhsm
def test_a_wrong_pin_is_tried_once_because_three_lock_the_token(hsm: HSM, kek: Pkcs11Kek) -> None:
    wrapped = kek.wrap(NONCE, b"key", b"aad")
    hsm.pin_file.write_text("wrong-pin")
    finalize()
    with pytest.raises(KeyMissingError, match="PinIncorrect"):
        kek.unwrap(NONCE, wrapped, b"aad")
    hsm.pin_file.write_text(PIN)
    with pytest.raises(KeyMissingError, match="starts the vault again") as caught:  # although the file is right now
        kek.unwrap(NONCE, wrapped, b"aad")
    assert "wrong-pin" not in repr(caught.value)
    assert Pkcs11Kek(hsm).unwrap(NONCE, wrapped, b"aad") == b"key"


@needs_softhsm
def test_a_missing_pin_file_is_named(hsm: HSM) -> None:
    hsm.pin_file.unlink()
    with pytest.raises(KeyMissingError, match=r"PIN file .*/pin cannot be read"):
        Pkcs11Kek(hsm)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(PIN)
    hsm = HSM.model_construct(
        module=tmp_path / "none.so", token="schleuse", pin_file=tmp_path / "pin", key="schleuse-kek"
    )
    with pytest.raises(KeyMissingError, match=r"none\.so cannot be used"):
        Pkcs11Kek(hsm)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    (tmp_path / "pin").write_text(PIN)
    hsm = HSM.model_construct(module=MODULE, token="schleuse", pin_file=tmp_path / "pin", key="schleuse-kek")
    with pytest.raises(KeyMissingError, match=r"schleuse\[hsm\]"):
        Pkcs11Kek(hsm)


def test_importing_our_part_does_not_import_the_library() -> None:
    code = "import sys, schleuse.vault.pkcs11; sys.exit('pkcs11' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


@needs_softhsm
def test_no_pin_in_reprs(kek: Pkcs11Kek, hsm: HSM) -> None:
    assert PIN not in repr(kek) + repr(vars(kek)) + repr(hsm)
