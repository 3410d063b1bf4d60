"""What `train.py` decides before the loop: a new run or an old one, and in which directory."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.build import build
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.files import replacing
from training.changes import differences, refuse_other_tensors, refuse_unloadable
from training.choice import (
    Choice,
    await_file,
    choose_newest,
    choose_state,
    decided_by_main,
    load_chosen,
)
from training.config import TrainingConfig, images, resolve
from training.data import TrainingData
from training.recipes import dump_config
from training.resume import CONFIG_FILE, candidates, read_run_config, run_of
from training.run_dir import create_run_dir, describe, prepare, set_aside
from training.setup import model_of
from training.state import load_state


@dataclass(frozen=True)
class Launch:
    """What to train, where.

    Attributes:
        config: resolved.
        folder: the run directory.
        state: training state to go on from, or None to start.
        notes: lines for the log.
        goes_back: the state was named, so that whatever the run has beyond it is abandoned.
    """

    config: TrainingConfig
    folder: Path
    state: dict[str, Any] | None
    notes: list[str]
    goes_back: bool = False

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
    return resolve(config, num_images=len(data), world_size=world.size, data_key=data.key)


def continued(
    old: TrainingConfig, wanted: TrainingConfig, data: TrainingData, world: World
) -> tuple[TrainingConfig, list[str], list[str]]:
    """A config as it is when it continues a run.

    A micro-batch size that it leaves open is the run's, so that the same random numbers are drawn.
    More processes than the run has micro-batches cannot keep it: then it is the largest that fits.

    Args:
        old: the run's config.
        wanted: as read.
        data: for resolving.
        world: for resolving.

    Returns:
        (resolved config, what differs from the run's and needs leave, notes).

    Raises:
        UserError: it cannot be resolved for these processes.
    """
    before, is_open = old.run.batch_gpu, wanted.run.batch_gpu is None
    if is_open and before is not None and wanted.run.batch % world.size == 0:
        share = wanted.run.batch // world.size
        size = max(n for n in range(1, min(before, share) + 1) if share % n == 0)
        run = wanted.run.model_copy(update={"batch_gpu": size})
        wanted = wanted.model_copy(update={"run": run})
    config = settle(wanted, data, world)
    changed, notes = differences(old, config), []
    if is_open and config.run.batch_gpu != before and config.run.batch == old.run.batch:
        changed = [line for line in changed if not line.startswith("run.batch_gpu:")]
        notes = [
            f"micro-batches of {config.run.batch_gpu} images instead of {before}, for {world.size} "
            "processes: other random numbers from here on"
        ]
    return config, changed, notes


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

    def make() -> Choice:
        name = describe(config, dataset=data.name, world_size=world.size)
        return Choice(folder=str(create_run_dir(outdir, name if subdir else None)))

    chosen = decided_by_main(world, make)
    assert chosen.folder is not None
    return Launch(config, Path(chosen.folder), None, chosen.notes)


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
        UserError: nothing there, every state damaged, or the config changed without leave or in a
            way that the run cannot follow.
    """

    def choose() -> Choice:
        folder = run_of(where)
        old = read_run_config(folder)
        _, changed, notes = continued(old, wanted, data, world)
        if changed and not allow_config_change:
            raise UserError(
                f"the config differs from the run's in {'; '.join(changed)}: "
                "give --allow-config-change to go on with it"
            )
        notes += [f"config changed: {line}" for line in changed]
        if Path(where).is_file():
            return choose_state(where, folder, notes)
        return choose_newest(folder, notes)

    chosen = decided_by_main(world, choose)
    return _launched(chosen, wanted, data, world, goes_back=not Path(where).is_dir())


def resume_latest(
    outdir: str,
    wanted: TrainingConfig,
    data: TrainingData,
    world: World,
    *,
    allow_config_change: bool = False,
) -> tuple[Launch | None, list[str]]:
    """Continue the newest run in `outdir` that was started with this config.

    Args:
        outdir: results root, or a run directory itself.
        wanted: as read; its spans need not be resolved.
        data: for resolving.
        world: the processes; every one must call.
        allow_config_change: if there is none, take the newest that can go on with this config.

    Returns:
        (launch, notes): None if there is no such run; then the notes say why it is none of those
        that are there.
    """

    def choose() -> Choice:
        missed: list[tuple[Path, list[str]]] = []
        for folder in candidates(Path(outdir)):
            try:
                old = read_run_config(folder)
                config, changed, notes = continued(old, wanted, data, world)
            except UserError as error:
                missed.append((folder, [str(error)]))
                continue
            if not changed:
                return choose_newest(folder, notes)
            if allow_config_change:
                notes += [f"config changed: {line}" for line in changed]
                choice = choose_newest(folder, notes)
                if _can_go_on(choice, old, config, data):
                    return choice
            missed.append((folder, changed))
        if not missed:
            return Choice()
        newest, changed = missed[0]
        return Choice(notes=[
            f"no run in {outdir} has this config; {newest.name}, the newest, differs in "
            f"{'; '.join(changed)}",
            f"starting anew; to go on with that run: --resume={newest} "
            "--allow-config-change",
        ])  # fmt: skip

    chosen = decided_by_main(world, choose)
    if chosen.folder is None:
        return None, chosen.notes
    return _launched(chosen, wanted, data, world), []


def _can_go_on(
    choice: Choice, old: TrainingConfig, config: TrainingConfig, data: TrainingData
) -> bool:
    try:
        if choice.state is not None:
            _check_fit(old, config, data, load_state(choice.state))
    except UserError:
        return False
    return True


def _check_fit(
    old: TrainingConfig, config: TrainingConfig, data: TrainingData, state: dict[str, Any]
) -> None:
    """Refuse a state that cannot go on with a config.

    Raises:
        UserError: it cannot.
    """
    refuse_unloadable(old, config, state)
    with torch.device("meta"):
        ours = build(model_of(config, data)).state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    found = {name: tuple(t.shape) for name, t in state["trainer"]["denoiser"].items()}
    refuse_other_tensors(expected, found, differences(old, config))


def _launched(
    choice: Choice,
    wanted: TrainingConfig,
    data: TrainingData,
    world: World,
    *,
    goes_back: bool = False,
) -> Launch:
    """Load what was chosen, in every process, and prove that all have the same."""
    assert choice.folder is not None
    folder = Path(choice.folder)
    await_file(folder / CONFIG_FILE, world)
    old = read_run_config(folder)
    config, _, _ = continued(old, wanted, data, world)
    state = load_chosen(choice, world)
    if state is not None:
        _check_fit(old, config, data, state)
    return Launch(config, folder, state, choice.notes, goes_back)


def claim(launch: Launch, world: World) -> Launch:
    """Make the run's directory ready: its config as it is now, no leftovers, one branch.

    Returns:
        The launch, with a note on what was set aside.

    Raises:
        UserError: it cannot be written.
    """
    notes = launch.notes
    if world.is_main:
        prepare(launch.folder)
        if launch.goes_back:
            aside = set_aside(launch.folder, launch.seen)
            notes = notes if aside is None else [*notes, aside]
        with replacing(launch.folder / CONFIG_FILE) as temporary:
            temporary.write_text(dump_config(launch.config), encoding="utf-8")
    world.meet()
    return replace(launch, notes=notes)
