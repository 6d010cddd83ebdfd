"""`openssl cms` as the other side of our tests."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from tests.mail.smime.asn1 import parts_of

from schleuse.mail.smime import ber

MISSING = which("openssl") is None
OLD_TAGS = which("openssl") is not None and re.match(
    r"OpenSSL 3\.[0-4]\.", subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout
)


@dataclass(frozen=True)
class OpenSSL:
    """`openssl cms` in a folder with the test keys. Standard input and output are files of that folder."""

    folder: Path

    def cms(self, *arguments: str, stdin: bytes) -> bytes:
        command = ["openssl", "cms", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, cwd=self.folder, check=False, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


def for_openssl(sealed: bytes) -> bytes:
    """unauthAttrs tagged [3] where OpenSSL 3.0 looks for them; RFC 5083 § 2.1 and OpenSSL 3.5 say [2]."""
    oid, explicit = parts_of(sealed)
    *fields, attributes = parts_of(parts_of(explicit)[0])
    assert attributes[0] == 0xA2
    body = ber.tlv(ber.SEQUENCE, *fields, b"\xa3" + attributes[1:])
    return ber.tlv(ber.SEQUENCE, oid, ber.tlv(0xA0, body)) if OLD_TAGS else sealed
