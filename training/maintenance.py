"""A run at work, and what is due between its steps: line, snapshot, state, preview, score."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from models.config import ModelConfig
from models.posthoc import power_average
from models.snapshot import SNAPSHOTS, save_snapshot, snapshot_path
from torch_utils.distributed import World
from training.best import best_snapshot
from training.clock import Clock, status_line
from training.config import ResolvedConfig
from training.data import TrainingData
from training.due import Milestones, next_multiple
from training.evaluation import Scoring, lines_of, rows_of
from training.labels import snapshot_info
from training.preview import Preview, save_preview
from training.run_log import RunLog, images_of, read_scores
from training.state import prune
from training.stopping import StopSignals
from training.trainer import Trainer
from training.writer import StateWriter


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
        writer: of states, in the main process.
        has_bar: progress is shown on stderr.
        preview: what pictures show; None for none.
        scoring: what scores snapshots; None for nothing.
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
    writer: StateWriter
    has_bar: bool
    preview: Preview | None = None
    scoring: Scoring | None = None

    @property
    def world(self) -> World:
        """The processes."""
        return self.trainer.world

    def wants_stop(self) -> bool:
        """Whether this process was asked to stop, or its launcher, which could ask, has died."""
        return self.signals.requested or self.world.is_orphan


def maintain(run: Run, *, is_done: bool) -> bool:
    """What is due at the end of a tick: line, snapshot, state, preview, score, in this order.

    Returns:
        Whether a state is being saved.
    """
    config, trainer, milestones = run.config, run.trainer, run.milestones
    _tick(run)
    has_snapshot = is_done or trainer.seen >= milestones.next_snapshot
    if has_snapshot:
        _save_snapshot(run)
        milestones.next_snapshot = next_multiple(trainer.seen, config.run.snap)
        if is_done or milestones.num_snapshots % config.evaluate.every == 0:
            milestones.to_score = trainer.seen
        milestones.num_snapshots += 1
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
        save(run)
    run.world.meet()  # the main process writes, the others wait
    if run.preview is not None and has_preview:
        _preview(run, run.preview)
    score_if_due(run)
    run.clock.end_of_maintenance()
    return due


def save(run: Run) -> None:
    """Begin to write a training state. All processes must call."""
    trainer_state = run.trainer.state()
    if run.world.is_main:
        state = {
            "trainer": trainer_state,
            "progress": asdict(run.milestones),
            "seconds": run.clock.total(),
            "config": run.config.model_dump(mode="json"),
            "data": run.config.data.key,
        }
        run.writer.begin(state)


def finish(run: Run) -> None:
    """Wait until the last training state is on disk. All processes must call.

    Launchers kill the other processes soon after the first one has ended.
    """
    run.writer.wait()
    run.world.meet()


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
    """Write a snapshot of the averaged weights, after those of other averages."""
    if run.world.is_main:
        seen = run.trainer.seen
        info = snapshot_info(run.config, run.model, run.data, seen)
        for name, average in run.trainer.posthoc.items():
            theirs = replace(info, ema=power_average(float(name)))
            save_snapshot(snapshot_path(run.folder, seen, name), average.state_dict(), theirs)
        save_snapshot(snapshot_path(run.folder, seen), run.trainer.average.state_dict(), info)
        _prune_snapshots(run)


def _prune_snapshots(run: Run) -> None:
    """Delete old snapshots, though not the one that scored best if that is to be kept."""
    best = _best(run) if run.config.evaluate.keep_best else None
    prune(run.folder, SNAPSHOTS, run.config.run.keep_snapshots, best)


def _best(run: Run) -> Path | None:
    """The snapshot that scored best so far."""
    if run.scoring is None:
        return None
    name, is_distance = run.scoring.deciding
    after = run.milestones.scores_after
    return best_snapshot(run.folder, name, is_distance=is_distance, after=after)


def _preview(run: Run, preview: Preview) -> None:
    """Write a grid of samples of the averaged weights, unless a signal comes."""
    run.signals.doing = "this network call, and dropping the preview"
    problem = save_preview(
        run.folder / f"samples-{run.trainer.seen:010d}.png",
        preview,
        run.world,
        seen=run.trainer.seen,
        label_names=run.data.label_names if run.model.label_dim else None,
        stop=run.wants_stop,
        has_bar=run.has_bar,
    )
    if problem is not None:
        run.log.say(problem)
    run.signals.doing = "this step"


def score_if_due(run: Run) -> None:
    """Score the average if its snapshot is to be scored and has no score yet.

    It has one already if a killed process of this run went further than its last state.
    """
    if run.scoring is None or run.milestones.to_score != run.trainer.seen or not run.trainer.seen:
        return
    seen = run.trainer.seen
    has_score = run.world.is_main and any(images_of(row) == seen for row in read_scores(run.folder))
    if not any(run.world.any(has_score)):
        _score(run, run.scoring)


def _score(run: Run, scoring: Scoring) -> None:
    """Print and record scores of the average, unless a signal comes."""
    seen, log = run.trainer.seen, run.log
    path = snapshot_path(run.folder, seen)
    run.signals.doing = "this network call, and dropping the score"
    log.say(f"scoring {path.name}: {scoring.forecast()}")
    found = scoring.score(path, seen, stop=run.wants_stop, has_bar=run.has_bar)
    run.signals.doing = "this step"
    if found is None:
        is_done = seen >= run.config.run.duration
        who = f"fid.py gen --network={path}" if is_done else "the resumed run"
        log.say(f"score dropped: {path.name}; {who} computes it")
    elif isinstance(found, str):
        log.say(f"no score of {path.name}: {found}")
    elif run.world.is_main:
        log.record(*rows_of(found, seen))
        for line in lines_of(found, ", the best so far" if _best(run) == path else ""):
            log.say(line)
        _prune_snapshots(run)
    run.world.meet()
