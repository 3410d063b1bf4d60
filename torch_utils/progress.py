"""Progress that suits where it is shown: a bar on a terminal or in a notebook, else lines."""

import contextlib
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, ClassVar

from tqdm.auto import tqdm  # in a notebook a widget

_IS_SHOWN = ContextVar("is_shown", default=True)  # of this thread and task: others are not silenced


@contextlib.contextmanager
def silenced(is_silent: bool = True) -> Iterator[None]:
    """Show no bars and print no lines of progress within the block, in this thread."""
    token = _IS_SHOWN.set(_IS_SHOWN.get() and not is_silent)
    try:
        yield
    finally:
        _IS_SHOWN.reset(token)


def is_shown() -> bool:
    """Whether progress is shown here: not within a block of `silenced`."""
    return _IS_SHOWN.get()


def print_line(line: str) -> None:
    """Print a line on stdout, above the bars."""
    if is_shown():
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


class Progress:
    """A bar where one can be drawn, otherwise a line at intervals; silent for short work.

    Args:
        total: the number of images that will be done; None if nobody knows.
        what: the words before the bar.
        shown: False for processes that should be silent.
        delay: seconds before anything is shown.
        interval: seconds between lines when stderr is no terminal.
    """

    _units: ClassVar[dict[str, Any]] = {"unit": "img"}  # of the bar

    def __init__(
        self,
        total: int | None,
        what: str,
        *,
        shown: bool = True,
        delay: float = 1.0,
        interval: float = 30.0,
    ) -> None:
        shown = shown and is_shown()
        is_hidden = None if shown else True  # None: hidden unless stderr is a terminal or notebook
        self._bar = tqdm(total=total, desc=what, delay=delay, disable=is_hidden, **self._units)
        self._total, self._what, self._interval = total, what, interval
        self._has_lines = shown and self._bar.disable
        self._done, self._start = 0, time.monotonic()
        self._next_line = self._start + interval

    def __enter__(self) -> "Progress":
        return self

    def update(self, num: int = 1) -> None:
        """Count `num` more images."""
        self._done += num
        self._bar.update(self._done - self._bar.n)
        now = time.monotonic()
        if self._has_lines and now >= self._next_line:
            line = self._line(self._done / (now - self._start))
            print(f"{self._what}: {line}", file=sys.stderr, flush=True)
            self._next_line = now + self._interval

    def _line(self, rate: float) -> str:
        """What a line says after so much work at a rate per second."""
        return f"{self._done} of {self._total} images, {rate:.0f} img/s"

    def within(self, num: int, share: float) -> None:
        """Show that a share of the next `num` images is done, which `update` will count."""
        self._bar.update(self._done + int(num * share) - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class ModelProgress(Progress):
    """The same for models that are read one after the other."""

    _units: ClassVar[dict[str, Any]] = {"unit": "model"}

    def _line(self, rate: float) -> str:
        return f"{self._done} of {self._total} models, {rate:.2g} a second"


class ByteProgress(Progress):
    """The same for bytes: `update` counts them, and they are shown in MB."""

    _units: ClassVar[dict[str, Any]] = {"unit": "B", "unit_scale": True}

    def _line(self, rate: float) -> str:
        total = "" if self._total is None else f" of {self._total / 1e6:.1f}"
        return f"{self._done / 1e6:.1f}{total} MB, {rate / 1e6:.1f} MB/s"
