"""Start or resume a run from a config: what the command line, tests and Python call alike."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.snapshot import find_snapshot
from networks.blocks import set_remat
from torch_utils.distributed import World, world
from torch_utils.errors import UserError
from torch_utils.files import replacing
from torch_utils.untouched import current_gpu, generators, numerics
from training.choice import ChosenRun, Wanted, checked, new_run, old_run
from training.config import ResolvedConfig, TrainingConfig
from training.data import TrainingData, load_training_data
from training.estimate import costs_of, lines_of, probe_lines
from training.judging import judge_for
from training.loop import train
from training.memory import Forecast, forecast_for, micro_batch_that_fits
from training.recipes import dump_config
from training.remarks import remarks, without_blocks
from training.run_dir import CONFIG_FILE, describe, prepare, set_aside
from training.run_log import RunLog, read_scores, read_stats
from training.setup import transferable
from training.shown import shown

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a run is to start, and where.

    Attributes:
        outdir: where run directories go; may be None if `resume` names a run.
        subdir: make a numbered directory in `outdir`; otherwise use `outdir` itself.
        recipe: the file that the config was read from, if any; it names the run.
        resume: a run directory or a state to go on with; or `latest`, the newest run in `outdir`
            that has this config, and a new one if there is none.
        allow_config_change: resume although the config differs from the run's.
        transfer: a snapshot, or a run directory, to take a new run's first weights from.
        profile: steps to profile, see `training.profiling`; None for none.
    """

    outdir: str | None = None
    subdir: bool = True
    recipe: str | None = None
    resume: str | None = None
    allow_config_change: bool = False
    transfer: str | None = None
    profile: int | None = None

    def __post_init__(self) -> None:
        if self.resume not in (None, "latest"):
            if self.transfer is not None:
                raise UserError(
                    "--resume and --transfer exclude each other: a resumed run has weights"
                )
        elif self.outdir is None:
            raise UserError("missing option --outdir=DIR: where run directories go")
        if self.profile is not None and self.profile < 1:
            raise UserError(f"--profile is {self.profile}: give a number of steps, 1 or more")


@dataclass(frozen=True)
class Result:
    """A run as `run` left it.

    Attributes:
        folder: the run directory.
        config: of the run.
        is_complete: whether it has seen all its images. If not, it was asked to stop; its state is
            saved, so it can be resumed.
    """

    folder: Path
    config: ResolvedConfig
    is_complete: bool

    @property
    def snapshot(self) -> Path:
        """The newest snapshot of the averaged weights."""
        return find_snapshot(self.folder)

    @property
    def stats(self) -> list[dict[str, Any]]:
        """The rows of stats.jsonl, one a tick."""
        return read_stats(self.folder)

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The rows of stats.jsonl with scores, one for each scored snapshot."""
        return read_scores(self.folder)


def run(
    wanted: TrainingConfig,
    start: Start,
    *,
    say: Say | None = None,
    has_bar: bool = False,
    heeds_signals: bool = False,
) -> Result:
    """Start or resume a run, and train to its end. All processes of the run must call.

    Works in any thread. It changes global state of PyTorch (random generators of this device, TF32,
    cuDNN's benchmark) while it runs, and restores it at the end.

    Args:
        wanted: what to train, see `training.wanted`.
        start: how to start, and where.
        say: called with every line of log.txt, in the main process; None for silence.
        has_bar: show progress on stderr.
        heeds_signals: Ctrl-C and SIGTERM stop the run after a step with its state saved. Only a
            main thread can; elsewhere it has no effect.

    Raises:
        UserError: the config, the data, or the run or snapshot to start from cannot be used.
        Failure: the disk is full or not writable, or too many steps in a row were not finite.
    """
    with ExitStack() as lock, _prepared(wanted, start, lock) as (data, asked, chosen, _, notes):
        here = asked.world
        tell = say if here.is_main else None
        judge = None
        if chosen is None or not chosen.is_complete:  # nothing was written yet
            judge = judge_for(asked.config if chosen is None else chosen.config, data, here)
        if chosen is None:
            assert start.outdir is not None
            chosen = new_run(asked, start.outdir, _name(start, asked, data), lock=lock)
        if chosen.is_complete:  # nothing is written: the folder may be for reading only
            if tell is not None:
                tell(f"already done: {chosen.seen:,} images; {chosen.folder}")
            return Result(chosen.folder, chosen.config, True)
        notes += make_ready(chosen, here)
        log = RunLog(chosen.folder if here.is_main else None, tell)
        for line in notes:
            log.say(line)
        is_complete = train(
            chosen.config,
            data,
            chosen.folder,
            here,
            state=chosen.state,
            transfer_from=start.transfer,
            log=log,
            has_bar=has_bar,
            heeds_signals=heeds_signals,
            judge=judge,
            profile=start.profile,
        )
        return Result(chosen.folder, chosen.config, is_complete)


def dry_run(wanted: TrainingConfig, start: Start, say: Say, *, probe: float = 0.0) -> str:
    """What `run` would train, as a recipe with comments; nothing is written. All processes must
    call.

    Args:
        wanted, start: as of `run`.
        say: called with lines about it and about its cost, in the main process.
        probe: seconds that may be spent on trying steps, to say how long the run will take; 0 for
            none.

    Returns:
        The recipe; an empty text in the other processes.
    """
    with _prepared(wanted, start, None) as (data, asked, chosen, forecast, notes):
        here, config = asked.world, asked.config if chosen is None else chosen.config
        tell = say if here.is_main else _silent
        for line in notes:
            tell(line)
        seen = 0 if chosen is None else chosen.seen
        costs = costs_of(forecast, config, data, here, asked.blank)
        for line in lines_of(costs, config, here):
            tell(line)
        if probe:
            for line in probe_lines(costs, config, data, here, seen=seen, limit=probe):
                tell(line)
        return shown(asked.config, data, asked.blank) if here.is_main else ""


def _silent(line: str) -> None:
    """Say nothing: only the main process prints."""


@contextlib.contextmanager
def _prepared(
    wanted: TrainingConfig, start: Start, lock: ExitStack | None
) -> Iterator[tuple[TrainingData, Wanted, ChosenRun | None, Forecast, list[str]]]:
    """Join the processes, read the data, check the config, and look for a run to go on with.

    Yields:
        (data, what was asked for with the config of the run, the old run or None for a new one,
        what its steps need, lines for its log).
    """
    if start.transfer is not None:
        wanted = without_ema_rampup(wanted)
    with numerics(), current_gpu(), world(wanted.run.device) as here, generators(here.device):
        data = load_training_data(wanted.data)
        here.meet()  # each machine decodes for itself
        asked = checked(wanted, data, here, allow_config_change=start.allow_config_change)
        forecast = forecast_for(asked.config, asked.blank, here)
        chosen, notes = None, list[str]()
        if start.resume is not None:
            chosen, notes = old_run(asked, start.resume, start.outdir, lock=lock)
        if chosen is not None:
            config = chosen.config
            forecast = forecast_for(config, asked.blank, here)
            notes += (
                [] if set_remat(asked.blank.model, config.run.remat) else without_blocks(config)
            )
            if start.transfer is not None:
                notes.append(f"--transfer={start.transfer} is for a new run: this one has weights")
        else:
            if start.transfer is not None:
                transferable(start.transfer, asked.blank)
            size, note = micro_batch_that_fits(
                forecast, asked.config, data, here, is_open=asked.is_size_open
            )
            config = asked.config.with_micro_batch(size)
            has_blocks = set_remat(asked.blank.model, config.run.remat)
            has_recipe = start.recipe is not None
            if asked.is_precision_open:
                notes.append(f"precision auto: {config.run.precision} is fast here")
            notes += remarks(config, has_recipe=has_recipe, has_blocks=has_blocks)
            notes += [] if note is None else [note]
        yield data, replace(asked, config=config), chosen, forecast, notes


def _name(start: Start, asked: Wanted, data: TrainingData) -> str | None:
    """What a new run is called, without its number."""
    if not start.subdir:
        return None
    size = asked.world.size
    return describe(asked.config, dataset=data.name, world_size=size, recipe=start.recipe)


def without_ema_rampup(config: TrainingConfig) -> TrainingConfig:
    """The average of transferred weights has its full half-life from the start, as in EDM."""
    ema = config.ema.model_copy(update={"rampup_ratio": None})
    return config.model_copy(update={"ema": ema})


def make_ready(chosen: ChosenRun, here: World) -> list[str]:
    """Prepare the run's directory: write the config, drop leftovers, set later files aside.

    Returns:
        Lines on what was set aside, in the main process.

    Raises:
        UserError: it cannot be written.
    """
    aside = None
    if here.is_main:
        prepare(chosen.folder)
        aside = set_aside(chosen.folder, chosen.seen) if chosen.goes_back else None
        with replacing(chosen.folder / CONFIG_FILE) as temporary:
            temporary.write_text(dump_config(chosen.config), encoding="utf-8")
    here.meet()
    return [] if aside is None else [aside]
