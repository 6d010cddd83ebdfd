"""`schleuse eau check`: judge eAU, Storno and Fehlernachricht files as the official validator does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from schleuse.cli.fhir import folder
from schleuse.eau.checks import Checked, Checker, FileKind, default_rules
from schleuse.eau.findings import Verdict
from schleuse.eau.german import in_german
from schleuse.eau.rules import invariant_text
from schleuse.eau.sources import Fallback
from schleuse.errors import MalformedError
from schleuse.fhir import Finding, Severity
from schleuse.mail.smime.signed import parse_signed

VALID, INVALID, UNREADABLE = 0, 1, 2
Language = Literal["de", "en"]

File = Annotated[
    str,
    Parameter(allow_leading_hyphen=True, help=".xml or .p7s files, folders (searched through), - for standard input"),
]
RulesOption = Annotated[
    Literal["own", "official"] | None,
    Parameter(
        name="--rules", help="own, or the installed packages [default: official if a list is complete, else own]"
    ),
]
Home = Annotated[Path | None, Parameter(help="Folder of this machine, for the packages [default: the user's]")]
Lang = Annotated[Language | None, Parameter(name="--lang", help="Language of the messages [default: de]")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a file and line")]


class NoFileError(MalformedError):
    """The command line names nothing to check."""

    code = "cli.no-file"


@dataclass(frozen=True, slots=True, repr=False)
class _Source:
    """One file's octets, or why it cannot be read."""

    name: str
    content: bytes = b""
    trouble: str | None = None


def check(
    *files: File,
    rules: RulesOption = None,
    home: Home = None,
    lang: Lang = None,
    json_: Json = False,
) -> int:
    """Judge eAU, Storno and Fehlernachricht files: character set, version and date window, all rules.

    The payload's signature is not judged here. Exit code: 0 all valid, 1 one is invalid, 2 one cannot be read.
    """
    if not files:
        raise NoFileError("name the files to check, folders, or - for standard input")
    packages = folder(home)
    checker = Checker(rules or default_rules(packages), packages=packages)
    language: Language = lang or ("en" if os.environ.get("SCHLEUSE_LANG") == "en" else "de")
    counted = dict.fromkeys(Verdict, 0)
    used: set[str | None] = set()
    for source in sources(files):
        checked = _judge(source, checker)
        used.add(checked.rules)
        counted[checked.verdict] += 1
        print(_as_json(source.name, checked, language) if json_ else _as_text(source.name, checked, language))
    if not json_ and sum(counted.values()) > 1:
        print(_summary(counted, language), file=sys.stderr)
    for fallback in checker.fallbacks:
        if fallback.rules in used:
            print(_stand_in(fallback, language), file=sys.stderr)
    return exit_code(counted)


def exit_code(counted: dict[Verdict, int]) -> int:
    """The worst verdict decides; nothing found is nothing read."""
    if counted[Verdict.UNREADABLE] or not any(counted.values()):
        return UNREADABLE
    return INVALID if counted[Verdict.INVALID] else VALID


def sources(names: Iterable[str]) -> Iterator[_Source]:
    """Every file named, and every .xml and .p7s file below a folder named, in order."""
    for name in names:
        if name == "-":
            yield _Source("-", sys.stdin.buffer.read())
            continue
        path = Path(name)
        found = sorted(_below(path)) if path.is_dir() else [path]
        for one in found:
            try:
                yield _Source(str(one), one.read_bytes())
            except OSError as error:
                yield _Source(str(one), trouble=error.strerror or "cannot be read")


def _below(path: Path) -> Iterator[Path]:
    return (one for one in path.rglob("*") if one.suffix.lower() in (".xml", ".p7s") and one.is_file())


def _judge(source: _Source, checker: Checker) -> Checked:
    if source.trouble is not None:
        return _unreadable("file", source.trouble)
    content = source.content
    if _is_cms(source):
        try:
            content = parse_signed(content).content
        except MalformedError as error:
            return _unreadable("p7s", str(error))
    return checker.check(content, warnings=True)


def _is_cms(source: _Source) -> bool:
    """A SEQUENCE at the start (0x30) is no XML in any character set that we know."""
    return source.content[:1] == b"\x30" and (source.name.lower().endswith(".p7s") or source.content[1:2] >= b"\x80")


def _unreadable(key: str, reason: str) -> Checked:
    return Checked(Verdict.UNREADABLE, findings=(Finding(Severity.ERROR, "Datei", key, found=reason),))


def _message(finding: Finding, language: Language) -> str:
    return _WORDS[language].get(finding.key, "") or _localized(finding, language).message(language)


def _localized(finding: Finding, language: Language) -> Finding:
    """With the rule's text in that language, where the rule is ours, and with the reason of what cannot be read."""
    if language == "de" and finding.key in ("file", "p7s"):
        return replace(finding, found=_SYSTEM.get(finding.found) or in_german(finding.found))
    text = invariant_text(finding.key, language)
    return replace(finding, human=text) if text and (language == "en" or not finding.human) else finding


def _as_json(name: str, checked: Checked, language: Language) -> str:
    return json.dumps(
        {
            "file": name,
            "verdict": checked.verdict,
            "kind": checked.kind,
            "profile": checked.profile,
            "rules": checked.rules,
            "charset_fault": checked.charset_fault,
            "findings": [
                {
                    "severity": finding.severity,
                    "path": finding.path,
                    "key": finding.key,
                    "found": finding.found,
                    "expected": finding.expected,
                    "message": _message(finding, language),
                }
                for finding in checked.findings
            ],
        },
        ensure_ascii=False,
    )


#: What the operating system says most of files.
_SYSTEM = {
    "No such file or directory": "nicht vorhanden",
    "Permission denied": "nicht zum Lesen freigegeben",
    "cannot be read": "nicht lesbar",
}
_KINDS = {FileKind.EAU: "eAU", FileKind.STORNO: "Storno", FileKind.FEHLER: "Fehlernachricht"}
_VERDICTS: dict[Language, dict[Verdict, str]] = {
    "de": {Verdict.VALID: "gültig", Verdict.INVALID: "ungültig", Verdict.UNREADABLE: "nicht lesbar"},
    "en": {Verdict.VALID: "valid", Verdict.INVALID: "invalid", Verdict.UNREADABLE: "not readable"},
}
#: Findings of this command and of the checker that no profile knows.
_WORDS: dict[Language, dict[str, str]] = {
    "de": {
        "charset.bom": "Fehler [charset.bom]: die Datei beginnt mit einem BOM, erlaubt ist UTF-8 ohne BOM.",
        "charset.declared": "Fehler [charset.declared]: die Datei gibt einen anderen Zeichensatz als UTF-8 an.",
        "charset.bytes": "Fehler [charset.bytes]: die Datei ist nicht in UTF-8.",
        "date.window": "Fehler [date.window]: das Ausstellungsdatum liegt außerhalb der Gültigkeit dieser Version.",
    },
    "en": {
        "charset.bom": "error [charset.bom]: the file starts with a BOM, allowed is UTF-8 without BOM.",
        "charset.declared": "error [charset.declared]: the file declares a character set other than UTF-8.",
        "charset.bytes": "error [charset.bytes]: the file is not in UTF-8.",
        "date.window": "error [date.window]: the date of issue is outside the validity of this version.",
    },
}


def _as_text(name: str, checked: Checked, language: Language) -> str:
    what = [_KINDS[checked.kind]] if checked.kind else []
    if checked.rules:
        what.append(f"{'Regeln' if language == 'de' else 'rules'}: {checked.rules}")
    head = f"{name}: {_VERDICTS[language][checked.verdict]}" + (f" ({', '.join(what)})" if what else "")
    return "\n".join([head, *(f"  {_message(finding, language)}" for finding in checked.findings)])


def _summary(counted: dict[Verdict, int], language: Language) -> str:
    return ", ".join(f"{number} {_VERDICTS[language][verdict]}" for verdict, number in counted.items())


def _stand_in(fallback: Fallback, language: Language) -> str:
    missing = ", ".join(fallback.missing)
    if language == "en":
        return (
            f"note: of the official list {fallback.list_name} there is no {missing}, so our own rules judged "
            f"({fallback.rules}); `schleuse fhir add` installs what is missing"
        )
    missing = missing.replace("the base R4 definitions", "die Basisdefinitionen von R4")
    return (
        f"Hinweis: von der offiziellen Liste {fallback.list_name} fehlt {missing}, darum haben unsere eigenen Regeln "
        f"geurteilt ({fallback.rules}); `schleuse fhir add` ergänzt, was fehlt"
    )
