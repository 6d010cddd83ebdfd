"""What the practice has sent and what came back: an append-only file, one JSON object a line.

A line is written before the mail goes out and again when something is known, so that a crash leaves a mail that is
"sending" and never one that nobody knows of (record, then act).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path


class Progress(StrEnum):
    """How far one mail has come, as the practice knows it (eau.md § 14)."""

    SENDING = "sending"
    SENT = "sent"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    FAILED = "failed"
    FAULTY = "faulty"


@dataclass(frozen=True, slots=True)
class Sent:
    """One mail. code: of the Fehlernachricht, or the reply that deferred it. fault: what `--faulty` broke."""

    message_id: str
    document_id: str
    kind: str
    insurer: str
    sent_at: str
    progress: Progress
    fault: str | None = None
    code: str | None = None


class Ledger:
    """The practice's own list, keyed by Message-ID; the last line of a mail counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.mails: dict[str, Sent] = {sent.message_id: sent for sent in _lines(path)}

    def record(self, *mails: Sent) -> None:
        """Append, durably."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            for sent in mails:
                file.write(json.dumps(asdict(sent), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.mails.update({sent.message_id: sent for sent in mails})

    def advance(self, message_id: str, progress: Progress, code: str | None = None) -> bool:
        """Note what came back. False if this mail is not ours. A fault outranks a receipt, whichever came first."""
        sent = self.mails.get(message_id)
        if sent is None:
            return False
        if sent.progress is not Progress.FAULTY and sent.progress is not progress:
            self.record(replace(sent, progress=progress, code=code))
        return True

    def by_document(self, document_id: str) -> Sent | None:
        """The mail of a Dokumenten-ID."""
        return next((sent for sent in self.mails.values() if sent.document_id == document_id), None)


def _lines(path: Path) -> Iterator[Sent]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            item = json.loads(line)
            yield Sent(**{**item, "progress": Progress(item["progress"])})
        except (ValueError, TypeError, KeyError):
            continue  # a line cut by a crash was never acted on
