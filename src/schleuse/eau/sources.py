"""Where the rules come from that judge a document: our own, or the official lists that are installed.

A list of which a package is missing cannot judge. Where our own rules cover the same version from the same day on, they
stand in for it, and that is told; a document would else wait until somebody finds the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from schleuse.eau.rules import ROOTS, definitions
from schleuse.eau.windows import Window, choose
from schleuse.errors import UnavailableError
from schleuse.fhir import RuleSet, compile_rules
from schleuse.fhir.packages import UnknownListError, load, missing, read_registry
from schleuse.fhir.registry import DependencyList

Rules = Literal["own", "official"]


class RulesMissingError(UnavailableError):
    """The rules that should judge a document are not installed on this machine."""

    code = "eau.rules-missing"


@dataclass(frozen=True, slots=True)
class Choice:
    """Who judges. key: of the compiled rules; in_window: whether the date of issue is inside the rules' window."""

    rules: Rules
    key: str
    in_window: bool


@dataclass(frozen=True, slots=True)
class Fallback:
    """An official list that cannot judge.

    missing: names of what `schleuse fhir add` should install.
    rules: which rules judge instead, as `Checked.rules` says it; None if the list's documents must wait.
    """

    list_name: str
    missing: tuple[str, ...]
    rules: str | None


class Own:
    """Our own rules by window."""

    fallbacks: tuple[Fallback, ...] = ()

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = {window.name: window for window in windows}

    def names(self) -> Iterator[tuple[Rules, str]]:
        for key in self._windows:
            yield "own", key

    def choose(self, _url: str, version: str, issued: date | None) -> Choice | None:
        window, inside = choose(tuple(self._windows.values()), version, issued)
        return None if window is None else Choice("own", window.name, inside)

    def compile(self, _rules: Rules, key: str, cache: Path) -> RuleSet:
        return compile_rules(definitions(self._windows[key].edition), ROOTS, cache=cache)

    def same(self, version: str, valid_from: date) -> Window | None:
        """Our rules for documents of a version issued from that day on."""
        found = (one for one in self._windows.values() if one.edition.version == version)
        return next((one for one in found if one.valid_from == valid_from), None)

    def begin(self) -> date:
        """The first day that any of our rules judges."""
        return min(window.valid_from for window in self._windows.values())


class Official:
    """Installed packages by the lists of their registry, as they are at the start."""

    def __init__(self, folder: Path | None, own: Own) -> None:
        """own: stands in for lists that are not complete. Raises RulesMissingError."""
        if folder is None:
            raise RulesMissingError("official rules are asked for, but no folder of packages is named")
        self._folder = folder
        self._own = own
        self._registry = read_registry(folder)
        used = {name: one for _, name in self._used() if (one := self._registry.find(name)) is not None}
        if not used:
            raise RulesMissingError(f"no official rules for the eAU are installed in {folder}: `schleuse fhir add`")
        self._missing = {name: lacking for name, one in used.items() if (lacking := tuple(missing(folder, one)))}
        self._complete = sorted(used.keys() - self._missing.keys())
        self._stand_ins = {
            (version, name): window
            for version, name in self._used()
            if name in self._missing and (window := own.same(version, used[name].valid_from)) is not None
        }
        self.fallbacks = tuple(self._fallbacks(used))

    def _used(self) -> Iterator[tuple[str, str]]:
        """(version, list) of all documents of the eAU, each once."""
        found = {
            (version, name): None
            for root in ROOTS
            for version, names in self._registry.profiles.get(root, {}).items()
            for name in names
        }
        yield from found

    def _fallbacks(self, used: dict[str, DependencyList]) -> Iterator[Fallback]:
        replaced = {name: window for (_, name), window in self._stand_ins.items()}
        for name, lacking in sorted(self._missing.items()):
            window = replaced.get(name)
            if window is not None:
                yield Fallback(name, lacking, f"own {window.name}")
            elif not self._is_bygone(used[name]):
                yield Fallback(name, lacking, None)

    def names(self) -> Iterator[tuple[Rules, str]]:
        """The lists whose packages are all there, and our own rules that stand in for others."""
        for name in self._complete:
            yield "official", name
        for key in sorted({window.name for window in self._stand_ins.values()}):
            yield "own", key

    def choose(self, url: str, version: str, issued: date | None) -> Choice | None:
        names = self._registry.profiles.get(url, {}).get(version)
        if not names:
            return None
        found = [one for one in map(self._registry.find, names) if one is not None]
        if not found:
            raise RulesMissingError(f"the registry of packages names no list for version {version}")
        able = [one for one in found if not (one.name in self._missing and self._is_bygone(one))]
        if not able:
            return None
        covering = [one for one in able if issued is not None and one.covers(issued)]
        if covering:
            return self._choice(version, covering[0], in_window=True)
        return self._choice(version, max(able, key=lambda one: one.valid_from), in_window=issued is None)

    def _choice(self, version: str, one: DependencyList, *, in_window: bool) -> Choice:
        window = self._stand_ins.get((version, one.name))
        return Choice("official", one.name, in_window) if window is None else Choice("own", window.name, in_window)

    def _is_bygone(self, one: DependencyList) -> bool:
        """Whether a list is older than all our rules: its version is as unknown as it is without official packages."""
        return one.valid_from < self._own.begin()

    def compile(self, rules: Rules, key: str, cache: Path) -> RuleSet:
        """Raises RulesMissingError."""
        if rules == "own":
            return self._own.compile(rules, key, cache)
        try:
            return compile_rules(load(self._folder, key), ROOTS, cache=cache)
        except UnknownListError as lacking:
            raise RulesMissingError(str(lacking)) from lacking


def default_rules(packages: Path) -> Rules:
    """Official rules where a complete set for the eAU is installed, since they are the authority; else our own."""
    registry = read_registry(packages)
    names = {name for lists in registry.profiles.get(ROOTS[0], {}).values() for name in lists}
    lists = filter(None, map(registry.find, names))
    return "official" if any(not missing(packages, one) for one in lists) else "own"
