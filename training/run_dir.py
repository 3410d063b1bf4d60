"""The run directory: its name, its creation, and what is set aside when a run goes back."""

import itertools
import os
import re
import shutil
from pathlib import Path

from torch_utils.errors import UserError
from torch_utils.files import prepare_folder, sync_folder, writing
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


def next_run_dir(outdir: Path, description: str) -> Path:
    """Where the next run goes: one more than the highest number in `outdir`."""
    taken = [0]
    if outdir.is_dir():
        names = (entry.name for entry in outdir.iterdir() if entry.is_dir())
        taken += [
            int(match[0]) + 1 for match in (re.match(r"\d+", name) for name in names) if match
        ]
    return outdir / f"{max(taken):05d}-{description}"


def create_run_dir(outdir: str | os.PathLike[str], description: str | None) -> Path:
    """Make a new run directory; two runs that start at once get two.

    Args:
        outdir: results root.
        description: name without number; None to use `outdir` itself.

    Raises:
        UserError: the folder cannot be made or written.
    """
    root = Path(outdir)
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        while description is not None:
            folder = next_run_dir(root, description)
            try:
                folder.mkdir()
            except FileExistsError:
                continue  # another run took the number in between
            return folder
        if (root / "config.yaml").exists():
            raise UserError(f"{outdir} already holds a run: resume it, or give another --outdir")
    prepare(root)
    return root


def prepare(folder: Path) -> None:
    """Check that a run directory can be written and remove half-written files of a killed process.

    Raises:
        UserError: it cannot be written.
    """
    with writing(folder):
        for leftover in folder.glob(".*.tmp-*"):
            leftover.unlink()
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
