"""A new run or an old one, and from which state: the main process decides for all.

Folders can show themselves later to other machines, so that processes which each look for
themselves may choose differently. All load the state that was chosen, and prove that it is the
same one. A state is chosen only when the run is locked: a process that is about to end may still
write a newer one.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffusion.denoiser import Denoiser
from torch_utils.distributed import World
from torch_utils.errors import Failure, UserError
from training.changes import differences, refuse_unfit
from training.config import ResolvedConfig, TrainingConfig, resolve
from training.data import TrainingData
from training.run_dir import candidates, create_run_dir, locked, read_run_config, run_of
from training.setup import check
from training.state import digest, load_state, newest_state

PATIENCE = 90.0  # seconds; longer than network file systems hide a new file from other machines

State = dict[str, Any]  # of training.state


@dataclass(frozen=True)
class Wanted:
    """What was asked for, as far as it decides which run goes on.

    Attributes:
        config: resolved.
        is_size_open: no size of micro-batches was asked for.
        blank: the model, without weights.
        world: the processes.
        allow_config_change: go on with a run of another config.
    """

    config: ResolvedConfig
    is_size_open: bool
    blank: Denoiser
    world: World
    allow_config_change: bool = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The model's tensors by name."""
        return {name: tuple(tensor.shape) for name, tensor in self.blank.state_dict().items()}


def checked(
    config: TrainingConfig, data: TrainingData, world: World, *, allow_config_change: bool = False
) -> Wanted:
    """Resolve a config for its data and the processes, and refuse what cannot work.

    Raises:
        UserError: it cannot.
    """
    resolved = resolve(config, num_images=len(data), world_size=world.size, data_key=data.key)
    is_size_open = config.run.batch_gpu is None
    return Wanted(resolved, is_size_open, check(resolved, data), world, allow_config_change)


@dataclass(frozen=True)
class Plan:
    """What to train, where.

    Attributes:
        config: of the run from here on.
        folder: the run directory.
        state: training state to go on from, or None to start.
        notes: lines for the log.
        goes_back: the state was named, so that whatever the run has beyond it is abandoned.
    """

    config: ResolvedConfig
    folder: Path
    state: State | None
    notes: list[str]
    goes_back: bool = False

    @property
    def seen(self) -> int:
        """Images seen by the state."""
        return _seen(self.state)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.seen >= self.config.run.duration


def named_run(where: str, wanted: Wanted, lock: ExitStack | None) -> Plan:
    """Go on with the run that `--resume=FILE|RUNDIR` names. All processes must call.

    Args:
        where: a run directory, or a state in it.
        wanted: what was asked for.
        lock: holds the run from now on; None only to look.

    Raises:
        UserError: nothing there, every state damaged, another process trains there, or the config
            changed without leave or in a way that the run cannot follow.
    """

    def choose() -> tuple["_Choice", State | None]:
        folder = run_of(where)
        old = read_run_config(folder)
        config, changed, notes = _continuation(old, wanted)
        if changed and not wanted.allow_config_change:
            raise UserError(
                f"the config differs from the run's in {'; '.join(changed)}: "
                "give --allow-config-change to go on with it"
            )
        notes += [f"config changed: {line}" for line in changed]
        named = Path(where) if Path(where).is_file() else None
        choice, state = _chosen(folder, config, notes, lock, named)
        if state is not None:
            refuse_unfit(old, config, state, wanted.shapes)
        return choice, state

    return _plan(*_decided_by_main(wanted.world, choose), wanted)


def latest_run(
    outdir: str, wanted: Wanted, lock: ExitStack | None
) -> tuple[Plan | None, list[str]]:
    """Go on with the newest run in `outdir` that has this config. All processes must call.

    Args:
        outdir: results root, or a run directory itself.
        wanted: what was asked for. If no run has this config and changes are allowed, it is the
            newest run that can go on with it.
        lock: holds the run from now on; None only to look.

    Returns:
        (plan, notes): None if there is no such run; then the notes say why it is none of those
        that are there.

    Raises:
        UserError: as `named_run`.
    """

    def choose() -> tuple["_Choice", State | None]:
        missed: list[tuple[Path, list[str]]] = []
        for folder in candidates(Path(outdir)):
            try:
                old = read_run_config(folder)
            except UserError as error:
                missed.append((folder, [str(error)]))
                continue
            config, changed, notes = _continuation(old, wanted)
            if changed and not (wanted.allow_config_change and _fits(folder, old, config, wanted)):
                missed.append((folder, changed))
                continue
            notes += [f"config changed: {line}" for line in changed]
            choice, state = _chosen(folder, config, notes, lock)
            if state is not None:
                refuse_unfit(old, config, state, wanted.shapes)
            return choice, state
        if not missed:
            return _Choice(), None
        newest, changed = missed[0]
        return _Choice(notes=[
            f"no run in {outdir} has this config; {newest.name}, the newest, differs in "
            f"{'; '.join(changed)}",
            f"starting anew; to go on with that run: --resume={newest} "
            "--allow-config-change",
        ]), None  # fmt: skip

    choice, state = _decided_by_main(wanted.world, choose)
    if choice.folder is None:
        return None, choice.notes
    return _plan(choice, state, wanted), []


def new_run(
    outdir: str, name: str | None, wanted: Wanted, lock: ExitStack, notes: list[str]
) -> Plan:
    """Make the directory of a new run. All processes must call.

    Args:
        outdir: results root.
        name: of the directory, without its number; None to use `outdir` itself.
        wanted: what was asked for.
        lock: holds the run from now on.
        notes: lines for its log.

    Raises:
        UserError: the directory cannot be made, or another process trains there.
    """

    def choose() -> tuple["_Choice", State | None]:
        folder = create_run_dir(outdir, name)
        lock.enter_context(locked(folder))
        return _Choice(str(folder), batch_gpu=wanted.config.run.batch_gpu, notes=notes), None

    return _plan(*_decided_by_main(wanted.world, choose), wanted)


def _seen(state: State | None) -> int:
    return 0 if state is None else int(state["trainer"]["seen"])


def _continuation(
    old: TrainingConfig, wanted: Wanted
) -> tuple[ResolvedConfig, list[str], list[str]]:
    """The wanted config as it is when it continues a run.

    A micro-batch size that it leaves open is the run's, so that the same random numbers are drawn.
    More processes than the run has micro-batches cannot keep it: then it is the largest that fits.

    Returns:
        (config, what differs from the run's and needs leave, notes).
    """
    config, before, notes = wanted.config, old.run.batch_gpu, []
    if wanted.is_size_open and before is not None:
        share = config.run.batch // wanted.world.size
        size = max(n for n in range(1, min(before, share) + 1) if share % n == 0)
        config = config.with_micro_batch(size)
    changed = differences(old, config)
    if wanted.is_size_open and config.run.batch_gpu != before and config.run.batch == old.run.batch:
        changed = [line for line in changed if not line.startswith("run.batch_gpu:")]
        notes = [
            f"micro-batches of {config.run.batch_gpu} images instead of {before}, for "
            f"{wanted.world.size} processes: other random numbers from here on"
        ]
    return config, changed, notes


def _fits(folder: Path, old: TrainingConfig, config: ResolvedConfig, wanted: Wanted) -> bool:
    """Whether a run could go on with a config that differs from its own."""
    _, state, _ = newest_state(folder)
    try:
        if state is not None:
            refuse_unfit(old, config, state, wanted.shapes)
    except UserError:
        return False
    return True


# ---- what the main process tells the others


@dataclass(frozen=True)
class _Choice:
    """What the main process found on the disk, told to the others as JSON.

    Attributes:
        folder: the run directory, or None if no run was chosen.
        batch_gpu: its size of micro-batches.
        state: its training state, or None where it has none yet.
        digest: of that file.
        goes_back: the state was named.
        notes: lines for the log.
        error: what is wrong for the user, in which case nothing else counts.
    """

    folder: str | None = None
    batch_gpu: int = 0
    state: str | None = None
    digest: int = 0
    goes_back: bool = False
    notes: list[str] = field(default_factory=list)
    error: str | None = None


def _chosen(
    folder: Path,
    config: ResolvedConfig,
    notes: list[str],
    lock: ExitStack | None,
    named: Path | None = None,
) -> tuple[_Choice, State | None]:
    """Lock a run, then choose the state that was named, or the newest whole one.

    A complete run needs no lock: nothing is written to it, and it may be for reading only.

    Raises:
        UserError: the run cannot be locked, the state not be read, or all states are damaged.
    """
    obstacle = None
    try:
        if lock is not None:
            lock.enter_context(locked(folder))
    except UserError as error:
        obstacle = error
    if named is None:
        path, state, problems = newest_state(folder)
        notes = [*notes, *(f"passed over: {line}" for line in problems)]
    else:
        path, state = named, load_state(named)
    if obstacle is not None and _seen(state) < config.run.duration:
        raise obstacle
    choice = _Choice(
        str(folder),
        config.run.batch_gpu,
        None if path is None else str(path),
        0 if path is None else digest(path),
        named is not None,
        notes,
    )
    return choice, state


def _decided_by_main(
    world: World, choose: Callable[[], tuple[_Choice, State | None]]
) -> tuple[_Choice, State | None]:
    """Let the main process choose and tell the others, who load the same state.

    Returns:
        The choice, and its state on the CPU.

    Raises:
        UserError: what `choose` raised there, in every process.
        Failure: a process does not see the state, or sees another file.
    """
    told, state = None, None
    if world.is_main:
        try:
            choice, state = choose()
        except UserError as error:
            choice = _Choice(error=str(error))
        told = json.dumps(asdict(choice))
    world.meet()  # reading and checking states can take long
    choice = _Choice(**json.loads(world.share(told)))
    if choice.error is not None:
        raise UserError(choice.error)
    if choice.state is None:
        return choice, None
    if not world.is_main:
        await_file(Path(choice.state), world)
        state = load_state(choice.state)
    is_other = digest(choice.state) != choice.digest
    world.meet()
    if any(world.any(is_other)):
        raise Failure(
            f"the processes read different files at {choice.state}: the run directory must lie "
            "on a file system that all machines share"
        )
    return choice, state


def _plan(choice: _Choice, state: State | None, wanted: Wanted) -> Plan:
    assert choice.folder is not None
    config = wanted.config.with_micro_batch(choice.batch_gpu)
    return Plan(config, Path(choice.folder), state, choice.notes, choice.goes_back)


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
