"""Where a run is, and when the next snapshot, state and preview are due."""

from dataclasses import dataclass
from typing import Any

from training.config import ResolvedConfig

# what is due: the attribute of `Milestones`, and the key that holds its interval
_INTERVALS = (
    ("next_snapshot", "run", "snap"),
    ("next_state", "run", "dump"),
    ("next_preview", "preview", "every"),
)


@dataclass
class Milestones:
    """How far the loop is, beside what the trainer counts.

    Attributes:
        tick: number of the current tick.
        tick_start: images seen when it began.
        next_snapshot, next_state, next_preview: images at which the next one is due.
    """

    tick: int = 0
    tick_start: int = 0
    next_snapshot: int = 0
    next_state: int = 0
    next_preview: int = 0

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


def next_multiple(seen: int, interval: int) -> int:
    """The first multiple of `interval` after `seen`."""
    return (seen // interval + 1) * interval
