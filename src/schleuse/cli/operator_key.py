"""Who signs on the command line: the options that every signing command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cyclopts import Parameter

from schleuse.config import Config
from schleuse.processes.operators import key_file
from schleuse.vault.tokens import read_token_key

Operator = Annotated[str, Parameter(name="--operator", help="Name of the operator, as configured")]
KeyFile = Annotated[
    Path | None,
    Parameter(
        name="--operator-key",
        help="The operator's private key, Ed25519 in PEM [default: operators/NAME.key of the home]",
    ),
]


def key_of(config: Config, operator: str, given: Path | None) -> Ed25519PrivateKey:
    """The key in the file that was given, or in the one of this home. Raises what `read_token_key` raises."""
    return read_token_key(given or key_file(config, operator))
