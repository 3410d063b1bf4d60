"""Registries: tables from a name to a function, its options and where it lives.

Rows are plain data, so that listing or validating names imports nothing heavy; the function
itself is imported when it is first needed. Targets are written in our own tables, never in a
config.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from torch_utils.errors import UserError, unknown_name


class Rule(NamedTuple):
    """What the value of an option must be, where no names and no interval say it."""

    words: str  # "it must be ..."
    accepts: Callable[[Any], bool]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry of a registry.

    Attributes:
        target: "module:attribute" of the function or class.
        options: every option with its default; also fixes the type that is accepted.
        summary: one line on what it is, with its source.
        choices: options that are one of some names.
        ranges: options that are numbers in an interval, both ends included.
        rules: options, or lists of them, with any other bound.
    """

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)

    def load(self) -> Any:
        """Import and return the function or class."""
        module, attribute = self.target.split(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve(self, owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option, as given or else its default; the only way from what a user wrote.

        Args:
            owner: whose options they are, for messages, e.g. "sampler heun".
            given: option -> value. Integers are accepted where the default is a float, and so are
                numbers that a reader left as text, e.g. "1e-3".

        Raises:
            UserError: unknown option, a value of another type, not among the choices, outside its
                range, or against its rule.
        """
        options = merge_options(owner, self.options, given)
        check_values(owner, self, options)
        return options


RowT = TypeVar("RowT", bound=Row)


def lookup(kind: str, table: Mapping[str, RowT], name: str) -> RowT:
    """The row of that name.

    Raises:
        UserError: there is none; the message gives the nearest name.
    """
    if not isinstance(name, str) or name not in table:
        raise unknown_name(kind, str(name), table)
    return table[name]


def merge_options(
    owner: str, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Defaults overlaid with the options given, each checked against its default's type.

    Args:
        owner: whose options they are, for messages, e.g. "sampler heun".
        defaults: option -> default. Integers are accepted where the default is a float.
        given: option -> value.

    Returns:
        One dict with every option.

    Raises:
        UserError: unknown option, or a value of another type.
    """
    merged = dict(defaults)
    for name, value in given.items():
        if name not in defaults:
            raise unknown_name(f"option of {owner}:", name, defaults)
        merged[name] = _checked(f"{owner}: {name}", value, defaults[name])
    return merged


def check_values(owner: str, row: Row, options: Mapping[str, Any]) -> None:
    """Check options against the names and intervals of their row.

    Raises:
        UserError: a value that is not among its choices, or outside its range.
    """
    for option, names in row.choices.items():
        if option in options and options[option] not in names:
            raise unknown_name(f"{option} of {owner}:", str(options[option]), names)
    for option, rule in row.rules.items():
        if option in options and not rule.accepts(options[option]):
            raise UserError(f"{owner}: {option} is {options[option]!r}: it must be {rule.words}")
    for option, (low, high) in row.ranges.items():
        value = options.get(option)
        if value is None:
            continue
        if not isinstance(value, (int, float)):
            raise UserError(f"{owner}: {option} is {value!r}: it must be a number")
        if not low <= value <= high:
            bounds = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise UserError(f"{owner}: {option} is {value:g}: it must be {bounds}")


def _checked(what: str, value: Any, default: Any) -> Any:
    """`value` if it has the type of `default`; a float where an integer was given."""
    if default is None or value is None:
        return value
    if isinstance(default, float) and value == "inf":  # as snapshots, which are JSON, spell it
        return math.inf
    if isinstance(default, float) and isinstance(value, (int, float)) and value is not True:
        if math.isnan(value):
            raise UserError(f"{what} is nan: give a number")
        return float(value)
    if isinstance(default, bool) is isinstance(value, bool) and isinstance(value, type(default)):
        return value
    kind = {"float": "a number", "int": "an integer", "bool": "true or false", "str": "a name"}
    wanted = kind.get(type(default).__name__, f"a {type(default).__name__} like {default!r}")
    raise UserError(f"{what} is {value!r}: it must be {wanted}")


def split_name(kind: str, entry: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split `heun` or `{name: heun, S_churn: 40}` into the name and its options.

    Raises:
        UserError: neither a name nor a mapping that has one.
    """
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise UserError(f"{kind} is {entry!r}: give a name, or a mapping with a name")
    options = dict(entry)
    return options.pop("name"), options
