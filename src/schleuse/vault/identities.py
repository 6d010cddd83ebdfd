"""The insurers' private keys of KIM: containers under keys of subjects of their own (decision 0016)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.vault.contracts import KeyMissingError, SealedMail
from schleuse.vault.core import Actor, Changing, Core, Wanted
from schleuse.vault.private_keys import PrivateKey, checked_key, issuer_and_serial, key_signer, unwrap_with
from schleuse.vault.sk1 import checked_share, derive, seal_all
from schleuse.vault.store import Deposit, Identity
from schleuse.vault.ve1 import parse_header, seal_container

#: Private key operations between two looks at the sockets.
BREATHE_EVERY = 4
_VAULT = "vault"


@dataclass(frozen=True, slots=True, repr=False)
class Insured:
    """What the configuration says of an insurer. encryption: DER of its certificates, newest first; signature: DER."""

    encryption: tuple[bytes, ...]
    signature: bytes | None


@dataclass(frozen=True, slots=True, repr=False)
class _Recipient:
    """An identity that opens mail, and what its header says."""

    identity: Identity
    subject: bytes
    version: int


class Identities:
    """insurers: by IK."""

    def __init__(self, core: Core, insurers: Mapping[IK, Insured]) -> None:
        self._core = core
        self._insurers = insurers
        self._recipients: dict[IK, dict[bytes, _Recipient]] = {}
        self._importing = asyncio.Lock()

    def insurer(self, ik: IK) -> Insured:
        """Raises KeyMissingError."""
        insurer = self._insurers.get(ik)
        if insurer is None:
            raise KeyMissingError(f"no keys are configured for the insurer {ik}")
        return insurer

    def signature(self, ik: IK) -> bytes:
        """DER of the insurer's C.HCI.OSIG. Raises KeyMissingError."""
        certificate = self.insurer(ik).signature
        if certificate is None:
            raise KeyMissingError(f"no signature identity is configured for the insurer {ik}")
        return certificate

    async def open_mails(
        self, ik: IK, actor: Actor, mails: Sequence[SealedMail], detail: dict[str, Json]
    ) -> list[bytes | Error]:
        """The content key of each mail. One that we have no key for cannot be opened and leaves no entry."""
        self.insurer(ik)
        known = await self._known(ik)
        found: list[bytes | Error] = [
            KeyMissingError(f"the vault has no key of {ik} for this recipient certificate") for _ in mails
        ]
        ours = [(place, mail, known[mail.wrapped.recipient]) for place, mail in enumerate(mails)
                if mail.wrapped.recipient in known]  # fmt: skip
        if not ours:
            return found
        wanted = [
            Wanted(one.subject, one.version, f"kim:{sha256(mail.wrapped.encrypted_key).hexdigest()}")
            for _, mail, one in ours
        ]
        deliveries: list[Json] = [mail.delivery for _, mail, _ in ours]
        shares = await self._core.release(ik, actor, Purpose.EAU_INTAKE, wanted, {**detail, "deliveries": deliveries})
        for number, ((place, mail, one), share) in enumerate(zip(ours, shares, strict=True)):
            try:
                found[place] = unwrap_with(self._core.keyring.identity_key(one.identity, share), mail.wrapped)
            except Error as error:  # the entry says that it may have been read
                found[place] = error
            if number % BREATHE_EVERY == BREATHE_EVERY - 1:
                await asyncio.sleep(0)
        return found

    async def sign(self, ik: IK, actor: Actor, data: bytes, detail: dict[str, Json]) -> tuple[bytes, bytes]:
        """See `contracts.Signer.sign`."""
        certificate = self.signature(ik)
        known = await asyncio.to_thread(self._core.store.identities, ik, "osig")
        identity = next((one for one in known if one.certificate == certificate), None)
        if identity is None:
            raise KeyMissingError(f"the vault has not taken over the signature key of {ik}")
        header = parse_header(identity.container)
        wanted = Wanted(header.subject, header.key_version, f"sign:{sha256(data).hexdigest()}")
        (share,) = await self._core.release(ik, actor, Purpose.FEHLERNACHRICHT, [wanted], detail)
        return key_signer(certificate, self._core.keyring.identity_key(identity, share)).sign(data)

    async def take_over(self, ik: IK, kind: str, certificate: bytes, key: PrivateKey) -> bool:
        """Keep a private key; False if the vault has it. certificate: DER. Raises KeyMissingError if they differ."""
        checked_key(certificate, key)
        async with self._importing:
            if await self.has(ik, kind, certificate):
                return False
            await self._keep(ik, kind, certificate, key)
            self._recipients.pop(ik, None)
        return True

    async def has(self, ik: IK, kind: str, certificate: bytes) -> bool:
        """Whether this certificate's key was taken over."""
        known = await asyncio.to_thread(self._core.store.identities, ik, kind)
        return any(one.certificate == certificate for one in known)

    async def _keep(self, ik: IK, kind: str, certificate: bytes, key: PrivateKey) -> None:
        core, fingerprint = self._core, sha256(certificate).digest()
        lookup = (await core.tenant(ik)).look_up(b"identity " + kind.encode(), fingerprint)
        await core.ledger(ik)  # first: its start may find versions that were given before a crash
        row = (await asyncio.to_thread(core.store.assign, ik, [lookup]))[lookup]
        subject, version = row.pseudonym, max(row.last_version, core.last_version(row.pseudonym)) + 1
        async with core.changing(ik, {subject: version}) as changing:
            await self._seal(ik, kind, certificate, key, subject, version, changing)

    async def _seal(
        self, ik: IK, kind: str, certificate: bytes, key: PrivateKey, subject: bytes, version: int, changing: Changing
    ) -> None:
        core, fingerprint = self._core, sha256(certificate).digest()
        pseudonym = await core.actor(ik, _VAULT)
        entry = core.entry(
            Kind.KEY_CREATED, Result.GRANTED, Purpose.OPERATION, actor=pseudonym, subject=subject, version=version
        )
        (share,) = await changing.write([entry])
        s_vault = secrets.token_bytes(32)
        container = seal_container(
            derive(s_vault, checked_share(share), subject, version),
            subject=subject,
            key_version=version,
            object_id=fingerprint[:16],
            object_version=1,
            plaintext=key.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
        identity = Identity(ik, kind, fingerprint, certificate, container)
        keys = await asyncio.to_thread(seal_all, core.keyring.kek, [(subject, version, s_vault)])
        await core.writer.keep(Deposit(ik, keys, identity=identity, reflected=changing.reflected))

    async def _known(self, ik: IK) -> dict[bytes, _Recipient]:
        """By IssuerAndSerialNumber."""
        known = self._recipients.get(ik)
        if known is not None:
            return known
        async with self._importing:  # or what is read here would miss an identity that comes in meanwhile
            known = {}
            for one in await asyncio.to_thread(self._core.store.identities, ik, "enc"):
                header = parse_header(one.container)
                recipient = issuer_and_serial(load_der_x509_certificate(one.certificate))
                known[recipient] = _Recipient(one, header.subject, header.key_version)
            self._recipients[ik] = known
        return known
