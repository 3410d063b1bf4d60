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
from torch_utils.numbers import is_number, number

_WORDS = {"float": "a number", "int": "an integer", "bool": "true or false", "str": "a name"}


class Rule(NamedTuple):
    """What the value of an option must be, if neither choices nor a range can say it."""

    words: str  # "it must be ..."
    accepts: Callable[[Any], bool]  # of a value of any type


FINITE = Rule("a finite number", lambda value: is_number(value) and math.isfinite(value))
POSITIVE = Rule(
    "a positive, finite number", lambda value: is_number(value) and 0 < value < math.inf
)
NOT_NEGATIVE = Rule(
    "a finite number of at least 0", lambda value: is_number(value) and 0 <= value < math.inf
)
BETWEEN_0_AND_1 = Rule(
    "a number above 0 and below 1", lambda value: is_number(value) and 0 < value < 1
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry of a registry.

    Attributes:
        target: "module:attribute" of the function or class.
        options: every option with its default, which also fixes the type that is accepted; None
            is for a number, unless a rule or a table of entries says otherwise.
        summary: one line on what it is, with its source.
        choices: options that are one of some names.
        ranges: options that are numbers in an interval, both ends included.
        rules: options, or lists of them, with any other bound; a rule fixes the type too.
        entries: options that are an entry of another table -> (its kind, the table).
        flags: options that programs offer as flags of their own, and what they mean.
    """

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    entries: Mapping[str, tuple[str, Mapping[str, "Row"]]] = field(default_factory=dict)

    def load(self) -> Any:
        """Import and return the function or class."""
        module, attribute = self.target.split(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve(self, owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the given options and fill in the defaults; the only way from what a user wrote.

        Args:
            owner: whose options they are, for messages, e.g. "sampler heun".
            given: option -> value. Integers are accepted where the default is a float, and so are
                numbers that a reader left as text, e.g. "1e-3".

        Raises:
            UserError: an option is unknown; or a value is of another type, not among the choices,
                outside its range, or breaks its rule.
        """
        options = dict(self.options)
        for option, value in self.with_numbers(given).items():
            if option not in options:
                raise unknown_name(f"option of {owner}:", option, options)
            options[option] = self._typed(f"{owner}: {option}", option, value)
        self._check(owner, options)
        return options

    def with_numbers(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options as given, in which numbers that a reader left as text are numbers, by type."""
        return {option: self._number(option, value) for option, value in given.items()}

    def _number(self, option: str, value: Any) -> Any:
        if option in self.entries:
            return entry_with_numbers(self.entries[option][1], value)
        default = self.options.get(option)
        if default is None or is_number(default):
            return number(value)
        if isinstance(default, list) and isinstance(value, (list, tuple)):
            return _numbers_in(value)
        return value

    def _check(self, owner: str, options: Mapping[str, Any]) -> None:
        """Check options that have their types against choices, rules, ranges and tables."""
        for option, names in self.choices.items():
            if option in options and options[option] not in names:
                raise unknown_name(f"{option} of {owner}:", str(options[option]), names)
        for option, rule in self.rules.items():
            if option in options and not rule.accepts(options[option]):
                raise UserError(
                    f"{owner}: {option} is {options[option]!r}: it must be {rule.words}"
                )
        for option, (low, high) in self.ranges.items():
            value = options.get(option)
            if value is not None and not low <= value <= high:
                bounds = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:.10g}"
                raise UserError(f"{owner}: {option} is {value:.10g}: it must be {bounds}")
        for option, (kind, table) in self.entries.items():
            if options.get(option) is not None:
                resolve_entry(kind, table, options[option], f"{owner}: {option}")

    def _typed(self, what: str, option: str, value: Any) -> Any:
        """A value if it has the type of its option; a float where an integer was given."""
        default = self.options[option]
        if option in self.rules or option in self.entries:
            return float(value) if isinstance(default, float) and is_number(value) else value
        if default is None and value is None:
            return None
        kind = float if default is None else type(default)
        if kind in (int, float):
            is_right = is_number(value) and (kind is float or isinstance(value, int))
        else:
            is_right = isinstance(value, kind)
        if not is_right:
            wanted = _WORDS.get(kind.__name__, f"a {kind.__name__} like {default!r}")
            raise UserError(f"{what} is {value!r}: it must be {wanted}")
        if kind is float and math.isnan(value):
            raise UserError(f"{what} is nan: give a number")
        return float(value) if kind is float else value


def _numbers_in(value: Any) -> Any:
    """Numbers that a reader left as text, in lists of lists, too; tuples become lists."""
    return [*map(_numbers_in, value)] if isinstance(value, list | tuple) else number(value)


RowT = TypeVar("RowT", bound=Row)


def lookup(kind: str, table: Mapping[str, RowT], name: str) -> RowT:
    """The row of that name.

    Raises:
        UserError: there is no such row; the message gives the nearest name.
    """
    if not isinstance(name, str) or name not in table:
        raise unknown_name(kind, str(name), table)
    return table[name]


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


def resolve_entry(
    kind: str, table: Mapping[str, RowT], entry: str | Mapping[str, Any], where: str = ""
) -> tuple[str, RowT, dict[str, Any]]:
    """The name, the row and every option of an entry, a name or a mapping with a name and options.

    Args:
        kind: of the table, for messages.
        table: name -> row.
        entry: what a user wrote.
        where: the key of the entry, for messages; by default the kind.

    Raises:
        UserError: it is not an entry, there is no such row, or as `Row.resolve`.
    """
    name, given = split_name(where or kind, entry)
    row = lookup(kind, table, name)
    return name, row, row.resolve(f"{kind} {name}", given)


def entry_with_numbers(table: Mapping[str, Row], entry: Any) -> Any:
    """An entry with `Row.with_numbers` of its row; anything else is returned as it is."""
    if not isinstance(entry, Mapping) or not isinstance(name := entry.get("name"), str):
        return entry
    return table[name].with_numbers(entry) if name in table else entry
