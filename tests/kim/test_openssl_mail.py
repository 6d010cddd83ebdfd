"""A whole KIM mail taken apart by `openssl cms`, layer by layer (kim.md § 4)."""

from __future__ import annotations

from email import message_from_bytes
from pathlib import Path

import pytest
from tests.kim.layers import CLIENT_MAIL, recipients
from tests.mail.smime.openssl import MISSING, OpenSSL, for_openssl
from tests.mail.smime.samples import NOW, PRACTICE, ca, insurer, practice

from schleuse.kim.building import build_kim_mail
from schleuse.kim.pki import Algorithm

pytestmark = pytest.mark.skipif(MISSING, reason="the openssl command is not installed")


@pytest.mark.parametrize("algorithm", ["rsa", "p256", "brainpool"])
def test_openssl_and_the_standard_library_find_every_layer(tmp_path: Path, algorithm: Algorithm) -> None:
    ca().save(tmp_path)
    insurer().write(tmp_path, "enc")
    openssl = OpenSSL(tmp_path)
    wire = build_kim_mail(
        CLIENT_MAIL,
        signer=practice(algorithm).signer(),
        recipients=recipients()[:1],
        sender=(PRACTICE, practice(kind="enc").certificate_der),
        date=NOW,
    )
    sealed = message_from_bytes(wire).get_payload(decode=True)
    assert isinstance(sealed, bytes)
    decrypt = ["-decrypt", "-binary", "-inform", "DER", "-recip", "enc.pem", "-inkey", "enc.key"]
    signed_part = openssl.cms(*decrypt, stdin=for_openssl(sealed))
    head, _, signed = signed_part.partition(b"\r\n\r\n")
    assert b"smime-type=signed-data" in head
    assert b"Content-Transfer-Encoding: binary" in head
    verify = ["-verify", "-binary", "-inform", "DER", "-CAfile", "ca.pem", "-purpose", "any"]
    wrapped = openssl.cms(*verify, "-attime", str(int(NOW.timestamp())), stdin=signed)
    assert wrapped == b"Content-Type: message/rfc822\r\n\r\n" + CLIENT_MAIL
