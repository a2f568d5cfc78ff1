"""One command-line parser, generated from frozen dataclasses.

A config class composes component configs: a field whose type is a dataclass is a group of flags,
any other field is one flag. Values come, in rising priority, from the defaults, from the file
given by ``--config`` (``name = value`` lines, ``#`` comments) and from the command line.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import textwrap
import types
import typing
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import configargparse

from utils.errors import UserError

ConfigT = TypeVar("ConfigT")


def parse_config(
    config_class: type[ConfigT], argv: Sequence[str] | None = None, description: str = ""
) -> ConfigT:
    """Build a config from ``--config`` files and flags.

    Exits through argparse (status 2, message on stderr) on an unknown flag or config key, a value
    of the wrong type, and whatever a ``__post_init__`` refuses.
    """
    parser = build_parser(config_class, description)
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_describe_unknown(unknown, _flags(config_class)))
    try:
        return _construct(config_class, vars(values))
    except (ValueError, UserError) as error:
        parser.error(str(error))


def build_parser(config_class: type, description: str = "") -> configargparse.ArgumentParser:
    """Build the parser; the docstring under each field becomes its help text."""
    parser = configargparse.ArgumentParser(
        description=description,
        config_file_parser_class=configargparse.DefaultConfigFileParser,
        formatter_class=configargparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", is_config_file=True, help="file of `name = value` lines")
    _add_fields(parser, config_class, seen=set())
    return parser


def differing_settings(
    ours: dict[str, Any], theirs: dict[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """List (dotted name, our value, their value) of all leaves that differ between two dicts."""
    rows: list[tuple[str, Any, Any]] = []
    for key in sorted(set(ours) | set(theirs)):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            rows += differing_settings(a, b, f"{prefix}{key}.")
        elif _plain(a) != _plain(b):
            rows.append((f"{prefix}{key}", a, b))
    return rows


def field_docs(config_class: type) -> dict[str, str]:
    """Map field names to the string literals written under them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(config_class)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    docs = {}
    for field, after in pairwise(body):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        is_doc = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if is_field and is_doc:
            docs[field.target.id] = inspect.cleandoc(str(after.value.value))  # pyright: ignore
    return docs


def _add_fields(parser: configargparse.ArgumentParser, config_class: type, seen: set[str]) -> None:
    hints, docs = typing.get_type_hints(config_class), field_docs(config_class)
    group = parser.add_argument_group(config_class.__name__)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            _add_fields(parser, typing.cast(type, hint), seen)
            continue
        if field.name in seen:
            raise TypeError(f"two config classes have a field {field.name!r}")
        seen.add(field.name)
        required = _default(field) is dataclasses.MISSING
        group.add_argument(
            f"--{field.name}",
            required=required,
            default=None if required else _default(field),
            help=docs[field.name].replace("%", "%%"),
            **_argument_type(hint),
        )


def _default(field: dataclasses.Field) -> Any:  # noqa: ANN401
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _argument_type(hint: Any) -> dict[str, Any]:  # noqa: ANN401
    """Translate a type hint into keyword arguments of ``add_argument``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _argument_type(next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        return {"choices": arguments, "type": type(arguments[0])}
    if origin is tuple:
        return {"nargs": "+", "type": arguments[0]}
    if hint is bool:
        return {"type": _parse_bool, "nargs": "?", "const": True, "metavar": "true|false"}
    return {"type": hint, "metavar": hint.__name__.upper()}


def _parse_bool(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError(f"expected true or false, got {text!r}")
    return values[text.lower()]


def _construct(config_class: type[ConfigT], flat: dict[str, Any]) -> ConfigT:
    hints, values = typing.get_type_hints(config_class), {}
    for field in dataclasses.fields(config_class):  # pyright: ignore[reportArgumentType]
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            values[field.name] = _construct(typing.cast(type, hint), flat)
        else:
            value = flat[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return config_class(**values)


def _flags(config_class: type) -> list[str]:
    flags, hints = ["--config"], typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        flags += _flags(hint) if dataclasses.is_dataclass(hint) else [f"--{field.name}"]  # pyright: ignore
    return flags


def _describe_unknown(unknown: list[str], flags: list[str]) -> str:
    name = next((text for text in unknown if text.startswith("--")), unknown[0]).split("=")[0]
    nearest = difflib.get_close_matches(name, flags, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; see --help"
    return f"unknown flag or config key {name}{hint}"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
