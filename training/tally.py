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
        # names -> [count, sum, sum of squares] of each, float64; one tensor for what comes together
        self._moments: dict[tuple[str, ...], Tensor] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._edges = torch.tensor(SIGMA_EDGES, device=world.device)

    def report(self, name: str, values: Tensor) -> None:
        """Add values of any shape; every process must report the same names."""
        self._add((name,), _moments_of(values)[None])

    def _add(self, names: tuple[str, ...], moments: Tensor) -> None:
        if names in self._moments:
            self._moments[names] += moments
        else:
            self._moments[names] = moments

    def report_loss(self, terms: LossTerms) -> None:
        """Add every element of a loss, of its parts, and of each band of noise levels."""
        elements = terms.elements().detach()
        values = {"loss": elements, **terms.values}
        means = elements.flatten(1).mean(1).to(torch.float64)
        band = torch.bucketize(terms.sigma.detach(), self._edges, right=True)
        rows = torch.stack([torch.ones_like(means), means, means.square()], dim=1)
        bands = rows.new_zeros(len(BANDS), 3).index_add_(0, band, rows)
        names = [*(f"Loss/{name}" for name in values), *(f"Loss/sigma/{name}" for name in BANDS)]
        moments = [*(_moments_of(value) for value in values.values()), *bands]
        self._add(tuple(names), torch.stack(moments))

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
        names = [name for group in self._moments for name in group]
        stacked = self.world.sum(torch.cat(list(self._moments.values()))).cpu()
        totals: dict[str, Tensor] = {}
        for name, row in zip(names, stacked, strict=True):
            totals[name] = totals[name] + row if name in totals else row.clone()
        return totals

    def state(self) -> dict[str, Any]:
        """What a later process needs to go on in the middle of a tick."""
        return {"moments": self._totals(), "last": self._last}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`; the sums of all processes go on in the main one."""
        self._last = dict(state["last"])
        share = 1.0 if self.world.is_main else 0.0
        moments = state["moments"]
        self._moments = {}
        if moments:
            sums = torch.stack(list(moments.values())).to(self.world.device) * share
            self._moments[tuple(moments)] = sums


def _moments_of(values: Tensor) -> Tensor:
    """Count, sum and sum of squares in float64, [3]."""
    flat = values.detach().flatten().to(torch.float64)
    num = flat.new_full((), flat.numel())
    return torch.stack([num, flat.sum(), flat.square().sum()])


def single(value: float) -> dict[str, Any]:
    """The entry of a quantity measured once."""
    return {"num": 1, "mean": finite(float(value)), "std": 0.0}


def finite(value: float) -> float | None:
    """A number as strict JSON can hold it: None if it is not finite."""
    return value if math.isfinite(value) else None
