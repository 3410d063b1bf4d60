"""The training loop: steps until the end or a signal. Reads top to bottom."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from models.composition import composition, lines_of
from models.config import ModelConfig
from models.snapshot import snapshot_path
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from scoring.judge import Judge
from torch_utils.distributed import World
from torch_utils.errors import Failure
from torch_utils.no_memory import is_out_of_memory
from training.clock import Clock
from training.compiling import compile_blocks
from training.config import ResolvedConfig
from training.data import TrainingData
from training.due import Milestones
from training.evaluation import Scoring
from training.judging import judge_for
from training.labels import labels_of
from training.maintenance import Run, finish, maintain, save, score_if_due
from training.preview import Preview, plan_preview
from training.profiling import StepProfile
from training.run_log import RunLog
from training.setup import create_trainer, model_of, transfer
from training.source import MicroBatches
from training.stopping import StopSignals
from training.trainer import Trainer
from training.writer import StateWriter

STREAK_PATIENCE = 10  # steps that a stop waits for a finite one, so that the state can be saved


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
    judge: Judge | None = None,
    profile: int | None = None,
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
        judge: of `training.judging.judge_for`; None to make it here, if scores are wanted.
        profile: steps to profile, see `training.profiling`; None for none.

    Returns:
        Whether the run is complete; if not, its state has been saved.

    Raises:
        Failure: the disk is full or not writable, or too many steps in a row were not finite.
    """
    torch.backends.cudnn.benchmark = config.run.bench
    log = log or RunLog(folder if world.is_main else None)
    judge = judge or judge_for(config, data, world)
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
        preview = _preview_of(config, trainer, data)
        scoring = _scoring_of(config, trainer, data, judge)
        for line in [] if scoring is None else scoring.opening():
            log.say(line)
        launched = world.launcher is not None
        signals = StopSignals(heeds_signals, speaks=world.is_main, is_launched=launched)
        with signals, StateWriter(folder, config.run.keep_states, world.device) as writer:
            return _loop(
                Run(
                    *(config, trainer, model, data, folder, log, milestones, clock, signals),
                    *(writer, has_bar, preview, scoring),
                ),
                profile,
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


def _preview_of(config: ResolvedConfig, trainer: Trainer, data: TrainingData) -> Preview | None:
    """What pictures of samples show, if there are any."""
    if not config.preview.enabled:
        return None
    return plan_preview(
        config.preview,
        config.sampler,
        trainer.average,
        labels_of(data),
        precision=config.run.precision,
    )


def _scoring_of(
    config: ResolvedConfig, trainer: Trainer, data: TrainingData, judge: Judge | None
) -> Scoring | None:
    """What scores snapshots, if they are scored."""
    if judge is None:
        return None
    sampling = sampling_of(generation_settings(config.sampler), trainer.average)
    return Scoring(config.evaluate, judge, sampling, labels_of(data))


def _same_scaling(config: ResolvedConfig, before: dict[str, Any]) -> bool:
    """Whether the loss scale of a state is still that of the config."""
    keys = ("precision", "loss_scaling")
    return all(before["run"].get(key) == getattr(config.run, key) for key in keys)


def _profile_of(run: Run, num: int | None) -> AbstractContextManager[StepProfile | None]:
    """What watches the first steps, if they are to be profiled, in the main process."""
    if num is None or not run.world.is_main:
        return nullcontext()
    return StepProfile(num, run.folder, run.world.device, run.trainer.seen, run.log.say)


def _loop(run: Run, num_profiled: int | None) -> bool:
    """Steps until the end or a signal; True at the end."""
    config, trainer, world, milestones = run.config, run.trainer, run.world, run.milestones
    duration = config.run.duration
    source = MicroBatches(config, run.data, trainer.objective, world)
    score_if_due(run)  # a stop or kill may have come before the state's snapshot had its score
    bad_steps_at_stop = 0
    is_first = True
    if config.run.compile and trainer.seen < duration:
        batch, draws, _ = next(source.at(trainer.seen))
        if line := compile_blocks(trainer, batch, draws):
            run.log.say(line)

    bar = tqdm(
        total=duration,
        initial=trainer.seen,
        unit="img",
        unit_scale=True,
        disable=None if world.is_main and run.has_bar else True,
    )
    with bar, _profile_of(run, num_profiled) as profile:
        while trainer.seen < duration:
            micro_batches = list(source.at(trainer.seen))
            pairs = [(batch, draws) for batch, draws, _ in micro_batches]
            trainer.step(pairs, [seed for _, _, seed in micro_batches])
            if profile is not None:
                profile.after_step(trainer.seen)
            if is_first:
                run.log.say(f"first step after {run.clock.here(world.device):.1f} s")
                is_first = False
            bar.update(min(config.run.batch, duration - bar.n))

            is_done = trainer.seen >= duration
            too_many = trainer.guard.recent_bad_steps() >= config.run.max_bad_steps
            is_stopped, is_hopeless, is_lost = world.any(
                run.wants_stop(), too_many, run.writer.has_failed
            )
            if is_lost:
                run.writer.wait()  # raises why, where it was
                raise Failure("another process of this run has failed")
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
                is_saved = maintain(run, is_done=is_done)
                is_stopped |= any(world.any(run.wants_stop()))  # it may have taken long
            if is_stopped and not is_done:
                if trainer.guard.is_in_streak() and bad_steps_at_stop < STREAK_PATIENCE:
                    bad_steps_at_stop += 1
                    continue
                return _stop(run, is_saved)
    if trainer.guard.is_in_streak():
        raise Failure(_unsaved(run))
    finish(run)
    run.log.say(f"done: {trainer.seen:,} images; {snapshot_path(run.folder, trainer.seen)}")
    return True


def _stop(run: Run, is_saved: bool) -> bool:
    """Leave the run so that it can go on; returns False, for not complete."""
    is_bad = run.trainer.guard.is_in_streak()
    if not (is_bad or is_saved):
        save(run)
    finish(run)
    if is_bad:
        run.log.say(_unsaved(run))
    else:
        run.log.say(f"stopped at {run.trainer.seen:,} images: state saved in {run.folder}")
    run.log.say(f"to go on: the same command with --resume={run.folder}")
    return False


def _unsaved(run: Run) -> str:
    return (
        f"at {run.trainer.seen:,} images the last steps were not finite, so no state was saved "
        f"here; the newest in {run.folder} is good"
    )
