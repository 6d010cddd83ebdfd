"""The journal's side of a new home: a key and a policy for each log, and a witness for each insurer (journal.md § 10).

On this machine, so that the development platform shows all of it; a real witness runs at its insurer, and its key comes
to the operator, not from him (docs/witness.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schleuse.config import Config
from schleuse.kim.pki import write_private
from schleuse.processes.journal_keys import log_signer, origin_of, policy_file
from schleuse.processes.trail import PLATFORM
from schleuse.witness.config import FILE_NAME, read_witness_config
from schleuse.witness.keys import open_memory

#: A push witness is asked at each change; it also looks by itself, so that a log that rests stays fresh (§ 16).
PULL_SECONDS = 60
MONITOR_SECONDS = 30
#: How many other insurers cosign a log. All of them would be n² requests for each second with traffic: with 80 insurers
#: 6,480, under which the journal answers nobody any more (decision 0021).
OTHERS = 4


@dataclass(frozen=True, slots=True)
class NewWitness:
    """A witness to set up. ik: of its insurer. folder: of its file. listen, metrics: HOST:PORT."""

    ik: str
    name: str
    folder: Path
    listen: str | None
    metrics: str | None

    @property
    def called(self) -> str:
        """Its name in policies."""
        return f"kasse-{self.ik}"


def create_witnesses(journal: Path, host: str, http: str, witnesses: Sequence[NewWitness], year: int) -> None:
    """Keys of all logs of the year, the witnesses' files and keys, and the policies that name both.

    What is there stays as it is; witness files get the logs that they lack.
    journal: folder `<home>/journal`. host: of the platform. http: HOST:PORT where the logs are read.
    """
    logs = {
        tenant: log_signer(journal, origin_of(host, tenant, year)).key.vkey
        for tenant in (*(one.ik for one in witnesses), PLATFORM)
    }
    urls = {tenant: f"http://{http}/{tenant}/{year}" for tenant in logs}
    for one in witnesses:
        mine = {tenant: vkey for tenant, vkey in logs.items() if one in cosigners_of(tenant, witnesses)}
        _write_file(one, mine, urls, year)
    keys = {one.ik: _key(one.folder) for one in witnesses}
    for tenant, vkey in logs.items():
        text = policy(tenant, f"{vkey} {urls[tenant]}", cosigners_of(tenant, witnesses), keys).encode()
        # What the insurer expects is a file of its own: the operator could change his.
        own = [one.folder / _policy_name(year) for one in witnesses if one.ik == tenant]
        for path in (policy_file(journal, origin_of(host, tenant, year)), *own):
            if not path.exists():
                write_private(path, text)


def renew_witnesses(config: Config, year: int) -> None:
    """The logs of a new year, for the witnesses of this machine: as the operator and insurers do it with each other."""
    witnesses, insurers = [], {one.ik for one in config.insurers}
    for folder in config.witnesses:
        if folder.parent.name not in insurers:  # not made by us
            continue
        found = read_witness_config(folder)
        witnesses.append(NewWitness(folder.parent.name, found.name, folder, found.listen, found.metrics))
    if witnesses:
        create_witnesses(config.home / "journal", config.hostname, config.journal.http, witnesses, year)


def cosigners_of(tenant: str, witnesses: Sequence[NewWitness]) -> Sequence[NewWitness]:
    """Who cosigns a tenant's log: its own insurer's witness and the OTHERS that follow it, in the order of all."""
    at = next((number for number, one in enumerate(witnesses) if one.ik == tenant), 0)
    asked = {(at + step) % len(witnesses) for step in range(OTHERS + 1)} if witnesses else {}
    return [one for number, one in enumerate(witnesses) if number in asked]


def policy(tenant: str, log: str, witnesses: Sequence[NewWitness], keys: Mapping[str, str]) -> str:
    """The policy of a tenant's log: its own insurer's witness and some of the others; for the platform a majority.

    log: vkey and URL. witnesses: `cosigners_of` it. keys: IK -> vkey. Two of three insurers may be away, if the log's
    own is not one of them; with more insurers more than half of the others are asked for, so that two quorums share
    one of them (§ 10).
    """
    own = [one.called for one in witnesses if one.ik == tenant]
    others = [one.called for one in witnesses if one.ik != tenant]
    lines = [f"log {log}"]
    lines += [
        f"witness {one.called} {keys[one.ik]}" + (f" http://{one.listen}" if one.listen else "") for one in witnesses
    ]
    if others:
        few = bool(own) and len(others) <= 2
        lines.append(f"group others {1 if few else len(others) // 2 + 1} {' '.join(others)}")
    if own and others:
        lines.append(f"group agreed all {own[0]} others")
    quorum = "agreed" if own and others else "others" if others else own[0] if own else "none"
    return "\n".join([*lines, f"quorum {quorum}", ""])


def _write_file(new: NewWitness, logs: Mapping[str, str], urls: Mapping[str, str], year: int) -> None:
    """Logs that the file does not name yet are added at its end."""
    file = new.folder / FILE_NAME
    text = file.read_text(encoding="utf-8") if file.exists() else _head(new)
    for tenant, vkey in sorted(logs.items(), key=lambda log: log[0] != new.ik):
        if vkey not in text:
            text += _log_lines(vkey, urls[tenant])
            text += _monitor_lines(year) if tenant == new.ik else ""
    write_private(file, text.encode())


def _head(new: NewWitness) -> str:
    return (
        f"# The witness of {new.ik}, made with the home; docs/witness.md has every key.\n"
        f'name = "{new.name}"\nlisten = "{new.listen}"\nmetrics = "{new.metrics}"\n'
    )


def _log_lines(vkey: str, url: str) -> str:
    return f'\n[[logs]]\nkeys = ["{vkey}"]\nurl = "{url}"\npull_seconds = {PULL_SECONDS}\n'


def _monitor_lines(year: int) -> str:
    return (
        f'\n[logs.monitor]\npolicy = "{_policy_name(year)}"\nevery_seconds = {MONITOR_SECONDS}\n'
        f'database = "monitor-{year}.sqlite"\n'
    )


def _policy_name(year: int) -> str:
    return f"policy-{year}"


def _key(folder: Path) -> str:
    """The vkey of the witness in this folder; key and memory are made together, so that it starts as one that ran."""
    store, cosigners = open_memory(read_witness_config(folder))
    store.close()
    return cosigners[0].key.vkey
