"""What `train.py` decides before the loop: a new run or an old one, and in which directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.files import replacing
from training.config import TrainingConfig, differences, images, resolve
from training.data import TrainingData
from training.recipes import dump_config
from training.resume import CONFIG_FILE, check_unchanged, read_run_config, run_of
from training.run_dir import create_run_dir, describe, prepare
from training.state import load_state, newest_state


@dataclass(frozen=True)
class Launch:
    """What to train, where.

    Attributes:
        config: resolved.
        folder: the run directory.
        state: training state to go on from, or None to start.
        notes: lines for the log.
    """

    config: TrainingConfig
    folder: Path
    state: dict[str, Any] | None
    notes: list[str]

    @property
    def seen(self) -> int:
        """Images seen by the state."""
        return 0 if self.state is None else int(self.state["trainer"]["seen"])

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.seen >= images(self.config.run.duration)


def settle(config: TrainingConfig, data: TrainingData, world: World) -> TrainingConfig:
    """Resolve a config for the data and the number of processes."""
    return resolve(config, num_images=len(data), world_size=world.size)


def with_micro_batch_of(old: TrainingConfig, wanted: TrainingConfig) -> TrainingConfig:
    """A config that leaves the micro-batch size open takes that of the run it continues."""
    if wanted.run.batch_gpu is not None:
        return wanted
    run = wanted.run.model_copy(update={"batch_gpu": old.run.batch_gpu})
    return wanted.model_copy(update={"run": run})


def without_ema_rampup(config: TrainingConfig) -> TrainingConfig:
    """The average of transferred weights has its full half-life from the start, as in EDM."""
    ema = config.ema.model_copy(update={"rampup_ratio": None})
    return config.model_copy(update={"ema": ema})


def start(
    outdir: str, wanted: TrainingConfig, data: TrainingData, world: World, *, subdir: bool
) -> Launch:
    """Make the directory of a new run.

    Args:
        outdir: results root.
        wanted: as read.
        data: names the run.
        world: the processes; every one must call.
        subdir: make a numbered directory in `outdir`, or use `outdir` itself.
    """
    config = settle(wanted, data, world)
    folder = None
    if world.is_main:
        name = describe(config, dataset=data.name, world_size=world.size)
        folder = create_run_dir(outdir, name if subdir else None)
    return Launch(config, Path(world.share(str(folder))), None, [])


def resume(
    where: str,
    wanted: TrainingConfig,
    data: TrainingData,
    world: World,
    *,
    allow_config_change: bool,
) -> Launch:
    """Continue the run that `--resume=FILE|RUNDIR` names.

    Raises:
        UserError: nothing there, every state damaged, or the config changed without leave.
    """
    folder = run_of(where)
    old = read_run_config(folder)
    config = settle(with_micro_batch_of(old, wanted), data, world)
    changed = check_unchanged(old, config, allow=allow_config_change)
    notes = [f"config changed: {line}" for line in changed]
    if Path(where).is_file():
        return Launch(config, folder, load_state(where), notes)
    return _from_newest(config, folder, notes)


def resume_latest(
    outdir: str, wanted: TrainingConfig, data: TrainingData, world: World
) -> Launch | None:
    """Continue the newest run in `outdir` that was started with this config.

    Args:
        outdir: results root, or a run directory itself.
        wanted: as read; its spans need not be resolved.
        data: for resolving.
        world: the processes.

    Returns:
        None if there is no such run.
    """
    root = Path(outdir)
    if not root.is_dir():
        return None
    below = sorted((entry for entry in root.iterdir() if entry.is_dir()), reverse=True)
    for folder in [root, *below]:
        if not (folder / CONFIG_FILE).is_file():
            continue
        try:
            old = read_run_config(folder)
            config = settle(with_micro_batch_of(old, wanted), data, world)
        except UserError:
            continue  # of another version, or its micro-batches do not fit these processes
        if not differences(old, config):
            return _from_newest(config, folder, [])
    return None


def _from_newest(config: TrainingConfig, folder: Path, notes: list[str]) -> Launch:
    _, state, problems = newest_state(folder)
    return Launch(config, folder, state, [*notes, *(f"passed over: {line}" for line in problems)])


def claim(launch: Launch, world: World) -> None:
    """Make the run's directory ready: its config as it is now, no leftovers of a kill.

    Raises:
        UserError: it cannot be written.
    """
    if world.is_main:
        prepare(launch.folder)
        with replacing(launch.folder / CONFIG_FILE) as temporary:
            temporary.write_text(dump_config(launch.config), encoding="utf-8")
    world.barrier()
