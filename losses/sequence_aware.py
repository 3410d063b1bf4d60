"""The sequence-aware term: the error summed over neighbouring steps of a sampler.

"On Inference Stability for Diffusion Models" (SA-DPM), AAAI 2024: what harms a sample is not the
error of one step but the sum of the errors along its trajectory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from diffusion import schedules
from diffusion.preconditioning import broadcast_sigma
from diffusion.schedules import LARGEST_SIGMA, LEAST_SIGMA, Schedule
from diffusion.tables import Table
from losses import COUNTED_GRIDS
from losses.batch import Batch, Context, Generators, NoisedBatch
from losses.levels import Discrete, NoiseLevel
from losses.terms import Term
from torch_utils.errors import UserError
from torch_utils.registry import resolve_entry

_SLACK = 1e-3  # of an index; a float32 noise level determines it to about 1e-5


@dataclass(frozen=True, eq=False)
class SequenceAware(Term):
    """|S|^2 / K^2 with S = sum_{k < K} a_k r_k and r_k = sqrt(w(sigma_k)) (D_k - y).

    sigma_k lies k steps below sigma_0 = sigma; D_k is D at y + sigma_k n_k. Terms past the least
    noisy step are left out of the sum, the divisor stays. With w = 1/sigma^2, r_k is the error in
    predicted noise and this is the published term.

    Attributes:
        table: the steps, ascending in noise: of a discrete schedule, or of a sampling grid.
        num_steps: K, the number of summed steps, that of sigma_0 included.
        normaliser: "K2" (published) or "K".
        shared_noise: one noise for all neighbours instead of a fresh one each.
        weights: "none": a_k = 1 (published). "trajectory": in proportion to what an error at
            step k adds to the state after all K steps of an ancestral sampler,
            (1 - q_k) prod_{j > k} q_j with q = sigma_{k+1}^2 / sigma_k^2, scaled so that the a_k
            sum to their number.
    """

    table: Table
    num_steps: int
    normaliser: str
    shared_noise: bool
    weights: str

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], level: NoiseLevel, schedule: Schedule | None
    ) -> Self:
        """Make the term.

        Raises:
            UserError: there are no steps in which to count neighbours.
        """
        given = dict(options)
        table = _steps(given.pop("grid"), level, schedule)
        return cls(table, given.pop("K"), **given)

    def draw(self, generators: Generators, batch: Batch) -> dict[str, Tensor]:
        """Noises of the neighbours, [K - 1, N, C, H, W]."""
        if self.shared_noise:
            return {}
        shape = (self.num_steps - 1, *batch.images.shape)
        micro = generators.micro
        return {"noise": torch.randn(shape, generator=micro, device=micro.device)}

    def __call__(
        self, noised: NoisedBatch, context: Context, draws: Mapping[str, Tensor]
    ) -> Tensor:
        """Values per element, [N, C, H, W]."""
        y = noised.y
        sigmas, inside = self._levels(noised.sigma)
        factors = inside * self._factors(sigmas, inside, context)
        total = torch.zeros_like(noised.residual)
        for k in range(self.num_steps):
            if k == 0:
                error = noised.residual
            else:
                noise = noised.n if self.shared_noise else draws["noise"][k - 1]
                error = context.residual(y, noise, sigmas[k])
            level = broadcast_sigma(sigmas[k], y)
            factor = broadcast_sigma(factors[k], y)
            total = total + factor * context.weight(level).sqrt() * error
        return total.square() / self.num_steps ** (2 if self.normaliser == "K2" else 1)

    def _levels(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels [K + 1, N] of the neighbours and of the step after, and which exist."""
        steps = torch.arange(self.num_steps + 1, device=sigma.device)
        index = self.table.index(sigma) - steps[:, None]
        inside = index > -_SLACK
        # levels past the end are evaluated at the last step and left out of the sum: with shapes
        # that depend on the draws the host would wait for the device
        least = float(self.table.levels[0])
        levels = torch.where(inside[1:], self.table.at(index[1:].clamp(min=0)), least)
        return torch.cat([sigma[None], levels.to(sigma.dtype)]), inside

    def _factors(self, sigmas: Tensor, inside: Tensor, context: Context) -> Tensor:
        """a_k, [K + 1, N]; the last row is not used."""
        if self.weights == "none":
            return torch.ones_like(sigmas)
        following = torch.where(inside[1:], sigmas[1:], 0.0)
        kept = (following / sigmas[:-1]).square()  # q_k
        after = torch.ones_like(kept)
        for k in reversed(range(self.num_steps - 1)):
            after[k] = after[k + 1] * torch.where(inside[k + 1], kept[k + 1], 1.0)
        root = context.weight(sigmas[:-1]).sqrt()
        shares = inside[:-1] * (1 - kept) * after / root
        scaled = shares * inside[:-1].sum(0) / shares.sum(0)
        return torch.cat([scaled, torch.zeros_like(sigmas[:1])])


def _steps(grid: Any, level: NoiseLevel, schedule: Schedule | None) -> Table:
    """The steps that neighbours are counted in."""
    if grid is not None:
        return _grid_table(grid, schedule)
    if isinstance(level, Discrete):
        return level.table
    raise UserError(
        "loss term sequence_aware counts neighbours in steps: with a continuous noise level, name"
        " the sampler's grid, e.g. grid: {name: rho, steps: 18}"
    )


def _grid_table(grid: str | Mapping[str, Any], schedule: Schedule | None) -> Table:
    """The nodes of a sampling grid, for a model of all noise levels."""
    name, row, options = resolve_entry(
        "grid", COUNTED_GRIDS, grid, "loss term sequence_aware: grid"
    )
    owner = f"grid {name} of loss term sequence_aware"
    num_steps = options.pop("steps")
    low, high = options.pop("sigma_min", LEAST_SIGMA), options.pop("sigma_max", LARGEST_SIGMA)
    if not 0 < low < high:
        raise UserError(f"{owner}: sigma_min={low:g} must be positive and below sigma_max={high:g}")
    if "levels" in options:
        named = options["levels"]
        options["levels"] = schedules.create(named) if named is not None else schedule
        if options["levels"] is None:
            raise UserError(f"{owner}: the model has no schedule: name one as levels")
    nodes = np.unique(row.load()(num_steps, low, high, **options))
    if len(nodes) < 2:
        raise UserError(f"{owner} has {len(nodes)} noise level: neighbours need at least 2 steps")
    return Table(nodes)
