"""Run directories on the disk: which there are, their configs, and who trains in one."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from models.config import validated
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.files import writing
from torch_utils.locks import Busy, holding
from training.config import TrainingConfig
from training.recipes import read_recipe
from training.state import PATTERN, images_of

CONFIG_FILE = "config.yaml"


def read_run_config(folder: Path) -> TrainingConfig:
    """The resolved config of a run.

    Raises:
        UserError: the folder is no run directory.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        is_aside = folder.name.startswith("abandoned-") and (folder.parent / CONFIG_FILE).is_file()
        hint = f"; to go back to what is in it, move the state to {folder.parent}"
        raise UserError(
            f"{folder} is no run directory: it has no {CONFIG_FILE}{hint if is_aside else ''}"
        )
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


def candidates(outdir: Path) -> list[Path]:
    """Run directories of ours at or in a folder, the newest first.

    Newest is what is farthest; of runs equally far, what was written last. Only names that
    `create_run_dir` gives count, so that no copy under another name is taken for a run.

    Raises:
        UserError: the folder cannot be read.
    """
    if not outdir.is_dir():
        return []
    try:
        entries = list(outdir.iterdir())
    except OSError as error:
        raise UserError(f"cannot look into {outdir}: {error.strerror or error}") from None
    below = [entry for entry in entries if re.match(r"\d{5,}-", entry.name)]
    runs = [folder for folder in (outdir, *below) if (folder / CONFIG_FILE).is_file()]
    return sorted(runs, key=_age, reverse=True)


def _age(folder: Path) -> tuple[int, float]:
    """(images of the newest state, time of the last writing)."""
    states = sorted(folder.glob(PATTERN))
    if not states:
        return 0, (folder / CONFIG_FILE).stat().st_mtime
    return images_of(states[-1]), states[-1].stat().st_mtime


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
