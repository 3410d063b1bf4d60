"""What is in a run directory, as plain data for people: snapshots, states, best scores."""

from pathlib import Path
from typing import Any

from models.snapshot import SNAPSHOTS, is_other_average, point_of
from scoring.curves import is_larger_better
from training.best import best_snapshot
from training.run_dir import CONFIG_FILE
from training.run_log import LOG_FILE, SCORE_PREFIX, images_of, read_scores
from training.state import PATTERN, seen_of


def is_run(path: Path) -> bool:
    """Whether a path is a run directory, or a folder with snapshots or states of one."""
    if not path.is_dir():
        return False
    has_begun = (path / CONFIG_FILE).is_file() and (path / LOG_FILE).is_file()
    return has_begun or any(path.glob(SNAPSHOTS)) or any(path.glob(PATTERN))


def described_run(folder: Path) -> dict[str, Any]:
    """The snapshots and states of a run with their progress, and its best scores."""
    record: dict[str, Any] = {"folder": str(folder), "snapshots": [], "states": []}
    points: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(SNAPSHOTS)):
        points.setdefault(point_of(path), []).append(path)
    for name, files in sorted(points.items()):
        others = [_length(path) for path in files if is_other_average(path)]
        row = {"file": name, "images": seen_of(files[-1])}
        record["snapshots"].append(row | ({"other_averages": others} if others else {}))
    for path in sorted(folder.glob(PATTERN)):
        record["states"].append({"file": path.name, "images": seen_of(path)})
    best = _best(folder)
    return record | ({"best": best} if best else {})


def _length(path: Path) -> str:
    return path.stem.rsplit("-", 1)[-1]


def _best(folder: Path) -> dict[str, Any]:
    """For each score the snapshot that has the best one, among those that are still there."""
    rows, found = read_scores(folder), dict[str, Any]()
    for name in dict.fromkeys(key for row in rows for key in row if key.startswith(SCORE_PREFIX)):
        path = best_snapshot(folder, name, is_distance=not is_larger_better(name), after=-1)
        if path is not None:
            of_it = [row for row in rows if name in row and images_of(row) == seen_of(path)]
            score = {"score": of_it[-1][name]["mean"], "file": path.name}
            found[name.removeprefix(SCORE_PREFIX)] = score
    return found
