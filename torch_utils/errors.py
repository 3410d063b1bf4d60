"""Errors that a user can cause, each one clear line.

`UserError` is the only exception that the command lines turn into a message and exit code 2;
whatever else escapes is a defect of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable

from torch_utils.published import hint

_ALIKE = 0.5  # difflib's ratio above which a known name is proposed
_NEARLY_EQUAL = 0.8  # and above which it is more likely than what a published name stands for


def printable(text: str) -> str:
    """A text as one line: what cannot be seen, or would steer a terminal, as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class UserError(ValueError):
    """Something the user gave cannot be used; the message says what, the value and what to do.

    File names and contents in a message may hold anything: it is made printable.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a table, with the nearest known one.

    If it is a published system's name for an option or key, the message says what that is called
    here, unless a known name is nearly equal.

    Args:
        kind: what the name names, e.g. "sampler"; it starts with "option" or "key" if it is one.
        name: what the user wrote; of a dotted key, the last part is compared with those beside it.
        known: the names that exist.

    Returns:
        The error, to be raised by the caller.
    """
    choices = sorted(known)
    published = hint(name) if kind.split()[0] in ("option", "key") else None
    near = _nearest(name, choices, _NEARLY_EQUAL if published else _ALIKE)
    if near is not None:
        return UserError(f"unknown {kind} {name!r}: did you mean {near!r}?")
    if published is not None:
        return UserError(f"unknown {kind} {name!r}: {published}")
    return UserError(f"unknown {kind} {name!r}: known are {', '.join(choices) or 'none'}")


def _nearest(name: str, choices: list[str], cutoff: float) -> str | None:
    """The choice that is most like a name; a section that all share makes none of them alike."""
    section, dot, _ = name.rpartition(".")
    shared = section + dot if all(choice.startswith(section + dot) for choice in choices) else ""
    parts = [choice.removeprefix(shared) for choice in choices]
    near = difflib.get_close_matches(name.removeprefix(shared), parts, n=1, cutoff=cutoff)
    return shared + near[0] if near else None


class Failure(Exception):
    """Work that cannot go on for a reason outside our code: one line and exit code 1."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))
