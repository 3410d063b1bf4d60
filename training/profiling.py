"""A profile of a few training steps: a trace for a viewer, and a table of operators for people.

The steps are those of the run. Watching them takes time and changes no bit.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from torch_utils.files import replacing

TRACE_FILE, TABLE_FILE = "trace.json.gz", "operators.txt"
NUM_SKIPPED = 2  # steps before: the first ones allocate, and choose algorithms
NUM_WARM_UP = 1  # steps that are watched and not kept
NUM_ROWS = 40  # of the table
_MIB = 2**20


@dataclass(frozen=True)
class Operator:
    """What an operator took in a step, on average.

    Attributes:
        name: e.g. aten::addmm, or the name of a kernel.
        calls: how often it ran.
        cpu_ms, gpu_ms: milliseconds in it, without those in operators that it called.
        gflops: of it and of what it called, where PyTorch knows a formula; else 0.
        mib: memory that it allocated and did not free, where the steps ran.
    """

    name: str
    calls: float
    cpu_ms: float
    gpu_ms: float
    gflops: float
    mib: float


class StepProfile:
    """While active, watches some steps of a loop that calls `after_step`, and writes what it saw.

    Args:
        num: steps to profile.
        folder: the run directory.
        device: where the steps run.
        seen: images seen before the first step.
        say: called with lines about it.
    """

    def __init__(
        self,
        num: int,
        folder: Path,
        device: torch.device,
        seen: int,
        say: Callable[[str], None],
    ) -> None:
        self._num, self._folder, self._device, self._say = num, folder, device, say
        self._num_done, self._first, self._is_over = 0, seen, False
        self._profile = profile(
            activities=activities_on(device),
            schedule=schedule(skip_first=NUM_SKIPPED, wait=0, warmup=NUM_WARM_UP, active=num,
                              repeat=1),
            profile_memory=True,
            with_flops=True,
        )  # fmt: skip

    def __enter__(self) -> "StepProfile":
        self._profile.start()
        return self

    def after_step(self, seen: int) -> None:
        """Note that a step has ended, with so many images seen in the run."""
        if self._is_over:
            return
        self._num_done += 1
        self._profile.step()
        if self._num_done == NUM_SKIPPED + NUM_WARM_UP:
            self._first = seen
        if self._num_done == NUM_SKIPPED + NUM_WARM_UP + self._num:
            self._finish()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_over:
            return
        if error is None:
            self._finish()
        else:
            self._profile.stop()

    def _finish(self) -> None:
        """Stop watching, and write what there is."""
        self._is_over = True
        self._profile.stop()
        num = self._num_done - NUM_SKIPPED - NUM_WARM_UP
        if num < 1:
            self._say(
                f"no profile: it begins after {NUM_SKIPPED + NUM_WARM_UP} steps, and this start "
                f"took {self._num_done}"
            )
            return
        folder = self._folder / f"profile-{self._first:010d}"
        with replacing(folder / TRACE_FILE) as path:
            self._profile.export_chrome_trace(str(path))
        rows = operators_of(self._profile.key_averages(), num, self._device)
        if self._device.type == "cuda" and not any(row.gpu_ms for row in rows):
            self._say(
                "profile: the GPU's kernels could not be watched (CUPTI): the host's side only"
            )
        with replacing(folder / TABLE_FILE) as path:
            path.write_text("\n".join(table_of(rows, num)) + "\n", encoding="utf-8")
        self._say(f"profile of {num} step(s): {folder / TABLE_FILE}, and {TRACE_FILE} beside it")


def activities_on(device: torch.device) -> list[ProfilerActivity]:
    """What can be watched on a device.

    From then on, PyTorch's profiler prints no lines of its own, unless the user wants them.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    wanted = [ProfilerActivity.CPU]
    if device.type == "cuda":
        wanted.append(ProfilerActivity.CUDA)
    known = supported_activities()  # type: ignore[no-untyped-call]
    return [activity for activity in wanted if activity in known]


def operators_of(averages: Iterable[Any], num: int, device: torch.device) -> list[Operator]:
    """The operators of a profile, the most time first.

    Args:
        averages: of `torch.profiler.profile.key_averages`.
        num: steps that were profiled.
        device: where they ran.
    """
    on_gpu = device.type == "cuda"
    rows = []
    for event in averages:
        # time on the GPU is told twice, of kernels and of the operators that launched them, and
        # a third time of spans that are only named
        is_on_host = event.device_type.name == "CPU"
        is_span = not is_on_host and getattr(event, "is_user_annotation", False)
        if is_span or event.key.startswith("ProfilerStep"):
            continue
        memory = event.self_device_memory_usage if on_gpu else event.self_cpu_memory_usage
        rows.append(
            Operator(
                event.key,
                event.count / num,
                event.self_cpu_time_total / 1e3 / num if is_on_host else 0.0,
                0.0 if is_on_host else event.self_device_time_total / 1e3 / num,
                event.flops / 1e9 / num,
                memory / (_MIB * num),
            )
        )
    return sorted(rows, key=lambda row: (row.gpu_ms, row.cpu_ms), reverse=True)


def table_of(rows: list[Operator], num: int) -> list[str]:
    """The operators that took the most time, a line each, below a heading."""
    cpu, gpu = sum(row.cpu_ms for row in rows), sum(row.gpu_ms for row in rows)
    sides = [("CPU", "cpu_ms", cpu), ("GPU", "gpu_ms", gpu)][: 2 if gpu else 1]
    total = " and ".join(f"{ms:,.1f} ms on the {name}" for name, _, ms in sides)
    times = "".join(f" {name + ' ms':>9} {name + ' %':>6}" for name, _, _ in sides)
    lines = [
        f"a step, on average over {num}: {total}",
        "an operator's own time, without those that it calls; FLOPs where PyTorch has a formula",
        "",
        f"{'operator':<60} {'calls':>8}{times} {'GFLOPs':>9} {'MiB':>9}",
    ]
    shown, rest = rows[:NUM_ROWS], rows[NUM_ROWS:]
    if rest:
        fields = ("calls", "cpu_ms", "gpu_ms", "gflops", "mib")
        sums = [sum(getattr(row, field) for row in rest) for field in fields]
        shown = [*shown, Operator(f"({len(rest)} others)", *sums)]
    for row in shown:
        times = "".join(
            f" {getattr(row, field):9.2f} {100 * getattr(row, field) / max(whole, 1e-9):6.1f}"
            for _, field, whole in sides
        )
        lines.append(
            f"{row.name[:60]:<60} {row.calls:8.1f}{times} {row.gflops:9.3f} {row.mib:9.1f}"
        )
    return lines
