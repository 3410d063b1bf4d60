"""Times and memory of ticks, under EDM's names, and the line that shows them to people."""

import math
import time
from typing import Any

import torch

from training.tally import single


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

    def here(self, device: torch.device) -> float:
        """Seconds of this process's part of the run, when the device has done all it was given."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic() - self._start

    def tick(
        self, tick: int, seen: int, in_tick: int, device: torch.device
    ) -> dict[str, dict[str, Any]]:
        """Entries of stats.jsonl for a tick that ends now.

        Args:
            tick: its number.
            seen: images seen in the run.
            in_tick: images seen in this tick by this process's run.
            device: whose memory to report.
        """
        self._tick_end = time.monotonic()
        seconds = self._tick_end - self._tick_start
        values = {
            "Progress/tick": tick,
            "Progress/kimg": seen / 1e3,
            "Timing/total_sec": self.total(),
            "Timing/sec_per_tick": seconds,
            "Timing/sec_per_kimg": seconds / max(in_tick, 1) * 1e3,
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


WIDTH = 80  # columns of a line that people read
_NOT_TERMS = ("Loss/loss", "Loss/sigma/")


def status_line(statistics: dict[str, dict[str, Any]], skipped: int) -> str:
    """One line for people about a tick: as much of it as fits in `WIDTH` columns.

    Args:
        statistics: what goes to stats.jsonl.
        skipped: steps skipped so far because they were not finite; shown if there are any.
    """

    def value(name: str) -> float:
        mean = statistics[name]["mean"]
        return math.nan if mean is None else float(mean)

    kimg = value("Progress/kimg")
    count = f"kimg {kimg:<8.1f}" if kimg >= 10 else f"img {kimg * 1e3:<9.0f}"
    line = f"tick {value('Progress/tick'):<4.0f} {count} loss {value('Loss/loss'):<7.4g}"
    last = f" skipped {skipped}" if skipped else ""
    rest = [
        _terms(statistics, WIDTH - len(line) - len(last)),
        f" time {duration(value('Timing/total_sec')):<7}",
        f" sec/kimg {value('Timing/sec_per_kimg'):<7.4g}",
    ]
    if "Resources/peak_gpu_mem_gb" in statistics:
        rest.append(f" gpumem {value('Resources/peak_gpu_mem_gb'):<5.1f}")
    rest.append(f" cpumem {value('Resources/cpu_mem_gb'):<5.1f}")
    rest.append(f" maintenance {value('Timing/maintenance_sec'):.1f}")
    for part in rest:
        if len(line) + len(part.rstrip()) + len(last) <= WIDTH:
            line += part
    return line.rstrip() + last


def _terms(statistics: dict[str, dict[str, Any]], width: int) -> str:
    """The terms of a loss that has several, with as much of their names as there is room for."""
    terms = {
        name.removeprefix("Loss/"): entry["mean"]
        for name, entry in statistics.items()
        if name.startswith("Loss/") and not name.startswith(_NOT_TERMS)
    }
    if len(terms) < 2:
        return ""
    for letters in (None, 5, 3):
        parts = [
            f"{name[:letters]} {math.nan if mean is None else mean:.3g}"
            for name, mean in terms.items()
        ]
        text = f"({', '.join(parts)}) "
        if len(text) <= width:
            break
    return text


def duration(seconds: float) -> str:
    """A time as people read it, in at most seven characters: 45s, 12m 05s, 3h 02m, 2d 03h."""
    whole = round(seconds)
    for unit, part, large, small in (("h", 3600, "d", 24), ("m", 60, "h", 60)):
        if whole >= part * small:
            number, rest = divmod(whole // part, small)
            return f"{number}{large} {rest:02d}{unit}"
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"
