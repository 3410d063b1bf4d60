"""Run directories: finding, naming, making and locking them, and setting files aside."""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from models.snapshot import SNAPSHOTS
from torch_utils.errors import UserError
from torch_utils.files import drop_temporaries, prepare_folder, sync_folder, writing
from torch_utils.locks import Busy, holding
from torch_utils.registry import split_name
from training.config import TrainingConfig
from training.recipes import load_config
from training.state import PATTERN, seen_of

CONFIG_FILE = "config.yaml"


def read_run_config(folder: Path) -> TrainingConfig:
    """The resolved config of a run.

    Raises:
        UserError: the folder is not a run directory.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        is_aside = folder.name.startswith("abandoned-") and (folder.parent / CONFIG_FILE).is_file()
        hint = f"; to go back to what is in it, move the state to {folder.parent}"
        raise UserError(
            f"{folder} is not a run directory: it has no {CONFIG_FILE}{hint if is_aside else ''}"
        )
    return load_config(path)


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

    The newest is the one that has seen the most images; of equal ones, the one written last. Only
    names that `create_run_dir` gives count, so that a copy of another name is not taken for a run.

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
    return seen_of(states[-1]), states[-1].stat().st_mtime


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run directory, so that no two runs train in it.

    The system frees the lock when the process ends, however it ends.

    Raises:
        UserError: another process holds it, or it can be neither written nor read.
    """
    with contextlib.ExitStack() as stack:
        try:
            with writing(folder):
                stack.enter_context(holding(folder / ".lock", "trains there", wait=False))
        except Busy as holder:
            raise UserError(
                f"another process is training in {folder}: {holder}; stop it first, or wait for it"
            ) from None
        yield


def describe(
    config: TrainingConfig,
    *,
    dataset: str,
    world_size: int,
    recipe: str | os.PathLike[str] | None = None,
) -> str:
    """The name of a run without its number: what is trained, processes, batch, precision.

    With a recipe, the name says its name and what the command line changed. Without one, it says
    the data, the model and the terms of the loss beside plain denoising.

    Args:
        config: of the run.
        dataset: the name of the data set.
        world_size: number of processes.
        recipe: the file that --config named.
    """
    parts = _objective(config, dataset)
    if recipe is not None:
        own = load_config(recipe)
        is_other_data = own.data.path != config.data.path
        before = _objective(own, dataset=None if is_other_data else dataset)
        stem = re.sub(r"[^\w.+=-]+", "_", Path(recipe).stem)
        parts = [stem, *(part for part in parts if part not in before)]
    parts += [f"gpus{world_size}", f"batch{config.run.batch}", config.run.precision]
    if config.run.desc:
        parts.append(config.run.desc)
    return "-".join(parts)


def _objective(config: TrainingConfig, dataset: str | None) -> list[str]:
    """Data, network, preconditioning and terms by name."""
    preset, output = config.preconditioning.name, config.preconditioning.output
    terms = [split_name("loss.terms entry", entry)[0] for entry in config.loss.terms]
    return [
        *([] if dataset is None else [dataset]),
        "cond" if config.data.cond else "uncond",
        config.network["name"],
        preset if output is None else f"{preset}_{output}",
        *(term for term in terms if term != "denoising"),
    ]


def next_number(outdir: Path) -> int:
    """One more than the highest number in `outdir`, be it of a run, a file or a broken link."""
    matches = (re.match(r"\d+", name) for name in os.listdir(outdir))
    return max((int(match[0]) + 1 for match in matches if match), default=0)


def create_run_dir(outdir: str | os.PathLike[str], description: str | None) -> Path:
    """Make a new run directory; two runs that start at once get two.

    Args:
        outdir: results root.
        description: name without number; None to use `outdir` itself.

    Raises:
        UserError: the folder cannot be made or written.
    """
    root = Path(outdir)
    prepare_folder(root)
    with writing(root):
        if description is not None:
            return _numbered(root, description)
        if os.path.lexists(root / CONFIG_FILE):
            raise UserError(f"{outdir} already holds a run: resume it, or give another --outdir")
    prepare(root)
    return root


def _numbered(root: Path, description: str) -> Path:
    """Make the directory of the next number; each attempt takes a higher one."""
    number = next_number(root)
    while True:
        folder = root / f"{number:05d}-{description}"
        try:
            folder.mkdir()
        except FileExistsError:  # another run took it; a listing may not show that yet
            number = max(number + 1, next_number(root))
            continue
        return folder


def prepare(folder: Path) -> None:
    """Check that a run directory can be written and remove half-written files of a killed process.

    Raises:
        UserError: it cannot be written.
    """
    with writing(folder):
        drop_temporaries(folder)
    prepare_folder(folder)


def set_aside(folder: Path, seen: int) -> str | None:
    """Move what a run has beyond a number of images into a folder of its own.

    Going back to an earlier state starts a new branch. The files of the abandoned one must not be
    lost, and must not be taken for the new one's.

    Args:
        folder: the run directory.
        seen: images at which the new branch starts.

    Returns:
        A line about it; None if there was nothing.

    Raises:
        UserError: it cannot be moved.
    """
    beyond = [
        path
        for pattern in (PATTERN, SNAPSHOTS, "samples-*.png")
        for path in folder.glob(pattern)
        if seen_of(path) > seen
    ]
    if not beyond:
        return None
    number = next(n for n in itertools.count(1) if not os.path.lexists(folder / _aside(n)))
    with writing(folder):
        target = folder / _aside(number)
        target.mkdir()
        if (folder / "stats.jsonl").is_file():
            shutil.copy2(folder / "stats.jsonl", target)
        for path in sorted(beyond, key=seen_of, reverse=True):  # a kill leaves no gap behind
            path.rename(target / path.name)
        sync_folder(folder)
    return f"going back to {seen:,} images: {len(beyond)} later files moved to {target}"


def _aside(number: int) -> str:
    return f"abandoned-{number:03d}"
