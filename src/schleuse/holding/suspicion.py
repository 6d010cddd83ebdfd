"""What is suspected, signed: mail of the attack period, or of senders that are themselves compromised (HD-47). Pure.

Forensics will bring findings of its own; until then somebody signs what is suspected, as a custodian, and answers for
it. Mail that matches goes to QUARANTINED, not to the bin and not on with its backlog; two persons give it back or
return it, by an order that both approve by its hash (§ 10).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.errors import MalformedError, RefusedError
from schleuse.journal.opening import Json, canonical_json
from schleuse.switch.documents import Rights, Role, parse_time, time_text
from schleuse.switch.fields import table_of

_DOMAIN = b"schleuse suspicion v1\n"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_ADDRESS = re.compile(r"[^\s@]{1,64}@[^\s@]{1,255}")
_MAX_TEXT = 2000
#: Who answers for it (§ 10); the evidence behind it is theirs.
SIGNERS = frozenset({Role.FORENSIC_LEAD, Role.CUSTODIAN, Role.SECURITY_OFFICER})


class BadSuspicionError(MalformedError):
    """Not a document about suspected mail, or not an order about it; whoever wrote it can change it."""

    code = "holding.bad-suspicion"


class SuspicionRefusedError(RefusedError):
    """The signature is not that of somebody who may suspect mail; another person signs."""

    code = "holding.suspicion-refused"


class Fate(StrEnum):
    """What becomes of quarantined mail by the order of two persons (§ 6.2)."""

    HELD = "HELD"
    RETURNED = "RETURNED"


#: One of each side (§ 10: "release backlog", "return a message").
PAIRS: Mapping[Fate, tuple[frozenset[Role], frozenset[Role]]] = {
    Fate.HELD: (frozenset({Role.SWITCH_OFFICER}), frozenset({Role.SERVICE_OWNER, Role.TENANT_DELEGATE})),
    Fate.RETURNED: (frozenset({Role.SERVICE_OWNER}), frozenset({Role.RELEASER})),
}


@dataclass(frozen=True, slots=True)
class Suspicion:
    """since, until: of acceptance, until excluded; None: open on that side. senders: KIM addresses, () for all.

    insurers: IKs of the mailboxes, () for all. Mail must match all that is given; "this period, and those senders at
    any time" are two documents. references: name and SHA-256 (hex) of what it rests on. Raises BadSuspicionError.
    """

    id: str
    at: datetime
    text: str
    since: datetime | None = None
    until: datetime | None = None
    senders: tuple[str, ...] = ()
    insurers: tuple[str, ...] = ()
    references: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise BadSuspicionError("a suspicion has an id of letters, digits, and . _ -")
        if not self.text.strip() or len(self.text) > _MAX_TEXT:
            raise BadSuspicionError(f"a suspicion says why, in at most {_MAX_TEXT:,} characters")
        if self.since is None and not self.senders:
            raise BadSuspicionError("a suspicion names the beginning of a period or senders; else it would be all mail")
        if self.since and self.until and self.until <= self.since:
            raise BadSuspicionError("the period ends after it began")
        if any(not _ADDRESS.fullmatch(one) for one in self.senders):
            raise BadSuspicionError("a sender is a KIM address, name@domain")
        if any(not re.fullmatch("[0-9]{9}", one) for one in self.insurers):
            raise BadSuspicionError("an insurer is an IK of nine digits")

    @property
    def hash(self) -> str:
        """SHA-256 in hex."""
        return hashlib.sha256(canonical_json(_as_json(self))).hexdigest()


@dataclass(frozen=True, slots=True)
class SignedSuspicion:
    """custodian: name of the credential that signed it; role: as what."""

    suspicion: Suspicion
    custodian: str
    role: Role
    signature: bytes

    def encode(self) -> dict[str, Json]:
        """As it is kept."""
        return {
            "suspicion": _as_json(self.suspicion),
            "custodian": self.custodian,
            "role": self.role.value,
            "signature": self.signature.hex(),
        }


@dataclass(frozen=True, slots=True)
class Order:
    """What two persons order of quarantined mail. deliveries: () for all of this suspicion, for the time to come, too.

    reason: of RETURNED, what the sender is told; true for each of these mails. Raises BadSuspicionError.
    """

    id: str
    suspicion: str
    fate: Fate
    reason: str
    deliveries: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise BadSuspicionError("an order has an id of letters, digits, and . _ -")
        if not self.reason.strip() or len(self.reason) > 200 or not self.reason.isascii():
            raise BadSuspicionError("an order has a reason of at most 200 ASCII characters")
        if self.fate is Fate.RETURNED and not self.deliveries:
            raise BadSuspicionError("what is returned is named mail by mail: each has its own reason (§ 6.2)")

    def encode(self) -> dict[str, Json]:
        """As it is kept."""
        return {
            "type": "schleuse-quarantine-order",
            "schema": 1,
            "id": self.id,
            "suspicion": self.suspicion,
            "fate": self.fate.value,
            "reason": self.reason,
            "deliveries": [*self.deliveries],
        }

    @property
    def hash(self) -> str:
        """SHA-256 in hex: what approvals are bound to (RO-04)."""
        return hashlib.sha256(canonical_json(self.encode())).hexdigest()


def sign_suspicion(suspicion: Suspicion, custodian: str, role: Role, key: Ed25519PrivateKey) -> SignedSuspicion:
    """The role is signed as well."""
    return SignedSuspicion(suspicion, custodian, role, key.sign(_message(suspicion, role)))


def check_suspicion(signed: SignedSuspicion, rights: Rights, at: datetime) -> None:
    """Raises SuspicionRefusedError. at: when it was handed in."""
    person = rights.people().get(signed.custodian)
    if person is None or signed.role not in person.roles:
        raise SuspicionRefusedError(f"no operator {signed.custodian!r} has the role {signed.role} here (RO-05)")
    if signed.role not in SIGNERS:
        raise SuspicionRefusedError(f"for suspected mail answers one of {', '.join(sorted(SIGNERS))}")
    if person.is_disabled(at):
        raise SuspicionRefusedError(f"{person.name} is disabled; another person signs")
    if not person.has_signed(signed.signature, _message(signed.suspicion, signed.role)):
        raise SuspicionRefusedError(f"the signature of {person.name} does not match the document")


def is_changed(signed: SignedSuspicion, rights: Rights) -> bool:
    """Whether its signer is known, and has signed something else."""
    person = rights.people().get(signed.custodian)
    return person is not None and not person.has_signed(signed.signature, _message(signed.suspicion, signed.role))


def suspicion_from(value: object) -> SignedSuspicion:
    """From the JSON value of `SignedSuspicion.encode`. Raises BadSuspicionError."""
    try:
        table = table_of(value)
        said = table_of(table["suspicion"])
        if set(said) != _KEYS or said["type"] != "schleuse-suspicion" or said["schema"] != 1:
            raise BadSuspicionError(f"a suspicion has the keys {', '.join(sorted(_KEYS))}, and schema 1")
        suspicion = Suspicion(
            str(said["id"]),
            parse_time(said["at"]),
            str(said["text"]),
            parse_time(said["since"]) if said["since"] else None,
            parse_time(said["until"]) if said["until"] else None,
            tuple(map(str, said["senders"])),
            tuple(map(str, said["insurers"])),
            tuple((str(name), str(digest)) for name, digest in said["references"]),
        )
        return SignedSuspicion(
            suspicion, str(table["custodian"]), Role(table["role"]), bytes.fromhex(table["signature"])
        )
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise BadSuspicionError(f"not a signed suspicion: {type(cause).__name__}") from cause


def order_from(value: object) -> Order:
    """From the JSON value of `Order.encode`. Raises BadSuspicionError."""
    try:
        table = table_of(value)
        deliveries = tuple(int(one) for one in table["deliveries"])
        order = Order(str(table["id"]), str(table["suspicion"]), Fate(table["fate"]), str(table["reason"]), deliveries)
    except (KeyError, TypeError, ValueError) as cause:
        raise BadSuspicionError(f"not an order about quarantined mail: {type(cause).__name__}") from cause
    return order


_KEYS = frozenset({"type", "schema", "id", "at", "text", "since", "until", "senders", "insurers", "references"})


def _message(suspicion: Suspicion, role: Role) -> bytes:
    return _DOMAIN + role.value.encode() + b"\n" + canonical_json(_as_json(suspicion))


def _as_json(one: Suspicion) -> dict[str, Json]:
    return {
        "type": "schleuse-suspicion",
        "schema": 1,
        "id": one.id,
        "at": time_text(one.at),
        "text": one.text,
        "since": "" if one.since is None else time_text(one.since),
        "until": "" if one.until is None else time_text(one.until),
        "senders": [*one.senders],
        "insurers": [*one.insurers],
        "references": [[name, digest] for name, digest in one.references],
    }
