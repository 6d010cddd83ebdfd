"""How a recorded Fehlernachricht becomes a KIM mail and leaves: by SMTP to the `kim` role, like any client's mail."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress

import aiosmtplib
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_der_x509_certificate

from schleuse.clock import utc_now
from schleuse.config import Config, host_and_port
from schleuse.eau.letter_store import Unsent
from schleuse.errors import UnavailableError
from schleuse.kim.directory import DirectoryFile
from schleuse.kim.message import build_kim_mail
from schleuse.vault import Vault

SMTP_SECONDS = 60.0


class SubmissionFailedError(UnavailableError):
    """The mail role did not take the mail over; it is sent again."""

    code = "eau.submission-failed"


def finisher(config: Config, vault: Vault) -> Callable[[Unsent], bytes]:
    """Opens, signs and encrypts one letter, the vault has the keys. What it returns raises any `Error`."""
    directory = DirectoryFile(config.kim.directory)

    def finish(letter: Unsent) -> bytes:
        draft = vault.open_letter(letter.ik, letter.message_id, letter.draft)
        theirs = _usable(directory.current().certificates(letter.recipient))
        return build_kim_mail(
            draft,
            signer=vault.signer(letter.ik),
            recipients=[(letter.recipient, certificate) for certificate in theirs],
            sender=(letter.sender, _usable(vault.certificates(letter.ik))[0]),
            date=utc_now(),
        )

    return finish


def _usable(certificates: Sequence[bytes]) -> Sequence[bytes]:
    """Those that we can encrypt for, all of them: which of its cards a practice opens its mail with is its own affair.

    A practice with RSA and EC certificates side by side reads the RSA ones. With EC alone there is no way yet (TI
    ECIES): then all are given back, and building the mail says so.
    """
    rsa_keyed = [one for one in certificates if isinstance(load_der_x509_certificate(one).public_key(), RSAPublicKey)]
    return rsa_keyed or certificates


class Submitter:
    """One authenticated session per insurer, kept while it works."""

    def __init__(self, config: Config) -> None:
        self._host, self._port = host_and_port(config.eau.submit)
        self._ca = config.eau.submit_ca
        self._passwords = {insurer.address.lower(): insurer.password_file for insurer in config.insurers}
        self._sessions: dict[str, aiosmtplib.SMTP] = {}

    async def submit(self, content: bytes, sender: str, recipient: str) -> None:
        """Returns when the mail is durable at the mail role. Raises SubmissionFailedError."""
        try:
            session = await self._session(sender)
            await session.sendmail(
                sender, recipient, content, mail_options=["RET=HDRS"], rcpt_options=["NOTIFY=SUCCESS,FAILURE"]
            )
        except (aiosmtplib.SMTPException, OSError) as cause:
            self._drop(sender)
            raise SubmissionFailedError(f"the mail role did not take a mail over ({type(cause).__name__})") from cause

    async def _session(self, sender: str) -> aiosmtplib.SMTP:
        session = self._sessions.get(sender)
        if session is not None and session.is_connected:
            return session
        password = await asyncio.to_thread(self._passwords[sender.lower()].read_text, "utf-8")
        session = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            use_tls=True,
            tls_context=ssl.create_default_context(cafile=str(self._ca)),
            timeout=SMTP_SECONDS,
        )
        await session.connect()
        await session.login(sender, password.strip())
        self._sessions[sender] = session
        return session

    def _drop(self, sender: str) -> None:
        session = self._sessions.pop(sender, None)
        if session is not None:
            with suppress(OSError):
                session.close()
