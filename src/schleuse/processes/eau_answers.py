"""What the desk does about employers' requests: what waits in the mail store, what follows, what is over (HD-09)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import structlog

from schleuse.clock import Now
from schleuse.config import Config
from schleuse.eau.answer_store import AnswerStore
from schleuse.eau.outcome import Quarantine
from schleuse.eau.switched import (
    AnswerTerms,
    accepts,
    answer_terms,
    answering,
    answers,
    answers_begin,
    delivering,
    delivery,
)
from schleuse.identifiers import IK
from schleuse.kim.store import Leases
from schleuse.processes.following import Running
from schleuse.switch.copy import Switch
from schleuse.switch.fence import StaleEpochError

log = structlog.get_logger()

#: A mail that was accepted longer before the absence holds no certificate of it: none runs for a year.
LOOK_BACK = timedelta(days=365)
#: Quarantined mails that are known to be no certificate; any other may be one.
HARMLESS = (
    Quarantine.TEST_IN_PRODUCTION.value,
    Quarantine.STRAY_FEHLERNACHRICHT.value,
    Quarantine.UNDELIVERED_LETTER.value,
)


@dataclass(frozen=True, slots=True)
class Answering:
    """One per desk."""

    config: Config
    store: AnswerStore
    leases: Leases
    switch: Switch
    running: Running
    now: Now

    def waits(self, ik: IK, day: date, upto: datetime) -> bool:
        """See `answer_api.WaitsOf`: mail that is not taken in now counts, for it is at its senders.

        Raises UnavailableError: then nothing is said.
        """
        if not accepts(self.switch, ik):
            return True
        account = next(one.address.lower() for one in self.config.insurers if one.ik == ik.value)
        since = datetime.combine(max(day, date.min + LOOK_BACK), time(), UTC) - LOOK_BACK
        return self.leases.unopened.waits(account, since, upto, self.now(), HARMLESS) is not None

    def follow(self) -> int:
        """Say what the records say by now. Returns how many answers followed."""
        return self._each(
            lambda ik, terms: self.store.follow(
                ik,
                self.now(),
                waits=lambda day, upto: self.waits(ik, day, upto),
                terms=terms,
                unit=lambda: self._unit(ik),
            )
        )

    def end(self) -> int:
        """Forget the requests that are over, unless retention is frozen (SW-12). Returns how many."""
        if self.config.retention_frozen.exists():
            return 0
        return self._each(lambda ik, terms: self.store.ends.forget(ik, self.now(), terms))

    def _each(self, step: Callable[[IK, AnswerTerms], int]) -> int:
        """For each insurer to which answers may go out. Returns the sum."""
        done = 0
        for insurer in self.config.insurers:
            ik = IK(insurer.ik)
            answered, delivered = answers(self.switch, ik), delivery(self.switch, ik)
            if not delivered.state.begins or not answers_begin(answered):
                continue
            try:
                done += step(ik, answer_terms(answered, delivered))
            except StaleEpochError as error:  # closed meanwhile; the other insurers go on (T-24)
                log.warning("switch.stale-answer", ik=str(ik), reason=str(error))
        return done

    @contextmanager
    def _unit(self, ik: IK) -> Iterator[None]:
        with self.running.unit(answering(ik)), self.running.unit(delivering(ik)):
            yield
