"""The journal's side of a new home: a key and a policy for each log, and a witness for each insurer (journal.md § 10).

On this machine, so that the development platform shows all of it; a real witness runs at its insurer, and its key comes
to the operator, not from him (docs/witness.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schleuse.kim.pki import write_private
from schleuse.processes.journal import log_signer, origin_of, policy_file
from schleuse.processes.trail import PLATFORM
from schleuse.witness.config import FILE_NAME, read_witness_config
from schleuse.witness.keys import open_memory

#: A push witness is asked at each change; it also looks by itself, so that a log that rests stays fresh (§ 16).
PULL_SECONDS = 60
MONITOR_SECONDS = 30


@dataclass(frozen=True, slots=True)
class NewWitness:
    """A witness to set up. ik, slug: of its insurer. folder: of its file. listen, metrics: HOST:PORT."""

    ik: str
    slug: str
    name: str
    folder: Path
    listen: str
    metrics: str

    @property
    def called(self) -> str:
        """Its name in policies; the prefix keeps a slug from being a word of the format."""
        return f"kasse-{self.slug}"


def create_witnesses(journal: Path, host: str, http: str, witnesses: Sequence[NewWitness], year: int) -> None:
    """Keys of all logs of the year, the witnesses' files and keys, and the policies that name both.

    journal: folder `<home>/journal`. host: of the platform. http: HOST:PORT where the logs are read.
    """
    logs = {
        tenant: log_signer(journal, origin_of(host, tenant, year)).key.vkey
        for tenant in (*(one.ik for one in witnesses), PLATFORM)
    }
    urls = {tenant: f"http://{http}/{tenant}/{year}" for tenant in logs}
    for one in witnesses:
        write_private(one.folder / FILE_NAME, _file(one, logs, urls, year).encode())
    keys = {one.ik: _key(one.folder) for one in witnesses}
    for tenant, vkey in logs.items():
        text = policy(tenant, f"{vkey} {urls[tenant]}", witnesses, keys).encode()
        write_private(policy_file(journal, origin_of(host, tenant, year)), text)
        for one in witnesses:
            if one.ik == tenant:  # what the insurer expects is its own file: the operator's could be changed
                write_private(one.folder / _policy_name(year), text)


def policy(tenant: str, log: str, witnesses: Sequence[NewWitness], keys: Mapping[str, str]) -> str:
    """The policy of a tenant's log: its own insurer's witness and some of the others; for the platform a majority.

    log: vkey and URL. keys: IK -> vkey. Two of three insurers may be away, if the log's own is not one of them; with
    more insurers more than half of the others are asked for, so that two quorums share one of them (§ 10).
    """
    own = [one.called for one in witnesses if one.ik == tenant]
    others = [one.called for one in witnesses if one.ik != tenant]
    lines = [f"log {log}"]
    lines += [f"witness {one.called} {keys[one.ik]} http://{one.listen}" for one in witnesses]
    if others:
        few = bool(own) and len(others) <= 2
        lines.append(f"group others {1 if few else len(others) // 2 + 1} {' '.join(others)}")
    if own and others:
        lines.append(f"group agreed all {own[0]} others")
    quorum = "agreed" if own and others else "others" if others else own[0] if own else "none"
    return "\n".join([*lines, f"quorum {quorum}", ""])


def _file(new: NewWitness, logs: Mapping[str, str], urls: Mapping[str, str], year: int) -> str:
    own = new.ik
    return "\n".join(
        [
            f"# The witness of {own}, made with the home; docs/witness.md has every key.",
            f'name = "{new.name}"',
            f'listen = "{new.listen}"',
            f'metrics = "{new.metrics}"',
            *(
                line
                for tenant, vkey in sorted(logs.items(), key=lambda log: log[0] != own)
                for line in (
                    "",
                    "[[logs]]",
                    f'keys = ["{vkey}"]',
                    f'url = "{urls[tenant]}"',
                    f"pull_seconds = {PULL_SECONDS}",
                    *(
                        [
                            "",
                            "[logs.monitor]",
                            f'policy = "{_policy_name(year)}"',
                            f"every_seconds = {MONITOR_SECONDS}",
                            f'database = "monitor-{year}.sqlite"',
                        ]
                        if tenant == own
                        else []
                    ),
                )
            ),
            "",
        ]
    )


def _policy_name(year: int) -> str:
    return f"policy-{year}"


def _key(folder: Path) -> str:
    """The vkey of the witness in this folder; key and memory are made together, so that it starts as one that ran."""
    store, cosigners = open_memory(read_witness_config(folder))
    store.close()
    return cosigners[0].key.vkey
