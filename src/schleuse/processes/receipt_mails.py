"""Receipts as KIM mails, where it is agreed (`kim.receipt_mails`): one for each held mail, none while open (HD-30).

Recorded first, then accepted like any mail, then marked. A crash between makes the same mail again, octet for octet,
and the store links it to the first.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import structlog

from schleuse.clock import Now
from schleuse.config import Config
from schleuse.errors import Error
from schleuse.kim.accounts import Accounts
from schleuse.kim.receipt_mail import receipt_mail
from schleuse.kim.receipts import read_payload
from schleuse.kim.store import MailStore
from schleuse.kim.store.receipt_mails import WaitingReceipt
from schleuse.mail.contracts import Done, Mail
from schleuse.processes.receipts import Issuer

log = structlog.get_logger()

BATCH = 256
LOOK_SECONDS = 5.0
#: The store answers each mail; this bounds how long a dying disk may keep us from stopping.
ACCEPT_SECONDS = 60.0


class ReceiptMailer:
    """accept: how a mail gets into the store."""

    def __init__(
        self,
        config: Config,
        store: MailStore,
        accounts: Accounts,
        issuer: Issuer,
        now: Now,
        accept: Callable[[Mail, Done], None],
    ) -> None:
        self._host = config.hostname
        self._label = config.kim.receipt_label
        self._store = store
        self._accounts = accounts
        self._issuer = issuer
        self._now = now
        self._accept = accept

    def step(self) -> int:
        """Record what is owed and send what is recorded. Returns how many wait no more. Raises UnavailableError."""
        for account in self._accounts.of_insurers():
            self._record(account.address)
        sent = 0
        while waiting := self._store.receipt_mails.waiting(BATCH):
            ended = self._send(waiting)
            sent += ended
            if ended < len(waiting):  # the rest waits for the store, and so do we
                break
        return sent

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await asyncio.to_thread(self.step)
            except Error as error:
                log.error("receipt-mails.waiting", code=error.code, reason=str(error))
            except Exception:  # a fault of ours keeps receipts waiting; it must not end the role that takes mail in
                log.exception("receipt-mails.failed")
            await asyncio.sleep(LOOK_SECONDS)

    def _record(self, account: str) -> None:
        if not self._issuer.may_hold(account):
            return
        after = -1
        while ids := self._store.receipt_mails.untold(account, after, BATCH):
            records = {one.delivery: one for one in self._store.origins.by_deliveries(ids)}
            tokens = []
            for id in ids:
                if id not in records:  # a DSN, or a mail without Message-ID: nobody to tell, or nothing to tell of
                    continue
                one = records[id]
                receipt, token = self._issuer.receipt([one], f"{self._issuer.address}/{one.reference}")
                if receipt["messages"][0]["held"]:
                    tokens.append((id, token))
            self._store.receipt_mails.record(tokens, self._now())
            after = ids[-1]

    def _send(self, waiting: Sequence[WaitingReceipt]) -> int:
        """A mail that goes on meanwhile is no longer told as held. Returns how many wait no more."""
        still = {one.delivery for one in waiting if one.sender and self._is_held(one)}
        dropped = [one.delivery for one in waiting if one.delivery not in still]
        self._store.receipt_mails.drop(dropped)
        kept = self._accepted([one for one in waiting if one.delivery in still])
        self._store.receipt_mails.sent(kept, self._now())
        return len(kept) + len(dropped)

    def _is_held(self, one: WaitingReceipt) -> bool:
        records = self._store.origins.by_deliveries([one.delivery])
        return bool(records) and self._issuer.receipt(records, "")[0]["messages"][0]["held"]

    def _accepted(self, waiting: Sequence[WaitingReceipt]) -> list[int]:
        kept: list[int] = []
        left = threading.Semaphore(0)
        for one in waiting:

            def done(error: Error | None, id: int = one.delivery) -> None:
                if error is None:
                    kept.append(id)
                left.release()

            self._accept(self._mail(one), done)
        for _ in waiting:
            if not left.acquire(timeout=ACCEPT_SECONDS):
                break
        return list(kept)

    def _mail(self, one: WaitingReceipt) -> Mail:
        return receipt_mail(
            delivery=one.delivery,
            to=one.sender,
            original=one.message_id,
            token=one.token,
            receipt=read_payload(one.token),
            host=self._host,
            label=self._label,
            at=one.created_at,
        )
