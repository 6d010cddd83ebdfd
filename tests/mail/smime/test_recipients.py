from __future__ import annotations

import pytest
from tests.mail.smime.samples import INSURER, PRACTICE, insurer, practice

from schleuse.mail.smime import ber
from schleuse.mail.smime.recipients import (
    RecipientEmail,
    issuer_and_serial,
    parse_recipient_emails,
    recipient_emails_attribute,
    same_pairs,
    same_recipients,
)
from schleuse.vault.private_keys import issuer_and_serial as by_the_vault

ONE = RecipientEmail(INSURER, issuer_and_serial(insurer().certificate_der))
OTHER = RecipientEmail(PRACTICE, issuer_and_serial(practice(kind="enc").certificate_der))


def values_of(attribute: bytes) -> tuple[bytes, ber.Element]:
    return attribute, ber.children(attribute, ber.whole(attribute, ber.SEQUENCE))[1]


def test_the_vault_names_a_certificate_by_the_same_octets() -> None:
    for identity in (insurer(), practice(), practice("brainpool")):
        assert issuer_and_serial(identity.certificate_der) == by_the_vault(identity.certificate)


def test_pairs_written_straight_into_the_set_of_values_come_back() -> None:
    found = parse_recipient_emails(*values_of(recipient_emails_attribute([ONE, OTHER])))
    assert same_pairs(found, [ONE, OTHER])


@pytest.mark.parametrize("pairs", [[ONE, OTHER], [ONE]])
def test_pairs_in_a_set_of_their_own_are_the_same(pairs: list[RecipientEmail]) -> None:
    attribute, values = values_of(recipient_emails_attribute(pairs))
    nested = ber.tlv(ber.SEQUENCE, ber.oid("1.2.276.0.76.4.173"), ber.tlv(ber.SET, ber.encoding(attribute, values)))
    assert same_pairs(parse_recipient_emails(*values_of(nested)), pairs)


def test_addresses_are_compared_without_case() -> None:
    shouted = recipient_emails_attribute([RecipientEmail(INSURER.upper(), ONE.recipient)])
    assert parse_recipient_emails(*values_of(shouted)) == (ONE,)


def test_the_order_of_pairs_does_not_matter_but_their_number_does() -> None:
    assert same_pairs([ONE, OTHER], [OTHER, ONE])
    assert not same_pairs([ONE, ONE], [ONE])
    assert same_recipients([ONE, OTHER], [OTHER.recipient, ONE.recipient])
    assert not same_recipients([ONE, OTHER], [ONE.recipient])


@pytest.mark.parametrize(
    "pair",
    [
        ber.tlv(ber.OCTET_STRING, b"x"),
        ber.tlv(ber.SEQUENCE),
        ber.tlv(ber.SEQUENCE, ber.tlv(0x16, b"a@b")),
        ber.tlv(ber.SEQUENCE, ber.small_integer(1), ONE.recipient),
    ],
)
def test_a_pair_of_another_shape_is_malformed(pair: bytes) -> None:
    attribute = ber.tlv(ber.SEQUENCE, ber.oid("1.2.276.0.76.4.173"), ber.tlv(ber.SET, pair))
    with pytest.raises(ber.BadEncodingError):
        parse_recipient_emails(*values_of(attribute))
