"""XML to tree (FHIR R4 § 2.6.1): what is read, what is a flaw, what is refused."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schleuse.errors import MalformedError
from schleuse.fhir import node as nodes
from schleuse.fhir.node import BadXmlError, Node, parse

NS = 'xmlns="http://hl7.org/fhir"'

BUNDLE = f"""<?xml version="1.0" encoding="UTF-8"?>
<Bundle {NS}>
  <type value="document"/>
  <entry>
    <fullUrl value="urn:uuid:1"/>
    <resource>
      <Patient>
        <id value="p"/>
        <name><family value="Müller" id="f"><extension url="u"><valueString value="x"/></extension></family></name>
      </Patient>
    </resource>
  </entry>
</Bundle>""".encode()


def test_a_document_becomes_nodes_with_names_types_and_values() -> None:
    root = parse(BUNDLE)
    assert (root.name, root.type) == ("Bundle", "Bundle")
    resource = root.all("entry", "resource")[0]
    assert (resource.name, resource.type) == ("resource", "Patient")
    assert resource.text("name", "family") == "Müller"
    assert root.text("entry", "resource", "name", "family", "id") == "f"


def test_the_url_of_an_extension_is_its_value() -> None:
    extension = parse(BUNDLE).first("entry", "resource", "name", "family", "extension")
    assert extension is not None
    assert extension.value == "u"
    assert extension.text("valueString") == "x"


def test_a_path_to_nothing_gives_nothing() -> None:
    root = parse(BUNDLE)
    assert root.all("entry", "search") == []
    assert root.first("entry", "search", "mode") is None
    assert root.text("total") is None


def test_the_walk_names_each_place() -> None:
    paths = dict(parse(f"<List {NS}><entry/><entry><item><display value='a'/></item></entry></List>".encode()).walk())
    assert list(paths) == [
        "List",
        "List.entry[0]",
        "List.entry[1]",
        "List.entry[1].item",
        "List.entry[1].item.display",
    ]


def test_printing_a_node_shows_no_value() -> None:
    family = parse(BUNDLE).first("entry", "resource", "name", "family")
    assert "Müller" not in repr(family)


def test_prefixes_of_the_fhir_namespace_are_as_good_as_the_default() -> None:
    root = parse(b'<f:Patient xmlns:f="http://hl7.org/fhir"><f:active value="true"/></f:Patient>')
    assert root.text("active") == "true"


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        ("<active value='true'/>text", nodes.TEXT),
        ("\n text\n<active value='true'/>", nodes.TEXT),
        ("<![CDATA[text]]><active value='true'/>", nodes.TEXT),
        ("&#x41;<active value='true'/>", nodes.TEXT),
        ("<name/><active value='true'/><name/>", nodes.ORDER),
    ],
)
def test_what_xml_allows_and_fhir_does_not_becomes_a_child_that_nothing_knows(content: str, flaw: str) -> None:
    assert flaw in parse(f"<Patient {NS}>{content}</Patient>".encode()).children


@pytest.mark.parametrize("attribute", ["value=''", "foo='x'", "url='x'", "xml:lang='de'", "id=''"])
def test_an_attribute_that_fhir_does_not_know_is_a_flaw(attribute: str) -> None:
    active = parse(f"<Patient {NS}><active {attribute}/></Patient>".encode()).first("active")
    assert active is not None
    assert nodes.ATTRIBUTE in active.children


@pytest.mark.parametrize(
    "content",
    ["<!-- note --><active value='&gt;'/>", "<?x y?><active value='true'/>", "<active value='a&#10;b'/>"],
)
def test_comments_references_and_instructions_are_no_flaw(content: str) -> None:
    root = parse(f"<Patient {NS}>{content}</Patient>".encode())
    assert list(root.children) == ["active"]
    assert list(root.all("active")[0].children) == []


def narrative(markup: str) -> Node:
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{markup}</div>'
    root = parse(
        f"<Patient {NS}><text><status value='generated'/>{div}</text><active value='true'/></Patient>".encode()
    )
    assert root.text("active") == "true"  # what follows is read as FHIR again
    found = root.first("text", "div")
    assert found is not None
    return found


def test_of_a_narrative_only_is_kept_that_it_says_something() -> None:
    assert narrative("<p>hello <b>you</b></p>").value == "text"
    assert narrative("<p>hello <b>you</b></p>").children == {}
    assert narrative("  <p> </p>").value is None
    assert narrative("<img src='#a'/>").value == "image"


@pytest.mark.parametrize(
    "markup", ["<script>x</script>", "<p onclick='x'>a</p>", "<form/>", "<p xmlns='http://x'>a</p>"]
)
def test_active_markup_in_a_narrative_is_a_flaw(markup: str) -> None:
    assert nodes.MARKUP in narrative(markup).children


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"no xml",
        b"<a/>",
        b"<Bundle/>",
        b'<bundle xmlns="http://hl7.org/fhir"/>',
        b'<Bundle xmlns="http://other.example"/>',
        b'<Bundle xmlns="http://hl7.org/fhir"><a xmlns="urn:x"/></Bundle>',
        b'<Bundle xmlns="http://hl7.org/fhir">',
        b'<!DOCTYPE Bundle><Bundle xmlns="http://hl7.org/fhir"/>',
        b'<!DOCTYPE a [<!ENTITY x "y">]><Bundle xmlns="http://hl7.org/fhir"><id value="&x;"/></Bundle>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><Bundle xmlns="http://hl7.org/fhir"/>',
        b'<?xml version="1.0" encoding="ISO-8859-1"?><Bundle xmlns="http://hl7.org/fhir"/>',
        '<Bundle xmlns="http://hl7.org/fhir"/>'.encode("utf-16"),
        b'<Bundle xmlns="http://hl7.org/fhir"><id value="\xff"/></Bundle>',
        b'<Bundle xmlns="http://hl7.org/fhir"><id value="&unknown;"/></Bundle>',
    ],
)
def test_what_is_no_fhir_xml_is_refused(xml: bytes) -> None:
    with pytest.raises(BadXmlError):
        parse(xml)


def test_a_refusal_names_the_line_and_quotes_nothing() -> None:
    with pytest.raises(BadXmlError, match="line 3") as caught:
        parse(f"<Patient {NS}>\n<name/>\n<family value='Geheim'></Patient>".encode())
    assert "Geheim" not in str(caught.value)


def test_too_deep_too_many_and_too_large_documents_are_refused() -> None:
    deep = f"<Patient {NS}>" + "<a>" * 100 + "</a>" * 100 + "</Patient>"
    deep_markup = "<b>" * 100 + "</b>" * 100
    with pytest.raises(BadXmlError, match="levels deep"):
        parse(deep.encode())
    with pytest.raises(BadXmlError, match="levels deep"):
        narrative(deep_markup)
    with pytest.raises(BadXmlError, match="elements"):
        parse(b"<a/>" * (2 * nodes.MAX_ELEMENTS + 1))
    with pytest.raises(BadXmlError, match="bytes"):
        parse(b" " * (nodes.MAX_BYTES + 1))


def test_names_of_hostile_documents_do_not_fill_the_memory() -> None:
    for start in range(0, 20_000, 2_000):
        names = "".join(f"<x{number}/>" for number in range(start, start + 2_000))
        parse(f"<Patient {NS}>{names}</Patient>".encode())
    assert len(nodes._LOCAL_NAMES) <= nodes._MAX_NAMES


def test_a_tree_is_freed_without_the_garbage_collector() -> None:
    """Workers run without it (limits.md, levers), so that the reader must leave no cycle."""

    class Watched(Exception):
        pass

    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(20):
            parse(BUNDLE)
        assert len(gc.get_objects()) - before < 50
        probe = Watched()
        alive = weakref.ref(probe)
        del probe
        assert alive() is None
    finally:
        gc.enable()


PIECES = st.sampled_from(
    [
        b"<Patient xmlns='http://hl7.org/fhir'>", b"</Patient>", b"<Bundle xmlns='http://hl7.org/fhir'>", b"<entry>",
        b"<resource>", b"</resource>", b"</entry>", b"</Bundle>", b"<a value='x'/>", b"<A/>", b"<extension url='u'>",
        b"</extension>", b"<div xmlns='http://www.w3.org/1999/xhtml'>", b"</div>", b"<img/>", b"text", b"&amp;",
        b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?x", b"?>",
        b"\xff", b"\x00", b"<!DOCTYPE x>", b"\xef\xbb\xbf", b"&#0;",
        b"<?xml version='1.0' encoding='latin-1'?>", b"xmlns:f='http://hl7.org/fhir'", b"<f:a/>", b"<a:b:c/>",
    ]
)  # fmt: skip


@given(st.binary(max_size=200) | st.lists(PIECES | st.binary(max_size=4), max_size=30).map(b"".join))
def test_hostile_bytes_raise_nothing_but_malformed(xml: bytes) -> None:
    try:
        root = parse(xml)
    except MalformedError:
        return
    assert root.type is not None
    assert all(path for path, _ in root.walk())


@given(st.integers(min_value=0, max_value=len(BUNDLE) - 1), st.binary(min_size=0, max_size=3))
def test_a_damaged_document_raises_nothing_but_malformed(place: int, damage: bytes) -> None:
    try:
        parse(BUNDLE[:place] + damage + BUNDLE[place + 1 :])
    except MalformedError:
        return


@pytest.mark.parametrize("name", ["UTF-8", "utf-8", "UTF8", "utf8"])
def test_utf8_may_be_declared_as_java_spells_it(name: str) -> None:
    declared = f"<?xml version='1.0' encoding='{name}'?><Patient xmlns='http://hl7.org/fhir'/>"
    assert parse(declared.encode()).type == "Patient"


@pytest.mark.parametrize("name", ["UTF-16", "csUTF8", "ISO-8859-1"])
def test_another_declared_encoding_is_refused(name: str) -> None:
    declared = f"<?xml version='1.0' encoding='{name}'?><Patient xmlns='http://hl7.org/fhir'/>"
    with pytest.raises(BadXmlError):
        parse(declared.encode())
