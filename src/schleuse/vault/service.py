"""The operations of the vault, each a batch: decided, journalled, and only then opened (RP-01, decision 0016)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.contracts import Level
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.journal.opening import Json
from schleuse.vault.actors import Caller, Operation, require
from schleuse.vault.askers import Askers
from schleuse.vault.contracts import (
    Document,
    ErasedError,
    KeyMissingError,
    Named,
    NotAllowedError,
    Pseudonyms,
    SealBrokenError,
    SealedMail,
    feed_paths,
)
from schleuse.vault.core import Actor, Core, Wanted
from schleuse.vault.details import Details, open_for_insurer, open_for_person
from schleuse.vault.filing import Filing, object_id
from schleuse.vault.identities import Identities, Insured
from schleuse.vault.private_keys import PrivateKey
from schleuse.vault.store import SealedOpening
from schleuse.vault.tokens import Claims
from schleuse.vault.ve1 import Header, open_container, parse_header

log = structlog.get_logger()

LETTER = "draft"  #: form of a Fehlernachricht before it is sent
_LETTERS = b"letters"


class VaultService:
    """insurers: by IK. keys, audience: see `Askers`."""

    def __init__(
        self,
        core: Core,
        insurers: Mapping[IK, Insured],
        keys: Mapping[tuple[str, str], Ed25519PublicKey],
        audience: str,
    ) -> None:
        self._core = core
        self._identities = Identities(core, insurers)
        self._filing = Filing(core)
        self._askers = Askers(core, keys, audience)

    # Mails and signatures

    async def certificates(self, caller: Caller, ik: IK) -> tuple[bytes, ...]:
        """See `contracts.Vault.certificates`."""
        await self._require(caller, Operation.CERTIFICATES, ik)
        return self._identities.insurer(ik).encryption

    async def signature_certificate(self, caller: Caller, ik: IK) -> bytes:
        """DER of the insurer's C.HCI.OSIG."""
        await self._require(caller, Operation.CERTIFICATES, ik)
        return self._identities.signature(ik)

    async def open_mails(self, caller: Caller, ik: IK, mails: Sequence[SealedMail]) -> list[bytes | Error]:
        """See `contracts.Vault.open_mails`."""
        await self._require(caller, Operation.OPEN_MAILS, ik)
        return await self._identities.open_mails(ik, _role(caller), mails, {"uid": caller.uid})

    async def sign(self, caller: Caller, ik: IK, data: bytes) -> tuple[bytes, bytes]:
        """See `contracts.Signer.sign`, with the insurer's C.HCI.OSIG."""
        await self._require(caller, Operation.SIGN, ik)
        return await self._identities.sign(ik, _role(caller), data, {"uid": caller.uid})

    async def import_identity(self, ik: IK, kind: str, certificate: bytes, key: PrivateKey) -> bool:
        """Take a private key over, kind "enc" or "osig"; False if the vault has it. certificate: DER.

        Leaves an entry KEY_CREATED, purpose OPERATION. Raises KeyMissingError if they do not fit each other.
        """
        return await self._identities.take_over(ik, kind, certificate, key)

    async def has_identity(self, ik: IK, kind: str, certificate: bytes) -> bool:
        """Whether this certificate's key was taken over."""
        return await self._identities.has(ik, kind, certificate)

    # Documents

    async def pseudonyms(self, caller: Caller, ik: IK, named: Sequence[Named]) -> list[Pseudonyms]:
        """See `contracts.Vault.pseudonyms`."""
        await self._require(caller, Operation.PSEUDONYMS, ik)
        self._identities.insurer(ik)
        await self._core.ledger(ik)  # its start completes erasures: nobody gets the pseudonym of a person who is gone
        keys = await self._core.tenant(ik)
        lookups = [keys.look_up(b"person", one.person) for one in named]
        subjects = await asyncio.to_thread(self._core.store.assign, ik, lookups)
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
        await self._require(caller, Operation.FILE, ik)
        self._identities.insurer(ik)
        if not documents:
            return []
        return await self._filing.file(ik, _role(caller), Purpose.EAU_INTAKE, documents)

    async def fetch(self, caller: Caller, ik: IK, token: str, name: str, form: str, container: bytes) -> bytes:
        """See `contracts.Vault.fetch`."""
        await self._require(caller, Operation.FETCH, ik)
        self._identities.insurer(ik)
        whats = [("GET", path) for path in feed_paths(ik, name)]
        claims = await self._askers.judged(ik, token, "feed", Purpose.EAU_DELIVERY, whats)
        actor = Actor("insurer", f"insurer's system {claims.name}")
        header = await self._header(ik, actor, Purpose.EAU_DELIVERY, container, object_id(ik, name, form))
        detail: dict[str, Json] = {"token": claims.id, "through": caller.name, "uid": caller.uid}
        return await self._open(ik, actor, Purpose.EAU_DELIVERY, header, container, detail)

    async def seal_letter(self, caller: Caller, ik: IK, name: str, draft: bytes) -> bytes:
        """See `contracts.Vault.seal_letter`."""
        await self._require(caller, Operation.SEAL_LETTER, ik)
        self._identities.insurer(ik)
        lookup = (await self._core.tenant(ik)).look_up(b"insurer", _LETTERS)
        subject = (await asyncio.to_thread(self._core.store.assign, ik, [lookup]))[lookup].pseudonym
        document = Document(subject, name, LETTER, draft)
        (container,) = await self._filing.file(ik, _role(caller), Purpose.FEHLERNACHRICHT, [document])
        return container

    async def open_letter(self, caller: Caller, ik: IK, name: str, container: bytes) -> bytes:
        """See `contracts.Vault.open_letter`."""
        await self._require(caller, Operation.OPEN_LETTER, ik)
        self._identities.insurer(ik)
        actor, purpose = _role(caller), Purpose.FEHLERNACHRICHT
        header = await self._header(ik, actor, purpose, container, object_id(ik, name, LETTER))
        lookup = (await self._core.tenant(ik)).look_up(b"insurer", _LETTERS)
        own = (await asyncio.to_thread(self._core.store.subjects, ik, [lookup])).get(lookup)
        if own is None or own.pseudonym != header.subject:  # only letters open without a token of the insurer
            await self._core.deny(ik, actor, purpose)
            raise SealBrokenError("this container is no letter of the insurer")
        return await self._open(ik, actor, purpose, header, container, {"uid": caller.uid})

    # Orders of persons

    async def erase(self, caller: Caller, ik: IK, token: str, person: bytes, level: Level = Level.WITNESSED) -> bool:
        """Destroy a person's keys, openings and pseudonym (G6). False if the insurer has nothing of this person.

        token: an operator's order, purpose "erase", for the digest of the person. level: that the entry KEY_DESTROYED
        has reached first. Raises BadTokenError, VaultUnavailableError: then nothing was destroyed yet; if the entry
        is in the log all the same, the next attempt destroys, or the log's next start.
        """
        await self._require(caller, Operation.ERASE, ik)
        self._identities.insurer(ik)
        self._core.gate.order(ik)
        what = ("ERASE", sha256(person).hexdigest())
        claims = await self._askers.judged(ik, token, "erase", Purpose.DATA_PROTECTION, [what])
        lookup = (await self._core.tenant(ik)).look_up(b"person", person)
        row = (await asyncio.to_thread(self._core.store.subjects, ik, [lookup])).get(lookup)
        if row is None:  # who looks for persons in this way is seen
            await self._core.deny(ik, Actor("insurer", f"operator {claims.name}"), Purpose.DATA_PROTECTION)
            return False
        subject, actor = row.pseudonym, await self._core.actor(ik, f"operator {claims.name}")
        async with self._core.changing(ik, {}, erased=subject) as changing:
            why, version = Purpose.DATA_PROTECTION, row.last_version
            entry = self._core.entry(
                Kind.KEY_DESTROYED, Result.GRANTED, why, actor=actor, subject=subject, version=version
            )
            await changing.write([entry], level)
            try:
                await asyncio.to_thread(self._core.store.erase, ik, subject, changing.reflected)
            finally:
                self._core.keyring.drop()
        return True

    async def opening(self, caller: Caller, ik: IK, token: str, event: bytes) -> dict[str, Json] | None:
        """What makes the entry of an event readable, as `journal.opening.Opening` writes it; None: nothing is known.

        token: an operator's order, purpose "opening", for this event. The looking is an entry itself (RP-07), and a
        release if the entry names an insured person.
        """
        await self._require(caller, Operation.OPENING, ik)
        self._identities.insurer(ik)
        claims = await self._askers.judged(ik, token, "opening", Purpose.DATA_PROTECTION, [("OPENING", event.hex())])
        await self._note(ik, claims, Kind.READ)
        row = await asyncio.to_thread(self._core.store.opening, ik, event)
        if row is None:
            return None
        if row.subject is not None and row.version is not None:
            details = await self._details_of_person(ik, claims, event, row, row.subject, row.version)
        else:
            details = open_for_insurer(await self._core.tenant(ik), row)
        opening = details.about(event)
        found: dict[str, Json] | None = json.loads(opening.encode()) if opening is not None else None
        return found

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
        raised: list[Json] = [
            {"ik": ik.value, "role": role, "releases": one.releases, "until": one.until.isoformat()}
            for (ik, role), one in self._core.raised.in_force().items()
        ]
        return {
            "logs": logs,
            "releases_since_start": releases,
            "denied_since_start": denied,
            "overrides": raised,
            "unwraps_since_start": self._core.keyring.kek.unwraps,
        }

    def drop(self) -> None:
        """Forget every key that opens content, at once: a scope was closed (SW-06)."""
        self._core.keyring.drop()

    # Common parts

    async def _require(self, caller: Caller, operation: Operation, ik: IK) -> None:
        """Raises NotAllowedError, which leaves an entry in the log of an insurer that we know."""
        try:
            require(caller, operation)
        except NotAllowedError:
            with suppress(KeyMissingError):  # no such insurer, so no log
                self._identities.insurer(ik)
                await self._core.deny(ik, _role(caller), Purpose.OPERATION)
            raise

    async def _open(
        self, ik: IK, actor: Actor, purpose: Purpose, header: Header, container: bytes, detail: dict[str, Json]
    ) -> bytes:
        subject, version = header.subject, header.key_version
        if not await asyncio.to_thread(self._core.store.has_key, ik, subject, version):
            await self._core.deny(ik, actor, purpose, subject=subject, version=version, result=Result.FAILED)
            if not await asyncio.to_thread(self._core.store.was_erased, subject):  # 410 would be for ever, and untrue
                log.critical("vault.key-lost", ik=ik.value, object=header.object_id.hex())
                raise KeyMissingError(
                    "the vault has no key of this content, and did not destroy it: its store may be an older copy"
                )
            raise ErasedError("the key of this content was destroyed; nobody can open it any more")
        wanted = Wanted(subject, version, header.object_id.hex(), header.object_version)
        (share,) = await self._core.release(ik, actor, purpose, [wanted], detail, person=subject)
        sk = await self._core.keyring.subject_key(subject, version, share)
        return open_container(sk, container)

    async def _details_of_person(
        self, ik: IK, claims: Claims, event: bytes, row: SealedOpening, subject: bytes, version: int
    ) -> Details:
        wanted = Wanted(subject, version, f"opening:{event.hex()}")
        actor = Actor("insurer", f"operator {claims.name}")
        detail: dict[str, Json] = {"token": claims.id}
        (share,) = await self._core.release(ik, actor, Purpose.DATA_PROTECTION, [wanted], detail, person=subject)
        sk = await self._core.keyring.subject_key(subject, version, share)
        return open_for_person(sk, row)

    async def _note(self, ik: IK, claims: Claims, kind: Kind) -> None:
        """The entry of an operator's order."""
        actor = await self._core.actor(ik, f"operator {claims.name}")
        why = Purpose.DATA_PROTECTION
        await self._core.write(ik, [self._core.entry(kind, Result.GRANTED, why, actor=actor)])

    async def _header(self, ik: IK, actor: Actor, purpose: Purpose, container: bytes, expected: bytes) -> Header:
        """What the container says, if it is the one that was asked for; else an attempt, which leaves an entry."""
        try:
            header = parse_header(container)
            if header.object_id != expected:
                raise SealBrokenError("a container is not the one of this document")
        except SealBrokenError:
            await self._core.deny(ik, actor, purpose)
            raise
        return header


def _role(caller: Caller) -> Actor:
    return Actor(caller.role, caller.name)


__all__ = ["LETTER", "Insured", "VaultService"]
