"""The operations of the vault, each a batch: decided, journalled, and only then opened (RP-01, decision 0016)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509 import load_der_x509_certificate

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.contracts import Level
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json, canonical_json, detail_commitment, object_commitment
from schleuse.vault.actors import Caller, Operation, require
from schleuse.vault.contracts import (
    BadRequestError,
    BadTokenError,
    Document,
    ErasedError,
    KeyMissingError,
    Named,
    Pseudonyms,
    SealBrokenError,
    SealedMail,
    feed_paths,
)
from schleuse.vault.core import Actor, Core, Wanted
from schleuse.vault.leaves import leaf, to_us
from schleuse.vault.private_keys import PrivateKey, checked_key, issuer_and_serial, key_signer, unwrap_with
from schleuse.vault.sk1 import derive, seal_sk1
from schleuse.vault.store import Identity, SealedOpening, Subject
from schleuse.vault.tokens import Claims, verify_token
from schleuse.vault.tokens import Purpose as TokenPurpose
from schleuse.vault.ve1 import Header, open_container, parse_header, seal_container

#: Private key operations between two looks at the sockets.
BREATHE_EVERY = 4
MAX_VERSION = 2**32 - 1
_LETTERS = b"letters"
LETTER = "draft"  #: form of a Fehlernachricht before it is sent


@dataclass(frozen=True, slots=True, repr=False)
class Insured:
    """What the configuration says of an insurer. encryption: DER of its certificates, newest first; signature: DER."""

    encryption: tuple[bytes, ...]
    signature: bytes | None


@dataclass(frozen=True, slots=True, repr=False)
class _Filing:
    """A subject's new key version in a batch, and what is sealed under it."""

    subject: bytes
    version: int
    s_vault: bytes
    created: bytes
    documents: list[tuple[int, Document, bytes]] = field(default_factory=list)  # place in the batch, document, event


class VaultService:
    """insurers: by IK. keys: of those who sign tokens, by (name, IK), operators under (name, "")."""

    def __init__(
        self,
        core: Core,
        insurers: Mapping[IK, Insured],
        keys: Mapping[tuple[str, str], Ed25519PublicKey],
        audience: str,
    ) -> None:
        self._core = core
        self._insurers = insurers
        self._keys = keys
        self._audience = audience
        self._identities: dict[IK, dict[bytes, Identity]] = {}
        self._reserved: dict[bytes, int] = {}

    # Mails

    async def certificates(self, caller: Caller, ik: IK) -> tuple[bytes, ...]:
        """See `contracts.Vault.certificates`."""
        require(caller, Operation.CERTIFICATES)
        return self._insurer(ik).encryption

    async def signature_certificate(self, caller: Caller, ik: IK) -> bytes:
        """DER of the insurer's C.HCI.OSIG."""
        require(caller, Operation.CERTIFICATES)
        return self._signature(ik)

    async def open_mails(self, caller: Caller, ik: IK, mails: Sequence[SealedMail]) -> list[bytes | Error]:
        """See `contracts.Vault.open_mails`."""
        require(caller, Operation.OPEN_MAILS)
        self._insurer(ik)
        known = await self._recipients(ik)
        found: list[bytes | Error] = [
            KeyMissingError(f"the vault has no key of {ik} for this recipient certificate") for _ in mails
        ]
        ours = [(place, mail, known[mail.wrapped.recipient]) for place, mail in enumerate(mails)
                if mail.wrapped.recipient in known]  # fmt: skip
        if not ours:
            return found
        wanted = []
        for _, mail, identity in ours:
            header = parse_header(identity.container)
            name = f"kim:{sha256(mail.wrapped.encrypted_key).hexdigest()}"
            wanted.append(Wanted(header.subject, header.key_version, name))
        detail: dict[str, Json] = {"deliveries": [mail.delivery for _, mail, _ in ours], "uid": caller.uid}
        shares = await self._core.release(ik, _role(caller), Purpose.EAU_INTAKE, wanted, detail)
        for number, ((place, mail, identity), share) in enumerate(zip(ours, shares, strict=True)):
            try:
                found[place] = unwrap_with(self._core.keyring.identity_key(identity, share.share), mail.wrapped)
            except Error as error:
                found[place] = error
            if number % BREATHE_EVERY == BREATHE_EVERY - 1:
                await asyncio.sleep(0)
        return found

    # Documents

    async def pseudonyms(self, caller: Caller, ik: IK, named: Sequence[Named]) -> list[Pseudonyms]:
        """See `contracts.Vault.pseudonyms`."""
        require(caller, Operation.PSEUDONYMS)
        self._insurer(ik)
        keys = await self._core.tenant(ik)
        lookups = [keys.look_up(b"person", one.person) for one in named]
        subjects = await self._subjects(ik, lookups)
        return [
            Pseudonyms(
                subjects[lookup].pseudonym,
                keys.content(subjects[lookup].nonce, one.content),
                None if one.practice is None else keys.practice(one.practice),
            )
            for lookup, one in zip(lookups, named, strict=True)
        ]

    async def file(self, caller: Caller, ik: IK, documents: Sequence[Document]) -> list[bytes]:
        """See `contracts.Vault.file`."""
        require(caller, Operation.FILE)
        return await self._file(ik, _role(caller), Purpose.EAU_INTAKE, documents)

    async def fetch(self, caller: Caller, ik: IK, token: str, name: str, form: str, container: bytes) -> bytes:
        """See `contracts.Vault.fetch`."""
        require(caller, Operation.FETCH)
        self._insurer(ik)
        whats = [("GET", path) for path in feed_paths(ik, name)]
        claims = await self._claims(ik, token, "feed", Purpose.EAU_DELIVERY, whats)
        header = _header(container, object_id(ik, name, form))
        actor = Actor("insurer", f"insurer's system {claims.name}")
        detail: dict[str, Json] = {"token": claims.id, "through": caller.name}
        return await self._open(ik, actor, Purpose.EAU_DELIVERY, header, container, detail)

    async def seal_letter(self, caller: Caller, ik: IK, name: str, draft: bytes) -> bytes:
        """See `contracts.Vault.seal_letter`."""
        require(caller, Operation.SEAL_LETTER)
        keys = await self._core.tenant(ik)
        lookup = keys.look_up(b"insurer", _LETTERS)
        subject = (await self._subjects(ik, [lookup]))[lookup].pseudonym
        document = Document(subject, name, LETTER, draft)
        (container,) = await self._file(ik, _role(caller), Purpose.FEHLERNACHRICHT, [document])
        return container

    async def open_letter(self, caller: Caller, ik: IK, name: str, container: bytes) -> bytes:
        """See `contracts.Vault.open_letter`."""
        require(caller, Operation.OPEN_LETTER)
        header = _header(container, object_id(ik, name, LETTER))
        keys = await self._core.tenant(ik)
        lookup = keys.look_up(b"insurer", _LETTERS)
        own = await asyncio.to_thread(self._core.store.subjects, ik, [lookup])
        if lookup not in own or own[lookup].pseudonym != header.subject:
            # Only letters open without an insurer's token.
            await self._core.deny(ik, _role(caller), Purpose.FEHLERNACHRICHT)
            raise SealBrokenError("this container is no letter of the insurer")
        return await self._open(ik, _role(caller), Purpose.FEHLERNACHRICHT, header, container, {"uid": caller.uid})

    async def sign(self, caller: Caller, ik: IK, data: bytes) -> tuple[bytes, bytes]:
        """See `contracts.Signer.sign`, with the insurer's C.HCI.OSIG."""
        require(caller, Operation.SIGN)
        certificate = self._signature(ik)
        known = await asyncio.to_thread(self._core.store.identities, ik, "osig")
        identity = next((one for one in known if one.certificate == certificate), None)
        if identity is None:
            raise KeyMissingError(f"the vault has not taken over the signature key of {ik}")
        header = parse_header(identity.container)
        wanted = Wanted(header.subject, header.key_version, f"sign:{sha256(data).hexdigest()}")
        (share,) = await self._core.release(ik, _role(caller), Purpose.FEHLERNACHRICHT, [wanted], {"uid": caller.uid})
        return key_signer(certificate, self._core.keyring.identity_key(identity, share.share)).sign(data)

    # Orders of persons

    async def erase(self, caller: Caller, ik: IK, token: str, person: bytes, level: Level = Level.WITNESSED) -> bool:
        """Destroy a person's keys, openings and pseudonym. False if the insurer has nothing of this person.

        token: an operator's order, purpose "erase", for the digest of the person. Raises BadTokenError,
        VaultUnavailableError (then nothing was destroyed).
        """
        require(caller, Operation.ERASE)
        self._insurer(ik)
        what = ("ERASE", sha256(person).hexdigest())
        claims = await self._claims(ik, token, "erase", Purpose.DATA_PROTECTION, [what])
        lookup = (await self._core.tenant(ik)).look_up(b"person", person)
        subject = (await asyncio.to_thread(self._core.store.subjects, ik, [lookup])).get(lookup)
        if subject is None:
            return False
        actor = await self._core.actor(ik, f"operator {claims.name}")

        def entry() -> list[bytes]:
            at_us = to_us(self._core.now())
            return [
                leaf(
                    Kind.KEY_DESTROYED,
                    Result.GRANTED,
                    Purpose.DATA_PROTECTION,
                    at_us,
                    self._core.events.next(at_us),
                    actor=actor,
                    subject=subject.pseudonym,
                    version=subject.last_version,
                )
            ]

        await self._core.write(ik, entry, level)
        self._core.keyring.drop()
        await asyncio.to_thread(self._core.store.erase, ik, subject.pseudonym)
        return True

    async def opening(self, caller: Caller, ik: IK, token: str, event: bytes) -> dict[str, Json] | None:
        """What an entry that names no insured person stands for; the looking is an entry itself (RP-07)."""
        require(caller, Operation.OPENING)
        claims = await self._claims(ik, token, "opening", Purpose.DATA_PROTECTION, [("OPENING", event.hex())])
        actor = await self._core.actor(ik, f"operator {claims.name}")

        def entry() -> list[bytes]:
            at_us = to_us(self._core.now())
            own = self._core.events.next(at_us)
            return [leaf(Kind.READ, Result.GRANTED, Purpose.DATA_PROTECTION, at_us, own, actor=actor)]

        await self._core.write(ik, entry)
        return await self._core.recall(ik, event)

    async def status(self, caller: Caller) -> dict[str, Json]:
        """Counters of every insurer's log in use, as the vault has them."""
        require(caller, Operation.STATUS)
        figures = self._core.figures
        logs: dict[str, Json] = {
            origin: {"counter": ledger.counter, "size": ledger.top, "in_doubt": ledger.in_doubt}
            for origin, ledger in self._core.ledgers().items()
        }
        releases: dict[str, Json] = {f"{ik} {purpose}": n for (ik, purpose), n in figures.releases.items()}
        denied: dict[str, Json] = dict(figures.denied)
        return {
            "logs": logs,
            "releases_since_start": releases,
            "denied_since_start": denied,
            "unwraps_since_start": self._core.keyring.kek.unwraps,
        }

    # Identities

    async def import_identity(self, ik: IK, kind: str, certificate: bytes, key: PrivateKey) -> bool:
        """Take a private key over; False if the vault has it. certificate: DER. Raises KeyMissingError."""
        fingerprint = sha256(certificate).digest()
        if await self.has_identity(ik, kind, certificate):
            return False
        checked_key(certificate, key)
        keys = await self._core.tenant(ik)
        lookup = keys.look_up(b"identity " + kind.encode(), fingerprint)
        subject = (await self._subjects(ik, [lookup]))[lookup]
        version = subject.last_version + 1
        s_vault = secrets.token_bytes(32)
        actor = await self._core.actor(ik, "vault")

        def entry() -> list[bytes]:
            at_us = to_us(self._core.now())
            return [
                leaf(
                    Kind.KEY_CREATED,
                    Result.GRANTED,
                    Purpose.OPERATION,
                    at_us,
                    self._core.events.next(at_us),
                    actor=actor,
                    subject=subject.pseudonym,
                    version=version,
                )
            ]

        ((_, share),) = await self._core.write(ik, entry)
        sk = derive(s_vault, _half(share), subject.pseudonym, version)
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        container = seal_container(
            sk,
            subject=subject.pseudonym,
            key_version=version,
            object_id=fingerprint[:16],
            object_version=1,
            plaintext=der,
        )
        record = seal_sk1(self._core.keyring.kek, subject.pseudonym, version, s_vault)
        identity = Identity(ik, kind, fingerprint, certificate, container)
        await asyncio.to_thread(self._core.store.add_keys, ik, [(subject.pseudonym, version, record)], [], identity)
        self._identities.pop(ik, None)
        return True

    async def has_identity(self, ik: IK, kind: str, certificate: bytes) -> bool:
        """Whether this certificate's key was taken over."""
        known = await asyncio.to_thread(self._core.store.identities, ik, kind)
        return any(one.certificate == certificate for one in known)

    # Common parts

    async def _open(
        self,
        ik: IK,
        actor: Actor,
        purpose: Purpose,
        header: Header,
        container: bytes,
        detail: dict[str, Json],
    ) -> bytes:
        if await asyncio.to_thread(self._core.store.key, header.subject, header.key_version) is None:
            await self._core.deny(
                ik, actor, purpose, subject=header.subject, version=header.key_version, result=Result.FAILED
            )
            raise ErasedError("the key of this content was destroyed; nobody can open it any more")
        wanted = Wanted(header.subject, header.key_version, header.object_id.hex(), header.object_version)
        (share,) = await self._core.release(ik, actor, purpose, [wanted], detail)
        sk = self._core.keyring.subject_key(header.subject, header.key_version, share.share)
        return open_container(sk, container)

    async def _file(self, ik: IK, actor: Actor, purpose: Purpose, documents: Sequence[Document]) -> list[bytes]:
        """Seal each under a new version of its subject's key."""
        self._insurer(ik)
        if not documents:
            return []
        filings = await self._filings(ik, documents)
        try:
            return await self._seal(ik, actor, purpose, list(filings.values()), len(documents))
        finally:
            for subject in filings:
                self._reserved.pop(subject, None)

    async def _filings(self, ik: IK, documents: Sequence[Document]) -> dict[bytes, _Filing]:
        subjects = {document.subject for document in documents}
        rows = await asyncio.to_thread(self._core.store.by_pseudonym, ik, subjects)
        if len(rows) < len(subjects):
            raise ErasedError(f"{len(subjects) - len(rows)} of these persons are not known at {ik} (any more)")
        at_us = to_us(self._core.now())
        filings: dict[bytes, _Filing] = {}
        for place, document in enumerate(documents):
            filing = filings.get(document.subject)
            if filing is None:
                # Two batches may file for one person at the same time.
                version = max(rows[document.subject].last_version, self._reserved.get(document.subject, 0)) + 1
                if version > MAX_VERSION:
                    raise BadRequestError("a person's key has no more versions")
                self._reserved[document.subject] = version
                filing = filings[document.subject] = _Filing(
                    document.subject, version, secrets.token_bytes(32), self._core.events.next(at_us)
                )
            filing.documents.append((place, document, self._core.events.next(at_us)))
        return filings

    async def _seal(
        self, ik: IK, actor: Actor, purpose: Purpose, filings: Sequence[_Filing], count: int
    ) -> list[bytes]:
        now_us = to_us(self._core.now())
        pseudonym = await self._core.actor(ik, actor.name)
        salt, record = secrets.token_bytes(16), canonical_json({"role": actor.name})
        detail = detail_commitment(salt, record)

        def entries() -> list[bytes]:
            made: list[bytes] = []
            for one in filings:
                made.append(
                    leaf(
                        Kind.KEY_CREATED,
                        Result.GRANTED,
                        purpose,
                        now_us,
                        one.created,
                        actor=pseudonym,
                        subject=one.subject,
                        version=one.version,
                    )
                )
                made += [
                    leaf(
                        Kind.WRITE,
                        Result.GRANTED,
                        purpose,
                        now_us,
                        event,
                        actor=pseudonym,
                        subject=one.subject,
                        object_=object_commitment(salt, object_id(ik, document.name, document.form).hex(), now_us),
                        detail=detail,
                        version=one.version,
                    )
                    for _, document, event in one.documents
                ]
            return made

        written = await self._core.write(ik, entries)
        containers = [b""] * count
        keys: list[tuple[bytes, int, bytes]] = []
        openings: list[SealedOpening] = []
        at = 0
        for one in filings:
            sk = derive(one.s_vault, _half(written[at][1]), one.subject, one.version)
            at += 1 + len(one.documents)
            for place, document, _ in one.documents:
                containers[place] = seal_container(
                    sk,
                    subject=one.subject,
                    key_version=one.version,
                    object_id=object_id(ik, document.name, document.form),
                    object_version=now_us,
                    plaintext=document.plaintext,
                )
            keys.append(
                (
                    one.subject,
                    one.version,
                    seal_sk1(self._core.keyring.kek, one.subject, one.version, one.s_vault),
                )
            )
            openings.append(_opening(ik, one, sk, salt, record, now_us))
        if not await asyncio.to_thread(self._core.store.add_keys, ik, keys, openings):
            raise ErasedError("a person was erased while this was being filed")
        return containers

    async def _subjects(self, ik: IK, lookups: Sequence[bytes]) -> dict[bytes, Subject]:
        """Rows of these lookups, made where there is none."""
        store = self._core.store
        known = await asyncio.to_thread(store.subjects, ik, list(set(lookups)))
        new = {
            lookup: Subject(secrets.token_bytes(16), secrets.token_bytes(32), 0)
            for lookup in lookups
            if lookup not in known
        }
        if new:
            known |= await asyncio.to_thread(store.add_subjects, ik, new)
        return known

    async def _claims(
        self, ik: IK, token: str, purpose: TokenPurpose, why: Purpose, whats: Sequence[tuple[str, str]]
    ) -> Claims:
        """Who asks; an attempt that does not show it leaves an entry. Raises BadTokenError."""
        try:
            claims = verify_token(token, self._keys, aud=self._audience, purpose=purpose, now=self._core.now())
            if claims.ik != ik:
                raise BadTokenError(f"the token is for another insurer than {ik}")
            if claims.what not in whats:
                raise BadTokenError("the token is for another request than this")
            if purpose != "feed" and (claims.name, "") not in self._keys:
                raise BadTokenError(f"{purpose} needs the order of an operator")
        except BadTokenError:
            await self._core.deny(ik, Actor("insurer", "unknown"), why)
            raise
        return claims

    async def _recipients(self, ik: IK) -> dict[bytes, Identity]:
        known = self._identities.get(ik)
        if known is None:
            rows = await asyncio.to_thread(self._core.store.identities, ik, "enc")
            known = {issuer_and_serial(load_der_x509_certificate(one.certificate)): one for one in rows}
            self._identities[ik] = known
        return known

    def _insurer(self, ik: IK) -> Insured:
        insurer = self._insurers.get(ik)
        if insurer is None:
            raise KeyMissingError(f"no keys are configured for the insurer {ik}")
        return insurer

    def _signature(self, ik: IK) -> bytes:
        certificate = self._insurer(ik).signature
        if certificate is None:
            raise KeyMissingError(f"no signature identity is configured for the insurer {ik}")
        return certificate


def object_id(ik: IK, name: str, form: str) -> bytes:
    """What a container is bound to, 16 bytes."""
    return sha256(f"schleuse vault\0{ik}\0{name}\0{form}".encode()).digest()[:16]


def _header(container: bytes, expected: bytes) -> Header:
    header = parse_header(container)
    if header.object_id != expected:
        raise SealBrokenError("a container is not the one of this document")
    return header


def _role(caller: Caller) -> Actor:
    return Actor(caller.role, caller.name)


def _half(share: bytes) -> bytes:
    if len(share) != 32:
        raise KeyMissingError("the journal gave no share of the key; its configuration must name the vault's user")
    return share


def _opening(ik: IK, one: _Filing, sk: bytes, salt: bytes, record: bytes, version: int) -> SealedOpening:
    """What makes a filing's entries readable, sealed like the documents: it names them."""
    content: dict[str, Json] = {
        "salt": salt.hex(),
        "detail": record.decode(),
        "events": [event.hex() for _, _, event in one.documents],
        "objects": [
            [object_id(ik, document.name, document.form).hex(), str(version)] for _, document, _ in one.documents
        ],
        "names": [document.name for _, document, _ in one.documents],
    }
    sealed = seal_container(
        sk,
        subject=one.subject,
        key_version=one.version,
        object_id=one.created,
        object_version=version,
        plaintext=canonical_json(content),
    )
    return SealedOpening(one.created, one.documents[-1][2], sealed, one.subject, one.version)
