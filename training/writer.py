"""Training states written by a thread, from a copy: training waits for the copy only.

On a GPU it does not even wait for that: the copies to pinned memory join the device's queue before
the next step, and the thread waits for them. One state is written at a time, so that there is
never more than one copy.
"""

import contextlib
import os
import threading
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from torch_utils.devices import download
from training.state import save_state


def host_copy(tree: Any) -> Any:
    """A copy of a tree of tensors and plain values that later changes of the original leave alone.

    Returns:
        Dicts, lists, tuples, plain values, and tensors on the CPU. Those that came from a GPU are
        to be read only after the device has done what it was given before.
    """
    if isinstance(tree, Tensor):
        return tree.detach().clone() if tree.device.type == "cpu" else download(tree.detach())
    if isinstance(tree, dict):
        return {key: host_copy(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(host_copy(value) for value in tree)
    return tree


class StateWriter:
    """Writes the states of a run, one after the other; at the end of the block all are written.

    Args:
        folder: the run directory.
        keep: how many of the newest states to keep; None for all.
        device: where the tensors are.
    """

    def __init__(
        self, folder: str | os.PathLike[str], keep: int | None, device: torch.device
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._device = device
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> "StateWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the state that is being written, however the block ends."""
        if error is None:
            self.wait()
        else:
            with contextlib.suppress(Exception):  # what ended the block is what is told
                self.wait()

    @property
    def has_failed(self) -> bool:
        """Whether a state could not be written; `wait` raises why."""
        return self._error is not None

    def begin(self, state: dict[str, Any]) -> None:
        """Copy a state and begin to write it, once the one before is written.

        Args:
            state: of `save_state`.

        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        copy, arrived = host_copy(state), None
        if self._device.type == "cuda":
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record(torch.cuda.current_stream(self._device))
        # a daemon: nobody waits for a disk that hangs after a second Ctrl-C
        self._thread = threading.Thread(target=self._write, args=(copy, arrived), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the state that is being written is on disk, if there is one.

        Raises:
            OSError: it could not be written; what was there before is as it was.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, state: dict[str, Any], arrived: torch.cuda.Event | None) -> None:
        """Write a state; the work of the thread."""
        try:
            if arrived is not None:
                arrived.synchronize()
            save_state(self._folder, state, self._keep)
        except Exception as error:
            self._error = error
