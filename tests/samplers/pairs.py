"""The error in law of a sampler whose step depends on the step before it, without draws.

What the next step needs is a pair of states. It is written as (x, e): the state x before a step,
and the draw e with which a first step, without memory, reaches the state after it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

from diffusion.grids import rho_grid
from tests.samplers.orders import (
    END,
    MIXTURE,
    START,
    Draws,
    Sampler,
    fitted_order,
    images,
)
from tests.samplers.orders import nodes_at as fine_nodes_at

Expected = Callable[[Tensor, Tensor], Tensor]  # (x, e) -> what is expected at the end, [n, k]

FREQUENCIES = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
DRAWS = torch.linspace(-6, 6, 25, dtype=torch.float64)


def nodes_at(sigma: float) -> Tensor:
    """Points that hold all of the distribution at noise level `sigma`."""
    return fine_nodes_at(sigma)[::2]


def waves(x: Tensor) -> Tensor:
    """cos kx and sin kx, [n] -> [n, 6]."""
    phases = x[:, None] * FREQUENCIES
    return torch.cat([phases.cos(), phases.sin()], dim=1)


def pair_law_error(sampler: Sampler, sigmas: Sequence[float], **options: Any) -> float:
    """Largest error of E[cos kx] and E[sin kx] at the last level, which is positive.

    The expectation given a pair is carried backwards through the steps of the sampler.

    Args:
        sampler: what to measure; it draws once a step.
        sigmas: noise levels.
        options: of the sampler.
    """

    def run(x: Tensor, levels: Sequence[float], *draws: Tensor | float) -> Tensor:
        noise = Draws(images(torch.as_tensor(e).double().expand(len(x))) for e in draws)
        return sampler(MIXTURE, images(x), levels, noise=noise, **options).flatten()

    z, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(10))
    weights = weights / weights.sum()

    def before(i: int, expected: Expected) -> Expected:
        """Given the pair of step i - 1, from what is expected given that of step i."""
        sigma, levels = sigmas[i - 1], sigmas[i : i + 2]
        zero = torch.zeros(1, dtype=torch.float64)
        std = run(zero, levels, 1.0) - run(zero, levels, 0.0)
        x, e = (axis.flatten() for axis in torch.meshgrid(nodes_at(sigma), DRAWS, indexing="ij"))
        total = torch.zeros(len(x), 2 * len(FREQUENCIES), dtype=torch.float64)
        middle = run(x, sigmas[i - 1 : i + 1], e)
        first = run(middle, levels, 0.0)  # where a step without memory would go
        for draw, weight in zip(z, weights, strict=True):
            ended = run(x, sigmas[i - 1 : i + 2], e, draw)
            total += weight * expected(middle, (ended - first) / std)
        return surface(nodes_at(sigma), total)

    def last(x: Tensor, e: Tensor) -> Tensor:
        return waves(run(x, sigmas[-2:], e))

    expected: Expected = last
    for i in range(len(sigmas) - 2, 0, -1):
        expected = before(i, expected)
    start, end = nodes_at(sigmas[0]), nodes_at(sigmas[-1])
    given = torch.stack([expected(start, e.expand(len(start))) for e in z])
    found = integral(start, sigmas[0]) @ torch.einsum("m,mnk->nk", weights, given)
    return float((found - integral(end, sigmas[-1]) @ waves(end)).abs().max())


def integral(nodes: Tensor, sigma: float) -> Tensor:
    """Weights of an integral over the exact density."""
    return MIXTURE.density(nodes, sigma) * (nodes[1] - nodes[0])


def surface(nodes: Tensor, values: Tensor) -> Expected:
    """Bicubic splines through values at nodes x DRAWS, [nodes * DRAWS, k]."""
    tables = values.unflatten(0, (len(nodes), -1)).numpy()
    splines = [
        RectBivariateSpline(nodes.numpy(), DRAWS.numpy(), tables[..., k])
        for k in range(tables.shape[-1])
    ]

    def at(x: Tensor, e: Tensor) -> Tensor:
        place = x.numpy(), e.numpy()  # beyond the nodes, the value of the border
        return torch.from_numpy(np.stack([spline.ev(*place) for spline in splines], axis=1))

    return at


def pair_law_order(sampler: Sampler, steps: Sequence[int], **options: Any) -> float:
    """Order of the error in law on a mixture, where D is not affine."""
    grids = [rho_grid(n + 1, END, START).tolist() for n in steps]
    return fitted_order(steps, [pair_law_error(sampler, g, **options) for g in grids])
