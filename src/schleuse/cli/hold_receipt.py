"""`schleuse hold receipt FILE`: check a hold receipt offline (incident.md § 6.4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from schleuse.config import default_home
from schleuse.errors import UnavailableError
from schleuse.kim.receipt_text import receipt_text
from schleuse.kim.receipts import check_file, keys_of, thumbprint

#: Where the platform's own home has the public keys.
JWKS = Path("keys/receipts.jwks.json")


class ReceiptFileError(UnavailableError):
    """A file that the command names cannot be read."""

    code = "cli.receipt-file"


def receipt(
    file: Path,
    *,
    keys: Annotated[
        Path | None, Parameter(help="JWKS of the platform [default: keys/receipts.jwks.json of the home]")
    ] = None,
    home: Annotated[Path | None, Parameter(help="Folder of configuration and data")] = None,
    json_output: Annotated[bool, Parameter(name="--json", help="What was signed, as one JSON object")] = False,
) -> None:
    """Verify that the platform signed this receipt, and show what it says. Asks nobody; exit code 0: it is genuine.

    Parameters
    ----------
    file
        As it was fetched from the status address or came as a mail's attachment.
    """
    public = keys_of(_read(keys or (home or default_home()) / JWKS))
    payload: dict[str, Any] = check_file(_read(file), public)
    if json_output:
        print(json.dumps(payload))
        return
    print(receipt_text(payload))
    print(f"✓ {payload['iss']}  {', '.join(thumbprint(key) for key in public)}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise ReceiptFileError(f"{path} cannot be read ({cause.strerror})") from cause
