"""Which run and state to go on with: the main process looks at the disk and decides for all.

Folders can show themselves later to other machines, so that processes which each look for
themselves may choose differently. All load the state that was chosen, and prove that it is the
same one.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch_utils.distributed import World
from torch_utils.errors import Failure, UserError
from training.state import digest, load_state, newest_state

PATIENCE = 90.0  # seconds; longer than network file systems hide a new file from other machines


@dataclass(frozen=True)
class Choice:
    """What the main process found on the disk, told to the others as JSON.

    Attributes:
        folder: the run directory, or None if no run was chosen.
        state: its training state, or None where it has none yet.
        digest: of that file.
        notes: lines for the log.
        error: what is wrong for the user, in which case nothing else counts.
    """

    folder: str | None = None
    state: str | None = None
    digest: int = 0
    notes: list[str] = field(default_factory=list)
    error: str | None = None


def choose_state(path: str | os.PathLike[str], folder: Path, notes: list[str]) -> Choice:
    """The choice of a state by name."""
    return Choice(str(folder), str(path), digest(path), notes)


def choose_newest(folder: Path, notes: list[str]) -> Choice:
    """The choice of a run's newest whole state.

    Raises:
        UserError: it has states, and all are damaged.
    """
    path, _, problems = newest_state(folder)
    notes = [*notes, *(f"passed over: {line}" for line in problems)]
    return Choice(str(folder), notes=notes) if path is None else choose_state(path, folder, notes)


def decided_by_main(world: World, choose: Callable[[], Choice]) -> Choice:
    """Let the main process choose, and tell the others. All processes must call.

    Raises:
        UserError: what `choose` raised there, in every process.
    """
    told = None
    if world.is_main:
        try:
            choice = choose()
        except UserError as error:
            choice = Choice(error=str(error))
        told = json.dumps(asdict(choice))
    world.meet()  # reading and checking states can take long
    choice = Choice(**json.loads(world.share(told)))
    if choice.error is not None:
        raise UserError(choice.error)
    return choice


def load_chosen(choice: Choice, world: World) -> dict[str, Any] | None:
    """Load the chosen state in every process, and prove that all have the same.

    Returns:
        The state, on the CPU; None if the run has none yet.

    Raises:
        Failure: a process does not see it, or sees another file.
    """
    if choice.state is None:
        return None
    await_file(Path(choice.state), world)
    state = load_state(choice.state)
    is_other = digest(choice.state) != choice.digest
    world.meet()
    if any(world.any(is_other)):
        raise Failure(
            f"the processes read different files at {choice.state}: the run directory must lie "
            "on a file system that all machines share"
        )
    return state


def await_file(path: Path, world: World) -> None:
    """Wait for a file that the main process sees already; other machines may see it later.

    Raises:
        Failure: it does not come.
    """
    end = time.monotonic() + PATIENCE
    while not path.is_file():
        if time.monotonic() > end:
            raise Failure(
                f"process {world.rank} on {socket.gethostname()} does not see {path}: the run "
                "directory must lie on a file system that all machines share"
            )
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # makes a network file system look again
        time.sleep(0.2)
