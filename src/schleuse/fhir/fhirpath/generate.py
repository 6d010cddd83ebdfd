"""FHIRPath syntax trees to Python statements.

Three-valued logic (true, false, empty) needs no third value at run time: a condition is generated either as "is true"
or as "is false", and each of these is a plain Python Boolean. `a implies b` is true if `a` is false or `b` is true, and
false if `a` is true and `b` is false; neither means empty (FHIRPath § 6.5). So `and`, `or` and `implies` become
Python's own short circuits, without a call.

What several invariants of one element look up in common is looked up once (`Generator.prepare`).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from schleuse.fhir.fhirpath import functions
from schleuse.fhir.fhirpath.syntax import (
    BadPathError,
    Binary,
    Call,
    Empty,
    Expression,
    Index,
    Literal,
    Member,
    Negative,
    This,
    Variable,
)

#: Functions from items to items that take the values of their arguments: FHIRPath name -> (our name, arities).
_ITEM_FUNCTIONS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "toString": ("to_string", (0,)),
    "toInteger": ("to_integer", (0,)),
    "toDecimal": ("to_decimal", (0,)),
    "length": ("length", (0,)),
    "substring": ("substring", (1, 2)),
    "indexOf": ("index_of", (1,)),
    "replace": ("replace", (2,)),
    "replaceMatches": ("replace_matches", (2,)),
    "lower": ("lower", (0,)),
    "upper": ("upper", (0,)),
    "distinct": ("distinct", (0,)),
    "children": ("children", (0,)),
    "descendants": ("descendants", (0,)),
    "union": ("union", (1,)),
    "intersect": ("intersect", (1,)),
    "exclude": ("exclude", (1,)),
    "skip": ("skip", (1,)),
    "take": ("take", (1,)),
}

#: Functions from items to a Boolean: FHIRPath name -> (call of {0} the items and {1} the argument, arity, never empty).
_TRUTH_FUNCTIONS: Final[dict[str, tuple[str, int, bool]]] = {
    "hasValue": ("F.has_value({0})", 0, True),
    "isDistinct": ("F.is_distinct({0})", 0, True),
    "allTrue": ("F.all_are({0}, True)", 0, True),
    "allFalse": ("F.all_are({0}, False)", 0, True),
    "anyTrue": ("F.any_is({0}, True)", 0, True),
    "anyFalse": ("F.any_is({0}, False)", 0, True),
    "subsetOf": ("F.subset({0}, {1})", 1, True),
    "supersetOf": ("F.subset({1}, {0})", 1, True),
    "startsWith": ("F.starts_with({0}, {1})", 1, False),
    "endsWith": ("F.ends_with({0}, {1})", 1, False),
    "contains": ("F.contains({0}, {1})", 1, False),
    "htmlChecks": ("F.html_checks({0})", 0, True),
}

_CONDITIONS: Final = {"exists", "empty", "not", "all", "is", "matches", "implies", *_TRUTH_FUNCTIONS}
_LOGIC: Final = {"and", "or", "xor", "implies", "=", "!=", "<", ">", "<=", ">=", "in", "contains"}
_ENVIRONMENT: Final = {
    "resource": "[r]",
    "rootResource": "[x.container(r)]",
    "ucum": "['http://unitsofmeasure.org']",
    "sct": "['http://snomed.info/sct']",
    "loinc": "['http://loinc.org']",
}
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclasses.dataclass(eq=False)
class _Block:
    """Statements that run together. What an outer block has looked up is known in the inner ones."""

    outer: _Block | None = None
    lines: list[str] = dataclasses.field(default_factory=list)
    known: dict[str, str] = dataclasses.field(default_factory=dict)

    def find(self, key: str) -> str | None:
        block: _Block | None = self
        while block is not None:
            if key in block.known:
                return block.known[key]
            block = block.outer
        return None


def indent(lines: Iterable[str]) -> list[str]:
    """Lines one level deeper."""
    return ["    " + line for line in lines]


class Generator:
    """Makes the statements of one Python function, which is called with `n` (the focus, a Node), `x` (what the check
    knows, with `resolve` and `container`) and `r` (the resource that holds the focus), and finds the module of
    FHIRPath's functions as `F`.

    choices: base names of all choice elements ("value", "onset"), so that `onset` finds onsetPeriod.
    focus_type: type of the focus where its element definition tells it ("dateTime"), else "".
    focus_is_resource: the focus is the resource itself, so that `%resource` is `%context`.
    constant: gives a name to a value that the function needs as a global (a compiled pattern).
    """

    def __init__(
        self,
        *,
        choices: frozenset[str],
        constant: Callable[[re.Pattern[str]], str],
        focus_type: str = "",
        focus_is_resource: bool = False,
    ) -> None:
        self._choices = choices
        self._constant = constant
        self._focus_type = focus_type
        self._same_as_focus = {"context", "resource"} if focus_is_resource else {"context"}
        self._root = _Block()
        self._block = self._root
        self._shared: frozenset[str] = frozenset()
        self._count = 0

    @property
    def lines(self) -> list[str]:
        """The statements so far."""
        return self._root.lines

    def prepare(self, expressions: Iterable[Expression]) -> None:
        """Tell all expressions before the first is generated: what occurs twice is looked up once, and first."""
        times = Counter(
            repr(self._rebased(part)) for whole in expressions for part in _from_the_focus(whole, self._same_as_focus)
        )
        self._shared = frozenset(key for key, count in times.items() if count > 1)

    def unless_true(self, expression: Expression, then: str) -> None:
        """Add: if the expression is not true, run the statement `then`."""
        outer, self._block = self._block, _Block(self._block)
        condition = self._truth(expression, "n", True)
        self._emit(f"if not ({condition}):")
        self._block.lines += indent([then])
        outer.lines += self._block.lines
        self._block = outer

    def value(self, expression: Expression) -> str:
        """Add what the expression needs; gives Python source of its items."""
        return self._items(expression, "n")

    # --- Names and blocks ---

    def _name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def _emit(self, line: str) -> None:
        self._block.lines.append(line)

    def _hold(self, source: str) -> str:
        """A variable that holds the source's value."""
        if _PLAIN_NAME.fullmatch(source):
            return source
        name = self._name()
        self._emit(f"{name} = {source}")
        return name

    def _inside(self, make: Callable[[], str]) -> tuple[list[str], str]:
        """What `make` generates, as statements of an inner block and the source of its result."""
        outer = self._block
        inner = self._block = _Block(outer)
        try:
            return inner.lines, make()
        finally:
            self._block = outer

    # --- Items ---

    def _items(self, e: Expression, focus: str) -> str:
        """Source of a list of items. Lookups that are known or shared come from a variable."""
        if not isinstance(e, Member | Call | Index):
            return self._plain_items(e, focus)
        inner_focus = focus
        if _starts_at_variable(e, self._same_as_focus):
            e, focus = self._rebased(e), "n"
        key = f"{focus} {e!r}"
        known = self._block.find(key) or (self._root.known.get(f"% {e!r}") if focus != "n" else None)
        if known is not None:
            return known
        outside = inner_focus != focus or (focus != "n" and _starts_at_variable(e, {"resource"}))
        if outside or (focus == "n" and repr(e) in self._shared):
            # It hangs on the outermost focus alone, so it can be looked up before all conditions and loops.
            inner, self._block = self._block, self._root
            name = self._hold(self._plain_items(e, focus))
            self._block = inner
            self._root.known[key if focus == "n" else f"% {e!r}"] = name
            return name
        source = self._plain_items(e, focus)
        if _PLAIN_NAME.fullmatch(source):
            self._block.known[key] = source
        return source

    def _held_items(self, e: Expression, focus: str) -> str:
        name = self._hold(self._items(e, focus))
        if isinstance(e, Member | Call | Index):
            self._block.known[f"{focus} {e!r}"] = name
        return name

    def _rebased(self, e: Expression) -> Expression:
        """The same lookup, starting at the outermost focus instead of at the variable that names it."""
        match e:
            case Member(base, _) | Call(base, _, _) | Index(base, _):
                return dataclasses.replace(e, base=self._rebased(base))
            case Variable(name) if name in self._same_as_focus:
                return This()
            case _:
                return e

    def _plain_items(self, e: Expression, focus: str) -> str:
        match e:
            case This():
                return f"[{focus}]"
            case Literal(value):
                return f"[{value!r}]" if isinstance(value, str | int) else f"[Decimal('{value}')]"
            case Empty():
                return "[]"
            case Variable("context"):
                return "[n]"
            case Variable(name):
                if name not in _ENVIRONMENT:
                    raise BadPathError(f"FHIRPath variable %{name} is not known")
                return _ENVIRONMENT[name]
            case Member():
                return self._member(e, focus)
            case Index(base, position):
                return self._index(base, position, focus)
            case Negative(operand):
                return f"F.negative({self._items(operand, focus)})"
            case Binary(operator, left, right) if operator not in _LOGIC:
                return self._calculation(operator, left, right, focus)
            case Call() if e.name not in _CONDITIONS:
                return self._call(e, focus)
            case _:
                return self._boolean_items(e, focus)

    def _boolean_items(self, e: Expression, focus: str) -> str:
        """A Boolean where a list is expected: [True], [False] or []."""
        true, false = self._truth(e, focus, True), self._truth(e, focus, False)
        return f"([True] if {true} else [False] if {false} else [])"

    def _index(self, base: Expression, position: Expression, focus: str) -> str:
        items = self._items(base, focus)
        match position:
            case Literal(int(at)):
                return f"{self._parenthesised(items)}[{at}:{at + 1}]"
            case _:
                return f"F.index({items}, {self._items(position, focus)})"

    @staticmethod
    def _parenthesised(source: str) -> str:
        return source if _PLAIN_NAME.fullmatch(source) or source[0] in "([" else f"({source})"

    def _calculation(self, operator: str, left: Expression, right: Expression, focus: str) -> str:
        a, b = self._items(left, focus), self._items(right, focus)
        match operator:
            case "|":
                return f"F.union({a}, {b})"
            case "&":
                return f"F.concatenate({a}, {b})"
            case _:
                return f"F.arithmetic({operator!r}, {a}, {b})"

    def _member(self, e: Member, focus: str) -> str:
        """A chain of names becomes one comprehension over what its longest known beginning gives."""
        names: list[str] = []
        base: Expression = e
        while isinstance(base, Member):
            names.insert(0, base.name)
            base = base.base
            if self._block.find(f"{focus} {base!r}") or (focus == "n" and repr(base) in self._shared):
                break
        if isinstance(base, This) or (isinstance(base, Variable) and base.name in ("context", "resource")):
            start = {"context": "n", "resource": "r"}[base.name] if isinstance(base, Variable) else focus
            return self._from_node(start, names)
        return self._from_items(self._items(base, focus), names, nodes=_gives_nodes(base))

    def _is_direct(self, name: str) -> bool:
        return name not in self._choices and name != "url"

    def _from_node(self, node: str, names: list[str]) -> str:
        first, rest = names[0], names[1:]
        if first[0].isupper():  # a type name as the start of a path: Patient.name
            start = f"F.of_type([{node}], {first!r})"
        elif self._is_direct(first):
            start = f"{node}.children.get({first!r}, ())"
        else:
            start = self._choosing(first, f"[{node}]")
        return self._from_items(start, rest, nodes=first != "url") if rest else start

    def _from_items(self, items: str, names: list[str], *, nodes: bool) -> str:
        for position, name in enumerate(names):
            if not self._is_direct(name):
                before = self._from_items(items, names[:position], nodes=nodes) if position else items
                chosen = self._choosing(name, before)
                rest = names[position + 1 :]
                return self._from_items(chosen, rest, nodes=name != "url") if rest else chosen
        steps = [self._name() for _ in range(len(names) + 1)]
        loops = f"for {steps[0]} in {items}" + ("" if nodes else f" if {steps[0]}.__class__ is Node")
        for before, after, name in zip(steps, steps[1:], names, strict=False):
            loops += f" for {after} in {before}.children.get({name!r}, ())"
        return f"[{steps[-1]} {loops}]"

    def _choosing(self, name: str, items: str) -> str:
        return f"F.url({items})" if name == "url" else f"F.choice({items}, {name!r})"

    def _call(self, e: Call, focus: str) -> str:
        match e.name, e.arguments:
            case "where", (criterion,):
                return self._where(e.base, criterion, focus)
            case "select", (projection,):
                return self._select(e.base, projection, focus)
            case "repeat", (projection,):
                return self._repeat(e.base, projection, focus)
            case "extension", (Literal(str(url)),):
                return f"F.extension({self._items(e.base, focus)}, {url!r})"
            case "resolve", ():
                return f"x.resolve({self._items(e.base, focus)})"
            case ("first" | "tail" | "last") as name, ():
                part = {"first": "[:1]", "tail": "[1:]", "last": "[-1:]"}[name]
                return self._parenthesised(self._items(e.base, focus)) + part
            case "single", ():
                held = self._hold(self._items(e.base, focus))
                return f"({held} if len({held}) == 1 else [])"
            case "count", ():
                return f"[len({self._items(e.base, focus)})]"
            case (("as" | "ofType"), (Literal(str(name)),)):
                if isinstance(e.base, This) and focus == "n" and self._focus_type == name:
                    return "[n]"
                if isinstance(e.base, Member) and e.base.name in self._choices and functions.is_choice_type(name):
                    return self._items(Member(e.base.base, e.base.name + name[0].upper() + name[1:]), focus)
                return f"F.of_type({self._items(e.base, focus)}, {name!r})"
            case "trace", (_, *_):
                return self._items(e.base, focus)
            case "iif", (condition, *branches) if 1 <= len(branches) <= 2:
                return self._iif(condition, branches, focus)
            case "combine", (other,):
                return f"[*{self._items(e.base, focus)}, *{self._items(other, focus)}]"
            case name, arguments if name in _ITEM_FUNCTIONS:
                ours, arities = _ITEM_FUNCTIONS[name]
                if len(arguments) not in arities:
                    raise BadPathError(f"FHIRPath function {name}() has {len(arguments)} arguments")
                sources = [self._items(part, focus) for part in (e.base, *arguments)]
                return f"F.{ours}({', '.join(sources)})"
        raise BadPathError(f"FHIRPath function {e.name}() with {len(e.arguments)} arguments is not known")

    def _where(self, base: Expression, criterion: Expression, focus: str) -> str:
        items = self._held_items(base, focus)
        item = self._name()
        lines, condition = self._inside(lambda: self._truth(criterion, item, True))
        result = self._name()
        if not lines:
            self._emit(f"{result} = [{item} for {item} in {items} if {condition}]")
            return result
        self._emit(f"{result} = []")
        self._emit(f"for {item} in {items}:")
        self._block.lines += indent([*lines, f"if {condition}:", f"    {result}.append({item})"])
        return result

    def _select(self, base: Expression, projection: Expression, focus: str) -> str:
        items = self._held_items(base, focus)
        item, result = self._name(), self._name()
        lines, projected = self._inside(lambda: self._items(projection, item))
        self._emit(f"{result} = []")
        self._emit(f"for {item} in {items}:")
        self._block.lines += indent([*lines, f"{result} += {projected}"])
        return result

    def _repeat(self, base: Expression, projection: Expression, focus: str) -> str:
        level, item, result = self._name(), self._name(), self._name()
        self._emit(f"{result} = []")
        self._emit(f"{level} = list({self._items(base, focus)})")
        lines, projected = self._inside(lambda: self._items(projection, item))
        self._emit(f"while {level}:")
        self._block.lines += indent(
            [
                f"{item} = {level}.pop(0)",
                *lines,
                f"for {item} in {projected}:",
                f"    if not F.contained_in([{item}], {result}):",
                f"        {result}.append({item})",
                f"        {level}.append({item})",
            ]
        )
        return result

    def _iif(self, condition: Expression, branches: list[Expression], focus: str) -> str:
        result = self._name()
        self._emit(f"if {self._truth(condition, focus, True)}:")
        for position, branch in enumerate([*branches, Empty()][:2]):
            lines, source = self._inside(lambda branch=branch: self._items(branch, focus))  # type: ignore[misc]
            self._block.lines += [*(["else:"] if position else []), *indent([*lines, f"{result} = {source}"])]
        return result

    # --- Conditions ---

    def _truth(self, e: Expression, focus: str, wanted: bool) -> str:
        """Source of a Python Boolean: whether the expression is true (wanted) or is false (not wanted)."""
        match e:
            case Literal(bool(value)):
                return str(value is wanted)
            case Binary("and", left, right):
                return self._junction([left, right], focus, wanted, "and" if wanted else "or")
            case Binary("or"):
                return self._disjunction(e, focus, wanted)
            case Binary("implies", left, right) | Call(left, "implies", (right,)):
                sides = [(left, not wanted), (right, wanted)]
                return self._short_circuit(sides, focus, "or" if wanted else "and")
            case Binary("xor", left, right):
                return self._exclusive(left, right, focus, wanted)
            case Binary("=" | "!=" as operator, left, right):
                return self._equality(left, right, focus, wanted is (operator == "="))
            case Binary("<" | ">" | "<=" | ">=" as operator, left, right):
                a, b = self._items(left, focus), self._items(right, focus)
                return f"F.compare({operator!r}, {a}, {b}) is {wanted}"
            case Binary("in", left, right) | Binary("contains", right, left):
                return f"F.contained_in({self._items(left, focus)}, {self._items(right, focus)}) is {wanted}"
            case Call() if e.name in _CONDITIONS:
                return self._condition(e, focus, wanted)
            case _:
                return f"F.truth({self._items(e, focus)}) is {wanted}"

    def _junction(self, sides: list[Expression], focus: str, wanted: bool, word: str) -> str:
        return self._short_circuit([(side, wanted) for side in sides], focus, word)

    def _short_circuit(self, sides: list[tuple[Expression, bool]], focus: str, word: str) -> str:
        """`first word second`; the second side's statements run only if they must."""
        (first, first_wanted), (second, second_wanted) = sides
        left = self._truth(first, focus, first_wanted)
        return self._second(left, lambda: self._truth(second, focus, second_wanted), word)

    def _second(self, left: str, make: Callable[[], str], word: str) -> str:
        lines, right = self._inside(make)
        if not lines:
            return f"({left} {word} {right})"
        result = self._name()
        self._emit(f"{result} = {left}")
        self._emit(f"if {'' if word == 'and' else 'not '}{result}:")
        self._block.lines += indent([*lines, f"{result} = {right}"])
        return result

    def _disjunction(self, e: Expression, focus: str, wanted: bool) -> str:
        """`or`; `p = 'a' or p = 'b'` on one path becomes one look into a set."""
        texts: dict[str, list[str]] = {}
        paths: dict[str, Expression] = {}
        others: list[Expression] = []
        for side in _sides_of_or(e):
            match side:
                case Binary("=", path, Literal(str(text))):
                    texts.setdefault(repr(path), []).append(text)
                    paths[repr(path)] = path
                case _:
                    others.append(side)
        tests = [_OneOf(paths[key], tuple(found)) for key, found in texts.items()]
        return self._queue([*tests, *others], focus, wanted)

    def _queue(self, queue: list[Expression | _OneOf], focus: str, wanted: bool) -> str:
        """Any is true (wanted), or all are false (not wanted)."""
        head, *rest = queue
        left = self._one_of(head, focus, wanted) if isinstance(head, _OneOf) else self._truth(head, focus, wanted)
        if not rest:
            return left
        return self._second(left, lambda: self._queue(rest, focus, wanted), "or" if wanted else "and")

    def _one_of(self, test: _OneOf, focus: str, wanted: bool) -> str:
        if len(test.texts) == 1:
            return self._text_equality(test.path, test.texts[0], focus, wanted)
        items = self._held_items(test.path, focus)
        same = f"len({items}) == 1 and {self._value(items, test.path)} in {{{', '.join(map(repr, test.texts))}}}"
        return f"({same})" if wanted else f"({items} and not ({same}))"

    @staticmethod
    def _value(items: str, path: Expression) -> str:
        return f"{items}[0].value" if _gives_nodes(path) else f"F.value_of({items}[0])"

    def _exclusive(self, left: Expression, right: Expression, focus: str, wanted: bool) -> str:
        a, b = self._hold(self._truth(left, focus, True)), self._hold(self._truth(left, focus, False))
        c, d = self._hold(self._truth(right, focus, True)), self._hold(self._truth(right, focus, False))
        return f"({a} and {d} or {b} and {c})" if wanted else f"({a} and {c} or {b} and {d})"

    def _equality(self, left: Expression, right: Expression, focus: str, wanted: bool) -> str:
        match right:
            case Literal(str(text)):
                return self._text_equality(left, text, focus, wanted)
            case _ if _is_condition(left) and _is_condition(right):
                return self._exclusive(left, right, focus, not wanted)
            case _:
                return f"F.equal({self._items(left, focus)}, {self._items(right, focus)}) is {wanted}"

    def _text_equality(self, path: Expression, text: str, focus: str, wanted: bool) -> str:
        items = self._held_items(path, focus)
        if len(text) > 10 and text[:4].isdigit():  # may be a time: equal in another zone
            return f"F.equal({items}, [{text!r}]) is {wanted}"
        same = f"len({items}) == 1 and {self._value(items, path)} == {text!r}"
        return f"({same})" if wanted else f"({items} and not ({same}))"

    def _condition(self, e: Call, focus: str, wanted: bool) -> str:
        match e.name, e.arguments:
            case "exists", ():
                return self._any_items(e.base, focus, wanted)
            case "empty", ():
                return self._any_items(e.base, focus, not wanted)
            case "exists", (criterion,):
                return self._any_items(Call(e.base, "where", (criterion,)), focus, wanted)
            case "not", ():
                return self._truth(e.base, focus, not wanted)
            case "all", (criterion,):
                return self._all(e.base, criterion, focus, wanted)
            case "is", (Literal(str(name)),):
                return self._is(e.base, name, focus, wanted)
            case "matches", (Literal(str(pattern)),):
                return f"F.matches({self._items(e.base, focus)}, {self._pattern(pattern)}) is {wanted}"
            case "matches", (pattern,):
                items = self._items(e.base, focus)
                return f"F.matches_foreign({items}, {self._items(pattern, focus)}) is {wanted}"
            case name, arguments if name in _TRUTH_FUNCTIONS and len(arguments) == _TRUTH_FUNCTIONS[name][1]:
                form, _, never_empty = _TRUTH_FUNCTIONS[name]
                call = form.format(*(self._items(part, focus) for part in (e.base, *arguments)))
                return f"{'' if wanted else 'not '}{call}" if never_empty else f"{call} is {wanted}"
        raise BadPathError(f"FHIRPath function {e.name}() with {len(e.arguments)} arguments is not known")

    def _any_items(self, e: Expression, focus: str, wanted: bool) -> str:
        """Whether there are items. A Boolean is an item even if it is false."""
        items = self._items(e, focus)
        return f"bool({items})" if wanted else f"not {items}"

    def _pattern(self, text: str) -> str:
        try:
            return self._constant(functions.compile_pattern(text))
        except re.error as cause:
            raise BadPathError(f"FHIRPath has a pattern that is none: {cause.msg}") from cause

    def _is(self, base: Expression, name: str, focus: str, wanted: bool) -> str:
        if isinstance(base, This) and focus == "n" and self._focus_type == name:
            return str(wanted)
        items = self._items(base, focus)
        if functions.is_resource_type(name) and _gives_nodes(base):
            same = "==" if wanted else "!="
            return f"(len(w := {items}) == 1 and w[0].type {same} {name!r})"
        return f"F.is_type({items}, {name!r}) is {wanted}"

    def _all(self, base: Expression, criterion: Expression, focus: str, wanted: bool) -> str:
        """`all()` is never empty; an item whose criterion is empty counts as false, as in the reference validator."""
        items = self._held_items(base, focus)
        item, result = self._name(), self._name()
        lines, condition = self._inside(lambda: self._truth(criterion, item, True))
        self._emit(f"{result} = True")
        self._emit(f"for {item} in {items}:")
        self._block.lines += indent([*lines, f"if not ({condition}):", f"    {result} = False", "    break"])
        return result if wanted else f"not {result}"


def _is_condition(e: Expression) -> bool:
    """Whether an expression is a Boolean by its form."""
    match e:
        case Literal(bool()):
            return True
        case Binary(operator):
            return operator in _LOGIC
        case Call():
            return e.name in _CONDITIONS
        case _:
            return False


@dataclasses.dataclass(frozen=True)
class _OneOf:
    """`path = 'a' or path = 'b'`"""

    path: Expression
    texts: tuple[str, ...]


def _sides_of_or(e: Expression) -> list[Expression]:
    match e:
        case Binary("or", left, right):
            return [*_sides_of_or(left), *_sides_of_or(right)]
        case _:
            return [e]


#: Functions whose argument has another focus than the function itself.
_OWN_FOCUS: Final = {"where", "select", "all", "exists", "repeat"}


def _from_the_focus(e: Expression, variables: set[str]) -> Iterator[Expression]:
    """All lookups within an expression that start from the outermost focus and from nothing else."""
    if isinstance(e, Member | Call | Index) and (_starts_at_focus(e) or _starts_at_variable(e, variables)):
        yield e
    for part in _parts(e):
        yield from _from_the_focus(part, variables)
    if isinstance(e, Call) and e.name in _OWN_FOCUS:  # there, only variables lead to the outermost focus
        for argument in e.arguments:
            yield from _from_variables(argument, variables)


def _from_variables(e: Expression, variables: set[str]) -> Iterator[Expression]:
    if isinstance(e, Member | Call | Index) and _starts_at_variable(e, variables):
        yield e
    for part in [*_parts(e), *(e.arguments if isinstance(e, Call) and e.name in _OWN_FOCUS else ())]:
        yield from _from_variables(part, variables)


def _parts(e: Expression) -> list[Expression]:
    match e:
        case Member(base, _):
            return [base]
        case Call(base, name, arguments):
            return [base, *(() if name in _OWN_FOCUS else arguments)]
        case Index(base, position):
            return [base, position]
        case Binary(_, left, right):
            return [left, right]
        case Negative(operand):
            return [operand]
        case _:
            return []


def _starts_at_focus(e: Expression) -> bool:
    while isinstance(e, Member | Call | Index):
        if isinstance(e, Call) and (e.name in _CONDITIONS or e.name == "iif"):
            return False
        e = e.base
    return isinstance(e, This)


def _starts_at_variable(e: Expression, variables: set[str]) -> bool:
    """A lookup that starts at a variable (`%resource`) and asks nothing of the focus."""
    while isinstance(e, Member | Call | Index):
        asked = e.arguments if isinstance(e, Call) else (e.position,) if isinstance(e, Index) else ()
        if isinstance(e, Call) and (e.name in _CONDITIONS or e.name == "iif"):
            return False
        own_focus = isinstance(e, Call) and e.name in _OWN_FOCUS
        if not own_focus and not all(isinstance(part, Literal) for part in asked):
            return False
        e = e.base
    return isinstance(e, Variable) and e.name in variables


def _gives_nodes(e: Expression) -> bool:
    """Whether all items of an expression are surely elements, not plain values."""
    match e:
        case This():
            return True
        case Variable(name):
            return name in ("context", "resource", "rootResource")
        case Member(base, name):
            return name != "url"
        case Index(base, _):
            return _gives_nodes(base)
        case Call(_, "extension" | "resolve" | "children" | "descendants", _):
            return True
        case Call(base, "where" | "first" | "last" | "tail" | "skip" | "take" | "as" | "ofType" | "distinct", _):
            return _gives_nodes(base)
        case _:
            return False
