"""Agreed policies: "if X then close Y, no question asked", signed, with versions, cosigned by insurers (EW-06, § 5.2).

    <home>/switch/policies/NAME@VERSION.json

A policy is in force when a security officer and a lead, two persons, have signed it (§ 10), its time has come and has
not passed, and every insurer has cosigned whose cosignature it asks for. Of several versions the newest in force
counts. An insurer cosigns with the key of one of its feed clients: the only keys of an insurer that the platform knows,
and ones that no operator holds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schleuse.errors import ConflictError, Error, MalformedError, RefusedError, UnavailableError
from schleuse.journal.note import ed25519_verifies
from schleuse.journal.opening import Json, canonical_json, parse_canonical_json
from schleuse.scopes import ANY, NONE, Scope, ScopeState
from schleuse.switch.disk import LinkingDisk, put
from schleuse.switch.documents import Rights, Role, differ, parse_scope, parse_time, time_text

_SIGNED = b"schleuse switch policy v1\n"
#: Who agrees for the platform: "change policies" of § 10, two persons.
AGREE = (Role.SECURITY_OFFICER, Role.LEAD)
#: In the place of a role, for the signature of an insurer: "insurer:IK".
INSURER = "insurer:"
MAX_POLICY = 64 << 10  #: octets
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_KEYS = frozenset(
    {"name", "version", "trigger", "scopes", "state", "insurers", "cosign", "cost", "text", "valid_from", "valid_until"}
)

#: Public keys of insurers' systems, by (IK, name of the feed client).
InsurerKeys = Mapping[tuple[str, str], Ed25519PublicKey]


class BadPolicyError(MalformedError):
    """Not a policy; whoever wrote it can change it."""

    code = "shutdown.bad-policy"


class PolicyNotSignedError(RefusedError):
    """This signature does not count for the policy; another person, role or key signs."""

    code = "shutdown.policy-not-signed"


class PolicyExistsError(ConflictError):
    """This version exists with other words; a change is a new version."""

    code = "shutdown.policy-exists"


class PolicyNotKeptError(UnavailableError):
    """The policy cannot be read or written; its operator looks at the disk."""

    code = "shutdown.policy-not-kept"


@dataclass(frozen=True, slots=True)
class Policy:
    """trigger: name of a warning rule or signal. scopes, state: what it may close, down to which state.

    insurers: IKs whom it concerns. cosign: whether each of them must cosign. cost: what a false alarm costs, in words.
    Raises BadPolicyError.
    """

    name: str
    version: int
    trigger: str
    scopes: tuple[Scope, ...]
    state: ScopeState
    insurers: tuple[str, ...]
    cosign: bool
    cost: str
    text: str
    valid_from: datetime
    valid_until: datetime

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or not 1 <= self.version < 1 << 31:
            raise BadPolicyError("a policy has a name of small letters, digits and -, and a version from 1 on")
        if not self.trigger.strip() or not self.cost.strip():
            raise BadPolicyError("a policy says what triggers it and what a false alarm costs (EW-06)")
        if not self.scopes or self.state.begins:
            raise BadPolicyError("a policy closes: it names scopes and a state in which nothing begins")
        if self.valid_until <= self.valid_from:
            raise BadPolicyError("a policy ends after it begins")
        outside = {one.tenant for one in self.scopes} - {ANY, NONE, *self.insurers}
        if outside:
            raise BadPolicyError(f"the policy closes {', '.join(sorted(outside))}, whom it does not name as concerned")
        if self.cosign and not self.insurers:
            raise BadPolicyError("a policy that insurers must cosign names them")

    @property
    def reference(self) -> str:
        """As a command cites it."""
        return f"{self.name}@{self.version}"

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(_as_json(self))

    @property
    def hash(self) -> str:
        """SHA-256 of it, in hex: what everybody signs (RO-04)."""
        return hashlib.sha256(self.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PolicySignature:
    """name: of the operator or feed client. role: a value of `Role`, or INSURER and an IK."""

    name: str
    role: str
    value: bytes


@dataclass(frozen=True, slots=True)
class SignedPolicy:
    """A policy with all signatures that it has so far."""

    policy: Policy
    signatures: tuple[PolicySignature, ...] = ()

    def signed(self, name: str, role: str, key: Ed25519PrivateKey) -> SignedPolicy:
        """With one more signature; a second one of the same name and role takes the place of the first."""
        others = tuple(one for one in self.signatures if (one.name, one.role) != (name, role))
        value = key.sign(_message(self.policy, role))
        return replace(self, signatures=(*others, PolicySignature(name, role, value)))

    def encode(self) -> bytes:
        """As the file has it."""
        table: dict[str, Json] = {
            "policy": _as_json(self.policy),
            "signatures": [{"name": one.name, "role": one.role, "value": one.value.hex()} for one in self.signatures],
        }
        return canonical_json(table)


def check_signature(policy: Policy, one: PolicySignature, rights: Rights, keys: InsurerKeys) -> None:
    """Raises PolicyNotSignedError unless this signature counts for something."""
    if one.role.startswith(INSURER):
        ik = one.role.removeprefix(INSURER)
        if ik not in policy.insurers:
            raise PolicyNotSignedError(f"the policy does not concern {ik}")
        key = keys.get((ik, one.name))
        if key is None:
            raise PolicyNotSignedError(f"{ik} has no feed client {one.name!r}, whose key could cosign")
    else:
        person = rights.people().get(one.name)
        if person is None or one.role not in person.roles or one.role not in AGREE:
            raise PolicyNotSignedError(f"{one.name} may not agree to policies as {one.role}; {' and '.join(AGREE)} do")
        key = person.key
    if not ed25519_verifies(key.public_bytes_raw(), one.value, _message(policy, one.role)):
        raise PolicyNotSignedError(f"the signature of {one.name} does not match the policy")


def missing(signed: SignedPolicy, rights: Rights, keys: InsurerKeys, now: datetime) -> list[str]:
    """What keeps it from being in force, in words; empty: it is. Pure."""
    good = [one for one in signed.signatures if _counts(signed.policy, one, rights, keys)]
    first, second = ([rights.people()[one.name] for one in good if one.role == role] for role in AGREE)
    # A credential that is disabled by now counts no longer: the rule would close by it.
    together = any(differ(a, b) for a in first for b in second if not (a.is_disabled(now) or b.is_disabled(now)))
    found = [] if together else [f"two persons, {AGREE[0]} and {AGREE[1]}"]
    cosigned = {one.role.removeprefix(INSURER) for one in good if one.role.startswith(INSURER)}
    if signed.policy.cosign:
        found += [f"the cosignature of {ik}" for ik in signed.policy.insurers if ik not in cosigned]
    if now < signed.policy.valid_from:
        found.append(f"its begin at {time_text(signed.policy.valid_from)}")
    if now >= signed.policy.valid_until:
        found.append(f"a new version: it ended at {time_text(signed.policy.valid_until)}")
    return found


def cosigners(signed: SignedPolicy, rights: Rights, keys: InsurerKeys) -> list[str]:
    """IKs of the insurers that have cosigned."""
    good = [one for one in signed.signatures if _counts(signed.policy, one, rights, keys)]
    return sorted({one.role.removeprefix(INSURER) for one in good if one.role.startswith(INSURER)})


def _counts(policy: Policy, one: PolicySignature, rights: Rights, keys: InsurerKeys) -> bool:
    try:
        check_signature(policy, one, rights, keys)
    except PolicyNotSignedError:
        return False
    return True


class PolicyBook:
    """The folder of policies. Satisfies `automat.Policies`. keys: read when asked, because insurers come and go."""

    def __init__(self, folder: Path, rights: Rights, keys: InsurerKeys) -> None:
        self._folder = folder
        self.rights = rights
        self.keys = keys

    def valid(self, name: str, now: datetime) -> Policy | None:
        """The newest version in force; None if none is."""
        mine = [one for one in self.all()[0] if one.policy.name == name]
        inforce = [one.policy for one in mine if not missing(one, self.rights, self.keys, now)]
        return max(inforce, key=lambda one: one.version, default=None)

    def all(self) -> tuple[list[SignedPolicy], list[str]]:
        """All policies, and names of files that are none: those are shown, and permit nothing."""
        found: list[SignedPolicy] = []
        bad: list[str] = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                one = self.read(path.stem)
            except Error:
                bad.append(path.name)
                continue
            found.append(one)
        return found, bad

    def read(self, reference: str) -> SignedPolicy:
        """reference: NAME@VERSION. Raises PolicyNotKeptError, BadPolicyError."""
        try:
            with self._path(reference).open("rb") as file:
                data = file.read(MAX_POLICY + 1)
        except OSError as cause:
            raise PolicyNotKeptError(f"no policy {reference!r} can be read ({cause.strerror})") from cause
        signed = parse_policy(data)
        if signed.policy.reference != reference:
            raise BadPolicyError(f"the file of {reference} holds {signed.policy.reference}")
        return signed

    def add(self, signed: SignedPolicy) -> None:
        """Keep a policy with its signatures, beside those that it has already.

        Raises PolicyNotSignedError, PolicyExistsError (a version never changes), PolicyNotKeptError.
        """
        for one in signed.signatures:
            check_signature(signed.policy, one, self.rights, self.keys)
        path = self._path(signed.policy.reference)
        before: tuple[PolicySignature, ...] = ()
        if path.exists():
            known = self.read(signed.policy.reference)
            if known.policy.hash != signed.policy.hash:
                raise PolicyExistsError(f"{signed.policy.reference} exists with other words; make the next version")
            mine = {(one.name, one.role) for one in signed.signatures}
            before = tuple(one for one in known.signatures if (one.name, one.role) not in mine)
        data = replace(signed, signatures=(*before, *signed.signatures)).encode()
        if len(data) > MAX_POLICY:
            raise BadPolicyError(f"a policy has at most {MAX_POLICY} octets")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            put(LinkingDisk(), path, data)
        except OSError as cause:
            raise PolicyNotKeptError(f"the policy cannot be written ({cause.strerror})") from cause

    def _path(self, reference: str) -> Path:
        name, _, version = reference.partition("@")
        if not _NAME.fullmatch(name) or not version.isascii() or not version.isdigit():
            raise BadPolicyError(f"a policy is named NAME@VERSION, found {reference!r}")
        return self._folder / f"{name}@{version}.json"


def parse_policy(data: bytes) -> SignedPolicy:
    """From the file. Raises BadPolicyError."""
    try:
        if len(data) > MAX_POLICY:
            raise BadPolicyError(f"a policy has at most {MAX_POLICY} octets")
        table: Any = parse_canonical_json(data)
        if set(table) != {"policy", "signatures"}:
            raise BadPolicyError("a policy file has policy and signatures")
        policy = _policy(table["policy"])
        signatures = tuple(
            PolicySignature(str(one["name"]), str(one["role"]), bytes.fromhex(one["value"]))
            for one in table["signatures"]
        )
        signed = SignedPolicy(policy, signatures)
        if signed.encode() != data:
            raise BadPolicyError("the policy is not in its canonical form")
        return signed
    except BadPolicyError:
        raise
    # AttributeError: a number where a text belongs. One file must not keep the others from closing (SW-01).
    except (Error, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as cause:
        raise BadPolicyError(f"expected a policy; {type(cause).__name__}: {cause}") from cause


def _policy(table: Mapping[str, Any]) -> Policy:
    if set(table) != _KEYS:
        raise BadPolicyError(f"a policy has {', '.join(sorted(_KEYS))}")
    return Policy(
        name=table["name"],
        version=table["version"],
        trigger=table["trigger"],
        scopes=tuple(parse_scope(one) for one in table["scopes"]),
        state=ScopeState(table["state"]),
        insurers=tuple(table["insurers"]),
        cosign=table["cosign"] == 1,
        cost=table["cost"],
        text=table["text"],
        valid_from=parse_time(table["valid_from"]),
        valid_until=parse_time(table["valid_until"]),
    )


def _as_json(policy: Policy) -> dict[str, Json]:
    return {
        "name": policy.name,
        "version": policy.version,
        "trigger": policy.trigger,
        "scopes": [str(one) for one in policy.scopes],
        "state": policy.state.value,
        "insurers": list(policy.insurers),
        "cosign": int(policy.cosign),
        "cost": policy.cost,
        "text": policy.text,
        "valid_from": time_text(policy.valid_from),
        "valid_until": time_text(policy.valid_until),
    }


def _message(policy: Policy, role: str) -> bytes:
    return _SIGNED + role.encode() + b"\n" + policy.encode()


def concerned(scopes: Iterable[Scope], insurers: Sequence[str]) -> tuple[str, ...]:
    """Whom a policy over these scopes concerns, of all insurers of this home."""
    named = {one.tenant for one in scopes}
    return tuple(ik for ik in insurers if ANY in named or ik in named)
