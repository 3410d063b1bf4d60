"""Which run to continue, and whether its config allows it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from models.config import validated
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.files import writing
from torch_utils.locks import Busy, holding
from training.config import TrainingConfig, differences
from training.recipes import read_recipe

CONFIG_FILE = "config.yaml"


def read_run_config(folder: Path) -> TrainingConfig:
    """The resolved config of a run.

    Raises:
        UserError: the folder is no run directory.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} is no run directory: it has no {CONFIG_FILE}")
    config: TrainingConfig = validated(TrainingConfig, read_recipe(path), str(path))
    return config


def run_of(resume: str) -> Path:
    """The run directory that `--resume=FILE|RUNDIR` means.

    Raises:
        UserError: there is nothing at that path.
    """
    path = Path(resume)
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    raise UserError(
        f"nothing to resume at {resume}: give a training state, a run directory, latest"
    )


def check_unchanged(old: TrainingConfig, new: TrainingConfig, *, allow: bool) -> list[str]:
    """What changed since a run was started.

    Returns:
        Lines that tell; empty if nothing did.

    Raises:
        UserError: something did and `allow` is not set.
    """
    changed = differences(old, new)
    if changed and not allow:
        raise UserError(
            f"the config differs from the run's in {'; '.join(changed)}: "
            "give --allow-config-change to go on with it"
        )
    return changed


@contextlib.contextmanager
def locked(folder: Path, world: World) -> Iterator[None]:
    """Hold a run directory, so that no two runs train in it; the main process does.

    The system frees the lock when the process ends, however it ends.

    Raises:
        UserError: another process holds it, or it can be neither written nor read.
    """
    if not world.is_main:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            with writing(folder):
                stack.enter_context(holding(folder / ".lock", "trains there", wait=False))
        except Busy as holder:
            raise UserError(
                f"another process is training in {folder}: {holder}; stop it first, or wait for it"
            ) from None
        yield
