"""Judging one eAU, Storno or Fehlernachricht: character set, XML, profile version and date window, then the rules.

The rules are our own (`rules/`) or the official packages that `schleuse fhir add` installed (`sources`); both run on
the same engine and give the same verdict. The tree is parsed once and handed on. Own trouble raises and never accuses
(HD-01).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import Path

from schleuse.eau import charset
from schleuse.eau.findings import Verdict
from schleuse.eau.rules import ROOTS, list_title
from schleuse.eau.sources import Choice, Fallback, Official, Own, Rules, RulesMissingError, default_rules
from schleuse.eau.windows import WINDOWS, Window
from schleuse.fhir import Finding, Node, RuleSet, Severity, parse
from schleuse.fhir.cache import default_cache
from schleuse.fhir.node import BadXmlError
from schleuse.fhir.shown import shown_url


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
    rules: name of the rule set that judged ("official kbv.ita.eau.1.2.1", "own 1.2.1" also where our own rules stand
        in for an official list that is not complete), None if none did.
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
        self._compiled: dict[tuple[Rules, str], RuleSet] = {}
        self._source = Own(windows) if rules == "own" else Official(packages, Own(windows))
        #: Official lists that lack packages, so that our own rules judge instead, or nobody can.
        self.fallbacks: tuple[Fallback, ...] = self._source.fallbacks

    def warm(self) -> None:
        """Compile all rules now. Raises RulesMissingError."""
        for rules, key in self._source.names():
            self._rule_set(rules, key)

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
            f"{choice.rules} {choice.key}",
            tuple(findings),
            node=node,
        )

    def _findings(self, node: Node, choice: Choice, warnings: bool) -> list[Finding]:
        try:
            found = self._rule_set(choice.rules, choice.key).check(node, warnings=warnings)
        except RulesMissingError:
            if choice.in_window:
                raise
            return []  # out of every window it is invalid, whatever rules of long ago would add
        return [_with_list_name(finding) for finding in found] if choice.rules == "own" else found

    def _rule_set(self, rules: Rules, key: str) -> RuleSet:
        found = self._compiled.get((rules, key))
        if found is None:
            found = self._compiled[rules, key] = self._source.compile(rules, key, self._cache)
        return found


def _issued(node: Node) -> date | None:
    """Composition.date of a bundle, if it is a whole day."""
    for resource in node.all("entry", "resource"):
        if resource.type == "Composition":
            try:
                return date.fromisoformat((resource.text("date") or "")[:10])
            except ValueError:
                return None
    return None


def _with_list_name(finding: Finding) -> Finding:
    """The name of a list of ours, whose URL means nothing to anybody else."""
    title = list_title(finding.expected) if finding.key == "binding" else None
    return finding if title is None else replace(finding, expected=f"a code of the list „{title}“")


def _window_finding(version: str) -> Finding:
    return Finding(
        Severity.ERROR,
        "Bundle.entry[0].resource.date",
        "date.window",
        expected=f"a date of issue inside the period of version {version}",
    )


def _charset_finding(fault: charset.Fault | None) -> tuple[Finding, ...]:
    return () if fault is None else (Finding(Severity.ERROR, "XML", fault, expected="UTF-8 without BOM"),)


__all__ = ["Checked", "Checker", "FileKind", "Rules", "RulesMissingError", "default_rules"]
