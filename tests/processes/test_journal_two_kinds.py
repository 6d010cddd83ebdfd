"""Cosignatures of both kinds, Ed25519 and ML-DSA-44, of real witness processes (journal.md § 8, § 9)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.processes.test_journal_role import Host, entry, free_port
from tests.scenarios.platform import ROOT, until

from schleuse.journal import audit
from schleuse.journal.client import JournalClient
from schleuse.journal.contracts import Level, LevelTimeoutError
from schleuse.journal.note import KeyKind, parse_note
from schleuse.journal.policy import NoQuorumError, parse_policy
from schleuse.processes.journal_keys import log_signer, policy_file
from schleuse.witness.config import read_witness_config
from schleuse.witness.keys import open_memory


def _has_mldsa() -> bool:
    """The library may be built on one that lacks it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

    try:
        MLDSA44PrivateKey.generate()
    except UnsupportedAlgorithm:
        return False
    return True


pytestmark = pytest.mark.skipif(not _has_mldsa(), reason="the installed cryptography library has no ML-DSA-44")


class Insurer:
    """A witness in a folder of its own. post_quantum: whether it has the second key; port: it is asked there (push)."""

    def __init__(self, host: Host, folder: Path, *, post_quantum: bool, push: bool) -> None:
        folder.mkdir()
        self.folder, self.port = folder, free_port() if push else None
        vkey = log_signer(host.role.folder, host.origin).key.vkey
        lines = [f'name = "witness.example/{folder.name}"']
        lines += ['post_quantum_key = "pq.key"'] if post_quantum else []
        lines += [f'listen = "127.0.0.1:{self.port}"'] if push else []
        lines += ["[[logs]]", f'keys = ["{vkey}"]', "follow = false"]
        lines += [] if push else [f'url = "{prefix(host)}"', "pull_seconds = 0.1"]
        (folder / "witness.toml").write_text("\n".join(lines) + "\n")
        store, cosigners = open_memory(read_witness_config(folder))
        store.close()
        self.vkeys = [cosigner.key.vkey for cosigner in cosigners]
        assert len(self.vkeys) == 1 + post_quantum

    def lines(self) -> list[str]:
        """Of a policy: one for each key."""
        url = f" http://127.0.0.1:{self.port}" if self.port else ""
        names = (self.folder.name, f"{self.folder.name}-pq")
        return [f"witness {name} {vkey}{url}" for name, vkey in zip(names, self.vkeys, strict=False)]

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """`schleuse witness run`."""
        log = (self.folder / "log").open("wb")
        command = [sys.executable, "-m", "schleuse", "witness", "run", "--config", str(self.folder)]
        with (
            log,
            subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdout=log, stderr=log
            ) as process,
        ):
            try:
                if self.port is not None:
                    until(self._answers, "the witness", 60)
                yield
            finally:
                process.terminate()
                process.wait()


def ask_for(host: Host, insurers: list[Insurer], *rules: str) -> str:
    vkey = log_signer(host.role.folder, host.origin).key.vkey
    text = "\n".join([f"log {vkey}", *(line for one in insurers for line in one.lines()), *rules, ""])
    path = policy_file(host.role.folder, host.origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return text


BOTH = ("group both all a a-pq", "quorum both")


@pytest.mark.parametrize("push", [True, False])
def test_a_policy_that_asks_for_both_kinds_is_satisfied_by_a_witness_that_has_both(tmp_path: Path, push: bool) -> None:
    async def run() -> None:
        host = Host(tmp_path / "home")
        one = Insurer(host, tmp_path / "a", post_quantum=True, push=push)
        policy = parse_policy(ask_for(host, [one], *BOTH).encode())
        async with host.running() as client:
            with one.running():
                await witnessed(host, client)
            note = parse_note(await asyncio.to_thread(audit.from_url(prefix(host)), "checkpoint"))
        judged = policy.judge(note)
        assert set(judged.times) == {"a", "a-pq"}
        assert judged.checkpoint.size >= 2
        kinds = {key.key.kind for key in policy.witness_keys}
        assert kinds == {KeyKind.COSIGNATURE_ED25519, KeyKind.COSIGNATURE_MLDSA44}
        for name in ("a", "a-pq"):  # one kind alone is not what was asked for
            key = next(one.key.key for one in policy.witnesses if one.name == name)
            lacking = type(note)(note.text, tuple(line for line in note.lines if line.key_id != key.id))
            with pytest.raises(NoQuorumError):
                policy.judge(lacking)

    asyncio.run(run())


def test_a_witness_with_one_kind_satisfies_no_policy_for_both_and_another_completes_it(tmp_path: Path) -> None:
    async def run() -> None:
        host = Host(tmp_path / "home")
        old = Insurer(host, tmp_path / "a", post_quantum=False, push=True)
        new = Insurer(host, tmp_path / "b", post_quantum=True, push=False)
        ask_for(host, [old, new], "group mixed all a b-pq", "quorum mixed")
        async with host.running() as client:
            with old.running():
                await cosigned_by(host, client, old)
                index = (await client.append(host.origin, entry())).index
                with pytest.raises(LevelTimeoutError):
                    await client.wait(host.origin, index + 1, Level.WITNESSED, 0.5)
                with new.running():
                    await witnessed(host, client)

    asyncio.run(run())


def prefix(host: Host) -> str:
    return f"http://{host.role.http}/{host.origin.partition('/')[2]}"


async def witnessed(host: Host, client: JournalClient) -> None:
    """Append until one is witnessed: a process that has just begun may not answer the first time."""
    for _ in range(60):
        try:
            size = (await client.append(host.origin, entry())).index + 1
            await client.wait(host.origin, size, Level.WITNESSED, 2.0)
        except LevelTimeoutError:
            continue
        return
    raise AssertionError(json.dumps(await host.health()))


async def cosigned_by(host: Host, client: JournalClient, one: Insurer) -> None:
    """Return when the pending note has its line."""
    name = f"witness.example/{one.folder.name}"
    async with asyncio.timeout(60):
        while True:
            await client.append(host.origin, entry(), Level.PUBLISHED)  # a new checkpoint, about which it is asked
            for _ in range(20):  # it is asked once for each, and needs a moment
                await asyncio.sleep(0.1)
                note = parse_note(await asyncio.to_thread(audit.from_url(prefix(host)), "pending"))
                if any(line.name == name for line in note.lines):
                    return
