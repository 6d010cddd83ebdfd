"""Tables of what others see of us: errors, settings, commands."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import cyclopts
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import schleuse
from schleuse import cli, config
from schleuse.eau.codes import CODES
from schleuse.eau.document import Kind
from schleuse.eau.feed_errors import STATUS
from schleuse.errors import Error
from schleuse.mail.smtp_replies import SMTP_REPLY
from tools import words
from tools.markdown import code, first_sentence, same_keys, table

KINDS: tuple[type[Error], ...] = tuple(cli.EXIT_CODES)


def import_everything() -> None:
    """Load every module of the package, so that every error class exists."""
    for module in pkgutil.walk_packages(schleuse.__path__, "schleuse."):
        if not module.name.endswith("__main__") and ".migrations" not in module.name:
            importlib.import_module(module.name)


def error_classes() -> list[type[Error]]:
    """Every error of ours but the base and the five kinds, by code."""
    import_everything()
    return sorted((one for one in _below(Error) if one is not Error and one not in KINDS), key=lambda one: one.code)


def _below(base: type[Error]) -> Iterator[type[Error]]:
    for one in base.__subclasses__():
        if one.__module__.startswith("schleuse"):
            yield one
            yield from _below(one)


def kinds() -> str:
    """What each kind of error tells the other side, at each edge."""
    return table(
        ("kind", "code", "tells the other side", "exit code", "SMTP", "HTTP"),
        [
            (
                kind.__name__.removesuffix("Error"),
                code(kind.code),
                first_sentence(kind.__doc__),
                str(cli.EXIT_CODES[kind]),
                f"{SMTP_REPLY[kind].code} {SMTP_REPLY[kind].status}",
                str(STATUS[kind]),
            )
            for kind in KINDS
        ],
    )


def codes() -> str:
    """Every error code with its meaning, one table a kind."""
    parts = []
    for kind in KINDS:
        rows = [(code(one.code), first_sentence(one.__doc__), code(_file(one))) for one in _of_kind(kind)]
        head = f"### {kind.__name__.removesuffix('Error')}\n\n{words.WHO[kind.code]}"
        parts.append(f"{head}\n\n{table(('code', 'means', 'raised beside'), rows)}")
    return "\n\n".join(parts)


def _of_kind(kind: type[Error]) -> list[type[Error]]:
    return [one for one in error_classes() if issubclass(one, kind)]


def _file(one: type[Error]) -> str:
    return Path(inspect.getfile(one)).relative_to(Path(schleuse.__path__[0])).as_posix()


def fehlernachricht() -> str:
    """The codes that a practice gets."""
    return table(
        ("code", "for", "text", "what the practice does"),
        [
            (
                str(number),
                "eAU" if row.target is Kind.EAU else "Storno",
                row.display,
                "make a new document" if row.new_file else "may send the same file again",
            )
            for number, row in CODES.items()
        ],
    )


def configuration() -> str:
    """Every key of schleuse.toml."""
    found = dict(_keys(config.Config, ""))
    same_keys("CONFIGURATION", words.CONFIGURATION, found)
    return table(
        ("key", "value", "default", "what it is for"),
        [(code(key), kind, default, words.CONFIGURATION[key]) for key, (kind, default) in found.items()],
    )


def configuration_keys() -> list[str]:
    """`insurers[].ik` and so on."""
    return list(dict(_keys(config.Config, "")))


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, tuple[str, str]]]:
    hints = typing.get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        if model is config.Config and name == "home":  # the folder of the file, not a key in it
            continue
        inner, several = _section(field.annotation)
        if inner is None:
            yield f"{prefix}{name}", (_kind(hints[name], field), _default(field))
        else:
            yield from _keys(inner, f"{prefix}{name}{'[]' if several else ''}.")


def _section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section behind an annotation, and whether there may be several."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation, False
    if typing.get_origin(annotation) is tuple:
        inner = typing.get_args(annotation)[0]
        if inspect.isclass(inner) and issubclass(inner, BaseModel):
            return inner, True
    return None, False


_NAMED: Mapping[str, Any] = {"path": config.File, "HOST:PORT": config.Listen, "IK, nine digits": config.IKText}


def _kind(hint: Any, field: FieldInfo) -> str:
    words_of_kind = _plain_kind(hint)
    bounds = [
        f"{sign} {getattr(rule, name):,}"
        for rule in field.metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([words_of_kind, *bounds])


def _plain_kind(hint: Any) -> str:
    for name, named in _NAMED.items():
        if hint == named:
            return name
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _plain_kind(arguments[0])
    if origin is typing.Literal:
        return " or ".join(code(f'"{one}"') for one in arguments)
    if origin in (typing.Union, types.UnionType):
        return _plain_kind(arguments[0])
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_plain_kind(arguments[0])}"
        return f"[{', '.join(_plain_kind(one) for one in arguments)}]"
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return " or ".join(code(f'"{one.value}"') for one in hint)
    return {str: "text", int: "number", bool: "true or false", Path: "path"}.get(hint, str(hint))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return code(str(field.default).lower())
    return code(f"{field.default:,}" if isinstance(field.default, int) else str(field.default))


def commands() -> str:
    """Every command with its first sentence."""
    return table(
        ("command", "does"),
        [(code(f"./schleuse {name}"), first_sentence(text)) for name, text in command_lines()],
    )


def command_lines() -> list[tuple[str, str]]:
    """("hold check", its docstring), … of all commands."""
    return list(_commands(cli.app, ""))


def _commands(app: cyclopts.App, prefix: str) -> Iterator[tuple[str, str]]:
    for name in app:
        if name.startswith("-"):
            continue
        inner = app[name]
        if inner.default_command is not None:
            yield f"{prefix}{name}", inspect.getdoc(inner.default_command) or ""
        else:
            yield from _commands(inner, f"{prefix}{name} ")
