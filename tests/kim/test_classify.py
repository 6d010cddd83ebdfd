from __future__ import annotations

import pytest

from schleuse.kim.classify import Classified, Kind, classify
from schleuse.kim.dienstkennung import EAU_LIEFERUNG
from schleuse.mail.head import parse

DSN = b"Content-Type: multipart/report;\r\n report-type=delivery-status; boundary=x\r\n"
MDN = b'Content-Type: Multipart/Report; report-type="disposition-notification"; boundary=x\r\n'
ERROR = b"X-KIM-Fehlermeldung: 4008\r\nX-KIM-Fehlermeldung: X018\r\n"
REPLY = b"Auto-Submitted: auto-replied\r\n"
EAU = b"X-KIM-Dienstkennung: eAU;Lieferung;V1.2\r\n"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (DSN, Classified(Kind.DSN)),
        (MDN, Classified(Kind.MDN)),
        (ERROR, Classified(Kind.CM_ERROR, error_codes=("4008", "X018"))),
        (REPLY, Classified(Kind.AUTO_REPLY)),
        (EAU, Classified(Kind.APPLICATION, EAU_LIEFERUNG)),
        (b"Subject: hello\r\n", Classified(Kind.MANUAL)),
        (b"", Classified(Kind.MANUAL)),
    ],
)
def test_each_kind_is_recognised(block: bytes, expected: Classified) -> None:
    assert classify(parse(block)) == expected


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        (DSN + ERROR + REPLY + EAU, Kind.DSN),
        (MDN + ERROR + REPLY + EAU, Kind.MDN),
        (ERROR + REPLY + EAU, Kind.CM_ERROR),
        (REPLY + EAU, Kind.AUTO_REPLY),
        (b"X-Autoreply: yes\r\n" + EAU, Kind.AUTO_REPLY),
        (b"Precedence: auto_reply\r\n" + EAU, Kind.AUTO_REPLY),
        (b"Auto-Submitted: no\r\n" + EAU, Kind.APPLICATION),
        (b"Auto-Submitted: auto-generated\r\n" + EAU, Kind.APPLICATION),
        (b"Auto-Submitted: auto-generated; owner=x\r\n", Kind.AUTO_REPLY),
        (b"X-KIM-Dienstkennung: broken\r\n", Kind.MANUAL),
        (b"Content-Type: multipart/mixed; report-type=delivery-status\r\n" + EAU, Kind.APPLICATION),
    ],
)
def test_the_first_that_applies_wins(block: bytes, kind: Kind) -> None:
    assert classify(parse(block)).kind is kind
