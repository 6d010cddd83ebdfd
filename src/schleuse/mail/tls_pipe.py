"""The server's end of TLS without a socket: octets of the wire in, plain octets out, and back.

Why not `loop.start_tls`: it hands over between two protocols while octets arrive, and under uvloop those that came
before the hand-over were executed as plain commands. Here each octet has one owner at every moment, connections
are counted before the costly handshake, and STARTTLS and implicit TLS are the same code. The work is OpenSSL's.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

from schleuse.errors import MalformedError, UnavailableError

RECORD = 16_384  #: octets of plain text in one record, RFC 8446 § 5.1


class TLSFailedError(MalformedError):
    """The client's octets are no TLS that we accept."""

    code = "mail.tls-failed"


def tls_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """A server's TLS: 1.2 with ECDHE and AES-GCM, or 1.3 (kim.md § 11).

    client_ca: clients must show a certificate of this CA.
    Raises: UnavailableError, when a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM")
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as cause:  # ssl.SSLError is one
        raise UnavailableError(
            f"the TLS certificate {certificate.name} or its key cannot be used ({type(cause).__name__})"
        ) from cause
    return context


class TLSPipe:
    """One connection's TLS. After each call, `to_send` has what must go on the wire."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.established = False
        self.ended = False  # the client has said that nothing follows

    def receive(self, data: bytes) -> bytes:
        """Plain octets that are complete now. Raises TLSFailedError; then `to_send` has the alert."""
        self._in.write(data)
        try:
            if not self.established:
                self._tls.do_handshake()
                self.established = True
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as cause:
            raise TLSFailedError(f"TLS failed ({cause.reason or type(cause).__name__})") from cause

    def _read(self) -> bytes:
        plain = []
        try:
            # Asking first: most octets end with a whole record, and an exception costs as much as reading a command.
            while self._in.pending or self._tls.pending():
                chunk = self._tls.read(RECORD)
                if not chunk:
                    self.ended = True
                    break
                plain.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def send(self, plain: bytes) -> None:
        self._tls.write(plain)

    def close(self) -> None:
        """Say that nothing follows."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()

    def to_send(self) -> bytes:
        return self._out.read()
