"""KIM addresses: which there are, and which belong to the environment that we run in (kim.md § 3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from schleuse.environment import Environment
from schleuse.errors import MalformedError, RefusedError

MAX_LOCAL_PART = 64
#: Of the domain in front of the environment's suffix.
MAX_DOMAIN_PART = 189
_LOCAL_PART = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_DOMAIN_PART = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*", re.ASCII)


class BadKIMAddressError(MalformedError):
    """Not an address as KIM writes them."""

    code = "kim.bad-address"


class ForeignEnvironmentError(RefusedError):
    """An address of another environment; production and test are never mixed."""

    code = "kim.foreign-environment"


@dataclass(frozen=True, slots=True, repr=False)
class KIMAddress:
    """One addr-spec. Spelling is kept for forwarding; two spellings of one address are equal.

    Shape: local part of letters, digits, `.`, `-` and `_`, at most 64; domain ending in the suffix of an environment.
    Personal data: repr() hides the local part. Raises: BadKIMAddressError.
    """

    value: str

    def __post_init__(self) -> None:
        local, _, domain = self.value.rpartition("@")
        if len(local) > MAX_LOCAL_PART or not _LOCAL_PART.fullmatch(local):
            raise BadKIMAddressError(
                f"the part before @ of a KIM address is 1 to {MAX_LOCAL_PART} letters, digits or ._-"
            )
        part = next((domain[: -len(one.suffix)] for one in Environment if _ends_with(domain, one.suffix)), None)
        if part is None:
            raise BadKIMAddressError("the domain of a KIM address ends in .kim.telematik or .kim.telematik-test")
        if len(part) > MAX_DOMAIN_PART or not _DOMAIN_PART.fullmatch(part):
            raise BadKIMAddressError("the domain of a KIM address is not one of letters, digits, hyphens and dots")

    @property
    def key(self) -> str:
        """For comparing and as a database key: case does not matter."""
        return self.value.lower()

    def belongs_to(self, environment: Environment) -> bool:
        return _ends_with(self.value, environment.suffix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KIMAddress) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return f"KIMAddress('***@{self.value.rpartition('@')[2]}')"


def parse_kim_address(text: str, environment: Environment) -> KIMAddress:
    """An address that may be used in this environment. Raises BadKIMAddressError, ForeignEnvironmentError."""
    address = KIMAddress(text.strip())
    if not address.belongs_to(environment):
        raise ForeignEnvironmentError(
            f"found an address of another environment; addresses of {environment} end in {environment.suffix}"
        )
    return address


def _ends_with(text: str, suffix: str) -> bool:
    return text.lower().endswith(suffix)
