"""What FHIRPath's functions and operators do, on plain Python lists.

A collection is a list (or tuple) of Nodes and plain values (str, int, Decimal, bool). Nothing here raises on odd
data: where FHIRPath § 4.5 speaks of an error (more than one item where one is expected), the result is empty, so
the invariant does not hold, as with the reference validator. True, False or None (empty) stand for a Boolean.

Source: FHIRPath 2.0.0 § 5 (functions), § 6 (operators); FHIR R4 § 2.9.1 (extension, resolve, hasValue, htmlChecks).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from schleuse.fhir.node import Node

Items = Sequence[Any]

_EXTENSIONS: Final = ("extension", "modifierExtension")
_DATE: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
)


def value_of(item: Any) -> Any:
    """The plain value of an item; None for an element without one."""
    if item.__class__ is Node:
        return None if item.name in _EXTENSIONS else item.value
    return item


def _one(items: Items) -> Any:
    """The plain value of a collection with exactly one item, else None."""
    return value_of(items[0]) if len(items) == 1 else None


def _text(items: Items) -> str | None:
    value = _one(items)
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        return value
    if isinstance(value, str):
        try:
            number = Decimal(value)
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    return None


def _whole(items: Items) -> int | None:
    number = _number(_one(items))
    return int(number) if number is not None and number == int(number) else None


# --- Navigation ---


def member(items: Items, name: str) -> list[Any]:
    """`items.name` for a collection that may hold plain values."""
    return [child for item in items if item.__class__ is Node for child in item.children.get(name, ())]


#: What may follow the base name of a choice element (FHIR R4 § 2.24.0.2, open type choice).
_CHOICE_TYPES: Final = (
    "Base64Binary Boolean Canonical Code Date DateTime Decimal Id Instant Integer Markdown Oid PositiveInt String Time "
    "UnsignedInt Uri Url Uuid Address Age Annotation Attachment CodeableConcept Coding ContactPoint Count Distance "
    "Duration HumanName Identifier Money Period Quantity Range Ratio Reference SampledData Signature Timing "
    "ContactDetail Contributor DataRequirement Expression ParameterDefinition RelatedArtifact TriggerDefinition "
    "UsageContext Dosage Meta"
)
_CHOICE_ENDINGS: Final = frozenset(_CHOICE_TYPES.split())


def choice(items: Items, name: str) -> list[Any]:
    """`items.name` where name may be a choice element: `value` finds valueCoding."""
    found: list[Any] = []
    for item in items:
        if item.__class__ is not Node:
            continue
        exact = item.children.get(name)
        if exact is not None:
            found += exact
            continue
        length = len(name)
        for other, nodes in item.children.items():
            if other.startswith(name) and other[length:] in _CHOICE_ENDINGS:
                found += nodes
                break
    return found


def url(items: Items) -> list[Any]:
    """`items.url`, which is an attribute of an extension and a child elsewhere."""
    found: list[Any] = []
    for item in items:
        if item.__class__ is Node:
            if item.name in _EXTENSIONS:
                found += [] if item.value is None else [item.value]
            else:
                found += item.children.get("url", ())
    return found


def extension(items: Items, wanted: str) -> list[Any]:
    """`items.extension(url)`"""
    return [
        found
        for item in items
        if item.__class__ is Node
        for found in item.children.get("extension", ())
        if found.value == wanted
    ]


def children(items: Items) -> list[Any]:
    """All direct children."""
    return [
        child
        for item in items
        if item.__class__ is Node
        for name, nodes in item.children.items()
        if name[0] != "#"
        for child in nodes
    ]


def descendants(items: Items) -> list[Any]:
    """All children, their children and so on, level by level."""
    found: list[Any] = []
    level = children(items)
    while level:
        found += level
        level = children(level)
    return found


# --- Types ---


def has_type(item: Any, name: str) -> bool:
    """Whether an item is of a type: a resource by its type, a choice element by the end of its name, a plain value by
    its class. An element whose name does not tell its type is of none."""
    if item.__class__ is Node:
        if item.type is not None:
            return bool(item.type == name) or name in ("Resource", "DomainResource")
        ending = name[0].upper() + name[1:]
        return ending in _CHOICE_ENDINGS and bool(item.name.endswith(ending)) and item.name != ending
    plain = name.lower()
    if isinstance(item, bool):
        return plain == "boolean"
    if isinstance(item, int):
        return plain == "integer"
    return plain == ("decimal" if isinstance(item, Decimal) else "string")


def is_choice_type(name: str) -> bool:
    """Whether a choice element can have this type, so that its name ends in it."""
    return name[:1].upper() + name[1:] in _CHOICE_ENDINGS


def is_resource_type(name: str) -> bool:
    """Whether only resources of just this type are of it."""
    return name[:1].isupper() and name not in _CHOICE_ENDINGS and name not in ("Resource", "DomainResource")


def of_type(items: Items, name: str) -> list[Any]:
    """`items.ofType(name)`, and `items as name`."""
    return [item for item in items if has_type(item, name)]


def is_type(items: Items, name: str) -> bool | None:
    """`items is name`"""
    return has_type(items[0], name) if len(items) == 1 else None


# --- Sets ---


def identity(item: Any) -> Any:
    """A hashable that is equal for equal items (FHIRPath § 6.1.1)."""
    if item.__class__ is not Node:
        return str(item).lower() if isinstance(item, bool) else item
    if item.value is not None and item.name not in _EXTENSIONS:
        return item.value  # a primitive: its id and extensions do not count
    inner = tuple((name, *map(identity, nodes)) for name, nodes in sorted(item.children.items()))
    return (item.value, item.type, inner)


def distinct(items: Items) -> list[Any]:
    """`items.distinct()`, keeping the first of equals."""
    first: dict[Any, Any] = {}
    for item in items:
        first.setdefault(identity(item), item)
    return list(first.values())


def is_distinct(items: Items) -> bool:
    """`items.isDistinct()`"""
    return len({identity(item) for item in items}) == len(items)


def union(left: Items, right: Items) -> list[Any]:
    """`left | right`"""
    return distinct([*left, *right])


def intersect(left: Items, right: Items) -> list[Any]:
    """`left.intersect(right)`"""
    wanted = {identity(item) for item in right}
    return distinct([item for item in left if identity(item) in wanted])


def exclude(left: Items, right: Items) -> list[Any]:
    """`left.exclude(right)`"""
    unwanted = {identity(item) for item in right}
    return [item for item in left if identity(item) not in unwanted]


def subset(left: Items, right: Items) -> bool:
    """`left.subsetOf(right)`"""
    return {identity(item) for item in left} <= {identity(item) for item in right}


def contained_in(left: Items, right: Items) -> bool | None:
    """`left in right`"""
    if len(left) != 1:
        return None
    wanted = identity(left[0])
    return any(identity(item) == wanted for item in right)


def index(items: Items, position: Items) -> Items:
    """`items[position]`"""
    at = _whole(position)
    return items[at : at + 1] if at is not None and at >= 0 else []


def skip(items: Items, count: Items) -> Items:
    """`items.skip(count)`"""
    number = _whole(count)
    return items if number is None or number <= 0 else items[number:]


def take(items: Items, count: Items) -> Items:
    """`items.take(count)`"""
    number = _whole(count)
    return [] if number is None or number <= 0 else items[:number]


# --- Booleans ---


def truth(items: Items) -> bool | None:
    """A collection where a Boolean is expected (FHIRPath § 4.5): one item that is no Boolean counts as true."""
    if len(items) != 1:
        return None
    value = value_of(items[0])
    return value is not False and value != "false"


def all_are(items: Items, wanted: bool) -> bool:
    """`allTrue()`, `allFalse()`"""
    return all(truth([item]) is wanted for item in items)


def any_is(items: Items, wanted: bool) -> bool:
    """`anyTrue()`, `anyFalse()`"""
    return any(truth([item]) is wanted for item in items)


def has_value(items: Items) -> bool:
    """`items.hasValue()`"""
    return _one(items) is not None


def html_checks(items: Items) -> bool:
    """`items.htmlChecks()`: there is something to read (txt-2); the reader has looked at the markup (txt-1)."""
    return all(item.value is not None for item in items if item.__class__ is Node)


# --- Comparison ---


def equal(left: Items, right: Items) -> bool | None:
    """`left = right`: None if one is empty."""
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    results = [_same(a, b) for a, b in zip(left, right, strict=True)]
    if False in results:
        return False
    return None if None in results else True


def _same(left: Any, right: Any) -> bool | None:
    a, b = value_of(left), value_of(right)
    if a is None or b is None:
        return bool(identity(left) == identity(right))
    if isinstance(a, bool) or isinstance(b, bool):
        return str(a).lower() == str(b).lower()
    if isinstance(a, int | Decimal) or isinstance(b, int | Decimal):
        return _number(a) == _number(b) if _number(a) is not None else False
    if a == b:
        return True
    if isinstance(a, str) and isinstance(b, str) and len(a) > 10 and len(b) > 10:
        moments = _DATE.fullmatch(a), _DATE.fullmatch(b)
        if moments[0] and moments[1]:
            order = _order(moments[0], moments[1])
            return None if order is None else order == 0
    return False


def compare(operator: str, left: Items, right: Items) -> bool | None:
    """`left < right` and the like; None if one is empty or the dates' precisions do not tell."""
    if len(left) != 1 or len(right) != 1:
        return None
    a, b = (_magnitude(items[0]) for items in (left, right))
    if a is None or b is None:
        return None
    order = _difference(a, b)
    if order is None:
        return None
    return {"<": order < 0, ">": order > 0, "<=": order <= 0, ">=": order >= 0}[operator]


def _magnitude(item: Any) -> Any:
    """What an item is compared by; of a Quantity its number."""
    value = value_of(item)
    if value is None and item.__class__ is Node:
        return value_of(next(iter(item.children.get("value", ())), None)) if "value" in item.children else None
    return value


def _difference(left: Any, right: Any) -> int | None:
    if isinstance(left, str) and isinstance(right, str):
        dates = _DATE.fullmatch(left), _DATE.fullmatch(right)
        if dates[0] and dates[1]:
            return _order(dates[0], dates[1])
    numbers = _number(left), _number(right)
    if numbers[0] is not None and numbers[1] is not None:
        return (numbers[0] > numbers[1]) - (numbers[0] < numbers[1])
    a, b = str(left), str(right)
    return (a > b) - (a < b)


def _order(left: re.Match[str], right: re.Match[str]) -> int | None:
    """-1, 0 or 1 for two dates or times; None if it hangs on a part that only one of them has (FHIRPath § 6.2)."""
    if left[4] and right[4] and (left[7] is None) == (right[7] is None):
        a, b = _minutes(left), _minutes(right)
        if a != b:
            return (a > b) - (a < b)
        parts = [(left[6], right[6])]
    else:
        parts = [(left[part], right[part]) for part in range(1, 7)]
    for one, other in parts:
        if one is None or other is None:
            return 0 if one is other is None else None
        x, y = Decimal(one), Decimal(other)
        if x != y:
            return (x > y) - (x < y)
    return 0


def _minutes(moment: re.Match[str]) -> int:
    """Minutes on one scale for all zones (every month counted with 31 days: only the order matters within a day)."""
    year, month, day, hour, minute = (int(moment[part]) for part in range(1, 6))
    zone = moment[7]
    offset = 0 if zone in (None, "Z") else int(zone[:3]) * 60 + int(zone[0] + zone[4:])
    return _day_number(year, month, day) * 1440 + hour * 60 + minute - offset


def _day_number(year: int, month: int, day: int) -> int:
    """Days on the Gregorian calendar (impossible days of a month just run on)."""
    shifted = year - (month <= 2)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + of_year


# --- Strings and numbers ---


def compile_pattern(text: str) -> re.Pattern[str]:
    """A pattern of an expression. Raises re.error.

    A closing `$` means the very end: Python's also matches before a last line feed.
    """
    closed = text[:-1] + r"\Z" if text.endswith("$") and not text.endswith(r"\$") else text
    return re.compile(closed, re.DOTALL)


def _foreign_pattern(text: str) -> re.Pattern[str] | None:
    """A pattern that stands in the document itself (a house number, KBV packages before 1.2.1).

    None if it is no pattern, or if endless search could hide in it: more than one repetition, or one and a group.
    """
    repetitions = sum(text.count(sign) for sign in "*+?{")
    if repetitions > (0 if "(" in text else 1) or len(text) > _MAX_FOREIGN_PATTERN:
        return None
    try:
        return compile_pattern(text)
    except (re.error, OverflowError, RecursionError):
        return None


_MAX_FOREIGN_PATTERN: Final = 100


def matches(items: Items, pattern: re.Pattern[str]) -> bool | None:
    """`items.matches('...')`: somewhere in the text (FHIRPath § 5.6.8, as the reference validator does it)."""
    text = _text(items)
    return None if text is None else pattern.search(text) is not None


def matches_foreign(items: Items, pattern: Items) -> bool | None:
    """`items.matches(pattern)` with a pattern from the document."""
    text, wanted = _text(items), _text(pattern)
    compiled = None if wanted is None else _foreign_pattern(wanted)
    return None if text is None or compiled is None else compiled.search(text) is not None


def starts_with(items: Items, prefix: Items) -> bool | None:
    """`items.startsWith(prefix)`"""
    text, wanted = _text(items), _text(prefix)
    return None if text is None or wanted is None else text.startswith(wanted)


def ends_with(items: Items, suffix: Items) -> bool | None:
    """`items.endsWith(suffix)`"""
    text, wanted = _text(items), _text(suffix)
    return None if text is None or wanted is None else text.endswith(wanted)


def contains(items: Items, part: Items) -> bool | None:
    """`items.contains(part)`"""
    text, wanted = _text(items), _text(part)
    return None if text is None or wanted is None else wanted in text


def to_string(items: Items) -> list[Any]:
    """`items.toString()`"""
    value = _one(items)
    if value is None:
        return []
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def to_integer(items: Items) -> list[Any]:
    """`items.toInteger()`"""
    value = _one(items)
    if isinstance(value, bool):
        return [int(value)]
    if isinstance(value, str) and not re.fullmatch(r"[+-]?\d+", value, re.ASCII):
        return []
    return [] if value is None else [int(value)]


def to_decimal(items: Items) -> list[Any]:
    """`items.toDecimal()`"""
    number = _number(_one(items))
    return [] if number is None else [Decimal(number)]


def length(items: Items) -> list[Any]:
    """`items.length()`"""
    text = _text(items)
    return [] if text is None else [len(text)]


def substring(items: Items, start: Items, count: Items | None = None) -> list[Any]:
    """`items.substring(start, count)`: empty if start is outside."""
    text, begin = _text(items), _whole(start)
    if text is None or begin is None or not 0 <= begin < len(text):
        return []
    if count is None:
        return [text[begin:]]
    size = _whole(count)
    return [] if size is None else [text[begin : begin + max(size, 0)]]


def index_of(items: Items, part: Items) -> list[Any]:
    """`items.indexOf(part)`"""
    text, wanted = _text(items), _text(part)
    return [] if text is None or wanted is None else [text.find(wanted)]


def replace(items: Items, old: Items, new: Items) -> list[Any]:
    """`items.replace(old, new)`"""
    text, wanted, other = _text(items), _text(old), _text(new)
    return [] if text is None or wanted is None or other is None else [text.replace(wanted, other)]


def replace_matches(items: Items, pattern: Items, new: Items) -> list[Any]:
    """`items.replaceMatches(pattern, new)`, without back references."""
    text, wanted, other = _text(items), _text(pattern), _text(new)
    if text is None or wanted is None or other is None:
        return []
    compiled = _foreign_pattern(wanted)
    return [] if compiled is None else [compiled.sub(lambda _: other, text)]


def lower(items: Items) -> list[Any]:
    """`items.lower()`"""
    text = _text(items)
    return [] if text is None else [text.lower()]


def upper(items: Items) -> list[Any]:
    """`items.upper()`"""
    text = _text(items)
    return [] if text is None else [text.upper()]


def concatenate(left: Items, right: Items) -> list[Any]:
    """`left & right`: an empty side counts as an empty text."""
    texts = [to_string(side) for side in (left, right)]
    return ["".join(text[0] if text else "" for text in texts)]


def arithmetic(operator: str, left: Items, right: Items) -> list[Any]:
    """`left + right` and the like; `+` joins texts."""
    a, b = _one(left), _one(right)
    if a is None or b is None:
        return []
    if operator == "+" and isinstance(a, str) and isinstance(b, str) and not (_both_nodes(left, right)):
        return [a + b]
    x, y = _number(a), _number(b)
    if x is None or y is None:
        return [a + b] if operator == "+" and isinstance(a, str) and isinstance(b, str) else []
    return _calculate(operator, x, y)


def _both_nodes(left: Items, right: Items) -> bool:
    """Two elements: whether they are numbers is not known from their types, so their texts decide."""
    return left[0].__class__ is Node and right[0].__class__ is Node


def _calculate(operator: str, x: int | Decimal, y: int | Decimal) -> list[Any]:
    if operator in ("/", "div", "mod") and y == 0:
        return []
    match operator:
        case "+":
            return [x + y]
        case "-":
            return [x - y]
        case "*":
            return [x * y]
        case "/":
            return [Decimal(x) / Decimal(y)]
        case "div":
            return [int(Decimal(x) / Decimal(y))]
        case _:
            return [x - y * int(Decimal(x) / Decimal(y))]


def negative(items: Items) -> list[Any]:
    """`-items`"""
    number = _number(_one(items))
    return [] if number is None else [-number]


def contained_are_used(resource: Node) -> bool:
    """dom-3: every contained resource is referred to from outside, or refers to its container."""
    contained = resource.children.get("contained")
    if not contained:
        return True
    referred = {item.value for item in descendants([resource]) if item.value is not None and item.value.startswith("#")}
    return all(
        "#" + (inner.text("id") or "") in referred or any(item.value == "#" for item in descendants([inner]))
        for inner in contained
    )
