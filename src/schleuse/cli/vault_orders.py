"""What the commands for the vault have in common: how they reach it, and how an operator signs an order."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from schleuse.clock import utc_now
from schleuse.config import Config
from schleuse.errors import RefusedError
from schleuse.identifiers import IK
from schleuse.processes.operators import key_of
from schleuse.vault.client import VaultClient
from schleuse.vault.tokens import LIFETIME, Purpose, audience, make_token

#: An erasure waits for the journal's witnesses (journal.md § 12.5).
ANSWER_S = 60.0

OfInsurer = Annotated[str, Parameter(name="--ik", help="IK of the insurer")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object")]
Yes = Annotated[bool, Parameter(name="--yes", negative=(), help="Do it; without, only the plan is shown")]


class UnknownInsurerError(RefusedError):
    """No insurer of the configuration has this IK."""

    code = "cli.unknown-insurer"


def insurer_of(config: Config, ik: str) -> IK:
    """Raises UnknownInsurerError."""
    insurer = IK(ik)
    if ik not in {one.ik for one in config.insurers}:
        raise UnknownInsurerError(f"no insurer {ik} is configured; `schleuse.toml` names the insurers")
    return insurer


def client_of(config: Config) -> VaultClient:
    """Connects when first asked."""
    return VaultClient(config.vault_socket, answer_s=ANSWER_S)


def order_of(
    config: Config,
    ik: IK,
    operator: str,
    key: Path | None,
    purpose: Purpose,
    what: tuple[str, str],
    lifetime: timedelta = LIFETIME,
) -> str:
    """A token of an operator. key: his private key's file; None: the one of this home. Raises TokenKeyError."""
    signer, platform = key_of(config, operator, key), audience(config.hostname)
    return make_token(signer, operator, ik, platform, purpose, what, utc_now(), lifetime)
