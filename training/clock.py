"""Times and memory of ticks, under EDM's names, and the line that shows them to people."""

import math
import time
from typing import Any

import torch

from training.statistics import single


class Clock:
    """Measures ticks and the maintenance (snapshots, grids, states) between them.

    Args:
        earlier_seconds: time that the run took before it was resumed.
    """

    def __init__(self, earlier_seconds: float = 0.0) -> None:
        self._start = self._tick_start = self._tick_end = time.monotonic()
        self._earlier = earlier_seconds
        self._maintenance = 0.0

    def total(self) -> float:
        """Seconds of the whole run, earlier processes included."""
        return self._earlier + time.monotonic() - self._start

    def tick(
        self, tick: int, seen: int, tick_images: int, device: torch.device
    ) -> dict[str, dict[str, Any]]:
        """Entries of stats.jsonl for a tick that ends now.

        Args:
            tick: its number.
            seen: images seen in the run.
            tick_images: images seen in this tick by this process's run.
            device: whose memory to report.
        """
        self._tick_end = time.monotonic()
        seconds = self._tick_end - self._tick_start
        values = {
            "Progress/tick": tick,
            "Progress/kimg": seen / 1e3,
            "Timing/total_sec": self.total(),
            "Timing/sec_per_tick": seconds,
            "Timing/sec_per_kimg": seconds / max(tick_images, 1) * 1e3,
            "Timing/maintenance_sec": self._maintenance,
            "Resources/cpu_mem_gb": _peak_cpu_memory_gb(),
        }
        if device.type == "cuda":
            allocated = torch.cuda.max_memory_allocated(device)
            reserved = torch.cuda.max_memory_reserved(device)
            values["Resources/peak_gpu_mem_gb"] = allocated / 2**30
            values["Resources/peak_gpu_mem_reserved_gb"] = reserved / 2**30
            torch.cuda.reset_peak_memory_stats(device)
        return {name: single(value) for name, value in values.items()}

    def end_of_maintenance(self) -> None:
        """The work between ticks is done; the next tick's steps begin."""
        self._tick_start = time.monotonic()
        self._maintenance = self._tick_start - self._tick_end


def _peak_cpu_memory_gb() -> float:
    """Peak resident memory of this process; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # not POSIX
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def status_line(statistics: dict[str, dict[str, Any]], skipped: int) -> str:
    """One line for people about a tick.

    Args:
        statistics: what goes to stats.jsonl.
        skipped: steps skipped so far because they were not finite; shown if there are any.
    """

    def value(name: str) -> float:
        mean = statistics[name]["mean"]
        return math.nan if mean is None else float(mean)

    line = (
        f"tick {value('Progress/tick'):<5.0f} kimg {value('Progress/kimg'):<9.1f} "
        f"loss {value('Loss/loss'):<8.4f} time {value('Timing/total_sec'):<7.0f} "
        f"sec/kimg {value('Timing/sec_per_kimg'):<8.3f} "
        f"maintenance {value('Timing/maintenance_sec'):<6.1f} "
        f"cpumem {value('Resources/cpu_mem_gb'):.2f}"
    )
    if "Resources/peak_gpu_mem_gb" in statistics:
        line += f" gpumem {value('Resources/peak_gpu_mem_gb'):.2f}"
    return f"{line} skipped {skipped}" if skipped else line
