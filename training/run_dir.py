"""The run directory: its name, its creation, and the text that goes to screen and log alike."""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from torch_utils.errors import UserError
from torch_utils.files import prepare_folder, replacing, writing
from torch_utils.registry import split_name
from training.config import TrainingConfig
from training.recipes import load_config
from training.statistics import single


def describe(
    config: TrainingConfig,
    *,
    dataset: str,
    world_size: int,
    recipe: str | os.PathLike[str] | None = None,
) -> str:
    """The name of a run without its number: what is trained, processes, batch, precision.

    What is trained is the recipe's name and what the command line made different from it; without
    a recipe the data, the model and the terms of the loss beside plain denoising.

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


class RunLog:
    """Screen, log.txt, stats.jsonl and TensorBoard events of a run, written by the main process.

    Events are written if TensorBoard is installed; their steps are images seen.

    Args:
        folder: the run directory; None on processes that do not write.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._events: Any = None

    def say(self, text: str) -> None:
        """Print a line and append it to log.txt."""
        if self.folder is None:
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        with open(self.folder / "log.txt", "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def record(self, statistics: dict[str, dict[str, Any]], extra: dict[str, float]) -> None:
        """Append a line of strict JSON to stats.jsonl, and the means to the events."""
        if self.folder is None:
            return
        values = statistics | {name: single(value) for name, value in extra.items()}
        line = json.dumps({**values, "timestamp": time.time()}, allow_nan=False)
        with open(self.folder / "stats.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._events is None:
            self._events = _event_writer(self.folder, values)
        for name, entry in values.items():
            if entry["mean"] is not None:
                self._events.add_scalar(name, entry["mean"], _images(values))
        self._events.flush()

    def rewind(self, images: int) -> None:
        """Drop lines of stats.jsonl about progress beyond `images`, which will be made again."""
        if self.folder is None or not (self.folder / "stats.jsonl").exists():
            return
        path = self.folder / "stats.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _is_until(line, images)]
        if len(kept) < len(lines):
            with replacing(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _images(values: dict[str, dict[str, Any]]) -> int:
    """Images seen at the time of a line of statistics."""
    images: int = round(values["Progress/kimg"]["mean"] * 1e3)
    return images


class _NoEvents:
    """Stands in for TensorBoard's writer where TensorBoard is not installed."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Write nothing."""


def _event_writer(folder: Path, values: dict[str, dict[str, Any]]) -> Any:
    """TensorBoard's writer; events of an earlier process from this step on do not count."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return _NoEvents()
    return SummaryWriter(str(folder), purge_step=_images(values))


def _is_until(line: str, images: int) -> bool:
    """Whether a line of stats.jsonl is whole and about no more than `images`."""
    try:
        return bool(json.loads(line)["Progress/kimg"]["mean"] * 1e3 <= images + 0.5)
    except (ValueError, KeyError, TypeError):
        return False
