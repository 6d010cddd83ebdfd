"""`schleuse hold receipt|statement FILE`: check offline what the platform signed (incident.md § 6.4, § 6.8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from schleuse.cli.hold_reconcile import answer
from schleuse.config import default_home
from schleuse.errors import UnavailableError
from schleuse.kim.receipt_text import receipt_text
from schleuse.kim.receipts import check_file, keys_of, thumbprint
from schleuse.processes.reconciling import STATEMENT

#: Where the platform's own home has the public keys.
JWKS = Path("keys/receipts.jwks.json")


class ReceiptFileError(UnavailableError):
    """A file that the command names cannot be read."""

    code = "cli.receipt-file"


Keys = Annotated[Path | None, Parameter(help="JWKS of the platform [default: keys/receipts.jwks.json of the home]")]
Home = Annotated[Path | None, Parameter(help="Folder of configuration and data")]
AsJson = Annotated[bool, Parameter(name="--json", help="What was signed, as JSON")]


def receipt(file: Path, *, keys: Keys = None, home: Home = None, json_output: AsJson = False) -> None:
    """Verify that the platform signed this receipt, and show what it says. Asks nobody; exit code 0: it is genuine.

    Parameters
    ----------
    file
        As it was fetched from the status address or came as a mail's attachment.
    """
    public = keys_of(_read(keys or (home or default_home()) / JWKS))
    payload = check_file(_read(file), public)
    if json_output:
        print(json.dumps(payload))
    else:
        print(receipt_text(payload))
        print(f"✓ {payload['iss']}  {', '.join(thumbprint(key) for key in public)}")


def statement(file: Path, *, keys: Keys = None, home: Home = None, json_output: AsJson = False) -> None:
    """Verify that the platform signed these statements, and show them. Asks nobody; exit code 0: all are genuine.

    Parameters
    ----------
    file
        What `hold reconcile --sign` printed: one statement, or one a line.
    """
    public = keys_of(_read(keys or (home or default_home()) / JWKS))
    payloads = [check_file(one, public, STATEMENT) for one in _statements(_read(file))]
    for payload in payloads:
        print(json.dumps(payload, ensure_ascii=False) if json_output else _told(payload))


def _statements(data: bytes) -> list[bytes]:
    lines = [line for line in data.splitlines() if line.strip()]
    return lines if lines and all(line.startswith(b"{") for line in lines) else [data]


def _told(made: dict[str, Any]) -> str:
    whom = f"{made['practice']} → {made['insurer']}, {made['from']} – {made['to']}, {made['platform']}"
    return f"✓ {whom}: {answer(made)}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise ReceiptFileError(f"{path} cannot be read ({cause.strerror})") from cause
