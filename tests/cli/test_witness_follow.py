"""`schleuse witness follow`: the announcement of next year's log, handed to a witness on a stick (journal.md § 17)."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cli.conftest import Ended, Shell
from tests.journal.samples import LOG, ORIGIN
from tests.witness.test_follow import FOLLOWING, NEXT, Site

from schleuse.journal.note import LogSigner, parse_lines
from schleuse.journal.successor import ENTRY, PROOF
from schleuse.witness.config import FOLLOWED, read_witness_config

PUSHED = f'name = "witness.example/kasse-a"\nlisten = "127.0.0.1:0"\n[[logs]]\nkeys = ["{LOG.key.vkey}"]\n'


def signed(shell: Shell, site: Site, folder: Path) -> None:
    """The witness of the folder cosigns what the log holds now, on paper."""
    (folder / "sheet").write_bytes(site.log.request(0, len(site.log.entries)).encode())
    ended = shell("witness", "sign", str(folder / "sheet"), "--config", str(folder))
    assert ended.code == 0, ended.err
    site.log.note = site.log.note.with_lines(parse_lines(ended.out))


def handed_over(site: Site, folder: Path) -> Path:
    site.serves()
    for url, data in site.log.other.items():
        (folder / url.rpartition("/")[2]).write_bytes(data)
    assert (folder / ENTRY).exists()
    return folder / PROOF


def follow(shell: Shell, proof: Path) -> Ended:
    return shell("witness", "follow", str(proof), "--config", str(proof.parent))


def site_in(folder: Path) -> Site:
    """Its party's memory is not used: the command makes its own."""
    site = Site(folder, PUSHED)
    site.party.store.close()
    site.party.path.unlink()
    return site


def test_a_push_witness_takes_the_next_log_over_from_two_files(shell: Shell, tmp_path: Path) -> None:
    site = site_in(tmp_path)
    signed(shell, site, tmp_path)
    proof = handed_over(site, tmp_path)
    for _ in range(2):
        ended = follow(shell, proof)
        assert (ended.code, ended.out) == (0, f"{NEXT.key.vkey}\n")
    assert [log.origin for log in read_witness_config(tmp_path).logs] == [ORIGIN, FOLLOWING]


def test_what_this_witness_has_not_cosigned_is_refused(shell: Shell, tmp_path: Path) -> None:
    site = site_in(tmp_path)
    ended = follow(shell, handed_over(site, tmp_path))
    assert ended.code == 77
    assert "not cosigned here yet" in ended.err
    assert not (tmp_path / FOLLOWED).exists()


def test_another_key_than_the_known_one_is_a_conflict(shell: Shell, tmp_path: Path) -> None:
    site = site_in(tmp_path)
    signed(shell, site, tmp_path)
    other = LogSigner(FOLLOWING, Ed25519PrivateKey.generate()).key.vkey
    with (tmp_path / "witness.toml").open("a") as file:
        file.write(f'[[logs]]\nkeys = ["{other}"]\n')
    assert follow(shell, handed_over(site, tmp_path)).code == 75


def test_the_announcement_of_a_log_that_is_not_ours_is_refused(shell: Shell, tmp_path: Path) -> None:
    site = site_in(tmp_path)
    proof = handed_over(site, tmp_path)
    (tmp_path / "witness.toml").write_text(PUSHED.replace(LOG.key.vkey, NEXT.key.vkey))
    ended = follow(shell, proof)
    assert ended.code == 77
    assert ORIGIN in ended.err
