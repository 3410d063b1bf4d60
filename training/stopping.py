"""Ctrl-C and SIGTERM: finish the step, save, stop. A second Ctrl-C ends at once.

A closed terminal does not end a run: SIGHUP is ignored, as under nohup. A launcher passes SIGHUP on
to its processes and kills those that still run half a minute later; so there it asks to stop, too.
"""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType


class StopSignals:
    """While active, the first SIGINT or SIGTERM only sets `requested`, and says what comes next.

    Only the main thread can catch signals; in another one this does nothing.

    Args:
        is_on: False to catch nothing.
        speaks: whether this process prints the line; one of several should.
        is_launched: whether a launcher waits for this process to end on SIGHUP.

    Attributes:
        requested: whether a signal came.
        doing: what is finished first, in words.
    """

    def __init__(self, is_on: bool, *, speaks: bool = True, is_launched: bool = False) -> None:
        self.requested = False
        self.doing = "this step"
        self._is_on = is_on and threading.current_thread() is threading.main_thread()
        self._speaks = speaks
        self._is_launched = is_launched
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if self._is_on:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
            if hasattr(signal, "SIGHUP"):  # POSIX
                handler = self._note if self._is_launched else signal.SIG_IGN
                self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._speaks:
            # straight to the descriptor: a print may already be under way below this frame
            line = f"\nstopping: finishing {self.doing}, then saving; Ctrl-C again ends at once\n"
            with contextlib.suppress(OSError):
                os.write(2, line.encode())
