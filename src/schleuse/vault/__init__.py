"""Keys, and nothing else: the seam behind which the vault role of design.md § 2 will stand.

Who talks to it: `eau` (opens mail, seals documents, signs Fehlernachrichten) and `kim open` on the command line.
Today the keys are sealed files of the same host, read by the process that uses them (decision 0003); callers
hold a `Vault`, never a private key.
"""

from schleuse.vault.keys import KeyMissingError, Signer, Vault, WrappedKey
from schleuse.vault.local import InsurerKeyFiles, LocalVault, key_signer, open_private_key

__all__ = [
    "InsurerKeyFiles",
    "KeyMissingError",
    "LocalVault",
    "Signer",
    "Vault",
    "WrappedKey",
    "key_signer",
    "open_private_key",
]
