"""The noun: what an eAU or a Storno is to an insurer's intake, and the few facts that we read out of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from schleuse.errors import MalformedError
from schleuse.fhir.node import Node
from schleuse.identifiers import IK, KVNR, BadIKError, BadKVNRError


class BadDocumentIdError(MalformedError):
    """A Dokumenten-ID that cannot be one; the practice's software sets it."""

    code = "eau.bad-document-id"


class BadDocumentError(MalformedError):
    """The tree lacks what every eAU and Storno has; a document that passed its profile never raises this."""

    code = "eau.bad-document"


class Kind(StrEnum):
    """The two documents that a practice sends."""

    EAU = "eau"
    STORNO = "storno"


_UUID = re.compile(r"(?:urn:uuid:)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", re.I | re.ASCII)
#: Longer values are no UUID in any form, and would not fit an index of PostgreSQL.
MAX_DOCUMENT_ID = 255


@dataclass(frozen=True, slots=True, order=True)
class DocumentId:
    """Dokumenten-ID: Bundle.identifier.value, the key for duplicates, Storno and errors.

    Shape: `urn:uuid:` and a UUID in small letters; a bare UUID or capitals are brought to that form, so that a Storno
    finds its eAU however both were written. Any other printable value is kept as it is: the profile allows it,
    and neither a missing prefix nor the UUID's version is a ground for rejection (eau.md § 3).
    written: as the practice wrote it, for the answer that names it.
    Raises: BadDocumentIdError.
    """

    value: str
    written: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        text = self.value.strip()
        if not 0 < len(text) <= MAX_DOCUMENT_ID or not text.isprintable():
            raise BadDocumentIdError(
                f"a Dokumenten-ID is 1 to {MAX_DOCUMENT_ID} printable characters; the practice's software sets it"
            )
        uuid = _UUID.fullmatch(text)
        object.__setattr__(self, "written", text)
        object.__setattr__(self, "value", f"urn:uuid:{uuid[1].lower()}" if uuid else text)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Profile:
    """`meta.profile` of the bundle, split at the bar. version: "1.2", "1.1.0", …; None without a bar."""

    url: str
    version: str | None

    @property
    def kind(self) -> Kind | None:
        """Which of our documents it is, None for a foreign profile."""
        return _PROFILES.get(self.url)


_PROFILES = {
    "https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_Bundle": Kind.EAU,
    "https://fhir.kbv.de/StructureDefinition/KBV_PR_EAU_Storno_Bundle": Kind.STORNO,
}

_AU_TYPE = "KBV_CS_EAU_AU_Type"
#: Its values (eau.md § 9).
AU_TYPES = frozenset({"ERST", "FOLGE", "ERST_END", "FOLGE_END"})
_KVNR_SYSTEMS = ("http://fhir.de/sid/gkv/kvid-10", "http://fhir.de/NamingSystem/gkv/kvid-10")
_IK_SYSTEMS = ("http://fhir.de/sid/arge-ik/iknr", "http://fhir.de/NamingSystem/arge-ik/iknr")
_SEPARATOR = b"\x1f"


@dataclass(frozen=True, slots=True)
class Period:
    """The days that an eAU certifies, as an employer is told them (eau.md § 17.3). None: not said, or not a date.

    au_type: one of AU_TYPES. A Folge has no start (eau.md § 15).
    """

    au_type: str | None = None
    starts_on: date | None = None
    ends_on: date | None = None
    issued_on: date | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Facts:
    """What filing, duplicates, Storno, membership and the feed need from one document; nothing more is read.

    Personal data: repr() shows the document's id and kind only.
    practice: identifier of the Einrichtung (BSNR, IK, KZVA or Standortnummer) or None.
    target: of a Storno, the eAU to cancel; None for an eAU.
    person: for the Ersatzverfahren without KVNR: family name, given name, birth date as written; None with a KVNR.
    """

    id: DocumentId
    profile: Profile
    kind: Kind
    practice: str | None = None
    target: DocumentId | None = None
    insurer: IK | None = None
    kvnr: KVNR | None = None
    person: tuple[str, str, str] | None = None
    au_type: str | None = None
    issued_on: str | None = None
    starts_on: str | None = None
    ends_on: str | None = None
    diagnoses: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Facts({self.kind} {self.id} {self.profile.version})"

    def content_key(self) -> bytes | None:
        """Octets that are equal for two documents of the same certificate, None if the person cannot be told (HD-05).

        Insured person, practice, start, end, Erst or Folge, set of diagnoses. Only to be kept as a keyed pseudonym.
        A match is proposed to people, never a reason to drop a document.
        """
        person = (self.kvnr.value,) if self.kvnr else self.person
        if self.kind is not Kind.EAU or person is None:
            return None
        return certificate_key(person, self.practice, self.starts_on, self.ends_on, self.au_type, self.diagnoses)

    def period(self) -> Period | None:
        """What an answer to an employer needs; None of a Storno."""
        if self.kind is not Kind.EAU:
            return None
        au_type = self.au_type if self.au_type in AU_TYPES else None
        return Period(au_type, _day(self.starts_on), _day(self.ends_on), _day(self.issued_on))

    def person_key(self) -> bytes | None:
        """Octets of the KVNR to make a keyed pseudonym of, None in the Ersatzverfahren."""
        return self.kvnr.value.encode() if self.kvnr else None


def certificate_key(
    person: Sequence[str],
    practice: str | None,
    starts_on: str | None,
    ends_on: str | None,
    au_type: str | None,
    diagnoses: Iterable[str],
) -> bytes:
    """See `Facts.content_key`; the same for what a scan of paper says."""
    parts = (*person, practice, starts_on, ends_on, au_type, *sorted(set(diagnoses)))
    return _SEPARATOR.join((part or "").strip().casefold().encode() for part in parts)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text and len(text) == len("2026-01-01") else None
    except ValueError:
        return None


def read_profile(bundle: Node) -> Profile | None:
    """The first `meta.profile` of the bundle, None if there is none."""
    canonical = bundle.text("meta", "profile")
    if not canonical:
        return None
    url, bar, version = canonical.partition("|")
    return Profile(url, version if bar else None)


def read_document_id(bundle: Node) -> DocumentId | None:
    """Bundle.identifier.value if it is usable; also of a faulty document, so that the answer can name it."""
    value = bundle.text("identifier", "value")
    try:
        return DocumentId(value) if value else None
    except BadDocumentIdError:
        return None


def read_facts(bundle: Node) -> Facts:
    """The facts of a document that passed its profile. Raises BadDocumentError, BadDocumentIdError."""
    profile = read_profile(bundle)
    kind = profile.kind if profile else None
    if profile is None or kind is None:
        raise BadDocumentError("the profile in meta.profile is neither an eAU nor a Storno")
    value = bundle.text("identifier", "value")
    if not value:
        raise BadDocumentError("Bundle.identifier.value (the Dokumenten-ID) is missing")
    resources = _resources(bundle)
    practice = _practice(resources.get("Organization", []))
    if kind is Kind.STORNO:
        return Facts(DocumentId(value), profile, kind, practice, _storno_target(resources))
    return _eau_facts(DocumentId(value), profile, practice, resources)


def _eau_facts(id: DocumentId, profile: Profile, practice: str | None, resources: dict[str, list[Node]]) -> Facts:
    patient = _first(resources, "Patient")
    kvnr = _kvnr(patient)
    composition = _first(resources, "Composition")
    period = next((found for node in resources.get("Condition", []) if (found := node.first("onsetPeriod"))), None)
    return Facts(
        id,
        profile,
        Kind.EAU,
        practice,
        insurer=_insurer(_first(resources, "Coverage")),
        kvnr=kvnr,
        person=None if kvnr else _person(patient),
        au_type=_au_type(composition),
        issued_on=composition.text("date") if composition else None,
        starts_on=period.text("start") if period else None,
        ends_on=period.text("end") if period else None,
        diagnoses=frozenset(_diagnoses(resources.get("Condition", []))),
    )


def _resources(bundle: Node) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for resource in bundle.all("entry", "resource"):
        found.setdefault(resource.type or "", []).append(resource)
    return found


def _first(resources: dict[str, list[Node]], type: str) -> Node | None:
    return next(iter(resources.get(type, [])), None)


def _practice(organizations: list[Node]) -> str | None:
    """The 9-digit identifier; a Telematik-ID may stand beside it and is not it (eau.md § 8)."""
    for organization in organizations:
        for identifier in organization.all("identifier"):
            value = identifier.text("value")
            if value and "telematik-id" not in (identifier.text("system") or ""):
                return value
    return None


def _storno_target(resources: dict[str, list[Node]]) -> DocumentId:
    value = next(
        (v for node in resources.get("List", []) if (v := node.text("entry", "item", "identifier", "value"))),
        None,
    )
    if not value:
        raise BadDocumentError("the Storno does not name the eAU to cancel (List.entry.item.identifier.value)")
    return DocumentId(value)


def _kvnr(patient: Node | None) -> KVNR | None:
    for identifier in patient.all("identifier") if patient else []:
        if identifier.text("system") in _KVNR_SYSTEMS:
            try:
                return KVNR(identifier.text("value") or "")
            except BadKVNRError:  # the base profile only warns about the shape (eau.md § 8)
                return None
    return None


def _person(patient: Node | None) -> tuple[str, str, str] | None:
    if patient is None:
        return None
    family = patient.text("name", "family")
    given = " ".join(node.value for node in patient.all("name", "given") if node.value)
    born = patient.text("birthDate")
    return (family, given, born) if family and born else None


def _insurer(coverage: Node | None) -> IK | None:
    for identifier in coverage.all("payor", "identifier") if coverage else []:
        if identifier.text("system") in _IK_SYSTEMS:
            try:
                return IK(identifier.text("value") or "")
            except BadIKError:  # only a warning in the base profile
                return None
    return None


def _au_type(composition: Node | None) -> str | None:
    for coding in composition.all("type", "coding") if composition else []:
        if _AU_TYPE in (coding.text("system") or ""):
            return coding.text("code")
    return None


def _diagnoses(conditions: list[Node]) -> Iterator[str]:
    for condition in conditions:
        for coding in condition.all("code", "coding"):
            if "icd-10-gm" in (coding.text("system") or "") and (code := coding.text("code")):
                yield code
