"""Running statistics of a tick, accumulated on the device without waiting for it."""

import math
from typing import Any

import torch
from torch import Tensor

from losses.batch import LossTerms
from torch_utils.distributed import World


class Statistics:
    """Count, mean and standard deviation of named quantities since the last flush."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._moments: dict[str, Tensor] = {}  # name -> [count, sum, sum of squares], float64
        self._last: dict[str, dict[str, Any]] = {}

    def report(self, name: str, values: Tensor) -> None:
        """Add values of any shape; every process must report the same names."""
        flat = values.detach().flatten().to(torch.float64)
        moments = torch.stack([torch.ones_like(flat).sum(), flat.sum(), flat.square().sum()])
        if name in self._moments:
            self._moments[name] += moments
        else:
            self._moments[name] = moments

    def report_loss(self, terms: LossTerms) -> None:
        """Add every element of a loss, and of its parts."""
        self.report("Loss/loss", torch.stack([*terms.values.values()]).sum(0))
        for name, values in terms.values.items():
            self.report(f"Loss/{name}", values)

    def flush(self) -> dict[str, dict[str, Any]]:
        """Statistics over all processes since the last flush; all processes must call.

        Returns:
            name -> {num, mean, std}. A quantity without new values keeps its last ones; what is
            not finite is None, which strict JSON can write.
        """
        for name, moments in self._moments.items():
            num, total, squares = self.world.sum(moments).tolist()
            mean = total / num if num else math.nan
            spread = squares / num - mean**2 if num else math.nan
            std = 0.0 if num == 1 else math.sqrt(spread) if spread > 0 else spread * 0
            self._last[name] = {"num": int(num), "mean": _finite(mean), "std": _finite(std)}
        self._moments = {}
        return dict(self._last)

    def state(self) -> dict[str, Any]:
        """What a later process needs to go on in the middle of a tick."""
        moments = {name: self.world.sum(m.clone()).cpu() for name, m in self._moments.items()}
        return {"moments": moments, "last": self._last}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`; the sums of all processes go on in the main one."""
        self._last = dict(state["last"])
        share = 1.0 if self.world.is_main else 0.0
        self._moments = {
            name: moments.to(self.world.device) * share
            for name, moments in state["moments"].items()
        }


def single(value: float) -> dict[str, Any]:
    """The entry of a quantity measured once."""
    return {"num": 1, "mean": _finite(float(value)), "std": 0.0}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
