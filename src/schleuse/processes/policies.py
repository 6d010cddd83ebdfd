"""The policies of this home, with the keys of those who may agree to them."""

from __future__ import annotations

import structlog

from schleuse.config import Config
from schleuse.errors import Error
from schleuse.shutdown.policy import InsurerKeys, PolicyBook
from schleuse.switch.documents import Rights
from schleuse.vault.tokens import read_public_key

log = structlog.get_logger()


def policies_of(config: Config, rights: Rights) -> PolicyBook:
    """Operators of the configuration agree, feed clients of the insurers cosign."""
    return PolicyBook(config.control.policies, rights, insurer_keys(config))


def insurer_keys(config: Config) -> InsurerKeys:
    """A key that cannot be read is told, and cosigns nothing."""
    found = {}
    for insurer in config.insurers:
        for client in insurer.feed_clients:
            try:
                found[insurer.ik, client.name] = read_public_key(client.public_key)
            except Error as error:
                log.error("policy.insurer-key", insurer=insurer.ik, client=client.name, code=error.code)
    return found
