"""Command-line parser generated from frozen dataclasses of settings.

A config class composes component configs: a field whose type is a dataclass is a group of flags,
any other field is one flag. Values come, in rising priority, from the defaults, from the file
given by ``--config`` (``name = value`` lines, ``#`` comments) and from the command line.

A config class can define three class variables:

* ``positional``: name of the setting that a first argument without ``--`` sets.
* ``essential_flags``: maps headings to the flags shown by ``--help``; ``--help-all`` shows all.
* ``given``: set by ``parse_config`` to the names of the settings from files and flags.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import functools
import inspect
import io
import os
import pkgutil
import reprlib
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import configargparse

from utils.errors import UserError, first_line, run_and_report
from utils.files import from_repository
from utils.retired_settings import RETIRED, check_retired, remove_retired_flags
from utils.settings import aliases, has_type

ConfigT = TypeVar("ConfigT")
_UNSET = object()
_MAX_FILE_BYTES = 1 << 20


def command(
    config_class: type[ConfigT], job: str | Callable[[ConfigT], object], description: str | None
) -> Callable[..., int]:
    """Return the ``main`` of a script: it parses flags, runs ``job``, returns the exit status.

    A job given as ``package.module:function`` is imported after parsing, so that --help does not
    wait for torch. The status, and the logging of the result, are those of ``run_and_report``.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        config = parse_config(config_class, argv, description or "")

        def run() -> object:
            function = pkgutil.resolve_name(job) if isinstance(job, str) else job
            return function(config)

        return run_and_report(run, _flags(config_class))

    return main


def parse_config(
    config_class: type[ConfigT], argv: Sequence[str] | None = None, description: str = ""
) -> ConfigT:
    """Build a config from ``--config`` files and flags.

    Exits through argparse (status 2, message on stderr) on an unknown flag or config key, a value
    of the wrong type, and any error of a ``__post_init__``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    positional = getattr(config_class, "positional", None)
    if positional and argv and not argv[0].startswith("-"):
        argv.insert(0, f"--{positional}")
    parser = build_parser(config_class, description, show_all="--help-all" in argv)
    # The parser sets no defaults for names that the namespace already has.
    unset = argparse.Namespace(**dict.fromkeys(_flags(config_class), _UNSET))
    values, unknown = parser.parse_known_args(argv, unset)
    given = {name: value for name, value in vars(values).items() if value is not _UNSET}
    try:
        if unknown := remove_retired_flags(unknown):
            parser.error(_describe_unknown(unknown, _flags(config_class)))
        config = _construct(config_class, given)
        if hasattr(config_class, "given"):
            object.__setattr__(config, "given", frozenset(given))
        return config
    except (ValueError, ArithmeticError, UserError) as error:
        parser.error(str(error))


def build_parser(
    config_class: type, description: str = "", show_all: bool = False
) -> configargparse.ArgumentParser:
    """Build the parser; the docstring under each field becomes its help text."""
    parser = configargparse.ArgumentParser(
        description=description,
        config_file_parser_class=configargparse.DefaultConfigFileParser,
        config_file_open_func=_open_config_file,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", "--help-all", action="help", help="--help-all: every flag")
    parser.add_argument("--config", is_config_file=True, help="file of `name = value` lines")
    essential: Mapping[str, Sequence[str]] = getattr(config_class, "essential_flags", {})
    flags = dict(_flags(config_class))
    for heading, names in essential.items():
        group = parser.add_argument_group(heading)
        for name in names:
            flags.pop(name).add_to(group)
    group = parser.add_argument_group("other settings" if essential else "settings")
    for flag in flags.values():
        flag.add_to(group, hidden=bool(essential) and not show_all)
    return parser


def settings_from_plain(config_class: type[ConfigT], values: object, source: str) -> ConfigT:
    """Build a config from ``dataclasses.asdict`` of a config of this or an earlier version.

    Settings are matched by name, regardless of their group. Missing ones take their defaults;
    retired ones are dropped. ``source`` begins the message of the ``UserError`` for an unknown
    setting or an invalid value.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{source}: expected settings, found {reprlib.repr(values)}.")
    by_name = {
        name: flag for flag in _flags(config_class).values() for name in (flag.name, *flag.aliases)
    }
    flat: dict[str, Any] = {}
    for path, name, value in _flatten(values):
        if flag := by_name.get(name):
            if not has_type(value, flag.hint):
                raise UserError(
                    f"{source}: {name}={reprlib.repr(value)}: this version takes no such value."
                )
            flat.setdefault(flag.name, value)
        elif name not in RETIRED:
            raise UserError(f"{source}.{path[:80]}: this version has no such setting.")
        elif problem := check_retired(name, value):
            raise UserError(f"{source}: {problem}.")
    try:
        return _construct(config_class, flat)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{source}: {first_line(error)}") from error


def differing_settings(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """List (dotted name, our value, their value) of settings that differ in two nested dicts."""
    a, b = ({path: value for path, _, value in _flatten(nested)} for nested in (ours, theirs))
    rows = [(path, a.get(path), b.get(path)) for path in sorted(a | b)]
    return [row for row in rows if row[1] != row[2]]


@functools.cache
def field_docs(config_class: type) -> Mapping[str, str]:
    """Map field names to the docstrings under them, base classes included."""
    bases = [base for base in config_class.__bases__ if dataclasses.is_dataclass(base)]
    docs = {name: text for base in bases for name, text in field_docs(base).items()}
    tree = ast.parse(textwrap.dedent(inspect.getsource(config_class)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    for field, following in pairwise(body):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        is_doc = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if is_field and is_doc:
            docs[field.target.id] = inspect.cleandoc(str(following.value.value))  # pyright: ignore
    return docs


@dataclasses.dataclass(frozen=True)
class _Flag:
    name: str
    hint: Any
    default: Any
    """``dataclasses.MISSING`` for a required setting."""
    help: str
    aliases: tuple[str, ...]

    def add_to(self, group: Any, hidden: bool = False) -> None:  # noqa: ANN401
        required = self.default is dataclasses.MISSING
        group.add_argument(
            *(f"--{name}" for name in (self.name, *self.aliases)),
            dest=self.name,
            required=required,
            default=None if required else self.default,
            help=argparse.SUPPRESS if hidden else self.help.replace("%", "%%"),
            **_argument_type(self.hint),
        )


@functools.cache
def _flags(config_class: type) -> Mapping[str, _Flag]:
    """Map names to the flags of a config class and its components."""
    flags: dict[str, _Flag] = {}
    for flag in _all_flags(config_class):
        if flag.name in flags:
            raise TypeError(f"two config classes have a field {flag.name!r}")
        flags[flag.name] = flag
    return flags


def _all_flags(config_class: type) -> Iterator[_Flag]:
    hints, docs = typing.get_type_hints(config_class), field_docs(config_class)
    alias_names = aliases(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _all_flags(typing.cast(type, hint))
        else:
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            names = alias_names.get(field.name, ())
            yield _Flag(field.name, hint, default, docs[field.name], names)


def _argument_type(hint: Any) -> dict[str, Any]:  # noqa: ANN401
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _argument_type(next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        return {"choices": arguments, "type": type(arguments[0])}
    if origin is tuple:
        return {"nargs": "+", **_argument_type(arguments[0])}
    if hint is str:
        return {"type": _expand, "metavar": "STR"}
    if hint is bool:
        return {"type": _parse_bool, "nargs": "?", "const": True, "metavar": "true|false"}
    return {"type": hint, "metavar": hint.__name__.upper()}


def _expand(text: str) -> str:
    """Expand ``~`` and ``$NAME`` in values that no shell has seen, such as those of files."""
    return os.path.expanduser(os.path.expandvars(text))


def _open_config_file(path: str) -> io.StringIO:
    """Read a ``--config`` file from the working directory or the repository.

    Raises ``OSError`` for a file that is not regular (a FIFO would block), too large or not UTF-8.
    """
    file = from_repository(_expand(path))
    if os.path.exists(file) and not file.is_file():
        raise OSError("not a regular file; give one of `name = value` lines, as those in configs")
    if file.stat().st_size > _MAX_FILE_BYTES:
        raise OSError(f"larger than any file of settings ({_MAX_FILE_BYTES} bytes at most)")
    try:
        return io.StringIO(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise OSError(f"cannot be read as text ({error}); save it as UTF-8") from error


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "1", "yes", "false", "0", "no"):
        raise ValueError(f"expected true or false, got {text!r}")
    return text.lower() in ("true", "1", "yes")


def _construct(config_class: type[ConfigT], flat: Mapping[str, Any]) -> ConfigT:
    hints, values = typing.get_type_hints(config_class), {}
    for field in dataclasses.fields(config_class):  # pyright: ignore[reportArgumentType]
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            values[field.name] = _construct(typing.cast(type, hint), flat)
        elif field.name in flat:
            value = flat[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return config_class(**values)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield the dotted path, the name and the value of each leaf; lists become tuples."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", name, tuple(value) if isinstance(value, list) else value


def _describe_unknown(unknown: Sequence[str], names: Iterable[str]) -> str:
    name = next((text for text in unknown if text.startswith("--")), unknown[0]).split("=")[0]
    flags = ["--config", *(f"--{other}" for other in names)]
    nearest = difflib.get_close_matches(name, flags, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; see --help-all"
    return f"unknown flag or config key {name}{hint}"
