"""Key encryption keys on disk: made once, never used under a wrong key, never quietly made anew (§ 14.1, § 17)."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schleuse.errors import UnavailableError
from schleuse.vault import kek as module
from schleuse.vault.contracts import KeyMissingError, SealBrokenError
from schleuse.vault.kek import FILE, SoftwareKek, Unlock, add_generation, open_kek

NONCE, SECRET, AAD = bytes(12), b"the vault's half", b"whose"
PASSPHRASE = b"correct horse battery staple"


@pytest.fixture(params=["key", "passphrase"])
def unlock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Unlock:
    # Parameters stand in the file, so cheaper ones take the same way (the test below uses the real ones).
    monkeypatch.setattr(module, "SCRYPT_N", 2**4)
    kind: Unlock = request.param
    return kind


@pytest.fixture
def unlock_file(tmp_path: Path, unlock: Unlock) -> Path:
    file = tmp_path / "credentials" / "unlock"
    if unlock == "passphrase":
        file.parent.mkdir()
        file.write_bytes(PASSPHRASE + b"\n")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vault"


def test_the_first_start_makes_keys_that_the_next_opens(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    wrapped = open_kek(folder, unlock, unlock_file).wrap(NONCE, SECRET, AAD)
    again = open_kek(folder, unlock, unlock_file, must_exist=True)
    assert again.id == 1
    assert again.unwrap(NONCE, wrapped, AAD) == SECRET
    assert again.unwraps == 1


def test_a_passphrase_is_stretched_by_128_mib_of_scrypt(tmp_path: Path) -> None:
    unlock_file = tmp_path / "unlock"
    unlock_file.write_bytes(PASSPHRASE)
    open_kek(tmp_path, "passphrase", unlock_file)
    how = json.loads((tmp_path / FILE).read_text())["unlock"]
    assert (how["n"], how["r"], how["p"]) == (2**17, 8, 1)


def test_nobody_else_can_read_what_was_made(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    open_kek(folder, unlock, unlock_file)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    if unlock == "key":
        assert stat.S_IMODE(unlock_file.stat().st_mode) == 0o600
        assert len(unlock_file.read_bytes()) == 32
    assert sorted(path.name for path in folder.iterdir()) == [FILE]


def test_the_key_is_not_in_the_file(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    wrapped = open_kek(folder, unlock, unlock_file).wrap(NONCE, SECRET, AAD)
    for one in json.loads((folder / FILE).read_text())["generations"]:
        for text in (one["sealed"][:64], one["sealed"][-64:]):
            with pytest.raises(SealBrokenError):
                SoftwareKek(1, bytes.fromhex(text)).unwrap(NONCE, wrapped, AAD)


def test_the_file_of_a_vault_that_has_keys_is_never_made_anew(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    open_kek(folder, unlock, unlock_file)
    (folder / FILE).unlink()
    with pytest.raises(KeyMissingError, match=r"kek\.sealed is not there.*the vault's operator restores it"):
        open_kek(folder, unlock, unlock_file, must_exist=True)
    assert not (folder / FILE).exists()


def test_another_key_or_passphrase_is_told_and_changes_nothing(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    open_kek(folder, unlock, unlock_file)
    before = (folder / FILE).read_bytes()
    unlock_file.write_bytes(b"another one of exactly 32 octets")
    with pytest.raises(KeyMissingError, match=r"unlock does not unlock .*kek\.sealed.*operator") as caught:
        open_kek(folder, unlock, unlock_file)
    assert isinstance(caught.value, UnavailableError)  # our own trouble, never the sender's (HD-01)
    assert (folder / FILE).read_bytes() == before


def test_a_lost_unlock_file_is_not_made_anew(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    open_kek(folder, unlock, unlock_file)
    unlock_file.unlink()
    with pytest.raises(KeyMissingError, match=r"unlock file .* cannot be read"):
        open_kek(folder, unlock, unlock_file)
    assert not unlock_file.exists()


def test_a_passphrase_is_never_invented(tmp_path: Path) -> None:
    with pytest.raises(KeyMissingError, match="cannot be read"):
        open_kek(tmp_path, "passphrase", tmp_path / "unlock")
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("unlock", "secret", "said"),
    [("key", b"short", "5 octets, expected are 32"), ("key", bytes(33), "33 octets"), ("passphrase", b"1234\n", "12")],
)
def test_an_unlock_file_that_is_too_short_or_long_is_told(
    tmp_path: Path, unlock: Unlock, secret: bytes, said: str
) -> None:
    (tmp_path / "unlock").write_bytes(secret)
    with pytest.raises(KeyMissingError, match=said):
        open_kek(tmp_path, unlock, tmp_path / "unlock")
    assert not (tmp_path / FILE).exists()


def test_another_way_to_unlock_than_configured_is_told(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    open_kek(folder, unlock, unlock_file)
    other: Unlock = "key" if unlock == "passphrase" else "passphrase"
    with pytest.raises(KeyMissingError, match=f"unlock = '{unlock}', configured is '{other}'"):
        open_kek(folder, other, unlock_file)


def test_a_start_that_died_between_both_files_goes_on(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "unlock").write_bytes(bytes(range(32)))
    folder.mkdir()
    (folder / f"{FILE}.tmp").write_bytes(b"half of a longer file than the one that is written now" * 100)
    assert open_kek(folder, "key", tmp_path / "unlock").id == 1
    assert open_kek(folder, "key", tmp_path / "unlock").id == 1
    assert (tmp_path / "unlock").read_bytes() == bytes(range(32))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(KeyMissingError, match="cannot be made"):
        open_kek(tmp_path / "vault", "key", tmp_path / "vault" / "unlock")


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "vault").write_bytes(b"")
    with pytest.raises(KeyMissingError, match=r"cannot be (made|read|written)"):
        open_kek(tmp_path / "vault", "key", tmp_path / "unlock")


def test_a_path_that_cannot_be_looked_at_is_not_taken_for_a_first_start(tmp_path: Path) -> None:
    for folder, unlock_file in ((tmp_path / ("v" * 300), tmp_path / "u"), (tmp_path, tmp_path / ("u" * 300))):
        with pytest.raises(KeyMissingError, match="cannot be looked at"):
            open_kek(folder, "key", unlock_file)
    assert list(tmp_path.iterdir()) == []


def test_a_new_generation_wraps_and_the_old_one_still_opens(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    first = open_kek(folder, unlock, unlock_file)
    old = first.wrap(NONCE, SECRET, AAD)
    assert add_generation(folder, unlock, unlock_file) == 2
    kek = open_kek(folder, unlock, unlock_file)
    new = kek.wrap(NONCE, SECRET, AAD)
    assert kek.id == 2
    assert new != old
    assert kek.unwrap(NONCE, old, AAD, 1) == kek.unwrap(NONCE, new, AAD, 2) == SECRET
    assert kek.unwrap(NONCE, old, AAD) == kek.unwrap(NONCE, new, AAD) == SECRET
    for wrapped, generation in ((old, 2), (new, 1)):
        with pytest.raises(SealBrokenError):
            kek.unwrap(NONCE, wrapped, AAD, generation)
    with pytest.raises(SealBrokenError):
        first.unwrap(NONCE, new, AAD)


def test_generations_cannot_be_exchanged_in_the_file(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    open_kek(folder, unlock, unlock_file)
    add_generation(folder, unlock, unlock_file)
    table = json.loads((folder / FILE).read_text())
    one, two = table["generations"]
    one["id"], two["id"] = two["id"], one["id"]
    (folder / FILE).write_text(json.dumps(table))
    with pytest.raises(KeyMissingError):
        open_kek(folder, unlock, unlock_file)


def test_without_the_file_there_is_no_new_generation(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    with pytest.raises(KeyMissingError, match="cannot be read"):
        add_generation(folder, unlock, unlock_file)


@pytest.mark.parametrize(("nonce", "aad"), [(NONCE, b"whose else"), (bytes(11), AAD), (b"\1" * 12, AAD)])
def test_a_wrapped_key_opens_only_in_its_context(nonce: bytes, aad: bytes) -> None:
    kek = SoftwareKek(1, bytes(32))
    with pytest.raises(SealBrokenError):
        kek.unwrap(nonce, kek.wrap(NONCE, SECRET, AAD), aad)


#: Each makes the file another one than was sealed.
DAMAGES: list[dict[str, Any]] = [
    {"format": 2},
    {"unlock": None},
    {"unlock": {"with": "nothing", "salt": "00" * 16}},
    {"unlock": {"with": "key", "salt": "00" * 15}},
    {"unlock": {"with": "key", "salt": 7}},
    {"unlock": {"with": "passphrase", "salt": "00" * 16, "n": 2**40, "r": 8, "p": 1}},
    {"unlock": {"with": "passphrase", "salt": "00" * 16, "n": 1000, "r": 8, "p": 1}},
    {"unlock": {"with": "passphrase", "salt": "00" * 16, "n": True, "r": 8, "p": 1}},
    {"unlock": {"with": "passphrase", "salt": "00" * 16, "n": 2**17, "r": 8, "p": 10**9}},
    {"generations": []},
    {"generations": {}},
    {"generations": [{"id": 1}]},
    {"generations": [{"id": 0, "nonce": "00" * 12, "sealed": "00" * 48}]},
    {"generations": [{"id": "1", "nonce": "00" * 12, "sealed": "00" * 48}]},
    {"generations": [{"id": 1, "nonce": "00" * 11, "sealed": "00" * 48}]},
    {"generations": [{"id": 1, "nonce": "00" * 12, "sealed": "00" * 47}]},
    {"generations": [{"id": 1, "nonce": "00" * 12, "sealed": "00" * 48}] * 2},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_damaged_file_is_told(tmp_path: Path, damage: dict[str, Any]) -> None:
    open_kek(tmp_path, "key", tmp_path / "unlock")
    table = json.loads((tmp_path / FILE).read_text()) | damage
    (tmp_path / FILE).write_text(json.dumps(table))
    with pytest.raises(KeyMissingError, match="is damaged"):
        open_kek(tmp_path, "key", tmp_path / "unlock")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"7", b"[" * 100_000])
def test_a_file_that_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    open_kek(tmp_path, "key", tmp_path / "unlock")
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(KeyMissingError, match="is damaged"):
        open_kek(tmp_path, "key", tmp_path / "unlock")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_file_with_changed_octets_opens_as_it_was_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    (folder / FILE).unlink(missing_ok=True)
    wrapped = open_kek(folder, "key", folder / "unlock").wrap(NONCE, SECRET, AAD)
    content = bytearray((folder / FILE).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / FILE).write_bytes(content)
    try:
        kek = open_kek(folder, "key", folder / "unlock")
    except KeyMissingError:
        return
    assert kek.unwrap(NONCE, wrapped, AAD) == SECRET  # white space, or a hexadecimal digit's case


def test_a_new_generation_wraps_at_once_and_the_next_start_has_it(
    folder: Path, unlock: Unlock, unlock_file: Path
) -> None:
    kek = open_kek(folder, unlock, unlock_file)
    old = kek.wrap(NONCE, SECRET, AAD)
    assert kek.renew() == kek.id == 2
    assert kek.generations == (1, 2)
    new, named = kek.wrap(NONCE, SECRET, AAD), kek.wrap(NONCE, SECRET, AAD, 1)
    assert named == old
    for one in (kek, open_kek(folder, unlock, unlock_file)):
        assert one.unwrap(NONCE, old, AAD, 1) == one.unwrap(NONCE, new, AAD, 2) == SECRET


def test_a_destroyed_generation_opens_nothing_any_more(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    kek = open_kek(folder, unlock, unlock_file)
    old = kek.wrap(NONCE, SECRET, AAD)
    kek.renew()
    kek.destroy(1)
    for one in (kek, open_kek(folder, unlock, unlock_file)):
        assert one.generations == (2,)
        with pytest.raises(KeyMissingError, match="generation 1"):
            one.unwrap(NONCE, old, AAD, 1)
        with pytest.raises(SealBrokenError):
            one.unwrap(NONCE, old, AAD)


@pytest.mark.parametrize("generation", [0, 2, 3])
def test_only_an_older_generation_is_destroyed(
    folder: Path, unlock: Unlock, unlock_file: Path, generation: int
) -> None:
    kek = open_kek(folder, unlock, unlock_file)
    kek.renew()
    before = (folder / FILE).read_bytes()
    with pytest.raises(KeyMissingError, match="only such are destroyed"):
        kek.destroy(generation)
    assert (folder / FILE).read_bytes() == before


def test_a_generation_that_could_not_be_written_does_not_wrap(folder: Path, unlock: Unlock, unlock_file: Path) -> None:
    kek = open_kek(folder, unlock, unlock_file)
    content = unlock_file.read_bytes()
    unlock_file.write_bytes(b"\xff" * 32)
    with pytest.raises(KeyMissingError):
        kek.renew()
    assert kek.generations == (1,)
    unlock_file.write_bytes(content)
    assert open_kek(folder, unlock, unlock_file).generations == (1,)
