"""The text of a run: lines for people, stats.jsonl, TensorBoard events."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch_utils.files import replacing
from training.tally import single

STATS_FILE = "stats.jsonl"
LOG_FILE = "log.txt"
SCORE_PREFIX = "Score/"  # of the names of scores


def read_stats(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's ticks: name -> number, mean and deviation, and a timestamp."""
    return [row for row in _rows(folder) if "Progress/tick" in row]


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's scores, like those of ticks; none if nothing was written yet."""
    rows = _rows(folder) if (folder / STATS_FILE).is_file() else []
    return [row for row in rows if any(name.startswith(SCORE_PREFIX) for name in row)]


def images_of(row: dict[str, Any]) -> int:
    """Images seen at the time of a row of statistics."""
    seen: int = round(row["Progress/kimg"]["mean"] * 1e3)
    return seen


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The whole rows. A run that writes at this moment, or was killed, may end in part of one."""
    *lines, _ = (folder / STATS_FILE).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]


def find_stats(path: str | os.PathLike[str]) -> list[dict[str, Any]] | None:
    """All rows of a run directory, ticks and scores; None if a path is something else."""
    return _rows(Path(path)) if (Path(path) / STATS_FILE).is_file() else None


class RunLog:
    """log.txt, stats.jsonl and TensorBoard events of a run, written by the main process.

    Events are written if TensorBoard is installed; their steps are images seen.

    Args:
        folder: the run directory; None on processes that do not write.
        tell: called with every line of log.txt; None to write the file only.
    """

    def __init__(self, folder: Path | None, tell: Callable[[str], None] | None = None) -> None:
        self.folder = folder
        self._tell = tell
        self._events: Any = None
        self._first_event = 0

    def say(self, text: str) -> None:
        """Append a line to log.txt, and call `tell` with it."""
        if self.folder is None:
            return
        if self._tell is not None:
            self._tell(text)
        with open(self.folder / LOG_FILE, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def record(self, statistics: dict[str, dict[str, Any]], extra: dict[str, float]) -> None:
        """Append a line of strict JSON to stats.jsonl, and the means to the events."""
        if self.folder is None:
            return
        values = statistics | {name: single(value) for name, value in extra.items()}
        line = json.dumps({**values, "timestamp": time.time()}, allow_nan=False)
        with open(self.folder / STATS_FILE, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._events is None:
            self._events = _event_writer(self.folder, self._first_event)
        for name, entry in values.items():
            if entry["mean"] is not None:
                self._events.add_scalar(name, entry["mean"], images_of(values))
        self._events.flush()

    def rewind(self, seen: int) -> None:
        """Mend what a kill left: unfinished lines, and statistics that will be made again.

        Args:
            seen: images seen by the state to go on from; lines about more are dropped.
        """
        if self.folder is None:
            return
        self._first_event = seen + 1
        path = self.folder / STATS_FILE
        if path.exists():
            content = path.read_bytes()
            kept = [line for line in content.split(b"\n") if _is_until(line, seen)]
            mended = b"".join(line + b"\n" for line in kept)
            if mended != content:
                with replacing(path) as temporary:
                    temporary.write_bytes(mended)
        text = self.folder / LOG_FILE
        if text.exists() and text.stat().st_size:
            with open(text, "rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")


class _NoEvents:
    """Stands in for TensorBoard's writer where TensorBoard is not installed."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Write nothing."""


def _event_writer(folder: Path, first: int) -> Any:
    """TensorBoard's writer; events of an earlier process from that step on do not count."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return _NoEvents()
    return SummaryWriter(str(folder), purge_step=first)


def _is_until(line: bytes, seen: int) -> bool:
    """Whether a line of stats.jsonl is whole and about no more than so many images."""
    try:
        return bool(json.loads(line)["Progress/kimg"]["mean"] * 1e3 <= seen + 0.5)
    except (ValueError, KeyError, TypeError):
        return False
