"""Documents sealed under their person's key, a new version for each batch: filing reads nothing (decision 0016)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from schleuse.clock import to_us
from schleuse.identifiers import IK
from schleuse.journal.entry import Kind, Purpose, Result
from schleuse.vault.contracts import BadRequestError, Document, ErasedError, TooLargeError
from schleuse.vault.core import Actor, Changing, Core
from schleuse.vault.details import Details, describe, seal_for_person
from schleuse.vault.drawn import Drawn
from schleuse.vault.kek import Random
from schleuse.vault.leaves import leaf
from schleuse.vault.sk1 import checked_share, derive, seal_all
from schleuse.vault.store import Deposit, SealedOpening, Subject
from schleuse.vault.ve1 import MAX_PLAINTEXT, seal_container

MAX_VERSION = 2**32 - 1
_DRAWN = 160  #: random bytes of a document alone: a salt, the vault's half, and two containers


@dataclass(frozen=True, slots=True, repr=False)
class _Part:
    """What a batch files for one person. places: in the batch."""

    subject: bytes
    version: int
    created: bytes
    places: list[int] = field(default_factory=list)


class Filing:
    """Gives out versions of keys; one for a process."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._in_work: Counter[bytes] = Counter()
        self._given: dict[bytes, int] = {}

    async def file(self, ik: IK, actor: Actor, purpose: Purpose, documents: Sequence[Document]) -> list[bytes]:
        """A container for each.

        Raises ScopeClosedError, ErasedError, TooLargeError, VaultUnavailableError; then nothing is kept.
        """
        self._core.gate.filing(ik)
        for document in documents:
            if len(document.plaintext) > MAX_PLAINTEXT:
                raise TooLargeError(f"a container holds at most {MAX_PLAINTEXT} bytes, not {len(document.plaintext)}")
        subjects = {document.subject for document in documents}
        await self._core.ledger(ik)  # first: its start may find versions that were given before a crash
        self._in_work.update(subjects)
        try:
            rows = await asyncio.to_thread(self._core.store.by_pseudonym, ik, subjects)
            if len(rows) < len(subjects):
                raise ErasedError(f"{len(subjects) - len(rows)} of these persons are not known at {ik} (any more)")
            parts = self._parts(documents, rows)
            async with self._core.changing(ik, {part.subject: part.version for part in parts}) as changing:
                return await self._seal(ik, actor, purpose, documents, parts, changing)
        finally:
            for subject in subjects:
                self._in_work[subject] -= 1
                if not self._in_work[subject]:
                    del self._in_work[subject]
                    self._given.pop(subject, None)

    def next_version(self, row: Subject) -> int:
        """A version of the subject's key that nobody else has been given. Raises BadRequestError when there is none."""
        # The row may be older than what another batch, still in work, was given.
        given = max(self._given.get(row.pseudonym, 0), self._core.last_version(row.pseudonym))
        version = max(row.last_version, given) + 1
        if version > MAX_VERSION:
            raise BadRequestError("a person's key has no more versions")
        self._given[row.pseudonym] = version
        return version

    def _parts(self, documents: Sequence[Document], rows: dict[bytes, Subject]) -> list[_Part]:
        at_us = to_us(self._core.now())
        parts: dict[bytes, _Part] = {}
        for place, document in enumerate(documents):
            part = parts.get(document.subject)
            if part is None:
                version = self.next_version(rows[document.subject])
                part = parts[document.subject] = _Part(document.subject, version, self._core.events.next(at_us))
            part.places.append(place)
        return list(parts.values())

    async def _seal(
        self,
        ik: IK,
        actor: Actor,
        purpose: Purpose,
        documents: Sequence[Document],
        parts: Sequence[_Part],
        changing: Changing,
    ) -> list[bytes]:
        pseudonym, now_us = await self._core.actor(ik, actor.name), to_us(self._core.now())
        random = Drawn(len(documents) * _DRAWN)
        ids = [object_id(ik, document.name, document.form) for document in documents]
        described = [self._details(actor, documents, ids, part, now_us, random) for part in parts]
        entries: list[bytes] = []
        for part, details in zip(parts, described, strict=True):
            entries.append(
                leaf(
                    Kind.KEY_CREATED,
                    Result.GRANTED,
                    purpose,
                    now_us,
                    part.created,
                    actor=pseudonym,
                    subject=part.subject,
                    version=part.version,
                )
            )
            commitment = details.commitment
            entries += [
                leaf(
                    Kind.WRITE,
                    Result.GRANTED,
                    purpose,
                    now_us,
                    event,
                    actor=pseudonym,
                    subject=part.subject,
                    object_=details.object_(place),
                    detail=commitment,
                    version=part.version,
                )
                for place, (event, _, _) in enumerate(details.objects)
            ]
        shares = iter(await changing.write(entries))
        containers = [b""] * len(documents)
        halves: list[tuple[bytes, int, bytes]] = []
        openings: list[SealedOpening] = []
        for part, details in zip(parts, described, strict=True):
            s_vault = random(32)
            sk = derive(s_vault, checked_share(next(shares)), part.subject, part.version)
            for place in part.places:
                next(shares)
                containers[place] = seal_container(
                    sk,
                    subject=part.subject,
                    key_version=part.version,
                    object_id=ids[place],
                    object_version=now_us,
                    plaintext=documents[place].plaintext,
                    random=random,
                )
            halves.append((part.subject, part.version, s_vault))
            openings.append(seal_for_person(sk, details, part.subject, part.version, random))

        # In a thread: a token wraps slower than a disk writes, and the loop must not wait for it.
        keys = await asyncio.to_thread(seal_all, self._core.keyring.kek, halves)
        if not await self._core.writer.keep(Deposit(ik, keys, openings, reflected=changing.reflected)):
            raise ErasedError("a person was erased while this was being filed")
        return containers

    def _details(
        self,
        actor: Actor,
        documents: Sequence[Document],
        ids: Sequence[bytes],
        part: _Part,
        now_us: int,
        random: Random,
    ) -> Details:
        names = [f"{documents[place].name} {documents[place].form}" for place in part.places]
        objects = [(self._core.events.next(now_us), ids[place].hex(), now_us) for place in part.places]
        return describe({"actor": actor.name, "documents": [*names]}, objects, random)


def object_id(ik: IK, name: str, form: str) -> bytes:
    """What the container of a document is bound to, 16 bytes."""
    return sha256(f"schleuse vault\0{ik}\0{name}\0{form}".encode()).digest()[:16]
