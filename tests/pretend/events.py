"""What a program asks of the pretended device, and where the host waits for it."""

import atexit
import ctypes
import os
import sys
import traceback
from collections import Counter
from types import TracebackType
from typing import Self

from tests.pretend.build import HERE, ROOT

# in the order of pretend.h
KINDS = (
    "launch",
    "sync",
    "h2d",
    "h2d_pageable",
    "d2h",
    "d2h_pageable",
    "d2d",
    "memset",
    "library",
    "nccl",
    "malloc",
    "pinned",
    "tf32",
)
# copies from and to pageable memory wait for the device
WAITS = ("sync", "h2d_pageable", "d2h_pageable")

_Hook = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_ulonglong)
_library = ctypes.CDLL(None)  # preloaded, so its functions are this process's
_library.pretend_count.restype = ctypes.c_ulonglong
_library.pretend_hook.argtypes = [_Hook, ctypes.c_int]


def counts() -> dict[str, int]:
    """How often each kind of call was made since the process began."""
    return {kind: int(_library.pretend_count(index)) for index, kind in enumerate(KINDS)}


class Events:
    """A context that counts calls to the runtime, and notes where they come from.

    Attributes:
        counts: calls by kind, at the end.
        bytes: bytes moved, by kind of copy.
        where: (kind, function, line of ours) -> calls, but for launches and allocations.
        kernels: names of kernels and of libraries' functions -> calls, if asked for.
    """

    def __init__(self, *, names: bool = False) -> None:
        """Make the context; with `names`, kernels are told apart, which takes time."""
        self.names = names
        self.counts: dict[str, int] = {}
        self.bytes: Counter[str] = Counter()
        self.where: Counter[tuple[str, str, str]] = Counter()
        self.kernels: Counter[str] = Counter()
        self._hook = _Hook(self._note)

    def __enter__(self) -> Self:
        self._before = counts()
        _library.pretend_hook(self._hook, int(self.names))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _library.pretend_hook(_Hook(0), 0)
        self.counts = {kind: num - self._before[kind] for kind, num in counts().items()}

    def _note(self, index: int, function: bytes | None, size: int) -> None:
        kind, name = KINDS[index], (function or b"?").decode()
        if kind in ("launch", "library"):
            self.kernels[name] += 1
        elif kind not in ("malloc", "memset", "d2d"):
            self.bytes[kind] += size
            self.where[kind, name, line_of_ours()] += 1

    def of(self, *kinds: str) -> dict[tuple[str, str, str], int]:
        """The entries of `where` of some kinds."""
        return {key: num for key, num in self.where.items() if key[0] in kinds}

    def __str__(self) -> str:
        lines = [", ".join(f"{kind} {num}" for kind, num in self.counts.items() if num)]
        for (kind, name, line), num in sorted(self.where.items()):
            lines.append(f"  {kind:12} x{num:<5} {name:24} {line}")
        return "\n".join(lines)


def line_of_ours() -> str:
    """The innermost line of this repository that is being run, outside of this folder."""
    for frame in reversed(traceback.extract_stack()):
        path = frame.filename
        is_foreign = "site-packages" in path or path.startswith(str(HERE) + os.sep)
        if path.startswith(str(ROOT) + os.sep) and not is_foreign:
            return f"{os.path.relpath(path, ROOT)}:{frame.lineno} {frame.line}"
    return "(no line of ours)"


def begin() -> None:
    """Note events for the rest of the process and print them at its end."""
    events = Events()
    events.__enter__()

    def tell() -> None:
        events.__exit__(None, None, None)
        print(events, file=sys.stderr)

    atexit.register(tell)
