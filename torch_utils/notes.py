"""Lines on stderr about unexpected things that do not end the work.

What all processes of a machine see alike is printed by one of them. What a process finds out by
itself, perhaps alone, it prints itself, and says which one it is.
"""

import os
import sys

_said: set[str] = set()


def warn(text: str) -> None:
    """Print a warning once for all processes of a machine, however often this is called."""
    if _is_new(text):
        say(f"warning: {text}")


def warn_here(text: str) -> None:
    """Print a warning of this process alone once; with its rank, if there are several."""
    if _is_new(text):
        _print(f"warning: {_here()}{text}")


def say(text: str) -> None:
    """Print a line, once for all processes that torchrun started on this machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        _print(text)


def say_here(text: str) -> None:
    """Print a line of this process alone, with its rank, if there are several."""
    _print(f"{_here()}{text}")


def _is_new(text: str) -> bool:
    is_new = text not in _said
    _said.add(text)
    return is_new


def _here() -> str:
    """Which process this is, as the beginning of a line; empty if there is no other."""
    is_one_of_several = os.environ.get("WORLD_SIZE", "1") != "1"
    return f"process {os.environ.get('RANK', '0')}: " if is_one_of_several else ""


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
