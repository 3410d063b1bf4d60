"""Standard streams that may vanish: a closed terminal, `| head`. The work goes on without them."""

import contextlib
import os
import sys
from typing import Any, TextIO


class Forgiving:
    """A text stream that drops its output once its reader is gone, instead of raising."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, whether anybody reads or not."""
        try:
            return self._stream.write(text)
        except OSError:
            self._lead_nowhere()
        return len(text)

    def flush(self) -> None:
        """Flush, whether anybody reads or not."""
        try:
            self._stream.flush()
        except OSError:
            self._lead_nowhere()

    def _lead_nowhere(self) -> None:
        """Send what is still buffered, and all that comes, to the null device."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlive_readers() -> None:
    """Let this process outlive whatever reads its standard output and error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Forgiving):
            setattr(sys, name, Forgiving(stream))
