"""Group commit: mails that arrive while one flush runs share the next."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from schleuse.errors import Error, UnavailableError
from schleuse.mail.contracts import Done, Mail
from schleuse.mail.spool.envelope import Envelope, seal


class IntakeBusyError(UnavailableError):
    """More mail waits for the disk than memory should hold; the sending host tries again."""

    code = "spool.busy"


class IntakeClosedError(UnavailableError):
    """The store is stopping; the sending host tries again."""

    code = "spool.closed"


class IntakeFailedError(UnavailableError):
    """A mistake of ours while keeping a mail; nothing was kept, the sending host tries again."""

    code = "spool.failed"


#: More than this waits for the disk: the sender's machine waits better than our memory does.
MAX_WAITING_BYTES = 512 << 20

#: Of one flush. Bounds how long the first mail of a batch waits for the last one.
MAX_BATCH_BYTES = 64 << 20
MAX_BATCH = 500


class Keep(Protocol):
    """Keeps a batch durably, all or none."""

    def __call__(self, batch: Sequence[tuple[Envelope, bytes]]) -> None:
        """Raises Error: then none is kept."""
        ...


class GroupCommit:
    """One thread that flushes. Thread-safe."""

    def __init__(
        self,
        keep: Keep,
        *,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        """step: told the name of each step before the next one; a test dies there."""
        self._max_waiting_bytes = max_waiting_bytes
        self._keep = keep
        self._step = step
        self._wake = threading.Condition()
        self._waiting: list[tuple[Mail, Done]] = []
        self._bytes = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mail-commit", daemon=True)
        self._thread.start()

    def accept(self, mail: Mail, done: Done) -> None:
        """Called from any thread; done comes from the commit thread, or at once when nothing can be taken."""
        with self._wake:
            refusal = self._refusal(len(mail.content))
            if refusal is None:
                self._waiting.append((mail, done))
                self._bytes += len(mail.content)
                self._wake.notify()
        if refusal is not None:
            done(refusal)

    def close(self) -> None:
        """Flush what was taken, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _refusal(self, size: int) -> Error | None:
        if self._closing:
            return IntakeClosedError("this store is stopping; another process or a later try will take the mail")
        if self._waiting and self._bytes + size > self._max_waiting_bytes:
            limit = self._max_waiting_bytes >> 20
            return IntakeBusyError(f"more than {limit} MiB wait for the disk; try again later")
        return None

    def _run(self) -> None:
        while batch := self._next():
            self._flush(batch)

    def _next(self) -> list[tuple[Mail, Done]]:
        """The next batch; empty when closed and all is flushed."""
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            size = count = 0
            for mail, _ in self._waiting:
                size += len(mail.content)
                if count and (size > MAX_BATCH_BYTES or count == MAX_BATCH):
                    break
                count += 1
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            self._bytes -= sum(len(mail.content) for mail, _ in batch)
            return batch

    def _flush(self, batch: list[tuple[Mail, Done]]) -> None:
        answer: Error | None = None
        try:
            self._step("accept.before")
            self._keep([(seal(mail), mail.content) for mail, _ in batch])
            self._step("accept.durable")
        except Error as error:
            answer = error
        except Exception as cause:  # the thread must go on: a batch that we cannot keep is the sender's to repeat
            answer = IntakeFailedError(f"the mail could not be kept ({type(cause).__name__})")
        for _, done in batch:
            _tell(done, answer)
        self._step("accept.told")


def _tell(done: Done, answer: Error | None) -> None:
    with contextlib.suppress(Exception):  # a caller that has gone (its loop is closed) must not stop the others
        done(answer)
