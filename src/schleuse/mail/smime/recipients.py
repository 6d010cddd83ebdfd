"""Who an envelope is for: issuer and serial number of certificates, and the recipient-emails attribute.

recipient-emails (1.2.276.0.76.4.173) binds mail addresses to keys, so that nobody can be tricked into
decrypting with a key of somebody else (kim.md § 7.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from schleuse.mail.smime import ber

RECIPIENT_EMAILS = ber.oid("1.2.276.0.76.4.173")
_IA5_STRING = 0x16
#: Strings that senders may write instead of an IA5String; the address is ASCII in any case.
_STRINGS = frozenset({_IA5_STRING, 0x0C, 0x13})
MAX_PAIRS = 1_000


@dataclass(frozen=True, slots=True, repr=False)
class RecipientEmail:
    """One pair. address: in lower case (kim.md § 3). recipient: DER of IssuerAndSerialNumber."""

    address: str
    recipient: bytes


@lru_cache(maxsize=1024)
def issuer_and_serial(certificate: bytes) -> bytes:
    """DER of IssuerAndSerialNumber of a certificate in DER, with the issuer's own octets (RFC 5652 § 10.2.4)."""
    fields = ber.children(certificate, ber.whole(certificate, ber.SEQUENCE))
    body = ber.children(certificate, fields[0]) if fields else []
    if len(body) < 6:
        raise ber.BadEncodingError("a certificate has too few fields")
    at = 1 if body[0][0] == 0xA0 else 0  # version [0] is optional
    serial, issuer = body[at], body[at + 2]
    return ber.tlv(
        ber.SEQUENCE,
        ber.encoding(certificate, ber.expect(issuer, ber.SEQUENCE)),
        ber.encoding(certificate, ber.expect(serial, ber.INTEGER)),
    )


def recipient_emails_attribute(pairs: Iterable[RecipientEmail]) -> bytes:
    """The Attribute in DER; pairs stand directly in the set of values, as in the official sample."""
    values = (
        ber.tlv(ber.SEQUENCE, ber.tlv(_IA5_STRING, pair.address.encode("ascii")), pair.recipient) for pair in pairs
    )
    return ber.tlv(ber.SEQUENCE, RECIPIENT_EMAILS, ber.set_of(ber.SET, *values))


def parse_recipient_emails(data: bytes, values: ber.Element) -> tuple[RecipientEmail, ...]:
    """The pairs in the SET of an attribute's values, in either encoding (kim.md § 7.3)."""
    pairs = ber.children(data, ber.expect(values, ber.SET))
    if len(pairs) == 1 and pairs[0][0] == ber.SET:
        pairs = ber.children(data, pairs[0])
    if len(pairs) > MAX_PAIRS:
        raise ber.BadEncodingError(f"recipient-emails has more than {MAX_PAIRS} pairs")
    return tuple(_pair(data, pair) for pair in pairs)


def _pair(data: bytes, pair: ber.Element) -> RecipientEmail:
    fields = ber.children(data, ber.expect(pair, ber.SEQUENCE))
    if len(fields) != 2 or fields[0][0] not in _STRINGS:
        raise ber.BadEncodingError("a pair of recipient-emails is not an address and a recipient identifier")
    address = ber.contents(data, fields[0]).decode("ascii", "replace")
    return RecipientEmail(address.strip().lower(), ber.encoding(data, fields[1]))


def same_pairs(one: Iterable[RecipientEmail], other: Iterable[RecipientEmail]) -> bool:
    """Whether both are the same multiset; their order differs by custom (kim.md § 7.3)."""
    return Counter(one) == Counter(other)


def same_recipients(pairs: Iterable[RecipientEmail], recipients: Iterable[bytes]) -> bool:
    """Whether the pairs name exactly the recipients of the envelope, as multisets."""
    return Counter(pair.recipient for pair in pairs) == Counter(recipients)
