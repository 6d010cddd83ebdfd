"""Damaged documents get a verdict, and what passed gets its facts: nothing else may come out of either (HD-01).

An exception there is no accusation, but a mail that waits for ever. Octets are damaged for the parser and the character
set; the tree is damaged for the rules and for the reading of facts, which octets seldom reach.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.eau.corpus import dump, fehlernachricht, generator, rich, version

from schleuse.eau.checks import Checked, Checker, FileKind
from schleuse.eau.document import BadDocumentError, BadDocumentIdError, read_document_id, read_facts, read_profile
from schleuse.eau.findings import Verdict
from schleuse.eau.rules import EDITIONS

#: Values that break dates, identifiers, URLs, numbers and expressions.
VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "2026-02-30",
            "9999-12-31T24:00:00+99:99",
            "0000",
            "urn:uuid:",
            "|",
            "https://|1.2",
            "#",
            "\u200b",
            "٣",
        ]
        + ["9" * 300, "-1e99999", "<&\">'", "{x}", "\U0001f600", "true", "NaN"]
    ),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
)


@cache
def checker() -> Checker:
    return Checker("own")


@cache
def seeds() -> Mapping[str, bytes]:
    """One valid document of each kind and edition."""
    found: dict[str, bytes] = {}
    for edition in EDITIONS:
        eau = rich(edition)
        found[f"eAU {edition.name}"] = eau.xml
        found[f"Ersatzverfahren {edition.name}"] = generator(edition, 2).eau(version(edition)).xml
        found[f"Storno {edition.name}"] = generator(edition, 3).storno(eau).xml
        found[f"Fehlernachricht {edition.name}"] = fehlernachricht(edition, "Message-ID")
    return found


def judge(xml: bytes) -> Checked:
    """The verdict, and the facts where there is a tree. Anything unexpected raises."""
    checked = checker().check(xml, warnings=True)
    if checked.verdict is not Verdict.VALID:
        assert checked.errors
    if checked.node is None:
        assert checked.verdict is Verdict.UNREADABLE
        return checked
    read_profile(checked.node)
    read_document_id(checked.node)
    ours = checked.verdict is Verdict.VALID and checked.kind in (FileKind.EAU, FileKind.STORNO)
    try:
        facts = read_facts(checked.node)
    except BadDocumentIdError:
        return checked
    except BadDocumentError:
        assert not ours, "a document that passed its profile has facts"
        return checked
    facts.person_key()
    facts.content_key()
    assert not ours or (facts.kind is not None and facts.id.value.isprintable())
    return checked


SEEDS = sorted(seeds())


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_damaged_below_is_valid_before(seed: str) -> None:
    assert judge(seeds()[seed]).verdict is Verdict.VALID


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_document_with_damaged_octets_gets_a_verdict(seed: str, data: st.DataObject) -> None:
    octets = bytearray(seeds()[seed])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        octets = octets or bytearray(1)
    judge(bytes(octets))


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_document_with_a_damaged_tree_gets_a_verdict(seed: str, data: st.DataObject) -> None:
    root = ET.fromstring(seeds()[seed])
    for _ in range(data.draw(st.integers(1, 4))):
        damage(root, data)
    judge(dump(root))


def damage(root: ET.Element, data: st.DataObject) -> None:
    """One element without, with another or with a foreign value, doubled, removed, renamed or put elsewhere."""
    everywhere = list(root.iter())
    target = data.draw(st.sampled_from(everywhere))
    children = list(target)
    match data.draw(st.sampled_from(["value", "drop", "double", "remove", "rename", "move"])):
        case "value":
            target.set(data.draw(st.sampled_from(["value", "url", "id"])), data.draw(VALUES))
        case "drop":
            target.attrib.clear()
        case "double" if children:
            target.append(copy.deepcopy(data.draw(st.sampled_from(children))))
        case "remove" if children:
            target.remove(data.draw(st.sampled_from(children)))
        case "rename":
            target.tag = data.draw(st.sampled_from(everywhere)).tag
        case "move":
            target.append(copy.deepcopy(data.draw(st.sampled_from(everywhere))))
        case _:
            pass


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_document_with_other_values_gets_a_verdict(seed: str, data: st.DataObject) -> None:
    root = ET.fromstring(seeds()[seed])
    valued = [element for element in root.iter() if "value" in element.attrib]
    for element in data.draw(st.lists(st.sampled_from(valued), min_size=1, max_size=3)):
        element.set("value", data.draw(VALUES))
    judge(dump(root))
