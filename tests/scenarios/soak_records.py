"""What a soak (T-01) left behind, read from records, and what must hold of it.

The practices' own books on one side; the mail store, the eAU store, the feeds and the statements of § 6.8 on the other.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from tests.scenarios.platform import PATIENCE, Platform
from tests.scenarios.soak import Soak
from tests.scenarios.soak_practices import Book

from schleuse.database import asking
from schleuse.holding.resend import Account
from schleuse.holding.states import State
from schleuse.practice.ledger import Progress
from schleuse.processes.invariants import Answer
from schleuse.processes.reconciling import reconcile_senders
from schleuse.processes.releasing import release_book

RECEIPTS_SHARE = 0.999  #: § 14 and T-01
#: States that end a mail's way here; an insurer's own acknowledgement (CONFIRMED) is not part of a soak.
PEAK_US = 10_000_000
#: Invariant 14: every scope was switched for real within a month.
DRILLED = 14
FINAL = frozenset({State.DELIVERED, State.DUPLICATE_LINKED})


@dataclass(frozen=True)
class Figures:
    """Numbers of one run. All are counted in records, but for `attempts_lost` and `refused`, which practices count.

    accepted, held, released, duplicates, proposals, rejected: mails; held also counts those that were linked to a held
    one when they arrived. lost: documents that a practice has a 250 for and
    the feed does not name. receipts, dsn: share of held mails with a hold receipt; of accepted mails with a DSN.
    drained_per_second, live_per_second: eAU that left the backlog, and others, while the release ran.
    peak_per_second: eAU that were filed in the best 10 s of it. octets: of the mail store for each mail while it held.
    """

    accepted: int
    held: int
    released: int
    duplicates: int
    proposals: int
    rejected: int
    lost: int
    attempts_lost: int
    refused: int
    receipts: float
    dsn: float
    release_seconds: float
    drained_per_second: float
    live_per_second: float
    peak_per_second: float
    octets: float

    def as_json(self) -> Mapping[str, Any]:
        return asdict(self)


def judge(soak: Soak) -> tuple[Figures, list[str]]:
    """(figures, what does not hold)."""
    one = soak.one
    begin = datetime.fromtimestamp(soak.times.marks["held"], UTC)
    end = datetime.now(UTC) + timedelta(seconds=1)
    own = {practice.identity.address.lower() for practice in soak.practices}
    found = reconcile_senders(one.config, begin - timedelta(hours=1), end)
    statements = [account for account in found if account.sender in own]  # the others are probes of the platform
    feeds = {insurer.ik: one.events(at) for at, insurer in enumerate(one.config.insurers)}
    wrong = [
        *_states(one),
        *_statements(soak, statements, feeds),
        *(f"invariant: {line}" for line in _invariants(one)),
    ]
    figures = _figures(soak, statements, feeds)
    drained = round(figures.drained_per_second * figures.release_seconds)
    if drained != figures.released:
        wrong.append(f"{figures.released} were released, {drained} of the backlog were finished meanwhile")
    if figures.lost:
        wrong.append(f"{figures.lost} documents were accepted and are not in a feed")
    anew = sum(len(book.anew) for practice in soak.practices for book in practice.books.values())
    if figures.proposals != anew:
        wrong.append(f"{figures.proposals} are proposed as the same certificate, {anew} were generated anew")
    if figures.rejected:
        wrong.append(f"{figures.rejected} mails were rejected")
    if min(figures.receipts, figures.dsn) < RECEIPTS_SHARE:
        wrong.append(f"receipts {figures.receipts:.4f}, DSN {figures.dsn:.4f}, at least {RECEIPTS_SHARE} are asked for")
    if soak.broken_receipts:
        wrong.append(f"{soak.broken_receipts} receipts of held mails do not say: do not resend")
    return figures, wrong


def _states(one: Platform) -> Iterator[str]:
    """Each accepted mail is in exactly one state, and that is a final one (HD-21)."""
    found = one.conservation()
    yield from found.findings
    yield from found.remarks
    insurers = {insurer.address.lower() for insurer in one.config.insurers}
    for line in found.accounts:
        left = {state.value: number for state, number in line.states.items() if number and state not in FINAL}
        if line.name in insurers and left:
            yield f"{line.name}: not in a final state: {left}"


def _statements(soak: Soak, statements: list[Account], feeds: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    """What the platform tells each practice of each insurer is what the practice knows itself."""
    told = {(account.sender, account.ik): account for account in statements}
    for practice in soak.practices:
        for ik, book in practice.books.items():
            account = told.pop((practice.identity.address.lower(), ik), None)
            where = f"{practice.identity.address} at {ik}"
            if account is None:
                yield f"{where}: no statement"
                continue
            yield from (f"{where}: {line}" for line in _compared(book, account))
    yield from (f"a statement for {sender} at {ik}, which sent nothing" for sender, ik in told)


def _compared(book: Book, account: Account) -> Iterator[str]:
    numbers = account.numbers
    if account.must_resend or account.uncertain or account.open:
        yield f"told to resend {account.resend}, {account.deferred} deferred, {account.uncertain}, open {account.open}"
    if not book.accepted <= numbers["accepted"] <= book.accepted + book.lost:
        yield f"{numbers['accepted']} accepted, its book has {book.accepted}, and {book.lost} without an answer"
    if numbers["delivered"] != len(book.documents):
        yield f"{numbers['delivered']} delivered, its book has {len(book.documents)} documents"
    if numbers["accepted"] != numbers["delivered"] + numbers["duplicate_linked"]:
        yield f"the numbers do not add up: {dict(numbers)}"


def _invariants(one: Platform) -> list[str]:
    """Of appendix B: none is broken, and only what a young home cannot know (drills of a month) is not known.

    Witnesses follow the journal by seconds, so it is asked again for a time.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        asked = one.command("invariants", "check", "--json", "--home", str(one.home), check=False)
        found = json.loads(asked.stdout)
        wrong = [str(line) for line in found if line["answer"] != Answer.HOLDS and line["number"] != DRILLED]
        if not wrong or any(line["answer"] == Answer.VIOLATED for line in found) or time.monotonic() > deadline:
            return wrong
        time.sleep(1)


_DONE = sa.text(
    "SELECT d.changed_us, d.accepted_us FROM kim_delivery AS d WHERE d.account IN :accounts"
    " AND d.state IN ('DELIVERED', 'DUPLICATE_LINKED') AND d.changed_us >= :since AND d.changed_us < :until"
).bindparams(sa.bindparam("accounts", expanding=True))


def _figures(soak: Soak, statements: list[Account], feeds: Mapping[str, list[dict[str, Any]]]) -> Figures:
    marks = soak.times.marks
    numbers: Counter[str] = Counter()
    for account in statements:
        numbers.update(account.numbers)
    books = [(practice, ik, book) for practice in soak.practices for ik, book in practice.books.items()]
    named = {ik: {event["document_id"] for event in events} for ik, events in feeds.items()}
    lost = sum(len(book.documents - named[ik]) for _, ik, book in books)
    answered = sum(
        practice.answers.get(mail) is Progress.DELIVERED for practice, _, book in books for mail in book.mails
    )
    mails = sum(len(book.mails) for _, _, book in books)
    drained, live, peak = _rates(soak.one, marks["opening"], marks["release"], marks["released"])
    seconds = soak.times.between("release", "released")
    return Figures(
        accepted=numbers["accepted"],
        held=numbers["held"],
        released=released_by(soak),
        duplicates=numbers["duplicate_linked"],
        proposals=sum(event["possibly_same_as"] is not None for events in feeds.values() for event in events),
        rejected=numbers["returned"] + numbers["quarantined"],
        lost=lost,
        attempts_lost=sum(book.lost for _, _, book in books),
        refused=sum(book.refused for _, _, book in books),
        receipts=soak.receipts / max(soak.held_mails, 1),
        dsn=answered / max(mails, 1),
        release_seconds=seconds,
        drained_per_second=drained / seconds,
        live_per_second=live / seconds,
        peak_per_second=peak,
        octets=soak.octets,
    )


def released_by(soak: Soak) -> int:
    """Mails that the release plan let go, as its book says."""
    return release_book(soak.one.config).progress(soak.released).released


def _rates(one: Platform, opened: float, since: float, until: float) -> tuple[int, int, float]:
    """(of the backlog, of what came after the opening, most a second in any 10 s), finished while the release ran."""
    accounts = [insurer.address.lower() for insurer in one.config.insurers]
    begin, end = int(since * 1e6), int(until * 1e6) + 1
    with asking(one.config.kim_database) as connection:
        rows = connection.execute(_DONE, {"accounts": accounts, "since": begin, "until": end}).all()
    backlog = sum(row.accepted_us < opened * 1e6 for row in rows)
    window = Counter((row.changed_us - begin) // PEAK_US for row in rows)
    whole = [number for at, number in window.items() if (at + 1) * PEAK_US <= end - begin]
    best = max(whole) * 1e6 / PEAK_US if whole else len(rows) / (until - since)
    return backlog, len(rows) - backlog, best
