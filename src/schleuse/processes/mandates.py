"""What had agreed to the closings by rule of this home: its policies, and the restarts that two persons approved."""

from __future__ import annotations

from collections.abc import Callable

from schleuse.config import Config
from schleuse.processes.policies import policies_of
from schleuse.restart.approvals import PLAN, pair
from schleuse.restart.book import Book
from schleuse.restart.plan import PlanMandate, mandate_of
from schleuse.restart.progress import Approved, Made
from schleuse.shutdown.mandates import RESTART, Mandates
from schleuse.switch.documents import OPENERS, Rights


def mandates_of(config: Config, rights: Rights) -> Mandates:
    """Read when a closing by rule is taken, and not before."""
    return Mandates(policies_of(config, rights), _restarts(Book(config.switch_folder / "restart"), rights))


def _restarts(book: Book, rights: Rights) -> Callable[[str], PlanMandate | None]:
    def approved(reference: str) -> PlanMandate | None:
        name, _, version = reference.removeprefix(RESTART).rpartition("@")
        events = book.events(name)
        given = [one.approval for one in events if isinstance(one, Approved)]
        for one in events:
            if isinstance(one, Made) and str(one.plan.version) == version:
                both = pair(given, PLAN, one.plan.hash, OPENERS, rights)
                return None if both is None else mandate_of(one.plan)
        return None

    return approved
