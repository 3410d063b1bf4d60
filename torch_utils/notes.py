"""Lines on stderr about unexpected things that do not end the work."""

import os
import sys

_said: set[str] = set()


def warn(text: str) -> None:
    """Print a warning once for all processes of a machine, however often this is called."""
    if text not in _said:
        _said.add(text)
        say(f"warning: {text}")


def say(text: str) -> None:
    """Print a line, once for all processes that torchrun started on this machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)
