"""The sources of volatile evidence on this home (SW-11)."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import schleuse
from schleuse.config import FILE_NAME, Config
from schleuse.processes.answering import working_roles
from schleuse.shutdown import evidence
from schleuse.shutdown.evidence import Source

COUNTER_SECONDS = 5.0


def sources(config: Config) -> Mapping[str, Source]:
    """By name of the file that each becomes."""
    found: dict[str, Source] = {
        "processes.jsonl": evidence.process_list,
        "sockets.txt": evidence.sockets,
        "open-files.jsonl": lambda: evidence.open_files(_our_processes(config)),
        "configuration.sha256": lambda: evidence.hashes(_configuration(config)),
        "program.sha256": lambda: evidence.hashes([Path(schleuse.__file__).parent, Path(sys.executable).resolve()]),
    }
    for role, listen in working_roles(config).items():
        found[f"counters-{role}.txt"] = lambda listen=listen: _counters(listen)  # type: ignore[misc]
    return found


def _our_processes(config: Config) -> list[int]:
    return evidence.descendants(evidence.role_pids(config.home / "run"))


def _configuration(config: Config) -> list[Path]:
    """The file, what it names that is public, and the orders. Private keys are not read."""
    public = [one.public_key for one in config.operators]
    public += [client.public_key for one in config.insurers for client in one.feed_clients]
    folders = [config.switch_folder / "log", config.control.policies]
    return [config.home / FILE_NAME, config.kim.directory, *config.eau.trust, *public, *folders]


def _counters(listen: str) -> bytes:
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=COUNTER_SECONDS) as answer:
        return bytes(answer.read())
