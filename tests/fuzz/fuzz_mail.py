"""Coverage-guided fuzzing of everything that reads hostile octets of a mail: ASN.1, CMS, certificates, MIME, headers.

    PYTHONPATH=src:. python tests/fuzz/fuzz_mail.py TARGET [CORPUS] [-max_total_time=60] [other libFuzzer options]

Needs atheris (pip install atheris), which is no dependency of ours. A finding is any exception but MalformedError, or
an assertion of a target; libFuzzer writes the octets to crash-*. `test_fuzz_mail.py` runs the same targets with
hypothesis.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding

from schleuse.errors import MalformedError
from schleuse.kim.classify import classify
from schleuse.kim.message import open_kim_mail
from schleuse.kim.pki import DevelopmentCA
from schleuse.mail.head import parse, parse_date, raw_fields, split
from schleuse.mail.parts import leaves, payload_parts
from schleuse.mail.smime import ber
from schleuse.mail.smime.envelope import parse_envelope
from schleuse.mail.smime.judge import Verdict, judge_signed
from schleuse.mail.smime.revocation import ocsp_proof
from schleuse.mail.smime.trust import TrustStore, read_certificate
from schleuse.vault import WrappedKey

NOW = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
FIELDS = ("from", "to", "subject", "date", "content-type")


def fuzz_ber(data: bytes) -> None:
    definite = ber.to_definite(data)
    assert ber.to_definite(definite) == definite
    der = ber.to_der(data)
    assert ber.to_der(der) == der


def fuzz_envelope(data: bytes) -> None:
    parse_envelope(data)


def fuzz_signed(data: bytes) -> None:
    """The judge answers always; and nobody's key but a certificate inside can make it say yes."""
    judged = judge_signed(data, None, NOW)
    assert judged.verdict is not Verdict.VALID


def fuzz_certificate(data: bytes) -> None:
    read_certificate(data)


@cache
def authority() -> DevelopmentCA:
    return DevelopmentCA.create(NOW)


def fuzz_revocation(data: bytes) -> None:
    """What was tampered with proves nothing, and says so quietly."""
    ca = authority().certificate
    ocsp_proof(ca, ca, data)
    TrustStore((ca,)).judge(ca.public_bytes(Encoding.DER), NOW, [data], [data], [data])


def fuzz_head(data: bytes) -> None:
    head = parse(split(data)[0])
    for name in FIELDS:
        head.decoded(name)
        head.addresses(name)
        parse_date(head.get(name) or "")
    head.content_type()
    classify(head)
    list(raw_fields(data))


def fuzz_mime(data: bytes) -> None:
    for part in payload_parts(leaves(data), frozenset({"eAU"})):
        part.decode()


def fuzz_kim(data: bytes) -> None:
    """Opening a KIM mail never raises for what is in it."""

    def no_key(wrapped: WrappedKey) -> bytes:
        return bytes(32)

    open_kim_mail(data, address=None, certificates=[], unwrap=no_key, trust=None, now=NOW)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "ber": fuzz_ber,
    "envelope": fuzz_envelope,
    "signed": fuzz_signed,
    "certificate": fuzz_certificate,
    "revocation": fuzz_revocation,
    "head": fuzz_head,
    "mime": fuzz_mime,
    "kim": fuzz_kim,
}
#: These answer with a value whatever they are given.
NEVER_RAISING = frozenset({"signed", "revocation", "kim"})


def run(name: str, data: bytes) -> None:
    """One input through one target. Anything but MalformedError comes out."""
    try:
        TARGETS[name](data)
    except MalformedError:
        if name in NEVER_RAISING:
            raise


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz_mail.py {{{','.join(TARGETS)}}} [CORPUS] [libFuzzer options]")
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris")
    name = sys.argv.pop(1)
    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda data: run(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
