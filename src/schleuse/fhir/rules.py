"""Compiled rules and how to run them. `compile_rules` is the only way to get a `RuleSet`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from schleuse.fhir import cache as disk
from schleuse.fhir import check as checking
from schleuse.fhir.cache import default_cache
from schleuse.fhir.check import Check, CheckFunction, Extension, Found, Profile, Tables
from schleuse.fhir.compile import BadDefinitionsError, Gap, Program, Rule, compile_program
from schleuse.fhir.compile.program import PROFILE_MISSING, PROFILE_UNKNOWN
from schleuse.fhir.definitions import Definitions, version_matches
from schleuse.fhir.fhirpath.evaluate import NAMES as PATH_NAMES
from schleuse.fhir.finding import Finding, Severity
from schleuse.fhir.node import Node, parse
from schleuse.fhir.primitives import CHECKS
from schleuse.fhir.shown import shown_length, shown_url

__all__ = ["BadDefinitionsError", "Gap", "RuleSet", "compile_rules", "default_cache"]


class RuleSet:
    """Rules compiled from one set of definitions. Survives fork; may be used by many threads."""

    def __init__(self, parts: dict[str, Any]) -> None:
        """parts: as `_parts` makes them. Callers use `compile_rules`."""
        names: dict[str, Any] = {
            **PATH_NAMES,
            **checking.NAMES,
            **{f"is_{name}": function for name, function in CHECKS.items()},
            **{name: re.compile(pattern, re.DOTALL) for name, pattern in parts["patterns"].items()},
            "shown_length": shown_length,
        }
        exec(parts["code"], names)  # noqa: S102 - our own compiler's output; the cache vouches for its files
        self._roots = frozenset(parts["roots"])
        self._gaps = tuple(Gap(*gap) for gap in parts["gaps"])
        self._extension_gaps = tuple(Gap(*gap) for gap in parts["extension_gaps"])
        self._invariants = tuple(parts["invariants"])
        self._tables = Tables(
            rules=tuple(Rule(*rule) for rule in parts["rules"]),
            profiles={
                url: Profile(names[function], version, type_name)
                for url, (function, version, type_name) in parts["profiles"].items()
            },
            extensions={
                url: Extension(names[function], modifier, contexts)
                for url, (function, modifier, contexts) in parts["extensions"].items()
            },
            systems=parts["systems"],
        )

    @property
    def roots(self) -> frozenset[str]:
        """Profile URLs (without version) that a document itself may claim."""
        return self._roots

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What the profiles ask for and is not checked."""
        return self._gaps

    @property
    def extension_gaps(self) -> tuple[Gap, ...]:
        """What is not checked in extensions that no profile names and a document may still use."""
        return self._extension_gaps

    @property
    def invariants(self) -> tuple[tuple[str, str], ...]:
        """Distinct (key, expression) of every compiled invariant."""
        return self._invariants

    def check(self, node: Node, *, profile: str | None = None, warnings: bool = True) -> list[Finding]:
        """Judge one resource; findings in the order of the document.

        profile: canonical to check against; None takes the document's own meta.profile, which must be one of `roots`.
        warnings: False skips rules of severity warning (faster; the verdict is the same).
        """
        check = Check(node, self._tables, warn=warnings)
        for function in self._starts(node, profile, check):
            check.run(function)
        return self._findings(node, check.found) if check.found else []

    def check_xml(self, xml: bytes, *, profile: str | None = None, warnings: bool = True) -> list[Finding]:
        """`check(parse(xml))`. Raises BadXmlError if it cannot be read as FHIR XML at all."""
        return self.check(parse(xml), profile=profile, warnings=warnings)

    def _starts(self, node: Node, profile: str | None, check: Check) -> list[CheckFunction]:
        if profile is not None:
            url, _, version = profile.partition("|")
            known = self._tables.profiles.get(url)
            if known is None or (version and not version_matches(version, known.version)):
                raise BadDefinitionsError(f"these rules do not hold the profile {shown_url(profile)}")
            return [known.function]
        claims = node.all("meta", "profile")
        if not claims:
            check.add((node, PROFILE_MISSING, node.type or ""))
            return []
        functions = check.claimed(node)
        if functions and not any((claim.value or "").partition("|")[0] in self._roots for claim in claims):
            check.add((claims[0], PROFILE_UNKNOWN, shown_url(claims[0].value)))
            return []
        return functions

    def _findings(self, root: Node, found: list[Found]) -> list[Finding]:
        """Findings in document order, each once."""
        paths = {id(node): (position, path) for position, (path, node) in enumerate(root.walk())}
        unique: dict[Finding, int] = {}
        for node, number, shown in found:
            rule = self._tables.rules[number]
            position, path = paths[id(node)]
            finding = Finding(
                severity=Severity(rule.severity),
                path=f"{path}.{rule.child}" if rule.child else path,
                key=rule.key,
                found=shown,
                expected=rule.expected,
                human=rule.human,
                profile=rule.profile,
            )
            unique.setdefault(finding, position)
        return sorted(unique, key=lambda finding: unique[finding])


def compile_rules(definitions: Definitions, roots: Iterable[str], *, cache: Path | None = None) -> RuleSet:
    """Compile the profiles `roots` (canonicals) and all that they reach.

    cache: directory for compiled rules (`default_cache()`), or None for no disk cache.
    Raises BadDefinitionsError: a root is not defined, or an invariant does not compile (the message names it).
    """
    wanted = tuple(sorted(roots))
    if cache is None:
        return RuleSet(_parts(compile_program(definitions, wanted)))
    key = _key(definitions, wanted)
    kept = disk.read(cache, key)
    if isinstance(kept, dict) and kept.keys() == _PARTS:
        return RuleSet(kept)
    parts = _parts(compile_program(definitions, wanted))
    disk.write(cache, key, parts)
    return RuleSet(parts)


def _key(definitions: Definitions, roots: tuple[str, ...]) -> str:
    text = "\n".join([disk.engine_digest(), definitions.digest, *roots])
    return hashlib.sha256(text.encode()).hexdigest()


_PARTS: Final = frozenset(
    {
        "code",
        "patterns",
        "rules",
        "profiles",
        "extensions",
        "systems",
        "roots",
        "gaps",
        "extension_gaps",
        "invariants",
    }
)


def _parts(program: Program) -> dict[str, Any]:
    """A program as plain values and one code object."""
    return {
        "code": compile(program.source(), "<rules>", "exec", optimize=2),
        "patterns": dict(program.patterns),
        "rules": [tuple(rule) for rule in program.rules],
        "profiles": {url: tuple(entry) for url, entry in program.profiles.items()},
        "extensions": {url: tuple(entry) for url, entry in program.extensions.items()},
        "systems": program.systems,
        "roots": program.roots,
        "gaps": [tuple(gap) for gap in program.gaps],
        "extension_gaps": [tuple(gap) for gap in program.extension_gaps],
        "invariants": list(program.invariants),
    }
