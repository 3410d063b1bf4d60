"""The training loop: steps, ticks, snapshots, states. Reads top to bottom."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from models.config import ModelConfig
from models.snapshot import SnapshotInfo, save_snapshot, snapshot_path
from samplers.options import generation_settings
from torch_utils.distributed import World
from torch_utils.errors import Failure
from training.clock import Clock, status_line
from training.config import TrainingConfig, images
from training.data import TrainingData
from training.labels import label_examples
from training.preview import save_preview
from training.run_dir import RunLog
from training.setup import create_trainer, model_of, transfer
from training.source import MicroBatches
from training.state import prune, save_state
from training.stopping import StopSignals
from training.trainer import Trainer


@dataclass
class Progress:
    """Where the loop is, beyond the trainer's own counters.

    Attributes:
        tick: number of the current tick.
        tick_start: images seen when it began.
        next_snapshot, next_state: images at which the next one is due.
    """

    tick: int = 0
    tick_start: int = 0
    next_snapshot: int = 0
    next_state: int = 0


def train(
    config: TrainingConfig,
    data: TrainingData,
    folder: Path,
    world: World,
    *,
    state: dict[str, Any] | None = None,
    transfer_from: str | None = None,
) -> bool:
    """Train to the end of the config's duration, or until a signal asks to stop.

    Args:
        config: resolved.
        data: on the CPU.
        folder: the run directory.
        world: the processes.
        state: of `training.state`, to go on from; None to start.
        transfer_from: snapshot to take the first weights from.

    Returns:
        Whether the run is complete; if not, its state has been saved.

    Raises:
        Failure: the disk is full or not writable, or too many steps in a row were not finite.
    """
    torch.backends.cudnn.benchmark = config.run.bench
    log = RunLog(folder if world.is_main else None)
    data = data.placed(world.device, config.run.data_device)
    model = model_of(config, data)
    trainer = create_trainer(config, model, world)
    progress, clock = Progress(), Clock()
    if state is not None:
        trainer.load(state["trainer"])
        progress, clock = Progress(**state["progress"]), Clock(state["seconds"])
    elif transfer_from is not None:
        log.say(transfer(trainer, transfer_from))
    log.rewind(trainer.seen)  # also at the start: a kill may have come before the first state
    parameters = sum(p.numel() for p in trainer.denoiser.parameters())
    start = f"from {trainer.seen:,} images" if state else "from the start"
    log.say(f"{parameters:,} parameters, {len(data):,} images, on {world.device}, {start}")
    try:
        with StopSignals() as signals:
            return _loop(trainer, model, data, folder, log, progress, clock, signals)
    except OSError as error:
        raise Failure(
            f"cannot write to {folder}: {error.strerror or error}; what was saved before is intact"
        ) from None


def _loop(
    trainer: Trainer,
    model: ModelConfig,
    data: TrainingData,
    folder: Path,
    log: RunLog,
    progress: Progress,
    clock: Clock,
    signals: StopSignals,
) -> bool:
    """Steps until the end or a signal; True at the end."""
    config, world = trainer.config, trainer.world
    run, duration = config.run, images(config.run.duration)
    source = MicroBatches(config, data, trainer.objective, world)

    def save() -> None:
        trainer_state = trainer.state()  # collective: every process takes part
        if world.is_main:
            state = {"trainer": trainer_state, "progress": asdict(progress)}
            save_state(
                folder,
                {**state, "seconds": clock.total(), "config": config.model_dump(mode="json")},
                run.keep_states,
            )

    with tqdm(
        total=duration,
        initial=trainer.seen,
        unit="img",
        unit_scale=True,
        disable=None if world.is_main else True,
    ) as bar:
        while trainer.seen < duration:
            micro_batches = list(source.at(trainer.seen))
            pairs = [(batch, draws) for batch, draws, _ in micro_batches]
            trainer.step(pairs, [seed for _, _, seed in micro_batches])
            bar.update(min(run.batch, duration - bar.n))

            is_done = trainer.seen >= duration
            is_stopped = world.any(signals.requested)
            if world.any(trainer.guard.recent_bad_steps() >= run.max_bad_steps):
                raise Failure(
                    f"{run.max_bad_steps} steps in a row had a loss or gradient that is not finite"
                    f" (now at {trainer.seen:,} images): training stopped; lower the learning rate"
                    " or the precision, and resume from the last state"
                )
            at_tick = is_done or progress.tick == 0
            at_tick |= trainer.seen >= progress.tick_start + images(run.tick)
            if at_tick:
                _tick(trainer, log, progress, clock)
                if is_done or trainer.seen >= progress.next_snapshot:
                    save_outputs(folder, trainer, model, data)
                    progress.next_snapshot = _next(trainer.seen, images(run.snap))
                # weights that make every step fail are no good to go back to
                is_good = not int(trainer.guard.in_a_row)
                due = is_done or (trainer.seen >= progress.next_state and is_good)
                if due:
                    progress.next_state = _next(trainer.seen, images(run.dump))
                progress.tick, progress.tick_start = progress.tick + 1, trainer.seen
                if due:
                    save()
                clock.end_of_maintenance()
            if is_stopped and not is_done:
                if not (at_tick and due):
                    save()
                log.say(f"stopped at {trainer.seen:,} images: state saved in {folder}")
                log.say(f"to go on: the same command with --resume={folder}")
                return False
    log.say(f"done: {trainer.seen:,} images; {snapshot_path(folder, trainer.seen)}")
    return True


def _next(seen: int, interval: int) -> int:
    """The first multiple of `interval` after `seen`."""
    return (seen // interval + 1) * interval


def _tick(trainer: Trainer, log: RunLog, progress: Progress, clock: Clock) -> None:
    """Print and record what happened since the last tick."""
    statistics = trainer.statistics.flush()
    tick_images = trainer.seen - progress.tick_start
    device = trainer.world.device
    statistics |= clock.tick(progress.tick, trainer.seen, tick_images, device)
    skipped = int(trainer.guard.skipped)
    log.say(status_line(statistics, skipped))
    extra = {"Progress/skipped_steps": skipped, "Progress/loss_scale": float(trainer.guard.scale)}
    log.record(statistics, extra)


def save_outputs(folder: Path, trainer: Trainer, model: ModelConfig, data: TrainingData) -> None:
    """Write a snapshot of the averaged weights and a grid of their samples."""
    if not trainer.world.is_main:
        return
    config = trainer.config
    names = list(data.label_names) if data.label_names and model.label_dim else None
    info = SnapshotInfo(
        model=model,
        sampling=config.sampler,
        label_names=names,
        label_kind=data.label_kind if model.label_dim else None,
        label_examples=label_examples(data.labels, data.label_kind),
        label_dropout=config.run.label_dropout if model.label_dim else None,
        images=trainer.seen,
        ema=config.ema.model_dump(mode="json"),
    )
    path = snapshot_path(folder, trainer.seen)
    save_snapshot(path, trainer.average.state_dict(), info)
    prune(folder, "network-snapshot-*.safetensors", config.run.keep_snapshots)
    if model.img_channels in (1, 3):
        grid = folder / f"samples-{trainer.seen:010d}.png"
        save_preview(grid, trainer.average, generation_settings(config.sampler), names)
