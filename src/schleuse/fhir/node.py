"""From hostile XML bytes to a light tree.

A flaw of FHIR's XML form (text between elements, an unknown attribute, repetitions that do not stand together)
becomes a child whose name starts with "#". No element definition knows such a name, so no rule can overlook it.

Source: FHIR R4 § 2.6.1 (XML representation); limits.md "Budget" (what the tree may cost).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from xml.parsers import expat

from schleuse.errors import MalformedError

#: An eAU has 25 KB; more than this is no document of the KIM world that we check.
MAX_BYTES: Final = 4 * 1024 * 1024
#: An eAU has some 500 elements. Bounds memory (about 250 bytes an element).
MAX_ELEMENTS: Final = 100_000
#: An eAU is 11 levels deep. Bounds recursion of the checks.
MAX_DEPTH: Final = 64

_FHIR: Final = "http://hl7.org/fhir"
_XHTML: Final = "http://www.w3.org/1999/xhtml"

#: What a declaration may call UTF-8, in capital letters. "UTF8" is no registered name, but an alias of Java's, and the
#: XML parser of the reference validator takes it (measured with javax.xml of Java 17 and 25).
UTF8_NAMES: Final = frozenset({"UTF-8", "UTF8"})

TEXT: Final = "#text"
ATTRIBUTE: Final = "#attribute"
ORDER: Final = "#order"
MARKUP: Final = "#markup"


class BadXmlError(MalformedError):
    """The bytes are not an acceptable FHIR XML document. The message names the line, never the content."""

    code = "fhir.bad-xml"


class Node:
    """One FHIR element.

    name: element name ("birthDate"); for a resource the name of the element that holds it ("resource"),
        for the root its type.
    type: resource type ("Patient") if this is a resource, else None.
    value: the `value` attribute of a primitive, or the `url` attribute of an extension; None if absent.
    children: child elements by name, in document order; an `id` attribute becomes a child "id".
    """

    __slots__ = ("children", "name", "type", "value")

    def __init__(self, name: str) -> None:
        self.name = name
        self.type: str | None = None
        self.value: str | None = None
        self.children: dict[str, list[Node]] = {}

    def __repr__(self) -> str:
        return f"<Node {self.name} with {len(self.children)} kinds of children>"  # no values: personal data

    def all(self, *path: str) -> list[Node]:
        """Every descendant along a path of element names: `bundle.all("entry", "resource")`."""
        found = [self]
        for name in path:
            found = [child for node in found for child in node.children.get(name, ())]
        return found

    def first(self, *path: str) -> Node | None:
        """The first such descendant, or None."""
        return next(iter(self.all(*path)), None)

    def text(self, *path: str) -> str | None:
        """The value of the first such descendant, or None."""
        found = self.first(*path)
        return None if found is None else found.value

    def walk(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """This node and all below it, each with its path ("Bundle.entry[3].resource.date")."""
        stack = [(path or self.name, self)]
        while stack:
            path, node = stack.pop()
            yield path, node
            for name, nodes in reversed(node.children.items()):
                for index in range(len(nodes) - 1, -1, -1):
                    stack.append((f"{path}.{name}[{index}]" if len(nodes) > 1 else f"{path}.{name}", nodes[index]))


#: Elements and attributes of a Narrative (FHIR R4 § 2.4.0.1, txt-1).
_HTML_TAGS: Final = (
    "a abbr acronym b big blockquote br caption cite code col colgroup dd dfn div dl dt em h1 h2 h3 h4 h5 h6 hr i img "
    "li ol p pre q samp small span strong sub sup table tbody td tfoot th thead tr tt ul var"
)
_HTML_NAMES: Final = (
    "abbr accesskey align alt axis border cellhalign cellpadding cellspacing cellvalign char charoff charset cite "
    "class colspan compact coords dir frame headers height href hreflang hspace id lang longdesc name rel rev rowspan "
    "rules scope shape span src start style summary tabindex title type valign value vspace width "
    "http://www.w3.org/XML/1998/namespace|lang http://www.w3.org/XML/1998/namespace|space"
)
_HTML_ELEMENTS: Final = frozenset(_HTML_TAGS.split())
_HTML_ATTRIBUTES: Final = frozenset(_HTML_NAMES.split())


def parse(xml: bytes) -> Node:
    """The tree of one FHIR resource in XML (UTF-8, no DTD, no entities, bounded size and depth).

    Raises BadXmlError.
    """
    if len(xml) > MAX_BYTES:
        raise BadXmlError(f"the document has {len(xml)} bytes, allowed are {MAX_BYTES}")
    if xml.count(b"<") > 2 * MAX_ELEMENTS:
        raise BadXmlError(f"the document has more than {MAX_ELEMENTS} elements")
    if b"\0" in xml:  # UTF-16, which the parser would read in spite of being told UTF-8
        raise BadXmlError("the document is not UTF-8")
    reader = _Reader(watch_text=_may_have_text(xml))
    try:
        reader.parser.Parse(xml, True)
        return reader.result()
    except expat.ExpatError as cause:
        raise BadXmlError(
            f"the XML is not well formed in line {cause.lineno}: {expat.ErrorString(cause.code)}"
        ) from None  # the cause quotes nothing, but a chained traceback would hold the parser's state
    except (UnicodeError, ValueError):
        raise BadXmlError(f"the XML has a character that is not allowed in line {reader.line}") from None
    finally:
        reader.close()


def _may_have_text(xml: bytes) -> bool:
    """False only if there is surely nothing but blanks between the tags, which spares a call for each gap."""
    dense = xml.translate(None, b" \t\r\n")
    tags = dense.count(b">")
    return tags != dense.count(b"><") + 1 or not dense.endswith(b">") or b"<![CDATA[" in dense


class _Reader:
    """Feeds one expat parser and builds the tree."""

    def __init__(self, *, watch_text: bool) -> None:
        parser = expat.ParserCreate("UTF-8", "|")
        self.parser = parser
        parser.ordered_attributes = True
        parser.buffer_text = True
        self._document = Node("")
        self._stack = [self._document]
        self._html_depth = 0
        parser.StartElementHandler = self._starter()
        parser.EndElementHandler = self._ender()
        if watch_text:
            parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.XmlDeclHandler = self._declaration

    def close(self) -> None:
        """Untie parser and handlers: workers run without garbage collection, a cycle would stay for ever."""
        parser = self.parser
        parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
        parser.StartDoctypeDeclHandler = parser.XmlDeclHandler = None

    @property
    def line(self) -> int:
        return self.parser.CurrentLineNumber

    def result(self) -> Node:
        roots = list(self._document.children.values())
        root = roots[0][0]
        if root.type is None:
            raise BadXmlError("the root element is not a FHIR resource")
        root.name = root.type
        return root

    def _starter(self) -> Callable[[str, list[str]], None]:
        """The handler of start tags, as a closure: it runs 500 times a document."""
        stack = self._stack
        push = stack.append
        names = _LOCAL_NAMES
        local_name = self._name

        def start(qualified: str, attributes: list[str]) -> None:
            name = names.get(qualified) or local_name(qualified)
            parent = stack[-1]
            if name < "a":  # capital letter: a resource inside the element that holds it
                node = self._resource(name, parent)
                if attributes:
                    self._attributes(node, attributes)
                push(node)
                return
            node = Node(name)
            children = parent.children
            if name in children:
                children[name].append(node)
                if next(reversed(children)) != name:
                    _flaw(parent, ORDER)
            else:
                children[name] = [node]
            if attributes:
                if attributes[0] == "value" and len(attributes) == 2 and attributes[1]:
                    node.value = attributes[1]
                else:
                    self._attributes(node, attributes)
            push(node)
            if len(stack) > MAX_DEPTH:
                raise BadXmlError(f"the document is more than {MAX_DEPTH} levels deep in line {self.line}")

        return start

    def _ender(self) -> Callable[[str], None]:
        pop = self._stack.pop

        def end(_: str) -> None:
            pop()

        return end

    def _name(self, qualified: str) -> str:
        """The local name of a tag that is not in the table yet; notices the start of a Narrative."""
        namespace, bar, local = qualified.rpartition("|")
        if namespace == _XHTML and local == "div":
            self._enter_html()
            return "div"
        if namespace != _FHIR or not bar:
            raise BadXmlError(f"an element in line {self.line} is not in the namespace of FHIR")
        if not local.isascii() or not local.isalnum():
            return "#element"
        if len(_LOCAL_NAMES) < _MAX_NAMES:  # hostile documents must not fill the memory
            _LOCAL_NAMES[qualified] = local
        return local

    def _resource(self, name: str, holder: Node) -> Node:
        """The node of a resource: its type goes to the element that holds it."""
        if holder is self._document:
            node = Node(name)
            holder.children[name] = [node]
            holder = node
        elif holder.type is not None or holder.children:
            _flaw(holder, ORDER)
        holder.type = name
        return holder

    def _attributes(self, node: Node, attributes: list[str]) -> None:
        for name, value in zip(attributes[::2], attributes[1::2], strict=True):
            if not value:
                _flaw(node, ATTRIBUTE)
            elif name == "value" or (name == "url" and node.name in ("extension", "modifierExtension")):
                if node.value is not None:
                    _flaw(node, ATTRIBUTE)
                node.value = value
            elif name == "id" and "id" not in node.children and node.type is None:
                child = Node("id")
                child.value = value
                node.children["id"] = [child]
            else:
                _flaw(node, ATTRIBUTE)

    def _text(self, text: str) -> None:
        if not text.isspace():
            _flaw(self._stack[-1], TEXT)

    def _refuse_doctype(self, *_: object) -> None:
        raise BadXmlError(f"a DTD is not allowed (line {self.line})")

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.upper() not in UTF8_NAMES:
            raise BadXmlError("the XML declares an encoding other than UTF-8")

    # A Narrative's markup is not kept, only whether it is allowed and whether it says anything (txt-1, txt-2).

    def _enter_html(self) -> None:
        parser = self.parser
        saved = (parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler)
        depth = 0

        def start(qualified: str, attributes: list[str]) -> None:
            nonlocal depth
            depth += 1
            namespace, _, local = qualified.rpartition("|")
            div = self._stack[-1]
            if namespace != _XHTML or local not in _HTML_ELEMENTS:
                _flaw(div, MARKUP)
            if any(name not in _HTML_ATTRIBUTES for name in attributes[::2]):
                _flaw(div, MARKUP)
            if local == "img":
                div.value = "image"
            if depth > MAX_DEPTH:
                raise BadXmlError(f"the markup is more than {MAX_DEPTH} levels deep in line {self.line}")

        def end(_: str) -> None:
            nonlocal depth
            depth -= 1
            if depth < 0:
                parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = saved
                self._stack.pop()

        def text(data: str) -> None:
            if not data.isspace():
                self._stack[-1].value = "text"

        parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text


def _flaw(node: Node, kind: str) -> None:
    node.children.setdefault(kind, [Node(kind)])


#: "http://hl7.org/fhir|birthDate" -> "birthDate"; shared by all documents, so that names are one object each.
_LOCAL_NAMES: dict[str, str] = {}
_MAX_NAMES: Final = 5_000
