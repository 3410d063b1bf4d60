"""Sums of a tick's losses, on the device and without waiting for it."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from losses.batch import LossTerms
from torch_utils.distributed import World

# bands of noise levels in which the loss is logged
SIGMA_EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
BANDS = (
    f"below_{SIGMA_EDGES[0]:g}",
    *(f"{low:g}_{high:g}" for low, high in pairwise(SIGMA_EDGES)),
    f"above_{SIGMA_EDGES[-1]:g}",
)


class Tally:
    """Count, mean and standard deviation of named quantities since the last flush."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._moments: dict[str, Tensor] = {}  # name -> [count, sum, sum of squares], float64
        self._last: dict[str, dict[str, Any]] = {}
        self._edges = torch.tensor(SIGMA_EDGES, device=world.device)

    def report(self, name: str, values: Tensor) -> None:
        """Add values of any shape; every process must report the same names."""
        flat = values.detach().flatten().to(torch.float64)
        num = flat.new_full((), flat.numel())
        self._add(name, torch.stack([num, flat.sum(), flat.square().sum()]))

    def _add(self, name: str, moments: Tensor) -> None:
        if name in self._moments:
            self._moments[name] += moments
        else:
            self._moments[name] = moments

    def report_loss(self, terms: LossTerms) -> None:
        """Add every element of a loss, of its parts, and of each band of noise levels."""
        elements = terms.elements().detach()
        self.report("Loss/loss", elements)
        for name, values in terms.values.items():
            self.report(f"Loss/{name}", values)
        means = elements.flatten(1).mean(1).to(torch.float64)
        band = torch.bucketize(terms.sigma.detach(), self._edges, right=True)
        rows = torch.stack([torch.ones_like(means), means, means.square()], dim=1)
        bands = rows.new_zeros(len(BANDS), 3).index_add_(0, band, rows)
        for name, moments in zip(BANDS, bands, strict=True):
            self._add(f"Loss/sigma/{name}", moments)

    def flush(self) -> dict[str, dict[str, Any]]:
        """Statistics over all processes since the last flush; all processes must call.

        Returns:
            name -> {num, mean, std}. A quantity without new values keeps its last ones. A number
            that is not finite becomes None, which strict JSON can write.
        """
        for name, moments in self._totals().items():
            num, total, squares = moments.tolist()
            if not num:
                continue
            mean = total / num
            spread = squares / num - mean**2
            std = 0.0 if num == 1 else math.sqrt(spread) if spread > 0 else spread * 0
            self._last[name] = {"num": int(num), "mean": finite(mean), "std": finite(std)}
        self._moments = {}
        return dict(self._last)

    def _totals(self) -> dict[str, Tensor]:
        """Sums over all processes, on the host: one collective and one wait for all of them."""
        if not self._moments:
            return {}
        stacked = self.world.sum(torch.stack(list(self._moments.values()))).cpu()
        return {name: row.clone() for name, row in zip(self._moments, stacked, strict=True)}

    def state(self) -> dict[str, Any]:
        """What a later process needs to go on in the middle of a tick."""
        return {"moments": self._totals(), "last": self._last}

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
    return {"num": 1, "mean": finite(float(value)), "std": 0.0}


def finite(value: float) -> float | None:
    """A number as strict JSON can hold it: None if it is not finite."""
    return value if math.isfinite(value) else None
