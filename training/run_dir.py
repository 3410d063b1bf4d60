"""The run directory: its name, its creation, and what is set aside when a run goes back."""

import itertools
import os
import re
import shutil
from pathlib import Path

from torch_utils.errors import UserError
from torch_utils.files import drop_temporaries, prepare_folder, sync_folder, writing
from training.config import TrainingConfig
from training.state import images_of


def describe(config: TrainingConfig, *, dataset: str, world_size: int) -> str:
    """The name of a run without its number: data, model, processes, batch, precision."""
    parts = [
        dataset,
        "cond" if config.data.cond else "uncond",
        config.network["name"],
        config.preconditioning.name,
        f"gpus{world_size}",
        f"batch{config.run.batch}",
        config.run.precision,
    ]
    if config.run.desc:
        parts.append(config.run.desc)
    return "-".join(parts)


def next_number(outdir: Path) -> int:
    """One more than the highest number in `outdir`: of runs, files and links to nowhere alike."""
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
        if os.path.lexists(root / "config.yaml"):
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

    Going back to an earlier state starts another branch; what the abandoned one had written must
    neither be taken for the new one's nor be lost.

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
        for pattern in ("training-state-*.pt", "network-snapshot-*.safetensors", "samples-*.png")
        for path in folder.glob(pattern)
        if images_of(path) > seen
    ]
    if not beyond:
        return None
    number = next(n for n in itertools.count(1) if not os.path.lexists(folder / _aside(n)))
    with writing(folder):
        target = folder / _aside(number)
        target.mkdir()
        if (folder / "stats.jsonl").is_file():
            shutil.copy2(folder / "stats.jsonl", target)
        for path in sorted(beyond, key=images_of, reverse=True):  # a kill leaves no gap behind
            path.rename(target / path.name)
        sync_folder(folder)
    return f"going back to {seen:,} images: {len(beyond)} later files moved to {target}"


def _aside(number: int) -> str:
    return f"abandoned-{number:03d}"
