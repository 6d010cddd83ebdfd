"""What opening a KIM mail costs, beside the raw primitives of the same run.

    PYTHONPATH=src python bench/crypto.py [--seconds 0.3]

CPU time of this process (ms), the median of five rounds each; ratio = ours / raw. The mail holds a 25 KB document,
as in limits.md § 3. RSA-2048 decrypts; RSA-2048, P-256 and brainpoolP256r1 sign.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from time import process_time

import pybase64
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schleuse.eau.signature import check_payload, sign_payload
from schleuse.kim.message import build_kim_mail, open_kim_mail
from schleuse.kim.pki import INSURER_OID, PRACTICE_OID, Algorithm, DevelopmentCA, Identity
from schleuse.mail.head import parse, split
from schleuse.mail.parts import decode_base64, leaves, payload_parts
from schleuse.mail.smime.envelope import open_envelope, parse_envelope
from schleuse.mail.smime.judge import judge_signed
from schleuse.mail.smime.recipients import issuer_and_serial
from schleuse.mail.smime.signed import parse_signed
from schleuse.mail.smime.signing import Encoding
from schleuse.mail.smime.trust import TrustStore
from schleuse.vault import WrappedKey
from schleuse.vault.private_keys import unwrap_with

NOW = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
DOCUMENT = b"<entry><resource>" + bytes(range(32, 127)) * 265
TO, SENDER = "eau@kasse.kim.telematik-test", "praxis@arzt.kim.telematik-test"
EAU = frozenset({"eAU", "eAUStorno"})


def cpu_ms(work: Callable[[], object], seconds: float) -> float:
    """CPU ms of one call, the median of five rounds that take about `seconds` together."""
    start = process_time()
    work()
    once = max(process_time() - start, 1e-6)
    count = max(1, int(seconds / 5 / once))
    rounds = []
    for _ in range(5):
        start = process_time()
        for _ in range(count):
            work()
        rounds.append((process_time() - start) / count)
    return median(rounds) * 1000


def client_mail(payload: bytes) -> bytes:
    return (
        (
            f"From: {SENDER}\r\nTo: {TO}\r\nReply-To: {SENDER}\r\nDate: Mon, 02 Mar 2026 11:30:00 +0100\r\n"
            "Subject: EEAU0_7f0d2a4c\r\nMessage-ID: <7f0d2a4c@kim.telematik>\r\nMIME-Version: 1.0\r\n"
            "X-KIM-Dienstkennung: eAU;Lieferung;V1.2\r\nX-KIM-Sendersystem: Praxis;1.0\r\n"
            "Content-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
            "Anbei\r\n--b1\r\nContent-Type: application/octet-stream; name=EEAU0_7f0d2a4c.p7s\r\n"
            "Content-Transfer-Encoding: base64\r\nContent-Description: eAU\r\n"
            "Content-Disposition: attachment; filename=EEAU0_7f0d2a4c.p7s\r\n\r\n"
        ).encode()
        + pybase64.encodebytes(payload).replace(b"\n", b"\r\n")
        + b"--b1--\r\n"
    )


def raw_verify(identity: Identity) -> Callable[[], object]:
    """Signature check and SHA-256 of the document, and nothing around them."""
    key, data = identity.key, bytes(200)
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        signature, public = key.sign(data, pss, hashes.SHA256()), key.public_key()
        return lambda: (public.verify(signature, data, pss, hashes.SHA256()), hashlib.sha256(DOCUMENT).digest())
    ecdsa = ec.ECDSA(hashes.SHA256())
    made, owner = key.sign(data, ecdsa), key.public_key()
    return lambda: (owner.verify(made, data, ecdsa), hashlib.sha256(DOCUMENT).digest())


def raw_decrypt(identity: Identity) -> Callable[[], object]:
    """RSA-OAEP and AES-GCM of an envelope's size, and nothing around them."""
    assert isinstance(identity.key, rsa.RSAPrivateKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    private, wrapped = identity.key, identity.key.public_key().encrypt(bytes(32), oaep)
    sealed = AESGCM(bytes(32)).encrypt(bytes(12), DOCUMENT + DOCUMENT[:12_000], None)
    return lambda: AESGCM(private.decrypt(wrapped, oaep)).decrypt(bytes(12), sealed, None)


class Bench:
    """One PKI for the whole run, and a line of the table for each thing measured."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ca = DevelopmentCA.create(NOW)
        self.insurer = self.ca.issue_institution("Kasse", "8-1", INSURER_OID, now=NOW)
        self.practice = self.ca.issue_institution("Praxis", "1-1", PRACTICE_OID, now=NOW)
        self.trust = TrustStore((self.ca.certificate,), (self.ca.crl(NOW),))
        self.certificates = [self.insurer.certificate_der]

    def line(self, name: str, ours: Callable[[], object], raw: Callable[[], object] | None = None) -> None:
        mine = cpu_ms(ours, self.seconds)
        if raw is None:
            print(f"{name:48} {mine:8.3f}", flush=True)
            return
        theirs = cpu_ms(raw, self.seconds)
        print(f"{name:48} {mine:8.3f} {theirs:8.3f} {mine / theirs:6.2f}", flush=True)

    def unwrap(self, wrapped: WrappedKey) -> bytes:
        return unwrap_with(self.insurer.key, wrapped)

    def mail(self, payload: bytes, signer: Identity, encoding: Encoding) -> bytes:
        return build_kim_mail(
            client_mail(payload),
            signer=signer.signer(),
            recipients=[(TO, self.certificates[0])],
            sender=(SENDER, self.practice.certificate_der),
            date=NOW,
            encoding=encoding,
        )

    def checked(self, raw: bytes) -> None:
        """From the mail on the wire to XML whose signature was checked."""
        opened = open_kim_mail(
            raw, address=TO, certificates=self.certificates, unwrap=self.unwrap, trust=self.trust, now=NOW
        )
        assert opened.intact
        assert opened.inner is not None
        (part,) = payload_parts(leaves(opened.inner), EAU)
        assert check_payload(part.decode(), self.trust, NOW).verdict.accepted

    def frame(self, raw: bytes) -> None:
        """What every mail costs, whoever signed it."""
        sealed = decode_base64(split(raw)[1])
        own = issuer_and_serial(self.certificates[0])
        wrapped = next(one for one in parse_envelope(sealed).recipients if one.recipient == own)
        self.line("split and parse the outer head", lambda: parse(split(raw)[0]))
        self.line("head and base64 of the mail", lambda: (parse(split(raw)[0]), decode_base64(split(raw)[1])))
        self.line(
            "decrypt RSA-2048 OAEP (envelope)",
            lambda: open_envelope(parse_envelope(sealed), wrapped, self.unwrap),
            raw_decrypt(self.insurer),
        )

    def signature(self, algorithm: Algorithm, encoding: Encoding) -> None:
        signer = self.ca.issue_institution("x", "1-1", PRACTICE_OID, now=NOW, kind="osig", algorithm=algorithm)
        p7s = sign_payload(DOCUMENT, signer.signer(), NOW, encoding=encoding)
        raw = self.mail(p7s, signer, encoding)
        check, decrypt = raw_verify(signer), raw_decrypt(self.insurer)
        name = f"{algorithm} {encoding}"
        self.line(f"parse SignedData ({name})", lambda: parse_signed(p7s))
        self.line(f"verify p7s and certificate ({name})", lambda: judge_signed(p7s, self.trust, NOW), check)
        self.line(f"mail to checked XML ({name})", lambda: self.checked(raw), lambda: (decrypt(), check(), check()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.3, help="CPU time for each line")
    bench = Bench(parser.parse_args().seconds)
    print(f"{'CPU ms':48} {'ours':>8} {'raw':>8} {'ratio':>6}")
    bench.frame(bench.mail(DOCUMENT, bench.ca.issue_institution("x", "1-1", PRACTICE_OID, now=NOW, kind="osig"), "der"))
    algorithms: tuple[Algorithm, ...] = ("rsa", "p256", "brainpool")
    encodings: tuple[Encoding, ...] = ("der", "ber")
    for algorithm in algorithms:
        for encoding in encodings:
            bench.signature(algorithm, encoding)


if __name__ == "__main__":
    main()
