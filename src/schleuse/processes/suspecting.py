"""Suspected mail of this home: signed documents, the rows made from them, and orders of two persons (HD-47).

<home>/switch/suspicions/ID/document.json            signed by its custodian; the truth, from which rows are made again
                           /orders/ORDER/order.json  what two persons order
                           /orders/ORDER/approval-NAME.json
                           /orders/ORDER/done.json   carried out, with the approvals; without it, it is done again

Each step is written, then told to the journal, then done, and may be repeated after a crash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from schleuse.clock import Now, to_us, utc_now
from schleuse.config import Config
from schleuse.eau.switched import delivering, delivery
from schleuse.errors import ConflictError, CorruptError, Error, RefusedError, UnavailableError
from schleuse.holding.suspicion import (
    PAIRS,
    BadSuspicionError,
    Fate,
    Order,
    SignedSuspicion,
    Suspicion,
    SuspicionRefusedError,
    check_suspicion,
    is_changed,
    order_from,
    suspicion_from,
)
from schleuse.identifiers import IK
from schleuse.journal.disk import OsDisk
from schleuse.journal.disk import replace as write_whole
from schleuse.journal.opening import Json
from schleuse.kim.store import Leases, Under, Waiting, open_leases
from schleuse.kim.store.suspicions import EVER, Suspected
from schleuse.processes.operators import rights_of
from schleuse.processes.switching import open_switch
from schleuse.switch.approval import Approval, BadApprovalError, approved_by_two, parse_approval, valid
from schleuse.switch.copy import Switch
from schleuse.switch.documents import Rights

log = structlog.get_logger()

#: What approvals of an order are for.
PURPOSE = "quarantine-order"
#: Deliveries that one entry of the journal names.
TOLD_AT_ONCE = 1000
#: (facts, whether it was granted): an entry in the journal of the platform; raises UnavailableError.
Tell = Callable[[Mapping[str, Json], bool], None]


class NoSuchSuspicionError(ConflictError):
    """There is no suspicion or order of this name; `schleuse hold suspect list` shows them."""

    code = "suspicion.none"


class SuspicionExistsError(ConflictError):
    """A suspicion or order of this name says something else; a new one has a new name."""

    code = "suspicion.exists"


class SuspicionDamagedError(CorruptError):
    """A file of a suspicion is not what was written; nothing is let go until its operator has looked."""

    code = "suspicion.damaged"


class SuspicionNotKeptError(UnavailableError):
    """A file of a suspicion cannot be written, so nothing was done; the operator makes room."""

    code = "suspicion.not-kept"


class OrderNotApprovedError(RefusedError):
    """Two different persons in the roles of § 10 have to approve exactly this order; so far they have not."""

    code = "suspicion.not-approved"


class VoidOrderApprovalError(RefusedError):
    """This approval is of another order, expired, in a role that does not count here, or by nobody known."""

    code = "suspicion.void-approval"


class NotKeptAsideError(ConflictError):
    """An order names mail that is not kept aside for this suspicion; who wrote it looks again."""

    code = "suspicion.not-kept-aside"


class InsurerLeftError(ConflictError):
    """The insurer of quarantined mail is not in the configuration, so its switch cannot be asked; its operator puts it
    back."""

    code = "suspicion.insurer-left"


class Suspecting:
    """See the module. step: named steps, for crash tests."""

    def __init__(
        self,
        config: Config,
        leases: Leases,
        switch: Switch,
        rights: Rights,
        tell: Tell,
        now: Now,
        step: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._config = config
        self._folder = config.switch_folder / "suspicions"
        self._leases = leases
        self._switch = switch
        self._rights = rights
        self._tell = tell
        self._now = now
        self._step = step

    # --- documents ---

    def hand_in(self, signed: SignedSuspicion) -> int:
        """Keep it, and keep aside what waits. Returns how many mails. Handing it in again goes on after a crash.

        Raises SuspicionRefusedError, SuspicionExistsError. One person suffices: it only holds more (SW-01).
        """
        check_suspicion(signed, self._rights, self._now())
        one = signed.suspicion
        path = self._of(one.id) / "document.json"
        if path.exists() and self.read(one.id) != signed:
            raise SuspicionExistsError(f"there is another suspicion {one.id}; a new one has a new id")
        self._say("suspected", one, True, by=signed.custodian, role=signed.role.value, text=one.text)
        self._step("told")
        self._write(path, signed.encode())
        self._step("written")
        return self.apply(one.id)

    def read(self, id: str) -> SignedSuspicion:
        """Raises NoSuchSuspicionError, SuspicionDamagedError."""
        try:
            return suspicion_from(json.loads((self._of(id) / "document.json").read_bytes()))
        except FileNotFoundError as cause:
            raise NoSuchSuspicionError(f"there is no suspicion {id}") from cause
        except (OSError, ValueError, BadSuspicionError) as cause:
            raise SuspicionDamagedError(f"the suspicion {id} cannot be read ({type(cause).__name__})") from cause

    def ids(self) -> list[str]:
        """All, also those that have ended."""
        return sorted(path.parent.name for path in self._folder.glob("*/document.json"))

    def apply(self, id: str) -> int:
        """Make the rows of this document, and keep aside what waits and matches. Returns how many mails."""
        accounts = self.register(id)
        self._step("registered")
        kept = self._leases.suspicions.sweep(id, accounts, self._now())
        self._step("swept")
        return kept

    def register(self, id: str) -> list[str]:
        """Only the rows, so that no worker takes such mail. Returns the mailboxes. Raises SuspicionDamagedError."""
        signed = self.read(id)
        try:
            check_suspicion(signed, self._rights, signed.suspicion.at)
        except SuspicionRefusedError as cause:
            if is_changed(signed, self._rights):
                raise SuspicionDamagedError(f"the suspicion {id} is not what its custodian signed") from cause
            # Who cannot be asked any more has left, or his key file is gone: rows only hold more.
            log.error("suspicion.signer-unknown", suspicion=id, operator=signed.custodian, reason=str(cause))
        rows = rows_of(self._config, signed.suspicion)
        given_back = [order for order in self._done(id) if order.fate is Fate.HELD]
        for order in given_back:  # before the rows, so that no worker keeps it aside again in between
            self._leases.suspicions.clear(id, order.deliveries)
        self._leases.suspicions.register(rows)
        if not all(order.deliveries for order in given_back):
            self._leases.suspicions.end(id, self._now())
        return [row.account for row in rows]

    def quarantined(self, id: str) -> list[Waiting]:
        """What is kept aside for it."""
        return self._leases.suspicions.quarantined(id)

    def opened(self, id: str) -> dict[str, list[Waiting]]:
        """By IK: mail that matches and was opened before; the insurer judges it by its own means.

        By the address of its mailbox where the insurer has left the configuration.
        """
        iks = self._iks
        found: dict[str, list[Waiting]] = {}
        for one in self._leases.suspicions.opened(id):
            found.setdefault(iks.get(one.account, one.account), []).append(one)
        return found

    # --- orders ---

    def order(self, order: Order) -> None:
        """Keep an order that two persons have to approve. Raises NotKeptAsideError, SuspicionExistsError."""
        signed = self.read(order.suspicion)
        unknown = set(order.deliveries) - {one.id for one in self.quarantined(order.suspicion)}
        if unknown:
            raise NotKeptAsideError(f"not kept aside for {order.suspicion}: {', '.join(map(str, sorted(unknown)))}")
        path = self._order(order.suspicion, order.id) / "order.json"
        if path.exists() and self.read_order(order.suspicion, order.id) != order:
            raise SuspicionExistsError(f"there is another order {order.id}; a new one has a new id")
        self._say("ordered", signed.suspicion, True, order=order.id, fate=order.fate.value, hash=order.hash)
        self._write(path, order.encode())

    def read_order(self, id: str, order: str) -> Order:
        """Raises NoSuchSuspicionError, SuspicionDamagedError."""
        try:
            found = order_from(json.loads((self._order(id, order) / "order.json").read_bytes()))
        except FileNotFoundError as cause:
            raise NoSuchSuspicionError(f"there is no order {order} of {id}") from cause
        except (OSError, ValueError, BadSuspicionError) as cause:
            raise SuspicionDamagedError(f"the order {order} cannot be read ({type(cause).__name__})") from cause
        if (found.suspicion, found.id) != (id, order):
            raise SuspicionDamagedError(f"the folder of order {order} of {id} has another one")
        return found

    def approve(self, order: Order, approval: Approval) -> None:
        """Keep an approval that counts. Raises VoidOrderApprovalError (RO-04, RO-05)."""
        first, second = PAIRS[order.fate]
        person = valid(approval, PURPOSE, order.hash, self._rights.trusted(self._now()), self._now())
        if person is None or approval.role not in first | second or not approval.is_brief:
            raise VoidOrderApprovalError(
                f"{approval.operator} as {approval.role.value} does not approve {order.id}: expected an operator"
                f" who has the role, as {' or '.join(sorted(first | second))}, and his own key"
            )
        suspicion = self.read(order.suspicion).suspicion
        self._say("approved", suspicion, True, order=order.id, by=approval.operator, role=approval.role.value)
        path = self._order(order.suspicion, order.id) / f"approval-{person.name}.json"
        self._write(path, approval.encode())

    def is_approved(self, order: Order) -> bool:
        """By two persons, for exactly this order, now (RO-01)."""
        return self._approved(order, self._approvals(order), self._now())

    def _approvals(self, order: Order) -> list[Approval]:
        given: list[Approval] = []
        for path in sorted(self._order(order.suspicion, order.id).glob("approval-*.json")):
            try:
                given.append(parse_approval(json.loads(path.read_bytes())))
            except (OSError, ValueError, BadApprovalError):
                continue  # approves nothing
        return given

    def _approved(self, order: Order, given: Sequence[Approval], at: datetime) -> bool:
        recent = [one for one in given if one.is_brief]
        return approved_by_two(recent, PURPOSE, order.hash, *PAIRS[order.fate], self._rights.trusted(at), at)

    def carry_out(self, order: Order) -> int:
        """Give back or return what is kept aside. Returns how many mails; again after a crash: those that are left.

        Raises OrderNotApprovedError, InsurerLeftError, StaleEpochError.
        """
        suspicion = self.read(order.suspicion).suspicion
        at, given = self._now(), self._approvals(order)
        if not self._approved(order, given, at):
            self._say("carry-out", suspicion, False, order=order.id)
            first, second = PAIRS[order.fate]
            raise OrderNotApprovedError(
                f"{order.id} needs two persons: {' or '.join(sorted(first))}, and {' or '.join(sorted(second))}"
            )
        kept = {one.id: one.account for one in self.quarantined(order.suspicion)}
        those = sorted(set(order.deliveries) & kept.keys() if order.deliveries else kept)
        if order.fate is Fate.RETURNED:
            self._require_insurers(kept[id] for id in those)
        self._tell_those(order, suspicion, those)
        self._step("told")
        moved = self._carry_out(order, those, kept)
        if not order.deliveries:  # a claim may have kept some aside before it ended
            late = sorted(one.id for one in self.quarantined(order.suspicion))
            if late:
                self._tell_those(order, suspicion, late)
                moved += self._carry_out(order, late, kept)
        self._step("moved")
        path = self._order(order.suspicion, order.id) / "done.json"
        # With what proves it: approvals end, and are given again.
        proof: list[Json] = [one.encode() for one in given]
        self._write(path, {"at": at.isoformat(), "moved": moved, "hash": order.hash, "approvals": proof})
        return moved

    def _tell_those(self, order: Order, suspicion: Suspicion, those: Sequence[int]) -> None:
        for start in range(0, max(len(those), 1), TOLD_AT_ONCE):
            part: list[Json] = [*those[start : start + TOLD_AT_ONCE]]
            self._say("carry-out", suspicion, True, order=order.id, fate=order.fate.value, deliveries=part)

    def _carry_out(self, order: Order, those: Sequence[int], kept: Mapping[int, str]) -> int:
        suspicions, now = self._leases.suspicions, self._now()
        if order.fate is Fate.RETURNED:
            return suspicions.return_(
                order.suspicion,
                those,
                order.reason,
                now,
                timedelta(days=self._config.kim.retention_days) // timedelta(microseconds=1),
                [self._under(account) for account in sorted({kept[id] for id in those})],
            )
        if not order.deliveries:
            suspicions.end(order.suspicion, now)
        return suspicions.give_back(order.suspicion, those, now)

    def _require_insurers(self, accounts: Iterable[str]) -> None:
        left = sorted({*accounts} - self._iks.keys())
        if left:
            raise InsurerLeftError(
                f"the insurer of {', '.join(left)} is not in schleuse.toml; nothing was returned: put it back there and"
                " `hold suspect carry-out` again, or order HELD, which needs no switch"
            )

    @property
    def _iks(self) -> dict[str, str]:
        return {one.address.lower(): one.ik for one in self._config.insurers}

    def _under(self, account: str) -> Under:
        ik = IK(self._iks[account])
        return Under(delivering(ik), delivery(self._switch, ik).epoch)

    def _done(self, id: str) -> Iterator[Order]:
        """Those that two persons approved when they were carried out; what proves nothing ends nothing (RO-01)."""
        for path in sorted((self._of(id) / "orders").glob("*/done.json")):
            try:
                order = self.read_order(id, path.parent.name)
                said = json.loads(path.read_bytes())
                given = [parse_approval(one) for one in said["approvals"]]
                proven = said["hash"] == order.hash and self._approved(order, given, datetime.fromisoformat(said["at"]))
                reason = "two persons did not approve it"
            except (Error, OSError, ValueError, KeyError, TypeError, RecursionError) as cause:
                proven, reason = False, f"{type(cause).__name__}: {cause}"
            if proven:
                yield order
            else:
                log.error("suspicion.done-unproven", suspicion=id, order=path.parent.name, reason=reason)

    def _say(self, what: str, one: Suspicion, granted: bool, **facts: Json) -> None:
        self._tell({"act": f"quarantine.{what}", "suspicion": one.id, "document": one.hash, **facts}, granted)

    def _of(self, id: str) -> Path:
        return self._folder / Path(id).name

    def _order(self, id: str, order: str) -> Path:
        return self._of(id) / "orders" / Path(order).name

    def _write(self, path: Path, table: Mapping[str, Json]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(OsDisk(), path, json.dumps(table, indent=1, ensure_ascii=False).encode())
        except OSError as cause:
            raise SuspicionNotKeptError(f"{path.name} cannot be written ({cause.strerror})") from cause


def rows_of(config: Config, one: Suspicion) -> list[Suspected]:
    """For each mailbox of its insurers."""
    return [
        Suspected(
            one.id,
            insurer.address.lower(),
            0 if one.since is None else to_us(one.since),
            EVER if one.until is None else to_us(one.until),
            frozenset(sender.lower() for sender in one.senders),
        )
        for insurer in config.insurers
        if not one.insurers or insurer.ik in one.insurers
    ]


def register_all(config: Config, leases: Leases, switch: Switch) -> None:
    """What a worker does before it takes anything: an index that was lost has no rows. Nothing new, nothing told.

    Raises SuspicionDamagedError: nobody knows then what must not be taken.
    """
    suspecting = Suspecting(config, leases, switch, rights_of(config), lambda _facts, _granted: None, utc_now)
    for id in suspecting.ids():
        if not leases.suspicions.has_ended(id):
            suspecting.register(id)


@contextmanager
def open_suspecting(config: Config, tell: Tell) -> Iterator[Suspecting]:
    """For commands. Raises UnavailableError."""
    with open_leases(config.kim_database, config.kim.spool, timedelta(days=config.kim.retention_days)) as leases:
        yield Suspecting(config, leases, open_switch(config, "quarantine"), rights_of(config), tell, utc_now)
