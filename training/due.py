"""Where a run is, and when the next snapshot, state, preview and score are due."""

from dataclasses import dataclass
from typing import Any

from training.config import ResolvedConfig

# what is due: the attribute of `Milestones`, and the key that holds its interval
_INTERVALS = (
    ("next_snapshot", "run", "snap"),
    ("next_state", "run", "dump"),
    ("next_preview", "preview", "every"),
)
# sections that scores depend on: those of other ones cannot be compared
_OF_SCORES = ("evaluate", "sampler")
_NOT_OF_SCORES = ("enabled", "every", "batch", "keep_best")


@dataclass
class Milestones:
    """How far the loop is, beside what the trainer counts.

    Attributes:
        tick: number of the current tick.
        tick_start: images seen when it began.
        next_snapshot, next_state, next_preview: images at which the next one is due.
        num_snapshots: how many were due so far.
        to_score: images seen by the last snapshot that was to be scored.
        scores_after: scores of snapshots with more images can be compared with those to come.
    """

    tick: int = 0
    tick_start: int = 0
    next_snapshot: int = 0
    next_state: int = 0
    next_preview: int = 0
    num_snapshots: int = 0
    to_score: int = 0
    scores_after: int = 0

    def follow(self, config: ResolvedConfig, before: dict[str, Any], seen: int) -> None:
        """Count intervals that have changed from now on; what the others have scheduled stays due.

        Args:
            config: as it is now.
            before: the former config, as a tree.
            seen: images seen.
        """
        now = config.model_dump(mode="json")  # as states hold it
        for name, section, key in _INTERVALS:
            interval = getattr(getattr(config, section), key)
            if interval is not None and now[section][key] != before.get(section, {}).get(key):
                setattr(self, name, next_multiple(seen, interval))
        if _of_scores(now) != _of_scores(before):
            self.to_score, self.scores_after = 0, seen


def _of_scores(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What the scores of a config depend on, beside the weights."""
    sections = [config.get(name, {}) for name in _OF_SCORES]
    return [
        {key: value for key, value in section.items() if key not in _NOT_OF_SCORES}
        for section in sections
    ]


def next_multiple(seen: int, interval: int) -> int:
    """The first multiple of `interval` after `seen`."""
    return (seen // interval + 1) * interval
