"""Judging one eAU, Storno or Fehlernachricht: character set, XML, profile version and date window, then the rules.

The rules are our own (`rules/`) or the official packages that `schleuse fhir add` installed; both run on the same
engine and give the same verdict. The tree is parsed once and handed on. Own trouble raises and never accuses (HD-01).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Literal

from schleuse.eau import charset
from schleuse.eau.findings import Verdict
from schleuse.eau.rules import ROOTS, definitions
from schleuse.eau.windows import WINDOWS, Window, choose
from schleuse.errors import UnavailableError
from schleuse.fhir import Finding, Node, RuleSet, Severity, compile_rules, parse
from schleuse.fhir.cache import default_cache
from schleuse.fhir.node import BadXmlError
from schleuse.fhir.packages import UnknownListError, load, read_registry
from schleuse.fhir.registry import Registry
from schleuse.fhir.shown import shown_url

Rules = Literal["own", "official"]


class RulesMissingError(UnavailableError):
    """The rules that should judge a document are not installed on this machine."""

    code = "eau.rules-missing"


class FileKind(StrEnum):
    """What a file of the eAU world is."""

    EAU = "eau"
    STORNO = "storno"
    FEHLER = "fehler"


KIND_OF: Mapping[str, FileKind] = dict(zip(ROOTS, FileKind, strict=True))


@dataclass(frozen=True, slots=True, repr=False)
class Checked:
    """The verdict on one file.

    kind: None if the profile is none of ours. profile: as the document claims it, None without.
    rules: name of the rule set that judged ("own 1.2.1", "official kbv.ita.eau.1.2.1"), None if none did.
    charset_fault: not UTF-8 without BOM; has its own error codes (103, 104). node: the tree, None if unreadable.
    """

    verdict: Verdict
    kind: FileKind | None = None
    profile: str | None = None
    rules: str | None = None
    findings: tuple[Finding, ...] = ()
    charset_fault: bool = False
    node: Node | None = None

    def __repr__(self) -> str:
        return f"Checked({self.verdict}, {self.kind}, {self.rules}, {len(self.findings)} findings)"

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make it invalid."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


@dataclass(frozen=True, slots=True)
class _Choice:
    """Who judges. key: of the compiled rules; in_window: whether the date of issue is inside the rules' window."""

    key: str
    in_window: bool


class Checker:
    """Judges files. Compiles rules when they are first needed; `warm` does it before workers are forked."""

    def __init__(
        self,
        rules: Rules = "own",
        *,
        packages: Path | None = None,
        windows: Sequence[Window] = WINDOWS,
        cache: Path | None = None,
    ) -> None:
        """packages: folder of `schleuse fhir add`, for official rules. cache: of compiled rules, None the user's.

        Raises RulesMissingError: official rules are asked for and none are installed.
        """
        self.rules: Rules = rules
        self._cache = cache if cache is not None else default_cache()
        self._compiled: dict[str, RuleSet] = {}
        if rules == "own":
            self._source: _Own | _Official = _Own(windows)
        else:
            self._source = _Official(packages)

    def warm(self) -> None:
        """Compile all rules now. Raises RulesMissingError."""
        for key in self._source.names():
            self._rule_set(key)

    def check(self, xml: bytes, *, warnings: bool = False) -> Checked:
        """Judge one file's octets. warnings: also find what is no ground for rejection.

        Raises UnavailableError, CorruptError: our own rules cannot serve; says nothing about the document.
        """
        text = charset.read(xml)
        try:
            node = parse(text.utf8)
        except BadXmlError as error:
            finding = Finding(Severity.ERROR, "XML", "xml", found=str(error))
            found = (*_charset_finding(text.fault), finding)
            return Checked(Verdict.UNREADABLE, findings=found, charset_fault=text.fault is not None)
        checked = self._judge(node, warnings)
        if text.fault is None:
            return checked
        return Checked(
            Verdict.INVALID,
            checked.kind,
            checked.profile,
            checked.rules,
            (*_charset_finding(text.fault), *checked.findings),
            charset_fault=True,
            node=node,
        )

    def _judge(self, node: Node, warnings: bool) -> Checked:
        claimed = node.text("meta", "profile")
        url, _, version = (claimed or "").partition("|")
        kind = KIND_OF.get(url)
        profile = shown_url(claimed) if claimed else None
        issued = _issued(node)
        choice = self._source.choose(url, version, issued) if kind else None
        if choice is None:
            key = "profile.unknown" if claimed else "profile.missing"
            expected = "eAU, Storno or Fehlernachricht in a version of the TA"
            finding = Finding(Severity.ERROR, f"{node.name}.meta.profile", key, profile or "", expected)
            return Checked(Verdict.INVALID, kind, profile, findings=(finding,), node=node)
        findings = self._findings(node, choice, warnings)
        if not choice.in_window and kind is not FileKind.FEHLER:
            findings = [_window_finding(version), *findings]
        wrong = any(finding.severity is Severity.ERROR for finding in findings)
        return Checked(
            Verdict.INVALID if wrong else Verdict.VALID,
            kind,
            profile,
            f"{self.rules} {choice.key}",
            tuple(findings),
            node=node,
        )

    def _findings(self, node: Node, choice: _Choice, warnings: bool) -> list[Finding]:
        try:
            return self._rule_set(choice.key).check(node, warnings=warnings)
        except RulesMissingError:
            if choice.in_window:
                raise
            return []  # out of every window it is invalid, whatever rules of long ago would add

    def _rule_set(self, key: str) -> RuleSet:
        found = self._compiled.get(key)
        if found is None:
            found = self._compiled[key] = self._source.compile(key, self._cache)
        return found


class _Own:
    """Our own rules by window."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = {window.name: window for window in windows}

    def names(self) -> Iterator[str]:
        yield from self._windows

    def choose(self, _url: str, version: str, issued: date | None) -> _Choice | None:
        window, inside = choose(tuple(self._windows.values()), version, issued)
        return None if window is None else _Choice(window.name, inside)

    def compile(self, key: str, cache: Path) -> RuleSet:
        return compile_rules(definitions(self._windows[key].edition), ROOTS, cache=cache)


class _Official:
    """Installed packages by the lists of their registry."""

    def __init__(self, folder: Path | None) -> None:
        if folder is None:
            raise RulesMissingError("official rules are asked for, but no folder of packages is named")
        self._folder = folder
        self._registry = read_registry(folder)
        if not any(self._lists(root) for root in ROOTS):
            raise RulesMissingError(f"no official rules for the eAU are installed in {folder}: `schleuse fhir add`")

    def _lists(self, url: str) -> dict[str, tuple[str, ...]]:
        return dict(self._registry.profiles.get(url, {}))

    def names(self) -> Iterator[str]:
        """The lists whose packages are all there."""
        names = {name for root in ROOTS for lists in self._lists(root).values() for name in lists}
        for name in sorted(names):
            if _is_complete(self._folder, name):
                yield name

    def choose(self, url: str, version: str, issued: date | None) -> _Choice | None:
        names = self._lists(url).get(version)
        if not names:
            return None
        found = [one for one in (self._registry.find(name) for name in names) if one is not None]
        if not found:
            raise RulesMissingError(f"the registry of packages names no list for version {version}")
        if issued is not None:
            covering = [one for one in found if one.covers(issued)]
            if covering:
                return _Choice(covering[0].name, in_window=True)
        newest = max(found, key=lambda one: one.valid_from)
        return _Choice(newest.name, in_window=issued is None)

    def compile(self, key: str, cache: Path) -> RuleSet:
        try:
            return compile_rules(load(self._folder, key), ROOTS, cache=cache)
        except UnknownListError as missing:
            raise RulesMissingError(str(missing)) from missing


def _is_complete(folder: Path, name: str) -> bool:
    try:
        load(folder, name)
    except UnknownListError:
        return False
    return True


def default_rules(packages: Path) -> Rules:
    """Official rules where a complete set for the eAU is installed, since they are the authority; else our own."""
    registry: Registry = read_registry(packages)
    names = {name for lists in registry.profiles.get(ROOTS[0], {}).values() for name in lists}
    return "official" if any(_is_complete(packages, name) for name in names) else "own"


def _issued(node: Node) -> date | None:
    """Composition.date of a bundle, if it is a whole day."""
    for resource in node.all("entry", "resource"):
        if resource.type == "Composition":
            try:
                return date.fromisoformat((resource.text("date") or "")[:10])
            except ValueError:
                return None
    return None


def _window_finding(version: str) -> Finding:
    return Finding(
        Severity.ERROR,
        "Bundle.entry[0].resource.date",
        "date.window",
        expected=f"a date of issue inside the period of version {version}",
    )


def _charset_finding(fault: charset.Fault | None) -> tuple[Finding, ...]:
    return () if fault is None else (Finding(Severity.ERROR, "XML", fault, expected="UTF-8 without BOM"),)
