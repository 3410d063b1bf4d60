"""Errors that a user can cause, each one clear line.

`UserError` is the only exception that the command lines turn into a message and exit code 2;
whatever else escapes is a defect of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable

from torch_utils.published import hint


class UserError(ValueError):
    """Something the user gave cannot be used; the message says what, the value and what to do."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that is not in a table, with the nearest known one.

    If it is a published system's name for something, the message says what that is called here.

    Args:
        kind: what the name names, e.g. "sampler" or "key".
        name: what the user wrote.
        known: the names that exist.

    Returns:
        The error, to be raised by the caller.
    """
    published = hint(name)
    if published:
        return UserError(f"unknown {kind} {name!r}: {published}")
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if near:
        return UserError(f"unknown {kind} {name!r}: did you mean {near[0]!r}?")
    return UserError(f"unknown {kind} {name!r}: known are {', '.join(choices) or 'none'}")


class Failure(Exception):
    """Work that cannot go on for a reason outside our code: one line and exit code 1."""
