"""What the tests of the release service build: a vault over a journal that can break off before and after an effect."""

from __future__ import annotations

import asyncio
import enum
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.database import sqlite_url
from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.journal.admission import admit, share_request
from schleuse.journal.contracts import (
    EventReusedError,
    JournalUnavailableError,
    Level,
    LevelTimeoutError,
    Receipt,
    ShardClosedError,
)
from schleuse.journal.entry import Entry, Kind, Result, parse_entry
from schleuse.journal.shares import KeyShares
from schleuse.switch.copy import Switch
from schleuse.vault import Document, Named, SealedMail, WrappedKey
from schleuse.vault.actors import Caller
from schleuse.vault.algorithms import OAEP_SHA256_ALGORITHM
from schleuse.vault.budgets import Limits
from schleuse.vault.contracts import feed_paths
from schleuse.vault.core import Core
from schleuse.vault.gate import Gate
from schleuse.vault.history import HistoryReader
from schleuse.vault.kek import SoftwareKek
from schleuse.vault.keyring import Keyring
from schleuse.vault.private_keys import PrivateKey, issuer_and_serial
from schleuse.vault.service import Insured, VaultService
from schleuse.vault.store import VaultStore, open_vault_store
from schleuse.vault.tokens import Purpose as TokenPurpose
from schleuse.vault.tokens import make_token

KASSE, OTHER = IK("109900011"), IK("109900022")
START = datetime(2026, 11, 25, 8, tzinfo=UTC)
EAU = Caller("eau", 1001)
AUDIENCE = "schleuse:test.example"
SYSTEM, OPERATOR = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PLENTY = Limits(10**9, 10**9)
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class Clock:
    """Time that stands still until a test moves it. now: may be set, as a clock can; that moves no other time."""

    def __init__(self) -> None:
        self.now = START
        self._counted = 0.0

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self._counted

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self._counted += seconds


class Fate(enum.Enum):
    """What becomes of one append."""

    TAKEN = "taken"
    LOST = "fails before the effect"
    UNANSWERED = "fails after the effect"
    HALF = "the first half is taken, then it fails"
    LATE = "fails now, and its effect comes before the next append"
    SLOW = "is taken, and the level is not reached in time"


@dataclass(slots=True)
class MemoryJournal:
    """A journal in memory that admits, recognises repeated events and gives shares as the real one.

    fates: of the next appends; then all are taken. gate: closed, no append has an effect or an answer.
    instead: logs that take the entries of others now. unsaid: why it does not say which those are.
    closed_at: the size at which a log closed. remembered: logs of which `current` still says what it last knew, as a
    client does for ten seconds, until an append to them is refused.
    """

    clock: Clock
    fates: deque[Fate] = field(default_factory=deque)
    logs: dict[str, list[bytes]] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    gives_shares: bool = True
    levels: list[Level] = field(default_factory=list)
    instead: dict[str, str] = field(default_factory=dict)
    unsaid: Error | None = None
    closed_at: dict[str, int] = field(default_factory=dict)
    remembered: set[str] = field(default_factory=set)
    _late: list[tuple[str, Sequence[bytes]]] = field(default_factory=list)
    _keys: KeyShares = field(init=False)

    def __post_init__(self) -> None:
        keys = {ik: os.urandom(32) for ik in (KASSE, OTHER)}
        shards = {origin_of(ik, year): key for ik, key in keys.items() for year in (2026, 2027)}
        self._keys = KeyShares(shards, 10**9, lambda: 0)

    async def current(self, origin: str) -> str:
        """See `ledger.Appends`."""
        if self.unsaid is not None:
            raise self.unsaid
        return origin if origin in self.remembered else self.instead.get(origin, origin)

    async def append_all(
        self, origin: str, entries: Sequence[bytes], level: Level = Level.DURABLE
    ) -> Sequence[Receipt]:
        """See `ledger.Appends`."""
        self.levels.append(level)
        self.arrive()
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        fate = self.fates.popleft() if self.fates else Fate.TAKEN
        if fate is Fate.LOST:
            raise JournalUnavailableError("lost before the effect")
        if fate is Fate.LATE:
            self._late.append((origin, entries))
            raise JournalUnavailableError("lost on the way")
        if fate is Fate.HALF:
            self._take(origin, entries[: len(entries) // 2])
            raise JournalUnavailableError("lost in the middle")
        receipts = self._take(origin, entries)
        if fate is Fate.UNANSWERED:
            raise JournalUnavailableError("lost after the effect")
        if fate is Fate.SLOW and level > Level.DURABLE:
            raise LevelTimeoutError("no witness came in time")
        return receipts

    def arrive(self) -> None:
        """What was still on its way."""
        late, self._late = self._late, []
        for origin, entries in late:
            self._take(origin, entries)

    def entries(self, ik: IK = KASSE, year: int = 2026) -> list[Entry]:
        """All that is durable in the insurer's log of a year."""
        return [parse_entry(data) for data in self.logs.get(origin_of(ik, year), [])]

    def releases(self, ik: IK = KASSE, year: int = 2026) -> list[Entry]:
        """Those that say that something may have been read."""
        return [one for one in self.entries(ik, year) if one.kind is Kind.KEY_RELEASED and one.result is Result.GRANTED]

    def denials(self, ik: IK = KASSE) -> list[Entry]:
        """Those that say that it was not."""
        return [one for one in self.entries(ik) if one.kind is Kind.KEY_RELEASED and one.result is not Result.GRANTED]

    def _take(self, origin: str, entries: Sequence[bytes]) -> list[Receipt]:
        log = self.logs.setdefault(origin, [])
        receipts = []
        for entry in entries:
            known = [index for index, other in enumerate(log) if other[16:32] == entry[16:32]]
            if known:
                if log[known[0]] != entry:
                    raise EventReusedError("the event is another's")
                index = known[0]
            elif len(log) >= self.closed_at.get(origin, len(log) + 1):
                self.remembered.discard(origin)
                raise ShardClosedError(f"{origin} is closed")
            else:
                admit(entry, int(self.clock().timestamp() * 1_000_000))
                index = len(log)
                log.append(entry)
            asked = share_request(entry) if self.gives_shares else None
            share = None if asked is None else self._keys.share(origin, *asked)
            receipts.append(Receipt(origin, index, b"", len(log), share))
        return receipts


class MemoryHistory(HistoryReader):
    """The real reader, without HTTP."""

    def __init__(self, journal: MemoryJournal) -> None:
        super().__init__("http://127.0.0.1:9")
        self._journal = journal

    def _backwards(self, origin: str, size: int) -> Iterator[list[bytes]]:
        entries = self._journal.logs.get(origin, [])[:size]
        for start in range((len(entries) - 1) // 4 * 4, -1, -4):  # bundles of four
            yield entries[start : start + 4]


class WatchedKek(SoftwareKek):
    """Notes each unwrapping of a subject's key for which the journal has no entry yet (G1)."""

    def __init__(self, journal: MemoryJournal) -> None:
        super().__init__(1, bytes(range(32)))
        self.without_entry: list[str] = []
        self.subject_unwraps = 0
        self._journal = journal

    def unwrap(self, nonce: bytes, ciphertext: bytes, aad: bytes, generation: int | None = None) -> bytes:
        if aad[:4] == b"SK1\n":
            self.subject_unwraps += 1
            subject, version = aad[8:24], int.from_bytes(aad[24:28])
            found = [one for ik in (KASSE, OTHER) for year in (2026, 2027) for one in self._journal.releases(ik, year)]
            if not any((one.subject, one.subject_key_version) == (subject, version) for one in found):
                self.without_entry.append(f"{subject.hex()} version {version}")
        return super().unwrap(nonce, ciphertext, aad, generation)


def origin_of(ik: IK, year: int) -> str:
    return f"journal.test.example/{ik}/{year}"


@cache
def rsa_key(name: str = "enc") -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key(name: str = "sig") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.BrainpoolP256R1())


@cache
def certificate(key: PrivateKey, serial: int) -> bytes:
    """DER; self-signed, which nobody here minds."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Beispielkasse")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, start, start + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


ENC, SIG = certificate(rsa_key(), 7), certificate(ec_key(), 8)
FOREIGN = certificate(rsa_key("foreign"), 9)


def mail(delivery: int, key: bytes = b"k" * 32, *, recipient: bytes = ENC, damaged: bool = False) -> SealedMail:
    """A mail whose content key is wrapped for the recipient's certificate."""
    parsed = x509.load_der_x509_certificate(recipient)
    public = parsed.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    wrapped = b"\0" * 256 if damaged else public.encrypt(key, _OAEP)
    return SealedMail(delivery, WrappedKey(issuer_and_serial(parsed), OAEP_SHA256_ALGORITHM, wrapped))


def token(
    clock: Clock,
    name: str,
    *,
    ik: IK = KASSE,
    signer: Ed25519PrivateKey = SYSTEM,
    issuer: str = "system",
    purpose: TokenPurpose = "feed",
    what: tuple[str, str] | None = None,
) -> str:
    """For a document of the feed, unless told otherwise."""
    return make_token(signer, issuer, ik, AUDIENCE, purpose, what or ("GET", feed_paths(ik, name)[0]), clock())


@dataclass(slots=True)
class Vault:
    """A vault and its neighbours."""

    clock: Clock
    journal: MemoryJournal
    store: VaultStore
    kek: WatchedKek
    core: Core
    service: VaultService

    async def filed(self, name: str, plaintext: bytes, *, person: bytes = b"A123456780", ik: IK = KASSE) -> bytes:
        """The container of one document, filed as the eau role does."""
        (pseudonyms,) = await self.service.pseudonyms(EAU, ik, [Named(person, b"content")])
        (container,) = await self.service.file(EAU, ik, [Document(pseudonyms.subject, name, "xml", plaintext)])
        return container

    async def fetched(self, name: str, container: bytes, *, ik: IK = KASSE) -> bytes:
        """What the insurer's system gets."""
        return await self.service.fetch(EAU, ik, token(self.clock, name, ik=ik), name, "xml", container)

    async def erased(self, person: bytes = b"A123456780", *, level: Level = Level.WITNESSED) -> bool:
        """By an operator's order."""
        what = ("ERASE", sha256(person).hexdigest())
        order = token(self.clock, "", signer=OPERATOR, issuer="op", purpose="erase", what=what)
        return await self.service.erase(EAU, KASSE, order, person, level)


def build(
    store: VaultStore,
    *,
    clock: Clock | None = None,
    journal: MemoryJournal | None = None,
    limits: Limits = PLENTY,
    tenant: Limits | None = None,
    insurers: Mapping[IK, Insured] | None = None,
    switch: Switch | None = None,
    accept_older_store: Sequence[str] = (),
) -> Vault:
    """A vault that has just started, over what is there already."""
    clock = clock or Clock()
    journal = journal or MemoryJournal(clock)
    kek = WatchedKek(journal)
    core = Core(
        journal=journal,
        history=MemoryHistory(journal),
        store=store,
        keyring=Keyring(store, kek, clock.monotonic),
        limits=lambda _kind, _ik: limits,
        tenant=lambda _ik: tenant,
        platform=PLENTY,
        origin_of=origin_of,
        now=clock,
        monotonic=clock.monotonic,
        gate=Gate(switch),
        accept_older_store=accept_older_store,
    )
    keys = {("system", str(ik)): SYSTEM.public_key() for ik in (KASSE, OTHER)} | {("op", ""): OPERATOR.public_key()}
    known = insurers or {KASSE: Insured((ENC,), SIG), OTHER: Insured((), None)}
    return Vault(clock, journal, store, kek, core, VaultService(core, known, keys, AUDIENCE))


async def take_over(vault: Vault) -> None:
    """The private keys of KASSE."""
    await vault.service.import_identity(KASSE, "enc", ENC, rsa_key())
    await vault.service.import_identity(KASSE, "osig", SIG, ec_key())


def store_in(folder: Path) -> VaultStore:
    return open_vault_store(sqlite_url(folder / "vault.sqlite"))


def with_vault(folder: Path, test: Callable[[Vault], Awaitable[None]], **changes: object) -> Vault:
    """Run a test against a vault that has the insurer's keys; gives the vault back, closed."""

    async def run() -> Vault:
        vault = build(store_in(folder), **changes)  # type: ignore[arg-type]
        await take_over(vault)
        try:
            await test(vault)
        finally:
            vault.store.close()
        return vault

    return asyncio.run(run())
