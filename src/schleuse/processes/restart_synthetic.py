"""A synthetic practice and a synthetic insurer: one eAU on its whole way, step by step (G-TECH, § 9.3).

    handed over     by SMTP with TLS, as a practice does; asked of every insurer that is tried
    filed           this very document, not any other one, is decided
    receipt         its DSN is in the practice's mailbox, if mailboxes may be read
    fetched         the insurer's feed gives it, if it delivers and this home has a client of the feed

What is closed is not asked, and the evidence says so. In production the eAU is a test mail: it is opened, told apart
and counted as a probe, and no insurer ever gets it as a certificate (HD-07).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

import sqlalchemy as sa

from schleuse.clock import Now
from schleuse.config import Config
from schleuse.database import asking
from schleuse.eau.feed_client import FeedAccess, FeedConnection, Signature
from schleuse.eau.store import count_probes
from schleuse.environment import Environment
from schleuse.errors import Error
from schleuse.identifiers import IK
from schleuse.kim.directory import DirectoryFile
from schleuse.mail.contracts import Action
from schleuse.mail.dsn_parse import parse as parse_dsn
from schleuse.practice.documents import Insurer
from schleuse.practice.identity import Identity, load_practice
from schleuse.practice.ledger import Ledger
from schleuse.practice.mailing import Addressee
from schleuse.practice.outbox import Order, Prepared, hand_over, prepare
from schleuse.practice.transport import Reply, Server, mailbox, submission
from schleuse.restart.gates import Result
from schleuse.said import Said
from schleuse.scopes import NONE, Direction, Service
from schleuse.vault.tokens import audience, read_token_key

#: For each step after the hand-over.
STEP_SECONDS = 30.0
LOOK_SECONDS = 0.2
#: Of a mailbox that others use as well, only what came last is looked at.
NEWEST_MAILS = 50
_GERMAN = {"handed over": "übergeben", "filed": "abgelegt", "receipt": "Quittung", "fetched": "abgeholt"}
_FILED = sa.text("SELECT state FROM eau_document WHERE ik = :ik AND document_id = :id")

#: Whether a unit of work of this service, tenant and direction may begin now.
Begins = Callable[[Service, str, Direction], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """name: what was tried. text: what was seen, without personal data. seconds: how long it took."""

    name: str
    result: Result
    text: str
    seconds: float = 0.0


class Synthetic:
    """Of one home. wait: seconds for each step after the hand-over."""

    def __init__(self, config: Config, begins: Begins, now: Now, wait: float = STEP_SECONDS) -> None:
        self._config = config
        self._begins = begins
        self._now = now
        self._wait = wait

    def try_insurer(self, ik: str) -> list[Step]:
        """One eAU to this insurer. Blocks; must not be called from an event loop. Never raises Error."""
        try:
            practice = load_practice(self._config, None)
            mail = self._mail(practice, ik)
            probes = self._probes(ik)
        except (Error, OSError, StopIteration, IndexError) as cause:
            return [Step("handed over", Result.INCONCLUSIVE, f"no synthetic practice here ({type(cause).__name__})")]
        steps = [self._timed("handed over", lambda: self._hand_over(practice, mail))]
        if steps[0].result is not Result.PASS:
            return steps
        document = mail.sent.document_id
        production = self._config.environment is Environment.PRODUCTION
        decided = (lambda: self._counted(ik, probes)) if production else (lambda: self._filed(ik, document))
        steps.append(self._timed("filed", lambda: self._until(decided)))
        if self._begins(Service.KIM_MAIL, NONE, Direction.READ):
            steps.append(self._timed("receipt", lambda: self._until(lambda: self._receipt(practice, mail))))
        key = self._config.home / "insurers" / ik / "feed.key"
        if not production and self._begins(Service.EAU_INTAKE, ik, Direction.DELIVER) and key.exists():
            steps.append(self._timed("fetched", lambda: self._until(lambda: self._fetched(ik, key, document))))
        return steps

    def _mail(self, practice: Identity, ik: str) -> Prepared:
        chosen = next(one for one in self._config.insurers if one.ik == ik)
        certificates = DirectoryFile(self._config.kim.directory).current().certificates(chosen.address)
        order = Order(1, Insurer(ik, chosen.name), Addressee(chosen.address, certificates[0]), "T")
        return next(iter(prepare(practice, order, SystemRandom(), self._now)))

    def _server(self, practice: Identity) -> Server:
        kim = self._config.kim
        return Server(kim.smtp_tls, kim.pop3_tls, self._config.eau.submit_ca, practice.address, practice.password)

    def _hand_over(self, practice: Identity, mail: Prepared) -> tuple[Result, str]:
        ledger = Ledger(self._config.home / "practices" / practice.name / "probes.jsonl")

        async def send() -> Reply:
            async with submission(self._server(practice)) as session:
                return await hand_over(session, practice, mail, ledger)

        reply = asyncio.run(send())
        return (Result.PASS if reply.accepted else Result.FAIL), str(reply.code)

    def _filed(self, ik: str, document: str) -> tuple[Result, str] | None:
        with asking(self._config.eau_database) as connection:
            state = connection.execute(_FILED, {"ik": ik, "id": document}).scalar_one_or_none()
        if state is None:
            return None
        return (Result.FAIL if state == "rejected" else Result.PASS), str(state)

    def _counted(self, ik: str, before: int) -> tuple[Result, str] | None:
        return (Result.PASS, "counted as a probe") if self._probes(ik) > before else None

    def _probes(self, ik: str) -> int:
        if self._config.environment is not Environment.PRODUCTION:
            return 0
        with asking(self._config.eau_database) as connection:
            return count_probes(connection, IK(ik))

    def _receipt(self, practice: Identity, mail: Prepared) -> tuple[Result, str] | None:
        with mailbox(self._server(practice)) as client:
            count = client.stat()[0]
            for number in range(count, max(count - NEWEST_MAILS, 0), -1):
                statuses = parse_dsn(b"\r\n".join(client.retr(number)[1]) + b"\r\n") or ()
                mine = [one for one in statuses if f"<{one.original_message_id}>" == mail.sent.message_id]
                if mine:
                    client.dele(number)  # nobody else waits for it
                    good = mine[0].action in (Action.DELIVERED, Action.RELAYED)
                    return (Result.PASS if good else Result.FAIL), str(mine[0].status)
        return None

    def _fetched(self, ik: str, key: Path, document: str) -> tuple[Result, str] | None:
        client = next(one.feed_clients[0].name for one in self._config.insurers if one.ik == ik and one.feed_clients)
        signature = Signature(client, read_token_key(key), audience(self._config.hostname), self._now)
        trust = ssl.create_default_context(cafile=str(self._config.eau.submit_ca))
        access = FeedAccess(f"https://{self._config.eau.feed}", signature, trust)
        with FeedConnection(access, IK(ik)) as feed:
            return Result.PASS, f"{len(feed.document(document, 'xml'))} octets"

    def _until(self, look: Callable[[], tuple[Result, str] | None]) -> tuple[Result, str]:
        """What is not there yet is looked for again; what does not answer may come back."""
        deadline = time.monotonic() + self._wait
        why = "not seen"
        while True:
            try:
                found = look()
            except (Error, OSError, StopIteration) as cause:
                found, why = None, type(cause).__name__
            if found is not None:
                return found
            if time.monotonic() >= deadline:
                return Result.INCONCLUSIVE, f"{why} within {self._wait:.0f} s"
            time.sleep(LOOK_SECONDS)

    @staticmethod
    def _timed(name: str, work: Callable[[], tuple[Result, str]]) -> Step:
        begun = time.monotonic()
        result, text = Result.INCONCLUSIVE, ""
        try:
            result, text = work()
        except (Error, OSError) as cause:
            text = type(cause).__name__
        return Step(name, result, text, time.monotonic() - begun)


def overall(steps: Sequence[Step]) -> tuple[Result, Said]:
    """What they amount to, in one sentence: the worst of them, and nothing at all shows nothing (RS-04)."""
    text = Said(
        ", ".join(f"{_GERMAN[one.name]}: {one.text} ({one.seconds:.1f} s)" for one in steps),
        ", ".join(f"{one.name}: {one.text} ({one.seconds:.1f} s)" for one in steps),
    )
    found = {one.result for one in steps}
    with suppress(StopIteration):
        return next(one for one in (Result.FAIL, Result.INCONCLUSIVE) if one in found), text
    if found == {Result.PASS}:
        return Result.PASS, text
    return Result.INCONCLUSIVE, text if steps else Said("nichts wurde probiert", "nothing was tried")
