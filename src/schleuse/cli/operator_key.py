"""Who signs on the command line: the options that every signing command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Operator = Annotated[str, Parameter(name="--operator", help="Name of the operator, as configured")]
KeyFile = Annotated[
    Path | None,
    Parameter(
        name="--operator-key",
        help="The operator's private key, Ed25519 in PEM [default: operators/NAME.key of the home]",
    ),
]
