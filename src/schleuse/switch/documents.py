"""What operators sign: a command that switches scopes, and an approval of somebody else's (SW-14, RO-04).

A document is canonical JSON (RFC 8785); its signature is Ed25519 over a line that names what it is, and the document.
Who may do what is incident.md § 10: one person closes, two persons in different roles open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schleuse.errors import Error, MalformedError, RefusedError
from schleuse.journal.note import ed25519_verifies
from schleuse.journal.opening import Json, canonical_json, parse_canonical_json
from schleuse.scopes import ANY, GROUPS, BadScopeError, Scope, ScopeState, parse_scopes
from schleuse.switch.fields import list_of, number_of, table_of, text_of

_COMMAND = b"schleuse switch command v1\n"
_NO_OPENING = (0, None, None, "", "")  #: what a closing has in the fields of an opening
MAX_DOCUMENT = 256 << 10  #: octets; a command names at most some thousand scopes


class BadCommandError(MalformedError):
    """Not a document of the switch; whoever made it can change it."""

    code = "switch.bad-command"


class NotAuthorisedError(RefusedError):
    """The signatures do not suffice for what the command asks; another person signs, or the configuration changes."""

    code = "switch.not-authorised"


class UnknownSignerError(NotAuthorisedError):
    """A signer is not configured, not any more, or not in this role; its operator looks at the configuration."""

    code = "switch.unknown-signer"


class Kind(StrEnum):
    """Why a command exists (incident.md § 5.3)."""

    MANUAL = "manual"
    AUTOMATIC = "automatic"
    DRILL = "drill"
    RECOVERY = "recovery"


class Reason(StrEnum):
    """Hold reason class of incident.md appendix A."""

    SECURITY_HOLD = "security_hold"
    DEPENDENCY_OFF = "dependency_off"
    TENANT_REQUEST = "tenant_request"
    AUTHORITY_ORDER = "authority_order"
    DRILL = "drill"


class Role(StrEnum):
    """Roles of incident.md § 10, as configuration names them. automat: a rule of the platform itself; closes only."""

    ANALYST = "analyst"
    LEAD = "lead"
    SWITCH_OFFICER = "switch_officer"
    RELEASER = "releaser"
    FORENSIC_LEAD = "forensic_lead"
    CUSTODIAN = "custodian"
    SECURITY_OFFICER = "security_officer"
    DATA_PROTECTION_OFFICER = "data_protection_officer"
    NOTIFICATION_OFFICER = "notification_officer"
    COMMUNICATION_LEAD = "communication_lead"
    TENANT_DELEGATE = "tenant_delegate"
    SERVICE_OWNER = "service_owner"
    AUDITOR = "auditor"
    BREAK_GLASS = "break_glass"
    AUTOMAT = "automat"


#: Who closes alone (§ 10: "any of analyst, lead, switch officer, rule").
CLOSERS = frozenset({Role.ANALYST, Role.LEAD, Role.SWITCH_OFFICER, Role.AUTOMAT})
#: Who opens together: one of each, different persons (§ 10, RO-01).
OPENERS = (Role.SWITCH_OFFICER, Role.RELEASER)
#: The pair of an emergency opening, apart from the ordinary one (RS-14).
BREAKERS = (Role.BREAK_GLASS, Role.BREAK_GLASS)
#: Analysts alone close everything together only (§ 10).
WATCHERS = (Role.ANALYST, Role.ANALYST)


@dataclass(frozen=True, slots=True)
class Person:
    """One credential of an operator. person: whose it is; two credentials of one person are one person (RO-01).

    until: when it was disabled. What was accepted before stays as it is, or the end of a credential would open what its
    owner has closed.
    """

    name: str
    person: str
    roles: frozenset[Role]
    key: Ed25519PublicKey
    until: datetime | None = None

    def is_disabled(self, at: datetime) -> bool:
        """Whether the credential signs nothing any more at this time."""
        return self.until is not None and at >= self.until

    def has_signed(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature over these octets is of this key."""
        return ed25519_verifies(self.key.public_bytes_raw(), signature, message)


def differ(one: Person, other: Person) -> bool:
    """Whether these are two persons: one key is one person, whatever its names (T-12)."""
    return one.person != other.person and one.key.public_bytes_raw() != other.key.public_bytes_raw()


@dataclass(frozen=True, slots=True)
class Limit:
    """How far a LIMITED scope is open. permille: share of the units, chosen by their id. per_hour: at most so many,
    counted durably by each way out for itself, such as an insurer's feed and its Fehlernachrichten (decision 0026).

    None: no limit of that kind. Raises BadCommandError.
    """

    permille: int | None = None
    per_hour: int | None = None

    def __post_init__(self) -> None:
        if self.permille is None and self.per_hour is None:
            raise BadCommandError("a limit names a share, a rate or both")
        if self.permille is not None and not 0 <= self.permille <= 1000:
            raise BadCommandError(f"a share is 0 to 1000 permille, found {self.permille}")
        if self.per_hour is not None and self.per_hour < 0:
            raise BadCommandError(f"a rate is 0 or more an hour, found {self.per_hour}")

    def encode(self) -> dict[str, Json]:
        """As documents have it: what is not limited is not there."""
        limits = {"permille": self.permille, "per_hour": self.per_hour}
        return {name: value for name, value in limits.items() if value is not None}


def limit_from(value: object) -> Limit:
    """From the JSON value of `Limit.encode`. Raises BadCommandError, TypeError."""
    table = table_of(value)
    if not set(table) <= {"permille", "per_hour"}:
        raise BadCommandError("a limit has permille and per_hour")
    return Limit(number_of(table, "permille"), number_of(table, "per_hour"))


@dataclass(frozen=True, slots=True)
class Command:
    """SwitchCommand of incident.md § 5.3, as it is signed; the log adds epoch and time of acceptance.

    id: chosen by whoever signs, unique. actor: name of the first signer. basis: for an opening, the epoch that its
    author had seen: what was closed later stays closed. expires_at: an opening is not accepted later (G-HUMAN, 4 h).
    plan, stage: for an opening, hash of the approved object and the stage it belongs to. incident: id of the incident
    or drill. policy: "NAME@VERSION" of the agreed policy, or "". told: who is told. limit: for LIMITED only.
    closes_at: an opening in an emergency ends by itself, towards closing (RS-14). with_backlog: what was held goes on
    with this opening; without, it waits for a release plan of its own (stage S6, HD-40).
    Raises BadCommandError.
    """

    id: str
    scopes: tuple[Scope, ...]
    state: ScopeState
    kind: Kind
    reason: Reason
    actor: str
    requested_at: datetime
    text: str = ""
    incident: str = ""
    policy: str = ""
    expected: str = ""
    told: tuple[str, ...] = ()
    limit: Limit | None = None
    opening: bool = False
    basis: int = 0
    expires_at: datetime | None = None
    closes_at: datetime | None = None
    with_backlog: bool = False
    plan: str = ""
    stage: str = ""

    def __post_init__(self) -> None:
        if not self.scopes:
            raise BadCommandError("a command names at least one scope")
        if (self.limit is not None) != (self.state is ScopeState.LIMITED):
            raise BadCommandError("a limit belongs to LIMITED, and LIMITED needs one")
        if not self.opening and self.state is ScopeState.OPEN:
            raise BadCommandError("only an opening leads to OPEN")
        if self.opening and self.kind is Kind.AUTOMATIC:
            raise BadCommandError("nothing opens automatically (SW-03)")
        if self.opening and self.expires_at is None:
            raise BadCommandError("an opening says when its approval ends")
        if not self.opening and (self.basis, self.expires_at, self.closes_at, self.plan, self.stage) != _NO_OPENING:
            raise BadCommandError("basis, expires_at, closes_at, plan and stage belong to an opening")
        if len(self.text) > 2000:
            raise BadCommandError("the reason of a command has at most 2,000 characters")

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(_as_json(self))

    @property
    def hash(self) -> str:
        """SHA-256 of the encoded command, in hex: what an approval is bound to (RO-04)."""
        return hashlib.sha256(self.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Signature:
    """operator: name of the credential. role: in which of its roles it signs. value: Ed25519, 64 octets."""

    operator: str
    role: Role
    value: bytes


@dataclass(frozen=True, slots=True)
class SignedCommand:
    """A command with the signatures of those who stand for it."""

    command: Command
    signatures: tuple[Signature, ...]

    def encode(self) -> dict[str, Json]:
        """As the log keeps it."""
        return {
            "command": _as_json(self.command),
            "signatures": [
                {"operator": one.operator, "role": one.role.value, "value": one.value.hex()} for one in self.signatures
            ],
        }


def sign(command: Command, operator: str, role: Role, key: Ed25519PrivateKey) -> Signature:
    """One signature; role is signed as well, so that nobody's signature is used in another role."""
    return Signature(operator, role, key.sign(_signed(command.encode(), role)))


def _signed(command: bytes, role: Role) -> bytes:
    return _COMMAND + role.value.encode() + b"\n" + command


class Rights:
    """Who may order what: the operators that a role's own configuration names.

    Whoever is missing blocks an opening and never a closing (RO-03).
    """

    def __init__(self, people: Sequence[Person]) -> None:
        self._people = {one.name: one for one in people}

    def trusted(self, at: datetime) -> Rights:
        """Without those whose credential is disabled by then, whatever time they write into what they sign."""
        return Rights([one for one in self._people.values() if not one.is_disabled(at)])

    def people(self) -> Mapping[str, Person]:
        """By name of the credential."""
        return self._people

    def check(self, signed: SignedCommand, at: datetime | None = None) -> None:
        """Raises NotAuthorisedError, which names what is missing, unless these signatures suffice (SW-01, RS-14).

        at: when the command is or was accepted; None for any time before a credential was disabled.
        """
        command = signed.command
        encoded = command.encode()
        signers = [self._signer(encoded, one, at) for one in signed.signatures]
        if not signers or signers[0][0].name != command.actor:
            raise NotAuthorisedError(f"the command names {command.actor!r}, who has not signed it first")
        roles = {role for _, role in signers}
        if not command.opening:
            if not roles & CLOSERS:
                raise NotAuthorisedError(f"closing needs one of {', '.join(sorted(CLOSERS))}; signed as {_list(roles)}")
            if not roles & (CLOSERS - {Role.ANALYST}) and closes_all(command) and not _pair(signers, WATCHERS):
                raise NotAuthorisedError("closing everything needs a lead, a switch officer or two analysts (§ 10)")
            return
        if _pair(signers, OPENERS):
            return
        if _pair(signers, BREAKERS):
            if command.closes_at is None:
                raise NotAuthorisedError("an opening in an emergency says when it closes again (RS-14)")
            return
        people = len({person.person for person, _ in signers})
        raise NotAuthorisedError(
            f"opening needs two persons, {OPENERS[0]} and {OPENERS[1]}; found {people} with roles {_list(roles)}"
        )

    def _signer(self, command: bytes, signature: Signature, at: datetime | None) -> tuple[Person, Role]:
        person = self._people.get(signature.operator)
        if person is None:
            raise UnknownSignerError(f"no operator {signature.operator!r} is configured")
        if not person.has_signed(signature.value, _signed(command, signature.role)):
            raise NotAuthorisedError(f"the signature of {person.name} does not match the command")
        if signature.role not in person.roles:
            raise UnknownSignerError(f"{person.name} does not have the role {signature.role}")
        if at is not None and person.until is not None and person.is_disabled(at):
            raise UnknownSignerError(f"{person.name} was disabled at {time_text(person.until)}")
        return person, signature.role


def closes_all(command: Command) -> bool:
    """Whether it concerns every service that `all` names, of everybody and in every direction."""
    whole = {one.service for one in command.scopes if (one.tenant, one.direction, one.path) == (ANY, ANY, ANY)}
    return ANY in whole or whole >= {one.value for one in GROUPS["all"]}


def _pair(signers: Sequence[tuple[Person, Role]], roles: tuple[Role, Role]) -> bool:
    """Whether two different persons stand in these two roles."""
    return any(
        first[1] is roles[0] and second[1] is roles[1] and differ(first[0], second[0])
        for first in signers
        for second in signers
    )


def _list(roles: frozenset[Role] | set[Role]) -> str:
    return ", ".join(sorted(roles)) or "nobody"


def parse_signed(data: bytes) -> SignedCommand:
    """From canonical JSON. Raises BadCommandError."""
    return signed_from(_parsed(data))


def signed_from(value: object) -> SignedCommand:
    """From the JSON value of `SignedCommand.encode`. Raises BadCommandError."""
    try:
        table = table_of(value)
        signatures = tuple(
            Signature(text_of(one, "operator"), Role(text_of(one, "role")), bytes.fromhex(text_of(one, "value")))
            for one in map(table_of, list_of(table, "signatures"))
        )
        return SignedCommand(_command_from(table_of(table["command"])), signatures)
    except BadCommandError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, Error) as cause:
        raise BadCommandError(f"expected a signed command of the switch; {type(cause).__name__}: {cause}") from cause


def _parsed(data: bytes) -> object:
    if len(data) > MAX_DOCUMENT:
        raise BadCommandError(f"a document has at most {MAX_DOCUMENT} octets")
    try:
        return parse_canonical_json(data)
    except Error as cause:
        raise BadCommandError(f"not canonical JSON: {cause}") from cause


def _as_json(command: Command) -> dict[str, Json]:
    table: dict[str, Json] = {
        "type": "schleuse-switch-command",
        "version": 1,
        "id": command.id,
        "scopes": [str(one) for one in command.scopes],
        "state": command.state.value,
        "kind": command.kind.value,
        "reason": command.reason.value,
        "actor": command.actor,
        "requested_at": time_text(command.requested_at),
        "text": command.text,
        "incident": command.incident,
        "policy": command.policy,
        "expected": command.expected,
        "told": list(command.told),
    }
    if command.limit is not None:
        table["limit"] = command.limit.encode()
    if command.opening:
        table["opening"] = {
            "basis": command.basis,
            "expires_at": _optional(command.expires_at),
            "closes_at": _optional(command.closes_at),
            "with_backlog": int(command.with_backlog),
            "plan": command.plan,
            "stage": command.stage,
        }
    return table


_KEYS = frozenset(
    {"type", "version", "id", "scopes", "state", "kind", "reason", "actor", "requested_at"}
    | {"text", "incident", "policy", "expected", "told"}
)
_OPENING_KEYS = frozenset({"basis", "expires_at", "closes_at", "with_backlog", "plan", "stage"})


def _optional(at: datetime | None) -> str:
    return "" if at is None else time_text(at)


def _command_from(table: Mapping[str, Any]) -> Command:
    if table.get("type") != "schleuse-switch-command" or number_of(table, "version") != 1:
        raise BadCommandError("not a switch command of version 1")
    unknown = set(table) - _KEYS - {"limit", "opening"}
    if unknown or _KEYS - set(table):
        raise BadCommandError(f"unknown or missing keys: {', '.join(sorted(unknown | (_KEYS - set(table))))}")
    opening = table.get("opening")
    limit = table.get("limit")
    if opening is not None and set(table_of(opening)) != _OPENING_KEYS:
        raise BadCommandError(f"an opening has {', '.join(sorted(_OPENING_KEYS))}")
    command = Command(
        id=text_of(table, "id"),
        scopes=tuple(parse_scope(one) for one in list_of(table, "scopes")),
        state=ScopeState(text_of(table, "state")),
        kind=Kind(text_of(table, "kind")),
        reason=Reason(text_of(table, "reason")),
        actor=text_of(table, "actor"),
        requested_at=parse_time(text_of(table, "requested_at")),
        text=text_of(table, "text"),
        incident=text_of(table, "incident"),
        policy=text_of(table, "policy"),
        expected=text_of(table, "expected"),
        told=tuple(str(one) for one in list_of(table, "told")),
        limit=None if limit is None else limit_from(limit),
        opening=opening is not None,
        basis=0 if opening is None else number_of(opening, "basis") or 0,
        expires_at=None if opening is None else parse_time(text_of(opening, "expires_at")),
        closes_at=None if opening is None or not opening["closes_at"] else parse_time(text_of(opening, "closes_at")),
        with_backlog=opening is not None and number_of(opening, "with_backlog") == 1,
        plan="" if opening is None else text_of(opening, "plan"),
        stage="" if opening is None else text_of(opening, "stage"),
    )
    if _as_json(command) != table:  # every number in it was looked at, so none of them is a true or a 1.0
        raise BadCommandError("the command is not in its canonical form; sign what `encode` returns")
    return command


def parse_scope(text: object) -> Scope:
    """One scope as documents write it, `str(scope)`: of one service, or of "*". Raises BadScopeError."""
    if not isinstance(text, str):
        raise BadScopeError("a scope is a text")
    service, _, rest = text.partition("/")
    if service == "*":  # in a document every service is named, or all of them are meant
        parts = [("" if one == "-" else one) for one in rest.split("/")] if rest else []
        if len(parts) > 3:
            raise BadScopeError("a scope has four parts")
        return Scope("*", *parts)
    found = parse_scopes(text)
    if len(found) != 1:
        raise BadScopeError(f"{text!r} names a group; a document names each scope")
    return found[0]


def time_text(at: datetime) -> str:
    """UTC with milliseconds, as documents have it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """The time of `time_text`. Raises ValueError, and TypeError for what is no text, as JSON may have it."""
    if not isinstance(text, str):
        raise TypeError(f"expected a time, found {type(text).__name__}")
    if not text.endswith("Z"):
        raise ValueError("a time of a document ends with Z")
    return datetime.fromisoformat(text)
