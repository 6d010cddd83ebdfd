"""What the commands for the vault have in common: how they reach it, and how an operator signs an order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from schleuse.clock import utc_now
from schleuse.config import Config
from schleuse.identifiers import IK
from schleuse.vault.client import VaultClient
from schleuse.vault.tokens import Purpose, audience, make_token, read_token_key

#: An erasure waits for the journal's witnesses (journal.md § 12.5).
ANSWER_S = 60.0

Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object")]
Name = Annotated[str, Parameter(name="--operator", help="Name of the operator, as configured")]
KeyFile = Annotated[Path, Parameter(name="--operator-key", help="The operator's private key (Ed25519, PEM)")]
Yes = Annotated[bool, Parameter(name="--yes", negative=(), help="Do it; without, only the plan is shown")]


def client_of(config: Config) -> VaultClient:
    """Connects when first asked."""
    return VaultClient(config.vault_socket, answer_s=ANSWER_S)


def order_of(config: Config, ik: IK, operator: str, key: Path, purpose: Purpose, what: tuple[str, str]) -> str:
    """A token of an operator. key: his private key's file. Raises TokenKeyError."""
    return make_token(read_token_key(key), operator, ik, audience(config.hostname), purpose, what, utc_now())
