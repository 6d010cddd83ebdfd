"""The part of the directory (VZD) that this platform needs, as a file.

In production it is refreshed from the VZD by the operator's own job; the file is read again when it changes.
Attributes and look-ups are those of kim.md § 16: `domainID` holds the IKs of an insurer (entryType 5), `mail` the
KIM addresses, `userCertificate` the ENC certificates of one Telematik-ID.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from schleuse.errors import MalformedError, UnavailableError

INSURER_ENTRY_TYPE = 5  #: kim.md § 16.1


class BadDirectoryError(UnavailableError):
    """The file is there and wrong: our own trouble, so whoever needs it waits."""

    code = "kim.bad-directory"


class UnknownAddressError(MalformedError):
    """The directory has no entry with a certificate for this address; the directory's operator adds it."""

    code = "kim.unknown-address"


@dataclass(frozen=True, slots=True)
class Entry:
    """One directory entry. certificates: DER."""

    telematik_id: str
    entry_type: int
    domain_ids: tuple[str, ...]
    addresses: tuple[str, ...]
    certificates: tuple[bytes, ...]


class Directory:
    """Look-ups over a set of entries; addresses compare without case (kim.md § 3)."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self._by_address: Mapping[str, Entry] = MappingProxyType(
            {address.lower(): entry for entry in self.entries for address in entry.addresses}
        )

    def __contains__(self, address: str) -> bool:
        return address.lower() in self._by_address

    def certificates(self, address: str) -> tuple[bytes, ...]:
        """DER of the ENC certificates of an address. Raises UnknownAddressError."""
        entry = self._by_address.get(address.lower())
        if entry is None or not entry.certificates:
            raise UnknownAddressError("the directory has no entry with an encryption certificate for this address")
        return entry.certificates

    def insurer_address(self, ik: str) -> str:
        """The eAU address of an insurer: first address of the first hit (kim.md § 16.2). Raises UnknownAddressError."""
        for entry in self.entries:
            if entry.entry_type == INSURER_ENTRY_TYPE and ik in entry.domain_ids and entry.addresses:
                return entry.addresses[0]
        raise UnknownAddressError(f"the directory has no insurer with the IK {ik}; the certificate goes by paper")


class DirectoryFile:
    """The directory of a file, read again when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._directory = Directory(())

    def current(self) -> Directory:
        """Raises BadDirectoryError."""
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._directory = Directory(_entry(item) for item in json.loads(self._path.read_bytes()))
                self._seen = seen
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise BadDirectoryError(
                f"the directory file {self._path.name} cannot be read ({type(cause).__name__}); mend it"
            ) from cause
        return self._directory


def write_directory(path: Path, entries: Iterable[Entry]) -> None:
    """Write the file in one step, so that a reader never sees half of it."""
    text = json.dumps([_item(entry) for entry in entries], indent=1)
    temporary = path.with_suffix(".new")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def _entry(item: dict[str, object]) -> Entry:
    return Entry(
        telematik_id=str(item["telematikID"]),
        entry_type=int(str(item["entryType"])),
        domain_ids=_texts(item["domainID"]),
        addresses=_texts(item["mail"]),
        certificates=tuple(
            x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
            for pem in _texts(item["userCertificate"])
        ),
    )


def _item(entry: Entry) -> dict[str, object]:
    return {
        "telematikID": entry.telematik_id,
        "entryType": entry.entry_type,
        "domainID": list(entry.domain_ids),
        "mail": list(entry.addresses),
        "userCertificate": [
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() for der in entry.certificates
        ],
    }


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return tuple(str(item) for item in value)
