"""What the vault opens and files in a second (journal.md § 18), beside the raw limits of the same run.

    python -m bench.vault [--seconds 1] [--rounds 3] [--dir /var/tmp] [--case NAME…]

Journal and vault are processes of their own, as in life. `release` is the whole of § 14.2 without the vault's own
socket: budget, entry durable in the journal, opening kept, key unwrapped by the soft KEK or remembered, 25 KiB
decrypted; single ones, or as the role asks, in batches. The others go through the vault's socket.

Raw limits, for 0.2 s each before and after every round: pwrite of 4 KiB and fdatasync; RSA-2048 private operations of
one thread; AES-256-GCM decryptions of 25 KiB of one thread. A figure is the median of its rounds. CPU ms is of the
process that is the vault, per object. Writes bench/results/vault.{json,md}.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509 import load_der_x509_certificate

from bench.journal import config, now_us, origin, raw_rate, ticking
from schleuse.clock import utc_now
from schleuse.database import sqlite_url
from schleuse.identifiers import IK
from schleuse.journal.client import JournalClient
from schleuse.journal.entry import Purpose
from schleuse.journal.recovery import open_journal
from schleuse.journal.server import Peers
from schleuse.journal.server import listen as listen_journal
from schleuse.journal.shares import KeyShares
from schleuse.journal.store import Settings
from schleuse.kim.pki import INSURER_OID, DevelopmentCA
from schleuse.processes.life import collect_seldom
from schleuse.vault.actors import Caller
from schleuse.vault.algorithms import OAEP_SHA256_ALGORITHM
from schleuse.vault.budgets import Limits
from schleuse.vault.client import VaultClient
from schleuse.vault.contracts import Document, Named, SealedMail, WrappedKey
from schleuse.vault.core import Actor, Core, Wanted
from schleuse.vault.history import History
from schleuse.vault.kek import SoftwareKek
from schleuse.vault.keyring import Keyring
from schleuse.vault.private_keys import issuer_and_serial
from schleuse.vault.reflected import KeyChanges
from schleuse.vault.server import Desk, listen
from schleuse.vault.service import Insured, VaultService
from schleuse.vault.store import open_vault_store
from schleuse.vault.tokens import make_token
from schleuse.vault.ve1 import open_container, parse_header

RESULTS = Path(__file__).parent / "results"
KASSE = IK("109900011")
SYSTEM, AUDIENCE = "system", "schleuse:bench.example"
PLAINTEXT = bytes(25 * 1024)
PERSONS = 900  #: fewer than the vault remembers (§ 14.3), as in a delivery; the first release of each is not
BATCH = 64
NO_LIMIT = Limits(10**9, 10**9)
REQUIRED = 15_000
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
TICK = os.sysconf("SC_CLK_TCK")
SPAWN = multiprocessing.get_context("spawn")
CASES = ("release", "open_mails", "file", "fetch")


@dataclass(frozen=True)
class Raw:
    """Raw limits a second: flushes, RSA private operations, decryptions of 25 KiB."""

    flush: float
    rsa: float
    aes: float


@dataclass(frozen=True)
class Figure:
    """One case. ratio: to the raw limit that `of` names. required: objects a second, where § 18 says."""

    case: str
    per_second: float
    cpu_ms: float
    of: str
    ratio: float
    raw: Raw
    required: float | None = None


@dataclass(frozen=True)
class Material:
    """What all processes know: the insurer's mail identity (DER, PKCS 8) and its system's token key."""

    certificate: bytes
    key: bytes
    token_key: bytes

    @classmethod
    def new(cls) -> Material:
        identity = DevelopmentCA.create(utc_now()).issue_institution("Kasse", "8-1", INSURER_OID, now=utc_now())
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        der = identity.key.private_bytes(serialization.Encoding.DER, *plain)
        return cls(identity.certificate_der, der, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def private(self) -> rsa.RSAPrivateKey:
        key = serialization.load_der_private_key(self.key, None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key

    @property
    def token(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.token_key)


class FreshLog:
    """History of a log that this run has made."""

    def read(self, _origin: str, _size: int, _since: object) -> History:
        return History(0, ())

    def key_changes(self, _origin: str, _start: int, _size: int) -> KeyChanges:
        return KeyChanges()


# Processes ---------------------------------------------------------------------------------------------


def serve_journal(
    folder: Path, ready: multiprocessing.synchronize.Event, stop: multiprocessing.synchronize.Event
) -> None:
    collect_seldom()

    async def run() -> None:
        shares = KeyShares({origin(0): os.urandom(32)}, 10**12, now_us)
        settings = Settings(folder / "journal", (config(0),), now_us, spares=3, share=shares.share)
        journal = open_journal(settings)
        journal.open_log(origin(0))
        journal.tick()
        while journal.health()["spare_segments"] < 3:
            await asyncio.sleep(0.05)
        us = frozenset({os.getuid()})
        async with listen_journal(folder / "journal.sock", journal, Peers(us, us), shares=shares):
            task = asyncio.create_task(ticking(journal))
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.05)
            task.cancel()
        await journal.close()

    uvloop.run(run())


def make_service(folder: Path, material: Material) -> tuple[Core, VaultService]:
    """The vault of this process, on a store of its own."""
    store = open_vault_store(sqlite_url(folder / f"vault-{os.urandom(8).hex()}.sqlite"))
    keyring = Keyring(store, SoftwareKek(1, os.urandom(32)), time.monotonic)
    core = Core(
        journal=JournalClient(folder / "journal.sock"),
        history=FreshLog(),
        store=store,
        keyring=keyring,
        limits=lambda _kind, _ik: NO_LIMIT,
        platform=NO_LIMIT,
        origin_of=lambda _ik, _year: origin(0),
        now=utc_now,
        monotonic=time.monotonic,
    )
    keys: dict[tuple[str, str], Ed25519PublicKey] = {(SYSTEM, KASSE.value): material.token.public_key()}
    return core, VaultService(core, {KASSE: Insured((material.certificate,), None)}, keys, AUDIENCE)


def serve_vault(
    folder: Path, material: Material, ready: multiprocessing.synchronize.Event, stop: multiprocessing.synchronize.Event
) -> None:
    collect_seldom()

    async def run() -> None:
        _, service = make_service(folder, material)
        await service.import_identity(KASSE, "enc", material.certificate, material.private)
        async with listen(folder / "vault.sock", Desk(service, no_imports), {os.getuid(): "eau"}):
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.05)

    uvloop.run(run())


async def no_imports() -> list[dict[str, str]]:
    return []


@contextmanager
def running(target: Callable[..., None], *args: object) -> Iterator[int]:
    """A process of its own; its id."""
    ready, stop = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=target, args=(*args, ready, stop))
    process.start()
    try:
        if not ready.wait(30):
            raise RuntimeError(f"{target.__name__} did not start")
        assert process.pid is not None
        yield process.pid
    finally:
        stop.set()
        process.join(10)
        process.terminate()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


# Raw limits --------------------------------------------------------------------------------------------


def rate(work: Callable[[], object], seconds: float = 0.2) -> float:
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - start)


def raw_limits(folder: Path, material: Material) -> Raw:
    private, cipher, nonce = material.private, AESGCM(os.urandom(32)), os.urandom(12)
    wrapped, sealed = private.public_key().encrypt(bytes(32), OAEP), cipher.encrypt(nonce, PLAINTEXT, None)
    return Raw(
        raw_rate(folder),
        rate(lambda: private.decrypt(wrapped, OAEP)),
        rate(lambda: cipher.decrypt(nonce, sealed, None)),
    )


def middle(raws: Sequence[Raw]) -> Raw:
    return Raw(*(statistics.median(getattr(raw, name) for raw in raws) for name in ("flush", "rsa", "aes")))


# Cases -------------------------------------------------------------------------------------------------

#: (objects, seconds, CPU seconds of the vault)
Run = tuple[int, float, float]


async def release(folder: Path, material: Material, size: int, at_once: int, seconds: float) -> Run:
    """Batches of `size`, `at_once` of them in flight, each object decrypted."""
    core, service = make_service(folder, material)
    caller = Caller("eau", os.getuid())
    named = [Named(f"person {number}".encode(), b"") for number in range(PERSONS)]
    subjects = [one.subject for one in await service.pseudonyms(caller, KASSE, named)]
    documents = [Document(subject, subject.hex(), "e01", PLAINTEXT) for subject in subjects]
    sealed = list(zip(documents, await service.file(caller, KASSE, documents), strict=True))
    next_one, count, stop = itertools.cycle(sealed), 0, time.perf_counter() + seconds
    actor = Actor("insurer", "insurer's system")

    async def one() -> None:
        nonlocal count
        while time.perf_counter() < stop:
            batch = list(itertools.islice(next_one, size))
            headers = [parse_header(container) for _, container in batch]
            wanted = [
                Wanted(header.subject, header.key_version, document.name)
                for header, (document, _) in zip(headers, batch, strict=True)
            ]
            shares = await core.release(KASSE, actor, Purpose.EAU_DELIVERY, wanted, {})
            for header, share, (_, container) in zip(headers, shares, batch, strict=True):
                sk = await core.keyring.subject_key(header.subject, header.key_version, share)
                assert len(open_container(sk, container)) == len(PLAINTEXT)
            count += len(batch)

    start, before = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(at_once)))
    spent = time.perf_counter() - start, time.process_time() - before
    core.store.close()
    return count, *spent


def from_threads(work: Callable[[], int], threads: int, vault: int, seconds: float) -> Run:
    """So many callers; work: one request, and how many objects it had."""
    counts, stop = [0] * threads, time.perf_counter() + seconds

    def one(number: int) -> None:
        while time.perf_counter() < stop:
            counts[number] += work()

    workers = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    start, before = time.perf_counter(), cpu_s(vault)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts), time.perf_counter() - start, cpu_s(vault) - before


class Role:
    """A role that uses the vault through its socket."""

    def __init__(self, folder: Path, material: Material) -> None:
        self.client = VaultClient(folder / "vault.sock")
        self._material = material
        named = [Named(f"person {number}".encode(), b"") for number in range(PERSONS)]
        self._subjects = itertools.cycle([one.subject for one in self.client.pseudonyms(KASSE, named)])
        self._lock = threading.Lock()
        recipient = issuer_and_serial(load_der_x509_certificate(material.certificate))
        wrapped = [material.private.public_key().encrypt(os.urandom(32), OAEP) for _ in range(BATCH)]
        self._mails = [
            SealedMail(number, WrappedKey(recipient, OAEP_SHA256_ALGORITHM, key)) for number, key in enumerate(wrapped)
        ]
        self._filed: list[tuple[str, bytes]] = []

    def open_mails(self) -> int:
        assert all(isinstance(key, bytes) for key in self.client.open_mails(KASSE, self._mails))
        return BATCH

    def file(self) -> int:
        with self._lock:
            subjects = list(itertools.islice(self._subjects, BATCH))
        documents = [Document(subject, os.urandom(8).hex(), "e01", PLAINTEXT) for subject in subjects]
        containers = self.client.file(KASSE, documents)
        self._filed = [(document.name, one) for document, one in zip(documents, containers, strict=True)]
        return BATCH

    def fetch(self) -> int:
        if not self._filed:
            self.file()
        name, container = self._filed[0]
        what = ("GET", f"/v1/{KASSE}/eau/{name}")
        token = make_token(self._material.token, SYSTEM, KASSE, AUDIENCE, "feed", what, utc_now())
        assert len(self.client.fetch(KASSE, token, name, "e01", container)) == len(PLAINTEXT)
        return 1


def measured(folder: Path, material: Material, rounds: int, run: Callable[[], Run]) -> tuple[float, float, Raw]:
    """Medians of objects a second and CPU ms of an object, and of the raw limits around them."""
    rates, costs, raws = [], [], [raw_limits(folder, material)]
    for _ in range(rounds):
        count, seconds, cpu = run()
        rates.append(count / seconds)
        costs.append(cpu / count * 1e3)
        raws.append(raw_limits(folder, material))
    return statistics.median(rates), statistics.median(costs), middle(raws)


def figures(folder: Path, rounds: int, seconds: float, cases: frozenset[str]) -> Iterator[Figure]:
    material = Material.new()
    with running(serve_journal, folder):
        for size, at_once in ((1, 100), (50, 2), (64, 16)) if "release" in cases else ():
            work = partial(release, folder, material, size, at_once, seconds)
            value, cpu, raw = measured(folder, material, rounds, lambda work=work: uvloop.run(work()))  # type: ignore[misc]
            case = f"release and decrypt 25 KiB, {at_once} batch{'es' * (at_once > 1)} of {size} in flight"
            yield Figure(case, value, cpu, "AES", value / raw.aes, raw, REQUIRED)
        if cases == {"release"}:
            return
        with running(serve_vault, folder, material) as vault:
            role = Role(folder, material)
            for case, work, threads, of in (
                ("open_mails", role.open_mails, 4, "RSA"),
                ("file", role.file, 4, "flush"),
                ("fetch", role.fetch, 1, "flush"),
                ("fetch", role.fetch, 32, "flush"),
            ):
                if case in cases:
                    value, cpu, raw = measured(
                        folder, material, rounds, partial(from_threads, work, threads, vault, seconds)
                    )
                    batch = 1 if case == "fetch" else BATCH
                    ratio = value / {"RSA": raw.rsa, "flush": raw.flush}[of]
                    yield Figure(f"socket, {case}, {threads} in flight of {batch}", value, cpu, of, ratio, raw)


HEAD = (
    "| case | a second | CPU ms | ratio | of | required | flush/s | RSA/s | AES 25 KiB/s |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def line(figure: Figure) -> str:
    missed = figure.required is not None and figure.per_second < figure.required
    required = "" if figure.required is None else f"≥ {figure.required:,}/s{' MISSED' * missed}"
    return (
        f"| {figure.case} | {figure.per_second:,.0f} | {figure.cpu_ms:.3f} | {figure.ratio:.2f} | {figure.of} | "
        f"{required} | {figure.raw.flush:,.0f} | {figure.raw.rsa:,.0f} | {figure.raw.aes:,.0f} |"
    )


def main() -> None:
    collect_seldom()
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--case", nargs="*", choices=CASES, default=CASES)
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        print(HEAD, end="")
        for figure in figures(Path(name), args.rounds, args.seconds, frozenset(args.case)):
            found.append(figure)
            print(line(figure), flush=True)
    RESULTS.mkdir(exist_ok=True)
    flat = [{**vars(figure), "raw": vars(figure.raw)} for figure in found]
    (RESULTS / "vault.json").write_text(json.dumps(flat, indent=1) + "\n")
    (RESULTS / "vault.md").write_text(HEAD + "".join(line(figure) + "\n" for figure in found))


if __name__ == "__main__":
    main()
