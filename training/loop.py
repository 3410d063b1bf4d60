"""The training loop: steps, ticks, states, snapshots, previews. Reads top to bottom."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from models.composition import composition, lines_of
from models.config import ModelConfig
from models.snapshot import save_snapshot, snapshot_path
from torch_utils.distributed import World
from torch_utils.errors import Failure
from torch_utils.no_memory import is_out_of_memory
from training.clock import Clock, status_line
from training.config import ResolvedConfig
from training.data import TrainingData
from training.due import Milestones, next_multiple
from training.labels import labels_of, snapshot_info
from training.preview import Preview, plan_preview, save_preview
from training.run_log import RunLog
from training.setup import create_trainer, model_of, transfer
from training.source import MicroBatches
from training.state import prune, save_state
from training.stopping import StopSignals
from training.trainer import Trainer

STREAK_PATIENCE = 10  # steps that a stop waits for a finite one, so that the state can be saved


@dataclass(frozen=True)
class Run:
    """What a run works with.

    Attributes:
        config: of the run.
        trainer: what is trained.
        model: its config.
        data: what it is trained on.
        folder: the run directory.
        log: screen and files.
        milestones, clock: how far the run is, and what it took.
        signals: whether to stop.
        has_bar: progress is shown on stderr.
    """

    config: ResolvedConfig
    trainer: Trainer
    model: ModelConfig
    data: TrainingData
    folder: Path
    log: RunLog
    milestones: Milestones
    clock: Clock
    signals: StopSignals
    has_bar: bool

    @property
    def world(self) -> World:
        """The processes."""
        return self.trainer.world

    def wants_stop(self) -> bool:
        """Whether this process was asked to stop, or its launcher, which could ask, has died."""
        return self.signals.requested or self.world.is_orphan


def train(
    config: ResolvedConfig,
    data: TrainingData,
    folder: Path,
    world: World,
    *,
    state: dict[str, Any] | None = None,
    transfer_from: str | None = None,
    log: RunLog | None = None,
    has_bar: bool = False,
    heeds_signals: bool = False,
) -> bool:
    """Train to the end of the config's duration, or until a signal asks to stop.

    Args:
        config: of the run.
        data: on the CPU.
        folder: the run directory.
        world: the processes.
        state: of `training.state`, to go on from; None to start.
        transfer_from: snapshot to take the first weights from.
        log: of the run; None for one that writes files only.
        has_bar: show progress on stderr.
        heeds_signals: see `StopSignals`.

    Returns:
        Whether the run is complete; if not, its state has been saved.

    Raises:
        Failure: the disk is full or not writable, or too many steps in a row were not finite.
    """
    torch.backends.cudnn.benchmark = config.run.bench
    log = log or RunLog(folder if world.is_main else None)
    try:
        data = data.placed(world.device, config.run.data_device)
        model = model_of(config, data)
        trainer = create_trainer(config, model, world)
        milestones, clock = Milestones(), Clock()
        log.rewind(0 if state is None else state["trainer"]["seen"])
        if state is not None:
            trainer.load(state["trainer"], keeps_scale=_same_scaling(config, state["config"]))
            milestones, clock = Milestones(**state["progress"]), Clock(state["seconds"])
            milestones.follow(config, state["config"], trainer.seen)
        elif transfer_from is not None:
            log.say(transfer(trainer, transfer_from))
        log.say(f"run directory: {folder}")
        for line in _opening(trainer, model, data):
            log.say(line)
        launched = world.launcher is not None
        signals = StopSignals(heeds_signals, speaks=world.is_main, is_launched=launched)
        with signals:
            return _loop(
                Run(config, trainer, model, data, folder, log, milestones, clock, signals, has_bar)
            )
    except OSError as error:
        if is_out_of_memory(error):
            raise
        raise Failure(
            f"cannot write to {folder}: {error.strerror or error}; what was saved before is intact"
        ) from None


def _opening(trainer: Trainer, model: ModelConfig, data: TrainingData) -> Iterator[str]:
    """Lines about a run that begins or goes on: what is trained, on what, from where."""
    if trainer.seen == 0 and trainer.world.is_main:
        yield from lines_of(composition(model))
    parameters = sum(p.numel() for p in trainer.denoiser.parameters())
    start = f"from {trainer.seen:,} images" if trainer.seen else "from the start"
    yield f"{parameters:,} parameters, {len(data):,} images, on {trainer.world.device}, {start}"


def _same_scaling(config: ResolvedConfig, before: dict[str, Any]) -> bool:
    """Whether the loss scale of a state is still that of the config."""
    keys = ("precision", "loss_scaling")
    return all(before["run"].get(key) == getattr(config.run, key) for key in keys)


def _loop(run: Run) -> bool:
    """Steps until the end or a signal; True at the end."""
    config, trainer, world, milestones = run.config, run.trainer, run.world, run.milestones
    duration = config.run.duration
    source = MicroBatches(config, run.data, trainer.objective, world)
    preview = None
    if config.preview.enabled and run.model.img_channels in (1, 3):
        labels = labels_of(run.data)
        preview = plan_preview(config.preview, config.sampler, trainer.average, labels)
    bad_steps_at_stop = 0

    with tqdm(
        total=duration,
        initial=trainer.seen,
        unit="img",
        unit_scale=True,
        disable=None if world.is_main and run.has_bar else True,
    ) as bar:
        while trainer.seen < duration:
            micro_batches = list(source.at(trainer.seen))
            pairs = [(batch, draws) for batch, draws, _ in micro_batches]
            trainer.step(pairs, [seed for _, _, seed in micro_batches])
            bar.update(min(config.run.batch, duration - bar.n))

            is_done = trainer.seen >= duration
            too_many = trainer.guard.recent_bad_steps() >= config.run.max_bad_steps
            is_stopped, is_hopeless = world.any(run.wants_stop(), too_many)
            if is_hopeless:
                raise Failure(
                    f"{config.run.max_bad_steps} steps in a row had a loss or gradient that is "
                    f"not finite (now at {trainer.seen:,} images): training stopped; lower the "
                    "learning rate or the precision, and resume from the last state"
                )
            at_tick = is_done or milestones.tick == 0
            at_tick |= trainer.seen >= milestones.tick_start + config.run.tick
            is_saved = False
            if at_tick:
                is_saved = _maintain(run, preview, is_done=is_done)
                is_stopped |= any(world.any(run.wants_stop()))  # it may have taken long
            if is_stopped and not is_done:
                if trainer.guard.is_in_streak() and bad_steps_at_stop < STREAK_PATIENCE:
                    bad_steps_at_stop += 1
                    continue
                return _stop(run, is_saved)
    if trainer.guard.is_in_streak():
        raise Failure(_unsaved(run))
    run.log.say(f"done: {trainer.seen:,} images; {snapshot_path(run.folder, trainer.seen)}")
    return True


def _maintain(run: Run, preview: Preview | None, *, is_done: bool) -> bool:
    """What is due at the end of a tick: its line, snapshot, state, preview, in this order.

    Returns:
        Whether a state was saved.
    """
    config, trainer, milestones = run.config, run.trainer, run.milestones
    _tick(run)
    has_snapshot = is_done or trainer.seen >= milestones.next_snapshot
    if has_snapshot:
        _save_snapshot(run)
        milestones.next_snapshot = next_multiple(trainer.seen, config.run.snap)
    has_preview, every = has_snapshot, config.preview.every
    if every is not None:
        has_preview = is_done or trainer.seen >= milestones.next_preview
        if has_preview:
            milestones.next_preview = next_multiple(trainer.seen, every)
    # a state whose weights make every step fail is of no use for resuming
    is_good = not trainer.guard.is_in_streak()
    due = is_good and (is_done or trainer.seen >= milestones.next_state)
    if due:
        milestones.next_state = next_multiple(trainer.seen, config.run.dump)
    milestones.tick, milestones.tick_start = milestones.tick + 1, trainer.seen
    if due:
        _save(run)
    run.world.meet()  # the main process writes, the others wait
    if preview is not None and has_preview:
        _preview(run, preview)
    run.clock.end_of_maintenance()
    return due


def _save(run: Run) -> None:
    """Write a training state. All processes must call."""
    trainer_state = run.trainer.state()
    if run.world.is_main:
        state = {
            "trainer": trainer_state,
            "progress": asdict(run.milestones),
            "seconds": run.clock.total(),
            "config": run.config.model_dump(mode="json"),
            "data": run.config.data.key,
        }
        save_state(run.folder, state, run.config.run.keep_states)


def _stop(run: Run, is_saved: bool) -> bool:
    """Leave the run so that it can go on; returns False, for not complete."""
    if run.trainer.guard.is_in_streak():
        run.log.say(_unsaved(run))
    else:
        if not is_saved:
            _save(run)
        run.log.say(f"stopped at {run.trainer.seen:,} images: state saved in {run.folder}")
    run.log.say(f"to go on: the same command with --resume={run.folder}")
    return False


def _unsaved(run: Run) -> str:
    return (
        f"at {run.trainer.seen:,} images the last steps were not finite, so no state was saved "
        f"here; the newest in {run.folder} is good"
    )


def _tick(run: Run) -> None:
    """Print and record what happened since the last tick."""
    trainer, tick = run.trainer, run.milestones.tick
    statistics = trainer.tally.flush()
    in_tick = trainer.seen - run.milestones.tick_start
    statistics |= run.clock.tick(tick, trainer.seen, in_tick, run.world.device)
    skipped = int(trainer.guard.skipped)
    run.log.say(status_line(statistics, skipped))
    extra = {"Progress/skipped_steps": skipped, "Progress/loss_scale": float(trainer.guard.scale)}
    run.log.record(statistics, extra)


def _save_snapshot(run: Run) -> None:
    """Write a snapshot of the averaged weights."""
    if run.world.is_main:
        info = snapshot_info(run.config, run.model, run.data, run.trainer.seen)
        path = snapshot_path(run.folder, run.trainer.seen)
        save_snapshot(path, run.trainer.average.state_dict(), info)
        prune(run.folder, "network-snapshot-*.safetensors", run.config.run.keep_snapshots)


def _preview(run: Run, preview: Preview) -> None:
    """Write a grid of samples of the averaged weights, unless a signal comes."""
    run.signals.doing = "this network call, and dropping the preview"
    problem = save_preview(
        run.folder / f"samples-{run.trainer.seen:010d}.png",
        preview,
        run.world,
        label_names=run.data.label_names if run.model.label_dim else None,
        stop=run.wants_stop,
        has_bar=run.has_bar,
    )
    if problem is not None:
        run.log.say(problem)
    run.signals.doing = "this step"
