"""The keys of a witness and its memory: made together at the first start, one never used without the other (§ 9.1)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from schleuse.errors import CorruptError
from schleuse.journal.cosignature import Cosigner, Ed25519Cosigner, MLDSA44Cosigner
from schleuse.journal.disk import OsDisk, replace
from schleuse.witness.config import WitnessConfig
from schleuse.witness.store import WitnessStore

SEED_SIZE = 32  #: bytes, of both kinds of key


class LostError(CorruptError):
    """Of key and database one is there and the other is not.

    A key without its database could cosign a second history; restore what is missing, or retire the key: take both
    files away, start again, and have the new vkey put into the policies.
    """

    code = "witness.lost"


def open_memory(
    config: WitnessConfig, new_seed: Callable[[int], bytes] = secrets.token_bytes
) -> tuple[WitnessStore, list[Cosigner]]:
    """The database and all keys of this witness, made if it has never run. Raises LostError."""
    if config.key.exists() and not config.database.exists():
        raise LostError(f"{config.key.name} is there and {config.database.name} is not; see docs/witness.md")
    # The database first: an empty one without a key is a first start that was cut off, and harmless.
    store = WitnessStore(config.database)
    try:
        if not config.key.exists() and store.origins():
            raise LostError(f"{config.database.name} is there and {config.key.name} is not; see docs/witness.md")
        return store, _cosigners(config, new_seed)
    except BaseException:
        store.close()
        raise


def _cosigners(config: WitnessConfig, new_seed: Callable[[int], bytes]) -> list[Cosigner]:
    seed = _seed(config.key, new_seed)
    cosigners: list[Cosigner] = [Ed25519Cosigner(config.name, Ed25519PrivateKey.from_private_bytes(seed))]
    if config.post_quantum_key is not None:
        seed = _seed(config.post_quantum_key, new_seed)
        cosigners.append(MLDSA44Cosigner(config.name, MLDSA44PrivateKey.from_seed_bytes(seed)))
    return cosigners


def _seed(path: Path, new_seed: Callable[[int], bytes]) -> bytes:
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(OsDisk(), path, new_seed(SEED_SIZE))
    seed = path.read_bytes()
    if len(seed) != SEED_SIZE:
        raise LostError(f"{path.name} holds {len(seed)} bytes, a key has {SEED_SIZE}")
    return seed
