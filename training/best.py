"""Which snapshot of a run has the best score: read off stats.jsonl, which outlives any kill."""

from pathlib import Path

from models.snapshot import snapshot_path
from training.run_log import images_of, read_scores


def best_snapshot(folder: Path, name: str, *, is_distance: bool, after: int) -> Path | None:
    """The best-scored snapshot that is still there; of equal ones the first.

    Snapshots that were set aside or deleted do not count.

    Args:
        folder: the run directory.
        name: of the score in stats.jsonl.
        is_distance: whether a smaller score is better.
        after: scores of snapshots with no more images than that do not count.
    """
    best: tuple[float, Path] | None = None
    for row in read_scores(folder):
        score = row.get(name, {}).get("mean")
        path = snapshot_path(folder, images_of(row))
        if score is None or images_of(row) <= after or not path.is_file():
            continue
        loss = score if is_distance else -score
        if best is None or loss < best[0]:
            best = loss, path
    return None if best is None else best[1]
