"""Names from outside in messages: a terminal gets only what it can show."""

import unicodedata
from collections.abc import Sequence

_JOINERS = "\u200c\u200d"  # without a picture of their own, but part of scripts and emoji


def printable(text: object) -> str:
    """Return a text in one line, with control characters escaped.

    Line ends, escape sequences, marks that turn the direction of writing, and bytes of a file name
    that are not UTF-8 become backslash escapes; letters, signs and spaces of any script stay.

    Args:
        text: e.g. a file name from an archive; anything else as `str` gives it.
    """
    shown = str(text)
    return shown if shown.isprintable() else "".join(map(_shown, shown))


def _shown(character: str) -> str:
    is_space = unicodedata.category(character) == "Zs"
    if character.isprintable() or is_space or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")


def some(items: Sequence[object], most: int = 10) -> str:
    """The first items of a list for a message: `3, 5, 8, ...`."""
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")
