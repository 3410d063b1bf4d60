"""A new run or an old one, and from which state: the main process decides for all.

Other machines may see new files later, so processes that each looked for themselves could choose
differently. All load the state that the main process chose, and compare its digest. A state is
chosen only while the run is locked: a process that is about to end may still write a newer one.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion.denoiser import Denoiser
from torch_utils.distributed import World
from torch_utils.errors import Failure, UserError
from torch_utils.precision import AUTO
from training.changes import Misfit, differences, refuse_unfit
from training.config import ResolvedConfig, TrainingConfig, resolve
from training.data import TrainingData
from training.precision import fast_for_all
from training.run_dir import candidates, create_run_dir, locked, read_run_config, run_of
from training.setup import checked_model
from training.state import await_file, digest, load_state, newest_state


@dataclass(frozen=True)
class Wanted:
    """What was asked for, as far as the choice of a run depends on it.

    Attributes:
        config: resolved.
        is_size_open: no size of micro-batches was asked for.
        is_precision_open: the precision `auto` was asked for.
        blank: the model, without weights.
        world: the processes.
        allow_config_change: go on with a run of another config.
    """

    config: ResolvedConfig
    is_size_open: bool
    is_precision_open: bool
    blank: Denoiser
    world: World
    allow_config_change: bool = False


@dataclass(frozen=True)
class ChosenRun:
    """The run to train, new or old.

    Attributes:
        config: of the run from here on.
        folder: the run directory.
        path: training state to go on from, or None to start.
        state: what is in it.
        goes_back: the user named the state, so later files of the run are set aside.
    """

    config: ResolvedConfig
    folder: Path
    path: Path | None = None
    state: dict[str, Any] | None = None
    goes_back: bool = False

    @property
    def seen(self) -> int:
        """Images seen by the state."""
        return 0 if self.state is None else int(self.state["trainer"]["seen"])

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.seen >= self.config.run.duration


# a run and lines about it, or None and lines on why there is no run
Found = tuple[ChosenRun | None, list[str]]


def checked(
    config: TrainingConfig, data: TrainingData, world: World, *, allow_config_change: bool = False
) -> Wanted:
    """Resolve a config for its data and the processes, and check that it can be trained.

    Raises:
        UserError: it cannot.
    """
    is_size_open, is_precision_open = config.run.batch_gpu is None, config.run.precision == AUTO
    fast = fast_for_all(world) if is_precision_open else "fp32"
    sizes: dict[str, Any] = {"num_images": len(data), "world_size": world.size}
    resolved = resolve(config, **sizes, data_key=data.key, fast_precision=fast)
    blank = checked_model(resolved, data)
    return Wanted(resolved, is_size_open, is_precision_open, blank, world, allow_config_change)


def old_run(
    wanted: Wanted, resume: str, outdir: str | None = None, *, lock: ExitStack | None = None
) -> Found:
    """Find the run to go on with. All processes must call.

    Args:
        wanted: what was asked for.
        resume: a run directory, or a state in it; or `latest`, the newest run in `outdir` that has
            this config. If changes are allowed, it is the newest run whose state fits this config.
        outdir: results root, or a run directory itself.
        lock: holds the run from now on; None to look without holding it.

    Returns:
        The run and lines about it. With `latest` there may be no such run: then None, and lines on
        why.

    Raises:
        UserError: there is no run, all its states are damaged, another process trains in it, or the
            config changed without permission or in a way that the state does not fit.
    """
    return _decided_by_main(wanted, lambda: _found(wanted, resume, outdir, lock))


def new_run(wanted: Wanted, outdir: str, name: str | None, *, lock: ExitStack) -> ChosenRun:
    """Make the directory of a new run and hold it. All processes must call.

    Args:
        wanted: what was asked for.
        outdir: results root.
        name: of the directory, without its number; None to use `outdir` itself.
        lock: holds the run from now on.

    Raises:
        UserError: the directory cannot be made, or another process trains there.
    """

    def make() -> Found:
        folder = create_run_dir(outdir, name)
        lock.enter_context(locked(folder))
        return ChosenRun(wanted.config, folder), []

    chosen, _ = _decided_by_main(wanted, make)
    assert chosen is not None
    return chosen


def _found(wanted: Wanted, resume: str, outdir: str | None, lock: ExitStack | None) -> Found:
    """What `old_run` finds, in the main process."""
    if resume != "latest":
        folder, named = run_of(resume), Path(resume) if Path(resume).is_file() else None
        old = read_run_config(folder)
        config, changed, notes = _continuation(old, wanted)
        if changed and not wanted.allow_config_change:
            raise UserError(
                f"the config differs from the run's in {'; '.join(changed)}: "
                "give --allow-config-change to go on with it"
            )
        chosen, more = _taken(wanted, folder, old, config, lock, named)
        return chosen, notes + more

    assert outdir is not None
    missed: list[tuple[Path, str]] = []
    for folder in candidates(Path(outdir)):
        try:
            old = read_run_config(folder)
        except UserError as error:
            missed.append((folder, str(error)))
            continue
        config, changed, notes = _continuation(old, wanted)
        if not changed or wanted.allow_config_change:
            with ExitStack() as trial:
                try:
                    chosen, more = _taken(wanted, folder, old, config, trial if lock else None)
                    if lock is not None:
                        lock.push(trial.pop_all())
                    return chosen, notes + more
                except Misfit:
                    if not changed:
                        raise
        missed.append((folder, "; ".join(changed)))
    if not missed:
        return None, []
    newest, why = missed[0]
    return None, [
        f"no run in {outdir} has this config; {newest.name}, the newest, differs in {why}",
        f"starting anew; to go on with that run: --resume={newest} --allow-config-change",
    ]


def _continuation(
    old: TrainingConfig, wanted: Wanted
) -> tuple[ResolvedConfig, list[str], list[str]]:
    """The wanted config as it is when it continues a run.

    If it leaves the size of micro-batches open, it takes the run's, so that the same random numbers
    are drawn. Too many processes for that size get the largest one that fits instead. The precision
    `auto` is the run's, too, whatever is fast here.

    Returns:
        (config, changes that need permission, notes).
    """
    config, before, notes = wanted.config, old.run.batch_gpu, []
    if wanted.is_precision_open and old.run.precision != AUTO:
        config = config.with_precision(old.run.precision)
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
    return config, changed, notes + [f"config changed: {line}" for line in changed]


def _taken(
    wanted: Wanted,
    folder: Path,
    old: TrainingConfig,
    config: ResolvedConfig,
    lock: ExitStack | None,
    named: Path | None = None,
) -> tuple[ChosenRun, list[str]]:
    """Lock a run, then choose the state that was named, or the newest whole one.

    A complete run needs no lock: nothing is written to it, and it may be for reading only.

    Raises:
        UserError: the run cannot be locked, the state cannot be read, or all states are damaged.
        Misfit: the state does not fit the config.
    """
    obstacle, problems = None, list[str]()
    try:
        if lock is not None:
            lock.enter_context(locked(folder))
    except UserError as error:
        obstacle = error
    if named is None:
        path, state, problems = newest_state(folder)
    else:
        path, state = named, load_state(named)
    chosen = ChosenRun(config, folder, path, state, goes_back=named is not None)
    if obstacle is not None and not chosen.is_complete:
        raise obstacle
    if state is not None:
        refuse_unfit(old, config, state, wanted.blank.state_dict())
    return chosen, [f"skipped: {line}" for line in problems]


def _decided_by_main(wanted: Wanted, find: Callable[[], Found]) -> Found:
    """Let the main process find a run and tell the others, who load the same state.

    Raises:
        UserError: what `find` raised there, in every process.
        Failure: a process does not see the state, or sees another file.
    """
    world, chosen, told = wanted.world, None, "{}"
    if world.is_main:
        try:
            chosen, notes = find()
            found = None if chosen is None else _as_json(chosen)
            told = json.dumps({"chosen": found, "notes": notes})
        except UserError as error:
            told = json.dumps({"error": str(error)})
    world.meet()  # reading and checking states can take long
    heard = json.loads(world.share(told))
    if "error" in heard:
        raise UserError(heard["error"])
    found = heard["chosen"]
    if found is not None and chosen is None:
        config = wanted.config.with_micro_batch(found["batch_gpu"])
        config = config.with_precision(found["precision"])
        path = None if found["path"] is None else Path(found["path"])
        if path is not None:
            await_file(path, world)
        state = None if path is None else load_state(path)
        chosen = ChosenRun(config, Path(found["folder"]), path, state, found["goes_back"])
    if chosen is not None and chosen.path is not None:
        is_other = digest(chosen.path) != found["digest"]
        world.meet()
        if any(world.any(is_other)):
            raise Failure(
                f"the processes read different files at {chosen.path}: the run directory must lie "
                "on a file system that all machines share"
            )
    return chosen, heard["notes"]


def _as_json(chosen: ChosenRun) -> dict[str, Any]:
    """What the other processes need to make the same choice."""
    return {
        "folder": str(chosen.folder),
        "batch_gpu": chosen.config.run.batch_gpu,
        "precision": chosen.config.run.precision,
        "path": None if chosen.path is None else str(chosen.path),
        "digest": 0 if chosen.path is None else digest(chosen.path),
        "goes_back": chosen.goes_back,
    }
