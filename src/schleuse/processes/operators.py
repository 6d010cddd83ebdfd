"""The operators of this home, with their keys: who may order what."""

from __future__ import annotations

from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.config import Config
from schleuse.errors import Error
from schleuse.switch.documents import Person, Rights, Role
from schleuse.vault.tokens import read_public_key, read_token_key

log = structlog.get_logger()


def key_file(config: Config, operator: str) -> Path:
    """Where an operator's private key lies, if it lies on this host at all."""
    return config.home / "operators" / f"{operator}.key"


def key_of(config: Config, operator: str, given: Path | None) -> Ed25519PrivateKey:
    """The key in the file that was given, or in the one of this home. Raises what `read_token_key` raises."""
    return read_token_key(given or key_file(config, operator))


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
