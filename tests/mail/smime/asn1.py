"""Taking ASN.1 apart in tests."""

from __future__ import annotations

from schleuse.mail.smime import ber


def parts_of(data: bytes) -> list[bytes]:
    """The encodings of the elements inside a constructed element."""
    return [ber.encoding(data, child) for child in ber.children(data, ber.read(data, 0, len(data)))]
