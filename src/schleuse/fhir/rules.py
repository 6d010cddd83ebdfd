"""Compiled rules and how to run them. `compile_rules` is the only way to get a `RuleSet`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from schleuse.errors import MalformedError
from schleuse.fhir.definitions import Definitions
from schleuse.fhir.finding import Finding
from schleuse.fhir.node import Node


class BadDefinitionsError(MalformedError):
    """The definitions cannot be compiled: a missing root, an invariant that is not FHIRPath, a broken snapshot."""

    code = "fhir.bad-definitions"


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that the definitions ask for and that this rule set does not check (said, never silent).

    kind: "value-set" (not expandable from the definitions), "type" (no definition and no children listed),
        "profile" (named but not supplied), "discriminator" (cannot be evaluated).
    """

    kind: str
    name: str
    where: str


class RuleSet:
    """Rules compiled from one set of definitions. Immutable; survives fork; safe to share between threads."""

    @property
    def roots(self) -> frozenset[str]:
        """Profile URLs (without version) that a document itself may claim."""
        raise NotImplementedError

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What is not checked."""
        raise NotImplementedError

    @property
    def invariants(self) -> tuple[tuple[str, str], ...]:
        """Distinct (key, expression) of every compiled invariant."""
        raise NotImplementedError

    def check(self, node: Node, *, profile: str | None = None, warnings: bool = True) -> list[Finding]:
        """Judge one resource, in document order of the findings.

        profile: canonical to check against; None takes the document's own meta.profile, which must be one of `roots`.
        warnings: False skips rules of severity warning (faster; the verdict is the same).
        """
        raise NotImplementedError

    def check_xml(self, xml: bytes, *, profile: str | None = None, warnings: bool = True) -> list[Finding]:
        """`check(parse(xml))`. Raises BadXmlError if it cannot be read as FHIR XML at all."""
        raise NotImplementedError


def compile_rules(definitions: Definitions, roots: Iterable[str], *, cache: Path | None = None) -> RuleSet:
    """Compile the profiles `roots` (canonicals) and all that they reach.

    cache: directory for compiled rules (`default_cache()`), or None for no disk cache.
    Raises BadDefinitionsError: a root is not defined, or an invariant does not compile (the message names it).
    """
    raise NotImplementedError


def default_cache() -> Path:
    """$XDG_CACHE_HOME/schleuse/fhir, or ~/.cache/schleuse/fhir."""
    raise NotImplementedError
