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
from torch_utils.files import drop_temporaries, prepare_folder, replacing, writing
from training.config import TrainingConfig
from training.statistics import single


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
