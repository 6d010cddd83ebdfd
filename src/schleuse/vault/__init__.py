"""The one door: the only holder of keys, behind an entry in the insurer's journal (design.md § 2, journal.md § 14).

Roles hold a `Vault` (contracts.py), in life the client of the vault's socket. The order is always the same: who asks,
may he, the entry is durable, then the key.
"""

from schleuse.vault.contracts import (
    Document,
    KeyMissingError,
    Named,
    Pseudonyms,
    SealedMail,
    Signer,
    Vault,
    WrappedKey,
)

__all__ = [
    "Document",
    "KeyMissingError",
    "Named",
    "Pseudonyms",
    "SealedMail",
    "Signer",
    "Vault",
    "WrappedKey",
]
