"""Numbers that a reader left as text: YAML 1.1 takes 2e-3 for a word, people mean the number."""

import re
from collections.abc import Mapping
from typing import Any

# with an exponent, or inf: other numbers are texts only where they were written in quotes
_NUMBER = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+|inf)")
_NAMES = ("name",)  # keys of options whose value is a name, whatever it looks like


def number(value: Any) -> Any:
    """A text that reads as a number, as that number; anything else as it is."""
    is_number = isinstance(value, str) and _NUMBER.fullmatch(value)
    return float(value) if is_number else value


def with_numbers(tree: Any) -> Any:
    """A tree of options whose types are not known, with all its numbers as numbers.

    Texts stay texts where the key says that they are a name.
    """
    if isinstance(tree, Mapping):
        return {
            key: value if key in _NAMES and isinstance(value, str) else with_numbers(value)
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [with_numbers(value) for value in tree]
    return number(tree)
