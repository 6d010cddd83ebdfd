"""What cannot be closed, said by a person: the Exception record of incident.md § 5.3.

    <home>/switch/exceptions/ID.json

Signed by an operator who may close. It never expires silently: when `review_at` has passed, it is an alarm until
somebody signs a new one or ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schleuse.errors import Error, MalformedError, UnavailableError
from schleuse.journal.disk import OsDisk, replace
from schleuse.journal.opening import Json, canonical_json, parse_canonical_json
from schleuse.scopes import Scope, parse_scopes
from schleuse.switch.documents import CLOSERS, NotAuthorisedError, Rights, Role, parse_time, time_text
from schleuse.switch.fields import table_of

_SIGNED = b"schleuse switch exception v1\n"
_KEYS = frozenset({"id", "scope", "why", "measure", "owner", "review_at", "made_at", "ended"})


class BadExceptionError(MalformedError):
    """Not a signed exception; whoever made it can change it."""

    code = "shutdown.bad-exception"


class ExceptionNotKeptError(UnavailableError):
    """The exception could not be written; its operator looks at the disk."""

    code = "shutdown.exception-not-kept"


@dataclass(frozen=True, slots=True)
class Exemption:
    """One scope that stays open though it was ordered closed. why, measure: in words. owner: who answers for it.

    ended: it holds no longer; the same id is signed again to end it. Raises BadExceptionError.
    """

    id: str
    scope: Scope
    why: str
    measure: str
    owner: str
    review_at: datetime
    made_at: datetime
    ended: bool = False

    def __post_init__(self) -> None:
        missing = [name for name in ("id", "why", "measure", "owner") if not getattr(self, name).strip()]
        if missing:
            raise BadExceptionError(f"an exception needs {', '.join(missing)}")
        if not self.ended and self.review_at <= self.made_at:
            raise BadExceptionError("an exception is reviewed after it was made")
        if len(self.why) + len(self.measure) > 4000 or not self.id.replace("-", "").isalnum() or len(self.id) > 64:
            raise BadExceptionError("an exception has an id of letters, digits and -, and at most 4,000 characters")

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self._table())

    def _table(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "scope": str(self.scope),
            "why": self.why,
            "measure": self.measure,
            "owner": self.owner,
            "review_at": time_text(self.review_at),
            "made_at": time_text(self.made_at),
            "ended": int(self.ended),
        }


@dataclass(frozen=True, slots=True)
class SignedExemption:
    """operator, role: who signed, and as what."""

    exemption: Exemption
    operator: str
    role: Role
    signature: bytes

    def overdue(self, now: datetime) -> bool:
        """Whether somebody must look at it."""
        return not self.exemption.ended and now >= self.exemption.review_at


def sign_exemption(exemption: Exemption, operator: str, role: Role, key: Ed25519PrivateKey) -> SignedExemption:
    """One signature; whoever may close may say what is not closed."""
    return SignedExemption(exemption, operator, role, key.sign(_message(exemption, role)))


def check_exemption(signed: SignedExemption, rights: Rights) -> None:
    """As for commands, one of a credential that was disabled later stays (RO-05). Raises NotAuthorisedError."""
    person = rights.people().get(signed.operator)
    if person is None or signed.role not in person.roles or signed.role not in CLOSERS - {Role.AUTOMAT}:
        raise NotAuthorisedError(f"{signed.operator!r} may not sign an exception as {signed.role}")
    if person.until is not None and person.is_disabled(signed.exemption.made_at):
        raise NotAuthorisedError(f"{person.name} was disabled at {time_text(person.until)}")
    if not person.has_signed(signed.signature, _message(signed.exemption, signed.role)):
        raise NotAuthorisedError(f"the signature of {signed.operator} does not match the exception")


def keep_exemption(folder: Path, signed: SignedExemption, rights: Rights) -> None:
    """folder: `<home>/switch/exceptions`. Raises NotAuthorisedError, ExceptionNotKeptError."""
    check_exemption(signed, rights)
    table: dict[str, Json] = {
        "exception": signed.exemption._table(),
        "operator": signed.operator,
        "role": signed.role.value,
        "signature": signed.signature.hex(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(OsDisk(), folder / f"{signed.exemption.id}.json", canonical_json(table))
    except OSError as cause:
        raise ExceptionNotKeptError(f"the exception cannot be written ({cause.strerror})") from cause


def exemptions(folder: Path, rights: Rights) -> tuple[list[SignedExemption], list[str]]:
    """All that hold or held, and the names of files that are none: those are shown, and exempt nothing."""
    found: list[SignedExemption] = []
    bad: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            one = _parsed(path.read_bytes())
            check_exemption(one, rights)
            found.append(one)
        except (OSError, Error):
            bad.append(path.name)
    return found, bad


def exempt(scope: Scope, known: Sequence[SignedExemption]) -> SignedExemption | None:
    """The exception that covers this scope now, overdue or not."""
    return next((one for one in known if not one.exemption.ended and one.exemption.scope.covers(scope)), None)


def _message(exemption: Exemption, role: Role) -> bytes:
    return _SIGNED + role.value.encode() + b"\n" + exemption.encode()


def _parsed(data: bytes) -> SignedExemption:
    try:
        value = table_of(parse_canonical_json(data))
        table = table_of(value["exception"])
        if set(table) != _KEYS:
            raise BadExceptionError(f"an exception has {', '.join(sorted(_KEYS))}")
        [scope] = parse_scopes(str(table["scope"]))
        exemption = Exemption(
            str(table["id"]),
            scope,
            str(table["why"]),
            str(table["measure"]),
            str(table["owner"]),
            parse_time(str(table["review_at"])),
            parse_time(str(table["made_at"])),
            table["ended"] == 1,
        )
        return SignedExemption(
            exemption, str(value["operator"]), Role(str(value["role"])), bytes.fromhex(str(value["signature"]))
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise BadExceptionError(f"expected a signed exception; found {type(cause).__name__}") from cause
