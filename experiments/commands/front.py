"""A command line from functions: every parameter of a command is an option.

    def train(rho: Annotated[float | None, Option(help="Radius.")] = None) -> None: ...

A parameter's name is the option's, its default the option's default, and the function's docstring
the command's help. Made of argparse, so that a machine that can train needs nothing more to start.
"""

import argparse
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_FUNCTION = "function of the command"  # no option's name has spaces


class Option(NamedTuple):
    """What an option's annotation says beside its type."""

    help: str
    min: int | None = None


class Commands:
    """Commands by name, and what is done without one."""

    def __init__(self, help: str | None = None):
        self._help = help
        self._made: dict[str, tuple[Callable[..., None] | Commands, str]] = {}
        self._default: Callable[..., None] | None = None

    def command(self, name: str | None = None, help: str | None = None) -> Callable:
        """Registers a function under its own name or another, with its docstring as help."""

        def register(function: Callable[..., None]) -> Callable[..., None]:
            called = name or function.__name__
            self._made[called] = function, help or inspect.getdoc(function) or ""
            return function

        return register

    def default(self, function: Callable[..., None]) -> Callable[..., None]:
        """Registers what is done without a command; its docstring is the help of all."""
        self._default, self._help = function, inspect.getdoc(function)
        return function

    def add(self, others: "Commands", name: str | None = None) -> None:
        """Takes over other commands, under a word of their own where there is one."""
        if name is None:
            self._made |= others._made
        else:
            self._made[name] = others, others._help or ""

    def run(self, words: Sequence[str], program: str) -> None:
        """Does what the words say; exits with 2 and a usage where they mean nothing."""
        parser = argparse.ArgumentParser(**_how(self._help), prog=program)
        self._fill(parser)
        values = vars(parser.parse_args(words))
        function = values[_FUNCTION]
        function(**{name: values[name] for name in inspect.signature(function).parameters})

    def _fill(self, parser: argparse.ArgumentParser) -> None:
        if self._default is not None:
            _add_options(parser, self._default)
        commands = parser.add_subparsers(
            title="commands", metavar="COMMAND", required=self._default is None
        )
        for name, (made, help) in self._made.items():
            first = help.split("\n\n")[0].replace("\n", " ")
            one = commands.add_parser(name, help=first.replace("%", "%%"), **_how(help))
            if isinstance(made, Commands):
                made._fill(one)
            else:
                _add_options(one, made)


def _how(help: str | None) -> dict[str, Any]:
    return dict(
        description=help,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_options(parser: argparse.ArgumentParser, function: Callable[..., None]) -> None:
    parser.set_defaults(**{_FUNCTION: function})
    for name, parameter in inspect.signature(function).parameters.items():
        kind, option = typing.get_args(parameter.annotation)
        default, text = parameter.default, option.help.replace("%", "%%")
        if default not in (None, False):
            text += f" [default: {default}]"
        kinds = [one for one in _members(kind) if one is not type(None)]
        assert len(kinds) == 1, f"{function.__name__}: the type of {name} must be one, or None"
        how: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if kinds[0] is not bool:
            how = {"type": _reader(kinds[0], option.min), "metavar": _METAVARS[kinds[0]]}
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=text, **how)


_METAVARS = {str: "TEXT", int: "N", float: "X", Path: "PATH"}


def _members(kind: Any) -> Sequence[Any]:
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else [kind]


def _reader(kind: type, low: int | None) -> Callable[[str], Any]:
    """What makes a value of the option's word, or says why not."""

    def read(word: str) -> Any:
        value = kind(word)
        if low is not None and value < low:
            raise argparse.ArgumentTypeError(f"{word} is less than {low}")
        return value

    read.__name__ = kind.__name__  # what argparse calls it in `invalid int value: 'x'`
    return read
