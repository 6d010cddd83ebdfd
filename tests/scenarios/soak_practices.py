"""What practices do during a hold (eau.md § 14, HD-08): send, repeat, generate anew, and send all at once afterwards.

Each keeps its own book of what it handed over and what came back; nothing of it is read from the platform.
"""

from __future__ import annotations

import asyncio
import base64
import poplib
import ssl
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING

import httpx
from tests.scenarios.platform import PATIENCE, Platform

from schleuse.config import Config
from schleuse.holding.states import State
from schleuse.kim.directory import DirectoryFile
from schleuse.kim.receipts import keys_of, verify
from schleuse.kim.store.origins import reference_of
from schleuse.mail.smime.trust import TrustStore
from schleuse.practice.documents import Document, Generator, Insurer
from schleuse.practice.identity import Identity, load_practice
from schleuse.practice.inbox import read_answer
from schleuse.practice.ledger import Progress
from schleuse.practice.mailing import Addressee, client_mail, kim_mail, new_message_id, signed_payload
from schleuse.practice.transport import MailServerError, Server, mailbox, submission
from schleuse.processes.receipts import JWKS

if TYPE_CHECKING:
    from tests.scenarios.soak import Size

#: Of 100 certificates: the software sends the same document in new mails every 4 h (no DSN was seen); the mail program
#: hands the same mail over once more; the certificate is generated anew (new id, new hash); the practice has set the
#: outage flag, and sends when it is cleared, half of them for the second time; a Storno follows. The rest is sent once.
RETRIED, TWICE, ANEW, FLAGGED, CANCELLED = 12, 6, 5, 12, 3
RETRY_HOURS = 4.0  #: eau.md § 14: every 4 h


@dataclass(frozen=True, repr=False)
class Post:
    """One mail, ready. due: in hours of the hold. mail: its Message-ID. document: its Dokumenten-ID. ik: the insurer's.

    certificate: Dokumenten-ID of the first document of the same certificate, which differs where it was made anew.
    """

    due: float
    ik: str
    to: str
    mail: str
    document: str
    certificate: str
    wire: bytes


Wave = list[list[Post]]  #: by practice


@dataclass
class Book:
    """What a practice knows of one insurer. lost: attempts without any answer, so perhaps accepted."""

    accepted: int = 0
    lost: int = 0
    refused: int = 0
    documents: set[str] = field(default_factory=set)
    mails: set[str] = field(default_factory=set)
    anew: set[str] = field(default_factory=set)


@dataclass
class Practice:
    """One practice with its mail program. answers: what came back, by Message-ID or Dokumenten-ID."""

    identity: Identity
    server: Server
    rng: Random
    books: defaultdict[str, Book] = field(default_factory=lambda: defaultdict(Book))
    answers: dict[str, Progress] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, config: Config, number: int, size: Size) -> Practice:
        identity = load_practice(config, f"praxis{number}")
        kim = config.kim
        server = Server(kim.smtp_tls, kim.pop3_tls, config.eau.submit_ca, identity.address, identity.password)
        return cls(identity, server, Random(size.seed * 1000 + number))

    def fetch_all(self, one: Platform) -> None:
        """Empty the mailbox; asks again while the role is being started."""
        trust = TrustStore.from_files(one.config.eau.trust)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if not self._fetch(trust):
                    return
            except (MailServerError, OSError, poplib.error_proto):
                assert time.monotonic() < deadline, "the mailbox of a practice does not answer"
                time.sleep(0.2)

    def _fetch(self, trust: TrustStore) -> int:
        with mailbox(self.server) as client:
            count = client.stat()[0]
            for number in range(1, count + 1):
                raw = b"\r\n".join(client.retr(number)[1]) + b"\r\n"
                for answer in read_answer(raw, self.identity, trust, datetime.now(UTC)):
                    if self.answers.get(answer.reference) is not Progress.FAULTY:
                        self.answers[answer.reference] = answer.progress
                client.dele(number)
        return count

    def receipts(self, one: Platform) -> tuple[int, int]:
        """(mails that a verified hold receipt names as kept and not to be sent again, entries that say otherwise)."""
        login = base64.b64encode(f"{self.server.user}:{self.server.password}".encode()).decode()
        mine = {reference_of(mail.strip("<>")) for book in self.books.values() for mail in book.mails}
        keys = keys_of((one.home / JWKS).read_bytes())
        tls = ssl.create_default_context(cafile=str(one.config.eau.submit_ca))
        named: dict[str, bool] = {}
        broken, after = 0, -1
        with httpx.Client(verify=tls, headers={"Authorization": f"Basic {login}"}, timeout=60) as client:
            while True:
                answer = client.get(f"https://{one.config.kim.receipts}/v1/receipts", params={"after": after})
                page = answer.raise_for_status().json()
                for entry in verify(page["signature"], keys)["messages"]:
                    named[entry["reference"]] = entry["held"] or entry["state"] == State.DUPLICATE_LINKED
                    broken += not entry["do_not_resend"] or entry["action_needed"]["what"] != "none"
                if page["next"] == after:
                    return sum(named.get(mail, False) for mail in mine), broken
                after = page["next"]


def compose(config: Config, practices: Sequence[Practice], size: Size) -> tuple[Wave, Wave]:
    """(during the hold, when the outage flags are cleared), each sorted by when it is due."""
    held: Wave = [[] for _ in practices]
    wave: Wave = [[] for _ in practices]
    desk = _Desk(config)
    for number in range(size.mails):
        at = number % len(practices)
        practice, rng = practices[at], practices[at].rng
        document = desk.certificate(practice, number)
        due = size.hours * number / size.mails
        post = desk.post(practice, document, number, due)
        dice = rng.randrange(100)
        if dice < FLAGGED:
            wave[at].append(post)
            if dice % 2:  # it went out, its DSN was not seen, and the flag was set
                held[at].append(desk.post(practice, document, number, due))
            continue
        held[at].append(post)
        dice -= FLAGGED
        if dice < RETRIED:
            for time_ in range(1, rng.randrange(2, 4)):
                if due + RETRY_HOURS * time_ < size.hours:
                    held[at].append(desk.post(practice, document, number, due + RETRY_HOURS * time_))
        elif dice < RETRIED + TWICE:
            held[at].append(Post(due + 0.1, post.ik, post.to, post.mail, post.document, post.certificate, post.wire))
        elif dice < RETRIED + TWICE + ANEW:
            held[at].append(desk.post(practice, anew(document), number, due + RETRY_HOURS, document.document_id))
        elif dice < RETRIED + TWICE + ANEW + CANCELLED:
            storno = Generator(rng, datetime.now(UTC)).storno(document)
            held[at].append(desk.post(practice, storno, number, due + 1))
    for posts in held:
        posts.sort(key=lambda post: post.due)
    return held, wave


def live_posts(config: Config, practices: Sequence[Practice], size: Size) -> Wave:
    """What comes while the backlog goes."""
    live: Wave = [[] for _ in practices]
    desk = _Desk(config)
    for number in range(size.live):
        practice = practices[number % len(practices)]
        document = desk.certificate(practice, number)
        live[number % len(practices)].append(desk.post(practice, document, number, 0))
    return live


def anew(document: Document) -> Document:
    """The same certificate under a number of its own, as after a rejection (eau.md § 13.2)."""
    id = f"urn:uuid:{uuid.uuid4()}"
    old = document.document_id
    assert document.xml.count(old.encode()) == 1
    return Document(
        document.xml.replace(old.encode(), id.encode()),
        id,
        document.version,
        document.facts,
        document.practice,
        document.doctor,
        document.patient,
        document.issuer,
        document.place,
    )


def wire_of(practice: Identity, to: Addressee, document: Document, mail: str) -> bytes:
    """The document signed, in a KIM mail of this Message-ID."""
    now = datetime.now(UTC)
    payload = signed_payload(document, practice.payload_signer, now)
    return kim_mail(
        practice, to, client_mail(practice, to, document, payload, prefix="T", message_id=mail, now=now), now
    )


class _Desk:
    """Makes certificates and the mails around them, for the insurers in turn."""

    def __init__(self, config: Config) -> None:
        directory = DirectoryFile(config.kim.directory).current()
        self._insurers = [
            (Insurer(one.ik, one.name), Addressee(one.address, directory.certificates(one.address)[0]))
            for one in config.insurers
        ]

    def certificate(self, practice: Practice, number: int) -> Document:
        insurer = self._insurers[number % len(self._insurers)][0]
        return Generator(practice.rng, datetime.now(UTC)).eau(payor="GKV", insurer=insurer)

    def post(
        self, practice: Practice, document: Document, number: int, due: float, certificate: str | None = None
    ) -> Post:
        insurer, to = self._insurers[number % len(self._insurers)]
        mail = new_message_id()
        wire = wire_of(practice.identity, to, document, mail)
        of = certificate or document.document_id
        return Post(due, insurer.ik, to.address, mail, document.document_id, of, wire)


async def send_all(
    one: Platform,
    practice: Practice,
    posts: Sequence[Post],
    second: float,
    over: threading.Event | None = None,
) -> None:
    """Each when it is due, again and again until it is accepted. second: so long is one of `due`."""
    begun, left = time.monotonic(), list(posts)
    while left:
        try:
            async with submission(practice.server) as session:
                while left:
                    post = left[0]
                    wait = begun + post.due * second - time.monotonic()
                    if wait > 0:
                        await asyncio.sleep(wait)
                    if over is not None and over.is_set():
                        return
                    book = practice.books[post.ik]
                    book.lost += 1  # until there is an answer
                    reply = await session.send(practice.identity.address, [post.to], post.wire)
                    _note(practice, book, post, reply.code)
                    if not reply.accepted:
                        assert reply.temporary, (reply, one.log("kim")[-2000:])
                        await asyncio.sleep(0.5)
                        continue
                    left.pop(0)
        except MailServerError:
            await asyncio.sleep(0.2)


def _note(practice: Practice, book: Book, post: Post, code: int) -> None:
    with practice.lock:
        book.lost -= 1
        if code != 250:
            book.refused += 1
            return
        book.accepted += 1
        book.documents.add(post.document)
        book.mails.add(post.mail)
        if post.certificate != post.document:
            book.anew.add(post.document)
