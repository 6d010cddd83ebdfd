"""FHIRPath text to a syntax tree.

Source: FHIRPath 2.0.0 (HL7 normative), grammar in appendix B and precedence in § 8. Not supported, and refused:
quantity literals with units, `~` and `!~`, and `$index`, `$total`; no invariant of the packages that we know uses them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from schleuse.errors import MalformedError


class BadPathError(MalformedError):
    """The text is not a FHIRPath expression that we can evaluate."""

    code = "fhir.bad-path"


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, whole number, decimal or Boolean; dates are strings in FHIR's form."""

    value: str | int | Decimal | bool


@dataclass(frozen=True, slots=True)
class Empty:
    """`{}`"""


@dataclass(frozen=True, slots=True)
class This:
    """The focus: `$this`, or what a leading name or function starts from."""


@dataclass(frozen=True, slots=True)
class Variable:
    """`%resource`, `%context`, ..."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """`base.name`"""

    base: Expression
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """`base.name(arguments)`; type names of `is`, `as` and `ofType` are Literals."""

    base: Expression
    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """`base[position]`"""

    base: Expression
    position: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """`left operator right`"""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Negative:
    """`-operand`"""

    operand: Expression


Expression = Literal | Empty | This | Variable | Member | Call | Index | Binary | Negative

#: Weakest first (FHIRPath § 8). Operators of one row bind to the left.
_PRECEDENCE: Final[dict[str, int]] = {
    operator: level
    for level, operators in enumerate(
        (
            ("implies",),
            ("or", "xor"),
            ("and",),
            ("in", "contains"),
            ("=", "!="),
            ("<", ">", "<=", ">="),
            ("|",),
            ("is", "as"),
            ("+", "-", "&"),
            ("*", "/", "div", "mod"),
        ),
        start=1,
    )
    for operator in operators
}
_WORDS: Final = frozenset(word for word in _PRECEDENCE if word.isalpha())

_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+|//[^\n]*|/\*.*?\*/)
    | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | @(?P<date>
          \d{4}(?:-\d\d(?:-\d\d)?)?(?:T(?:\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z|[+-]\d\d:\d\d)?)?)?
        | T\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?
      )
    | (?P<number>\d+(?:\.\d+)?)
    | `(?P<quoted>(?:[^`\\]|\\.)*)`
    | %(?P<variable>[A-Za-z_][A-Za-z0-9_-]*|`[^`]*`|'[^']*')
    | (?P<name>[A-Za-z_$][A-Za-z0-9_]*)
    | (?P<sign><=|>=|!=|[=<>|&+\-*/.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)

_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}

#: An expression of the packages is 12 levels deep at most; bounds recursion of parser and generator.
_MAX_DEPTH: Final = 100


def parse(text: str) -> Expression:
    """The syntax tree of an expression. Raises BadPathError."""
    return _Parser(text).whole()


def _unescape(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        sign = match[1]
        return chr(int(sign[1:], 16)) if len(sign) == 5 else _ESCAPED.get(sign, sign)

    return _ESCAPE.sub(character, text)


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each token, closed by ("end", "")."""
    position, found = 0, []
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise BadPathError(f"FHIRPath has an unexpected sign at position {position}")
        position = match.end()
        kind = str(match.lastgroup)
        value = match[kind]
        if kind == "string":
            found.append((kind, _unescape(value[1:-1])))
        elif kind == "quoted":
            found.append(("name", _unescape(value)))
        elif kind == "variable":
            found.append((kind, value.strip("`'")))
        elif kind == "name" and value in _WORDS:
            found.append(("word", value))
        elif kind != "space":
            found.append((kind, value))
    return [*found, ("end", "")]


class _Parser:
    """Precedence climbing over the tokens."""

    def __init__(self, text: str) -> None:
        self._left = _tokens(text)[::-1]
        self._depth = 0

    def whole(self) -> Expression:
        found = self._expression(0)
        if self._left[-1][0] != "end":
            raise BadPathError(f"FHIRPath goes on unexpectedly at {self._left[-1][1]!r}")
        return found

    def _take(self) -> tuple[str, str]:
        return self._left.pop() if len(self._left) > 1 else self._left[-1]

    def _takes(self, sign: str) -> bool:
        if self._left[-1] != ("sign", sign):
            return False
        self._left.pop()
        return True

    def _expect(self, sign: str) -> None:
        if not self._takes(sign):
            raise BadPathError(f"FHIRPath has {self._left[-1][1]!r} where {sign!r} is expected")

    def _expression(self, weakest: int) -> Expression:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise BadPathError("FHIRPath is nested too deeply")
        left = self._unary()
        while True:
            kind, operator = self._left[-1]
            level = _PRECEDENCE.get(operator, 0) if kind in ("sign", "word") else 0
            if level <= weakest:
                self._depth -= 1
                return left
            self._take()
            if operator in ("is", "as"):
                left = Call(left, operator, (Literal(self._type_name()),))
            else:
                left = Binary(operator, left, self._expression(level))

    def _type_name(self) -> str:
        kind, name = self._take()
        while kind == "name" and self._takes("."):  # FHIR.Patient, System.String
            kind, name = self._take()
        if kind != "name":
            raise BadPathError("FHIRPath lacks the name of a type")
        return name

    def _unary(self) -> Expression:
        negative = False
        while self._left[-1] in (("sign", "-"), ("sign", "+")):
            negative ^= self._take()[1] == "-"
        found = self._steps(self._term())
        return Negative(found) if negative else found

    def _steps(self, base: Expression) -> Expression:
        while True:
            if self._takes("."):
                base = self._step(base)
            elif self._takes("["):
                base = Index(base, self._expression(0))
                self._expect("]")
            else:
                return base

    def _step(self, base: Expression) -> Expression:
        kind, name = self._take()
        if kind not in ("name", "word"):  # after a dot, `contains`, `as`, `is` are functions
            raise BadPathError("FHIRPath lacks a name after a dot")
        if self._takes("("):
            return Call(base, name, self._arguments(name))
        return Member(base, name)

    def _arguments(self, function: str) -> tuple[Expression, ...]:
        found: list[Expression] = []
        if self._takes(")"):
            return ()
        while True:
            if function in ("is", "as", "ofType"):
                found.append(Literal(self._type_name()))
            else:
                found.append(self._expression(0))
            if not self._takes(","):
                self._expect(")")
                return tuple(found)

    def _term(self) -> Expression:
        kind, text = self._take()
        match kind:
            case "string" | "date":
                return Literal(text)
            case "number":
                return Literal(Decimal(text) if "." in text else int(text))
            case "variable":
                return Variable(text)
            case "name" if text in ("true", "false"):
                return Literal(text == "true")
            case "name" if text == "$this":
                return This()
            case "name" if not text.startswith("$"):
                return self._leading(text)
            case "word" if self._left[-1] == ("sign", "("):
                return self._leading(text)
            case "sign" if text == "(":
                found = self._expression(0)
                self._expect(")")
                return found
            case "sign" if text == "{":
                self._expect("}")
                return Empty()
        raise BadPathError(f"FHIRPath has {text!r} where a value is expected" if text else "FHIRPath ends too early")

    def _leading(self, name: str) -> Expression:
        if self._takes("("):
            return Call(This(), name, self._arguments(name))
        return Member(This(), name)
