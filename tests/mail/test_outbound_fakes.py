"""The fake queue keeps the same contract as the store."""

from __future__ import annotations

import pytest
from tests.mail.fake_queue import MemoryQueue
from tests.mail.queue_contract import QueueContract

from schleuse.mail.contracts import Action, Mail


class TestMemoryQueue(QueueContract):
    @pytest.fixture
    def queue(self) -> MemoryQueue:
        return MemoryQueue()

    def put(self, queue: MemoryQueue, mail: Mail) -> None:
        queue.put(mail, "<1@arzt.kim.telematik-test>")

    def reports(self, queue: MemoryQueue) -> list[tuple[Action, str]]:
        return [(action, status) for _, action, status in queue.reports]
