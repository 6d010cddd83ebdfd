"""Who the practice is: its address, keys and password, from the folder that `schleuse init` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from schleuse.config import Config
from schleuse.errors import RefusedError
from schleuse.vault import Signer, WrappedKey
from schleuse.vault.private_keys import PrivateKey, key_signer, open_private_key, unwrap_with


class NoSuchPracticeError(RefusedError):
    """No practice of that name in this home; choose one of the configuration."""

    code = "practice.unknown"


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """One practice. mail_signer: SMC-B (C.HCI.OSIG); payload_signer: doctor's eHBA (qualified signature)."""

    name: str
    address: str
    password: str
    encryption_certificate: bytes
    encryption_key: PrivateKey
    mail_signer: Signer
    payload_signer: Signer

    def unwrap(self, wrapped: WrappedKey) -> bytes:
        """Open a content key that was encrypted for this practice."""
        return unwrap_with(self.encryption_key, wrapped)


def practices(config: Config) -> dict[str, str]:
    """Name -> address of every practice that has its keys in this home."""
    found = {}
    for account in config.accounts:
        kind, _, name = account.owner.partition(":")
        if kind == "practice" and (_folder(config, name) / "enc.key").exists():
            found[name] = account.address
    return found


def load_practice(config: Config, name: str | None) -> Identity:
    """The named practice, or the first one. Raises NoSuchPracticeError, KeyMissingError."""
    known = practices(config)
    chosen = name or next(iter(known), None)
    if chosen is None or chosen not in known:
        raise NoSuchPracticeError(f"this home has no practice {name or ''}; it has: {', '.join(known) or 'none'}")
    folder = _folder(config, chosen)
    return Identity(
        name=chosen,
        address=known[chosen],
        password=(folder / "password").read_text(encoding="utf-8").strip(),
        encryption_certificate=_der(folder / "enc.pem"),
        encryption_key=open_private_key((folder / "enc.key").read_bytes()),
        mail_signer=_signer(folder, "osig"),
        payload_signer=_signer(folder, "qes"),
    )


def _folder(config: Config, name: str) -> Path:
    return config.home / "practices" / name


def _signer(folder: Path, name: str) -> Signer:
    return key_signer(_der(folder / f"{name}.pem"), open_private_key((folder / f"{name}.key").read_bytes()))


def _der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
