"""The operators of this home, with their keys: who may order what."""

from __future__ import annotations

from pathlib import Path

import structlog

from schleuse.config import Config
from schleuse.errors import Error
from schleuse.switch.documents import Person, Rights, Role
from schleuse.vault.tokens import read_public_key

log = structlog.get_logger()


def key_file(config: Config, operator: str) -> Path:
    """Where an operator's private key lies, if it lies on this host at all."""
    return config.home / "operators" / f"{operator}.key"


def rights_of(config: Config) -> Rights:
    """Who may switch. A key that cannot be read is told, and its owner may nothing until it can be."""
    people: list[Person] = []
    for one in config.operators:
        try:
            key = read_public_key(one.public_key)
        except Error as error:
            log.error("switch.operator-key", operator=one.name, code=error.code, reason=str(error))
            continue
        people.append(Person(one.name, one.person or one.name, frozenset(map(Role, one.roles)), key, one.disabled_at))
    return Rights(people)
