"""Documents that keep every rule, and mutants of them that each break one thing.

`valid(edition)` gives varied valid documents, `structural(xml)` mutants of the tree (something missing, doubled,
added, moved or another value), `foreign(xml, grammar)` those with an element that only FHIR knows, and
`corpus_rules.semantic(edition)` mutants for the rules that need an expression. Most are invalid, some stay valid
on purpose, because over-rejecting a certificate is as bad as accepting a broken one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any, Literal
from xml.etree import ElementTree as ET

from schleuse.eau.rules import Edition
from schleuse.practice.documents import Document, Generator
from schleuse.practice.documents.plan import Issuer, Lines, Payor, Place, Version

FHIR = "http://hl7.org/fhir"
HL7 = "http://hl7.org/fhir/StructureDefinition"
KBV = "https://fhir.kbv.de/StructureDefinition"
GERMANY = timezone(timedelta(hours=1))
#: A day of issue inside the window of each edition (eau.md § 10).
ISSUED = {
    "1.1.0": datetime(2025, 12, 3, 9, 30, tzinfo=GERMANY),
    "1.2.0": datetime(2025, 12, 3, 9, 30, tzinfo=GERMANY),
    "1.2.1": datetime(2026, 2, 4, 9, 30, tzinfo=GERMANY),
}
ET.register_namespace("", FHIR)


@dataclass(frozen=True, slots=True)
class Case:
    """One document of the corpus. breaks: key of the rule that a semantic mutant aims at, else None."""

    label: str
    xml: bytes
    breaks: str | None = None


def version(edition: Edition) -> Version:
    return "1.1.0" if edition.old else "1.2"


def generator(edition: Edition, seed: int = 1) -> Generator:
    return Generator(Random(seed), ISSUED[edition.name])


# --- valid documents --------------------------------------------------------------------------------------------------


def rich(edition: Edition, seed: int = 1) -> Document:
    """A document that has nearly everything that one document can have."""
    return generator(edition, seed).eau(
        version(edition),
        kind="ERST",
        payor="GKV",
        issuer="weiterbildung",
        responsible=True,
        number=True,
        kvnr=True,
        telematik_ids=True,
        birth="day",
        lines="extra",
        place="praxis",
        krankengeld=True,
        causes=("1", "2"),
        steps=("d_arzt", "reha", "sonstige"),
        icds=3,
        text="Akute Infektion der oberen Atemwege",
    )


def valid(edition: Edition, random_ones: int = 20) -> Iterator[Case]:
    """Every variant that eau.md §§ 6, 7 names, then some at random, each with its Storno."""
    number = 0

    def eau(label: str, **choices: object) -> Case:
        nonlocal number
        number += 1
        made = generator(edition, number).eau(version(edition), **choices)  # type: ignore[arg-type]
        return Case(label, made.xml)

    yield Case("rich", rich(edition).xml)
    payors: tuple[Payor, ...] = ("GKV", "PKV", "BG", "SEL", "SKT", "UK")
    for payor in payors:
        yield eau(f"payor {payor}", payor=payor, kvnr=payor != "SEL")
    issuers: tuple[Issuer, ...] = ("arzt", "zahnarzt", "weiterbildung", "vertreter", "hebamme")
    for issuer in issuers:
        yield eau(f"issuer {issuer}", issuer=issuer)
    places: tuple[Place, ...] = ("praxis", "krankenhaus", "institution")
    for place in places:
        yield eau(f"place {place}", issuer="arzt", place=place)
    lines: tuple[Lines, ...] = (
        "whole", "extra", "only-street", "only-number", "only-extra", "box", "foreign", "none",
    )  # fmt: skip
    for line in lines:
        yield eau(f"address {line}", lines=line)
    for kind in ("ERST", "FOLGE", "ERST_END", "FOLGE_END"):
        yield eau(f"kind {kind}", kind=kind)
    for birth in ("day", "month", "year"):
        yield eau(f"birth {birth}", birth=birth)
    yield eau("without KVNR", payor="GKV", kvnr=False)
    yield eau("in training without number", issuer="weiterbildung", number=False, responsible=True)
    yield eau("substitute with responsible person", issuer="vertreter", responsible=True)
    for asv in ("01", "11"):
        yield eau(f"ASV {asv} with number", asv=True, legal_basis=asv, number=True)
        yield eau(f"ASV {asv} without number", asv=True, legal_basis=asv, number=False)
    for basis in ("00", "04", "07", "10", "14", "17"):
        yield eau(f"legal basis {basis}", legal_basis=basis)
    for cause in (("1",), ("2",), ("3",), ("1", "2", "3")):
        yield eau(f"causes {cause}", causes=cause)
    for step in ("d_arzt", "reha", "wiedereingliederung", "sonstige"):
        yield eau(f"step {step}", steps=(step,))
    yield eau("private", payor="PKV", private=True, steps=("wiedereingliederung", "reha", "stationaere_heilbehandlung"))
    for icds in (1, 6):
        yield eau(f"{icds} diagnoses", icds=icds)
    for _ in range(random_ones):
        yield eau(f"random {number}")
    for seed in range(5):
        document = generator(edition, seed).eau(version(edition))
        yield Case(f"storno {seed}", generator(edition, 100 + seed).storno(document).xml)
    yield Case("fehlernachricht by document", fehlernachricht(edition, "Bundle-Identifier"))
    yield Case("fehlernachricht by mail", fehlernachricht(edition, "Message-ID"))


def fehlernachricht(edition: Edition, by: Literal["Bundle-Identifier", "Message-ID"]) -> bytes:
    """An error message as eau.md § 12 describes it."""
    system = {
        "Bundle-Identifier": "urn:ietf:rfc:3986",
        "Message-ID": "https://fhir.kbv.de/NamingSystem/KBV_NS_EAU_Message_ID_KIM",
    }[by]
    value = "urn:uuid:7000506f-8da4-5c6f-b1c1-36e8950f94d9" if by == "Bundle-Identifier" else "&lt;1@kim.example&gt;"
    profile = edition.canonical("KBV_PR_EAU_health_insurance_Practitioner")
    return f"""<OperationOutcome xmlns="{FHIR}">
  <id value="0b2ad1f5-9f6c-4b3c-8a15-3f1d40e9a111"/>
  <meta><profile value="{profile}"/></meta>
  <issue>
    <extension url="{KBV}/KBV_EX_EAU_health_insurance_Practitioner_Identifier">
      <extension url="{by}">
        <valueIdentifier><system value="{system}"/><value value="{value}"/></valueIdentifier>
      </extension>
    </extension>
    <severity value="fatal"/>
    <code value="processing"/>
    <details><coding>
      <system value="https://fhir.kbv.de/CodeSystem/KBV_CS_SFHIR_EAU_AU_ERROR_KASSE"/>
      <code value="101"/>
      <display value="Die übermittelte eAU entspricht nicht den Vorgaben und ist nicht lesbar."/>
    </coding></details>
  </issue>
</OperationOutcome>
""".encode()


# --- working on a tree ------------------------------------------------------------------------------------------------


def tag(name: str) -> str:
    return f"{{{FHIR}}}{name}"


def local(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2]


def dump(root: ET.Element) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode").encode()


def edited(xml: bytes, edit: Callable[[ET.Element], None]) -> bytes:
    """The document after one change of its tree."""
    root = ET.fromstring(xml)
    edit(root)
    return dump(root)


def find(root: ET.Element, path: str, place: int = 0) -> ET.Element:
    """The place-th element below root at a path of plain names; raises LookupError if the corpus lost it."""
    found = root.findall(".//" + "/".join(tag(step) for step in path.split("/")))
    return found[place]


def parents(root: ET.Element) -> dict[ET.Element, ET.Element]:
    return {child: parent for parent in root.iter() for child in parent}


def node(name: str, value: str | None = None, *children: ET.Element, url: str | None = None) -> ET.Element:
    made = ET.Element(tag(name))
    if value is not None:
        made.set("value", value)
    if url is not None:
        made.set("url", url)
    made.extend(children)
    return made


def remove(path: str, place: int = 0) -> Callable[[ET.Element], None]:
    def edit(root: ET.Element) -> None:
        gone = find(root, path, place)
        parents(root)[gone].remove(gone)

    return edit


def put(path: str, value: str, place: int = 0) -> Callable[[ET.Element], None]:
    return lambda root: find(root, path, place).set("value", value)


# --- structural mutants -----------------------------------------------------------------------------------------------


def signature(path: tuple[ET.Element, ...]) -> str:
    """Where an element stands, the same for elements that the same rule governs."""
    parts = []
    for element in path:
        mark = element.get("url") or ""
        if not mark:  # what a slicing looks at
            for probe in ("use", "type", "system"):
                inner = element.find(tag(probe))
                if inner is not None and inner.get("value"):
                    mark = inner.get("value") or ""
                    break
        parts.append(f"{local(element)}[{mark}]" if mark else local(element))
    return "/".join(parts)


def walk(root: ET.Element) -> Iterator[tuple[tuple[int, ...], str]]:
    """Index path and signature of the first element of each signature."""
    seen: set[str] = set()

    def visit(
        element: ET.Element, at: tuple[int, ...], path: tuple[ET.Element, ...]
    ) -> Iterator[tuple[tuple[int, ...], str]]:
        path = (*path, element)
        name = signature(path)
        if at and name not in seen:
            seen.add(name)
            yield at, name
        for place, child in enumerate(element):
            yield from visit(child, (*at, place), path)

    yield from visit(root, (), ())


def at(root: ET.Element, where: tuple[int, ...]) -> ET.Element:
    for place in where:
        root = root[place]
    return root


class Once:
    """Chooses labels: each once, and of the new ones every n-th."""

    def __init__(self, every: int = 1) -> None:
        self._every = every
        self._seen: set[str] = set()

    def __call__(self, label: str) -> bool:
        if label in self._seen:
            return False
        self._seen.add(label)
        return len(self._seen) % self._every == 0


def structural(xml: bytes, wanted: Once) -> Iterator[Case]:
    """Mutants of every place of the tree. wanted: whether a label is made; asked before the work."""
    original = ET.fromstring(xml)
    for where, name in walk(original):
        for label, change in _changes(at(original, where)):
            if not wanted(f"{label}: {name}"):
                continue
            root = copy.deepcopy(original)
            change(at(root, where[:-1]), at(root, where))
            yield Case(f"{label}: {name}", dump(root))


Change = Callable[[ET.Element, ET.Element], None]


def _changes(element: ET.Element) -> Iterator[tuple[str, Change]]:
    yield "missing", lambda parent, it: parent.remove(it)
    yield "doubled", lambda parent, it: parent.insert(list(parent).index(it), copy.deepcopy(it))
    yield "renamed", _rename
    yield "moved to the end", _to_the_end
    is_resource = local(element)[0].isupper()
    if not is_resource and local(element) != "resource":
        yield "unknown extension", _extend("https://example.org/unknown")
        yield "known extension", _extend(f"{HL7}/data-absent-reason")
        yield "id attribute", lambda parent, it: it.set("id", "a1")
    if len(element) and not is_resource:
        yield "unknown child", lambda parent, it: it.append(node("foo", "bar"))
        yield "value on a complex element", lambda parent, it: it.set("value", "x")
        yield "emptied", _empty
    if element.get("url") is not None:
        yield "other url", lambda parent, it: it.set("url", "https://example.org/other")
        yield "without url", _drop("url")
    value = element.get("value")
    if value is not None:
        yield "without value", _drop("value")
        for changed in _values(value):
            yield f"value {changed[:12]!r}", _set(changed)


def _set(value: str) -> Change:
    return lambda parent, it: it.set("value", value)


def _drop(attribute: str) -> Change:
    def change(parent: ET.Element, it: ET.Element) -> None:
        del it.attrib[attribute]

    return change


def _rename(parent: ET.Element, it: ET.Element) -> None:
    it.tag = tag("unknown" if local(it)[0].islower() else "Basic")


def _to_the_end(parent: ET.Element, it: ET.Element) -> None:
    parent.remove(it)
    parent.append(it)


def _empty(parent: ET.Element, it: ET.Element) -> None:
    for child in list(it):
        it.remove(child)


def _extend(url: str) -> Change:
    def change(parent: ET.Element, it: ET.Element) -> None:
        it.insert(_before_extension(it), node("extension", None, node("valueCode", "unknown"), url=url))

    return change


def _before_extension(element: ET.Element) -> int:
    return next((place for place, child in enumerate(element) if local(child) != "extension"), len(element))


def _values(value: str) -> Iterator[str]:
    yield ""
    yield "   "
    yield f"{value}X"
    yield "0"
    yield value.swapcase() if value.swapcase() != value else f"{value}-"
    yield (value + "ä" * 300)[:300]
    if len(value) == 10 and value[4:5] == "-":
        yield from ("2026", "2026-01", "2026-02-30", "2026-13-01", "2026-02-03T10:00:00+01:00", "03.02.2026")
    if "|" in value:
        yield value.partition("|")[0]
        yield value.partition("|")[0] + "|9.9"
    if len(value) < 40:
        yield f" {value}"
        yield f"{value} "
    if value.isdigit():
        yield value[:-1]
        yield f"{value}1"


# --- elements that FHIR knows and the eAU does not -------------------------------------------------------------------

#: Type, or path of a BackboneElement ("Bundle.entry"), to its elements in order: name and type.
Grammar = Mapping[str, list[tuple[str, str]]]


def grammar(structures: Iterable[Mapping[str, Any]]) -> Grammar:
    """From the base R4 StructureDefinitions. A choice becomes its first type ("onset[x]" -> "onsetDateTime")."""
    found: dict[str, list[tuple[str, str]]] = {}
    for structure in structures:
        if structure.get("derivation") == "constraint" or structure.get("kind") == "logical":
            continue
        for element in structure["snapshot"]["element"][1:]:
            parent, _, name = element["path"].rpartition(".")
            types = [each["code"].rpartition("/")[2] for each in element.get("type", ())] or ["BackboneElement"]
            kind = {"System.String": "string"}.get(types[0], types[0])
            if name.endswith("[x]"):
                name = name[:-3] + kind[0].upper() + kind[1:]
            nested = kind in ("BackboneElement", "Element")
            found.setdefault(parent, []).append((name, element["path"] if nested else kind))
    return found


def foreign(xml: bytes, known: Grammar, wanted: Once) -> Iterator[Case]:
    """One more element at every place that has a rule of its own: each that the base type has and the document not."""
    original = ET.fromstring(xml)
    types = dict(_types(original, (), local(original), known))
    for where, name in walk(original):
        kind = types.get(where)
        children = known.get(kind or "", [])
        if kind is None or (local(at(original, where)).islower() and not len(at(original, where))):
            continue
        present = {local(child) for child in at(original, where)}
        for place, (extra, extra_type) in enumerate(children):
            sample = _sample(extra, extra_type)
            if extra in present or extra in ("id", "extension", "modifierExtension") or sample is None:
                continue
            if not wanted(f"foreign {extra}: {name}"):
                continue
            root = copy.deepcopy(original)
            target = at(root, where)
            before = {one for one, _ in children[:place]} | {"id", "meta"}
            target.insert(sum(local(child) in before or local(child) == "extension" for child in target), sample)
            yield Case(f"foreign {extra}: {name}", dump(root))


def _types(
    element: ET.Element, where: tuple[int, ...], kind: str, known: Grammar
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield where, kind
    by_name = dict(known.get(kind, []))
    for place, child in enumerate(element):
        name = local(child)
        inner = name if name[0].isupper() else by_name.get(name)
        if inner is None:
            inner = next((one for one in known if name.endswith(one) and name != one), None)  # another choice
        if inner is not None:
            yield from _types(child, (*where, place), inner, known)


_DAY, _TIME = "2026-02-04", "2026-02-04T09:30:00Z"
_SAMPLES = {
    "string": "x", "code": "x", "uri": "urn:x", "url": "http://x", "canonical": "http://x", "boolean": "true",
    "id": "x", "markdown": "x", "instant": _TIME, "dateTime": _DAY, "date": _DAY, "time": "10:00:00",
    "integer": "1", "decimal": "1.0", "positiveInt": "1", "unsignedInt": "1",
}  # fmt: skip


def _sample(name: str, kind: str) -> ET.Element | None:
    """An element with the least that its type needs, None for types that no document here would have."""
    if kind in _SAMPLES:
        return node(name, _SAMPLES[kind])
    inside = {
        "CodeableConcept": node("text", "x"),
        "Reference": node("display", "x"),
        "Identifier": node("value", "x"),
        "Coding": node("code", "x"),
        "Period": node("start", "2026-02-04"),
        "HumanName": node("family", "x"),
        "ContactPoint": node("value", "x"),
        "Address": node("city", "x"),
        "Annotation": node("text", "x"),
    }.get(kind)
    return None if inside is None else node(name, None, inside)


#: Valid documents whose mutants cover every place that a rule speaks of.
BASES = ("rich", "private", "payor BG", "payor SKT", "address box", "ASV 01 without number", "storno 0",
         "fehlernachricht by document", "fehlernachricht by mail")  # fmt: skip


def mutants(edition: Edition, known: Grammar | None = None, *, every: int = 1) -> Iterator[Case]:
    """Structural mutants of BASES, each kind of change at each place once. known: for foreign elements, too."""
    wanted = Once(every)
    for case in valid(edition, random_ones=0):
        if case.label in BASES:
            yield from structural(case.xml, wanted)
            yield from foreign(case.xml, known or {}, wanted)
