"""Errors that a user can cause, each one clear line.

`UserError` is the only exception that the command lines turn into a message and exit code 2;
whatever else escapes is a defect of ours and keeps its traceback.
"""

from collections.abc import Callable, Iterable

from torch_utils.text import printable

_PROPOSED = 3  # names that a message proposes at most


class UserError(ValueError):
    """Something the user gave cannot be used; the message says what, the value and what to do.

    File names and contents in a message may hold anything: it is made printable.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class Failure(Exception):
    """Work that cannot go on for a reason outside our code: one line and exit code 1."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def _nothing(kind: str, name: str) -> str | None:
    return None


_explain: Callable[[str, str], str | None] = _nothing


def explain_names_with(explain: Callable[[str, str], str | None]) -> None:
    """Say how names are explained that are unknown here, but known elsewhere.

    Args:
        explain: (kind, name), as for `unknown_name`, -> the end of a sentence, or None.
    """
    global _explain
    _explain = explain


def explained(kind: str, name: str) -> str | None:
    """What a name of another system is called here, as the end of a sentence, if it is known."""
    return _explain(kind, name)


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, elsewhere: Iterable[str] = ()
) -> UserError:
    """Build the error for a name that is not in a table, with the nearest known one.

    If it is another system's name for an option or key, the message says what that is called
    here (see `explain_names_with`), unless a known name is nearly equal.

    Args:
        kind: what the name names, e.g. "sampler"; it starts with "option" or "key" if it is one.
        name: what the user wrote; of a dotted key, the last part is compared with those beside it.
        known: the names that exist.
        elsewhere: names to propose, whatever they look like, if none of the known ones is near.

    Returns:
        The error, to be raised by the caller.
    """
    choices = sorted(known)
    is_key = kind.split()[0] in ("option", "key")
    published = explained(kind, name)
    near = [] if published and not is_key else nearest(name, choices, 1 if published else None)
    if not near and not published:
        near = sorted(elsewhere)
    if near:
        proposed = " or ".join(map(repr, near))
        return UserError(f"unknown {kind} {name!r}: did you mean {proposed}?")
    if published is not None:
        return UserError(f"unknown {kind} {name!r}: {published}")
    return UserError(f"unknown {kind} {name!r}: known are {', '.join(choices) or 'none'}")


def nearest(name: str, choices: Iterable[str], within: int | None = None) -> list[str]:
    """The names that were probably meant, equally near; none if none is alike.

    Compared is how names are read: `EDM` is edm, `ddpm++` is ddpmpp, `batch-size` is batch_size;
    and what follows the section that all of them share.

    Args:
        name: what the user wrote.
        choices: the names that exist.
        within: how many letters may differ at most; in any case no more than one of each three,
            and three.
    """
    names = list(choices)
    section, dot, last = name.rpartition(".")
    is_shared = bool(dot) and all(choice.startswith(section + dot) for choice in names)
    given = _as_read(last if is_shared else name)
    found: dict[str, int] = {}
    for choice in names:
        other = _as_read(choice.removeprefix(section + dot) if is_shared else choice)
        shorter, longer = sorted((len(given), len(other)))
        allowed = min(shorter // 3, 3 if within is None else within)
        if given == other:
            found[choice] = 0
        elif within is None and shorter > 1 and other.startswith(given):
            found[choice] = 1  # only its beginning was given
        elif within is None and shorter > 1 and given in map(_as_read, choice.split("_")):
            found[choice] = 2  # only a part of it was
        elif longer - shorter <= allowed and edit_distance(given, other) <= allowed:
            found[choice] = edit_distance(given, other)
    least = min(found.values(), default=0)
    return sorted(choice for choice, distance in found.items() if distance == least)[:_PROPOSED]


def _as_read(name: str) -> str:
    """A name without what is written in several ways."""
    lowered = name.casefold().replace("+", "p")
    return "".join(letter for letter in lowered if letter.isalnum()) or lowered


def edit_distance(a: str, b: str) -> int:
    """How many letters are missing, superfluous, wrong or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
