"""Tables of names that stand in calls: metrics, counted events, log lines. The source is read, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import schleuse
from schleuse.mail.outbound_plan import Trouble
from schleuse.mail.pop3_listener import Signal
from tools import words
from tools.markdown import code, same_keys, table

SOURCE = Path(schleuse.__path__[0])
_FAMILIES = {"Counter": "counter", "GaugeMetricFamily": "gauge", "Gauge": "gauge", "Histogram": "histogram"}
_LEVELS = ("info", "warning", "error", "exception")


def _calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(SOURCE), node


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def families() -> dict[str, tuple[str, str, list[str]]]:
    """name -> (type, help text, labels) of every metric."""
    found = {}
    for _path, call in _calls():
        kind = _FAMILIES.get(_name(call.func))
        name = _text(call.args[0]) if call.args else None
        if kind and name and name.startswith("schleuse_"):
            labels = [
                node for node in [*call.args[2:], *(k.value for k in call.keywords)] if isinstance(node, ast.List)
            ]
            named = [text for one in labels for item in one.elts if (text := _text(item))]
            shown = f"{name}_total" if kind == "counter" else name
            found[shown] = (kind, _text(call.args[1]) or "", named)
    return found


def metrics() -> str:
    """Every metric of both roles."""
    same_keys("METRICS", words.METRICS, families())
    return table(
        ("metric", "type", "labels", "is", "look when"),
        [
            (code(name), kind, ", ".join(code(label) for label in labels) or "none", text, words.METRICS[name])
            for name, (kind, text, labels) in families().items()
        ],
    )


def counted() -> list[str]:
    """Every value of the label `event`."""
    found = {
        text
        for _path, call in _calls()
        if ast.unparse(call.func).endswith(("_parts.count", "_count")) and len(call.args) == 1
        for branch in _branches(call.args[0])
        if (text := _text(branch))
    }
    return sorted({*found, *(one.value for one in Signal), *(one.value for one in Trouble)})


def _branches(node: ast.expr) -> list[ast.expr]:
    """Both sides of `a if condition else b`."""
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]


def events() -> str:
    """Every event that is counted."""
    same_keys("EVENTS", words.EVENTS, counted())
    return table(("event", "counted when"), [(code(name), words.EVENTS[name]) for name in counted()])


def logged() -> dict[str, tuple[str, list[str]]]:
    """event -> (levels, keys) of every log line."""
    found: dict[str, tuple[set[str], dict[str, None]]] = {}
    for _path, call in _calls():
        if not (isinstance(call.func, ast.Attribute) and call.func.attr in _LEVELS and call.args):
            continue
        if not ast.unparse(call.func.value).lower().endswith("log"):
            continue
        for name in _event_names(call.args[0]):
            levels, keys = found.setdefault(name, (set(), {}))
            levels.add("error" if call.func.attr == "exception" else call.func.attr)
            keys.update(dict.fromkeys(k.arg for k in call.keywords if k.arg))
    return {name: (", ".join(sorted(levels)), list(keys)) for name, (levels, keys) in sorted(found.items())}


def _event_names(node: ast.expr) -> list[str]:
    """The names behind an argument; those that are made at run time are named in words.MADE_NAMES."""
    text = _text(node)
    return [text] if text else words.MADE_NAMES[ast.unparse(node)]


def log_events() -> str:
    """Every event of the log."""
    lines = logged()
    same_keys("LOG", words.LOG, lines)
    return table(
        ("event", "level", "keys", "means"),
        [(code(name), level, ", ".join(keys), words.LOG[name]) for name, (level, keys) in lines.items()],
    )
