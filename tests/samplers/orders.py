"""Orders of convergence, measured on data whose distribution is known at every noise level.

- flow: the exact probability flow in one dimension keeps the quantile of each point;
- law: expectations are carried through the sampler's own steps by quadrature, without draws;
- strong: coarse increments (dW, dZ) are put together from those of a fine grid;
- variance: on Gaussian data all steps are affine, so the variance of the result is exact.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from diffusion.grids import rho_grid
from diffusion.steps import raise_noise
from samplers.solvers.increments import correlated, rates, step_size
from samplers.solvers.sra1 import sra1

Sampler = Callable[..., Tensor]
Curve = Callable[[Tensor], Tensor]
START, END = 5.0, 0.5  # between these levels, none of them special, orders are measured


@dataclass(frozen=True)
class Mixture:
    """An equal mixture of Gaussians, alike and independent in every pixel.

    Attributes:
        means: of the components.
        std: of each component.
    """

    means: tuple[float, ...] = (-1.0, 0.6)
    std: float = 0.5

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """D(x, sigma) in every pixel."""
        level = torch.as_tensor(sigma, dtype=x.dtype)
        variance = self.std**2 + level * level
        offsets = x[..., None] - torch.tensor(self.means, dtype=x.dtype)
        shares = (-offsets.square() / (2 * variance)).softmax(-1)
        mean = (shares * torch.tensor(self.means, dtype=x.dtype)).sum(-1)
        return mean + self.std**2 / variance * (x - mean)

    def density(self, x: Tensor, sigma: float) -> Tensor:
        """Density at noise level `sigma`, [n] -> [n]."""
        scale = math.hypot(self.std, sigma)
        parts = [torch.exp(-(((x - mean) / scale) ** 2) / 2) for mean in self.means]
        return torch.stack(parts).mean(0) / (scale * math.sqrt(2 * math.pi))

    def cumulative(self, x: Tensor, sigma: float) -> Tensor:
        """Distribution function at noise level `sigma`."""
        scale = math.hypot(self.std, sigma)
        parts = [torch.special.ndtr((x - mean) / scale) for mean in self.means]
        return torch.stack(parts).mean(0)

    def flow(self, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Where the probability-flow ODE takes x: to the same quantile."""
        target = self.cumulative(x, sigma)
        low, high = torch.full_like(x, -50.0), torch.full_like(x, 50.0)
        for _ in range(60):
            middle = (low + high) / 2
            is_below = self.cumulative(middle, sigma_next) < target
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return (low + high) / 2


MIXTURE = Mixture()
NOISY = Mixture((-1.0, 1.0), 0.4)
NOISY_START = 2.0


def images(values: Tensor) -> Tensor:
    """[n] -> [n, 1, 1, 1]."""
    return values.reshape(-1, 1, 1, 1)


def fitted_order(steps: Sequence[int], errors: Sequence[float]) -> float:
    """Slope of -log(error) over log(steps)."""
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


class Draws:
    """A noise function that returns the given values one after the other and counts."""

    def __init__(self, values: Iterable[Tensor | float]) -> None:
        self.values = iter(values)
        self.calls = 0

    def __call__(self, like: Tensor) -> Tensor:
        self.calls += 1
        return torch.as_tensor(next(self.values), dtype=like.dtype).expand_as(like)


def forbidden(like: Tensor) -> Tensor:
    """The noise of a sampler that must not draw."""
    raise AssertionError("a deterministic sampler must not draw")


def zeros() -> Draws:
    """Noise that is always 0."""
    return Draws(repeat(0.0))


def graded_grid(num_levels: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Levels whose first and last steps are short, by the third power of the number of steps.

    A multistep method has a lower order in its first steps, and maybe in its last ones. Here that
    does not count, so that the order of the steps between is seen, which are uneven.
    """
    t = np.linspace(0, 1, num_levels)
    share = t**3 * (10 - 15 * t + 6 * t**2)
    levels: np.ndarray = sigma_max * (sigma_min / sigma_max) ** share
    return levels


def flow_order(
    sampler: Sampler,
    steps: Sequence[int],
    data: Mixture = MIXTURE,
    grid: Callable[[int, float, float], np.ndarray] = rho_grid,
    **options: Any,
) -> float:
    """Order of the largest error over points that the exact flow moves."""
    x = images(torch.linspace(-1.5, 1.5, 31, dtype=torch.float64) * START)
    exact = data.flow(x, START, END)
    errors = []
    for n in steps:
        found = sampler(data, x, grid(n + 1, END, START).tolist(), noise=forbidden, **options)
        errors.append((found - exact).abs().max().item())
    return fitted_order(steps, errors)


def graded_order(sampler: Sampler, steps: Sequence[int], **options: Any) -> float:
    """The same on a graded grid."""
    return flow_order(sampler, steps, grid=graded_grid, **options)


def law_error(
    sampler: Sampler,
    sigmas: Sequence[float],
    *,
    kinds: str,
    data: Mixture = MIXTURE,
    **options: Any,
) -> float:
    """Largest error of E[cos kx] and E[sin kx], k = 1/2 to 4, at the last level.

    The expectation given x is carried backwards through the steps of the sampler, by Gauss-Hermite
    quadrature over a step's draws and a spline in x, and integrated over the exact density at the
    first level. There is no Monte Carlo noise; the quadrature errs by less than 1% of the result,
    in steps coarser than 20 on a whole grid by less than 4%.

    Args:
        sampler: what to measure.
        sigmas: noise levels.
        kinds: the draws of a step, as in `coarse_draws`; a step to 0 has none. Without draws the
            sampler is run as a whole.
        data: the distribution.
        options: of the sampler.
    """

    def run(ends: Sequence[float], kinds: str, expected: Curve) -> Curve:
        draws, weights = quadrature(kinds)

        def before(x: Tensor) -> Tensor:
            noise = Draws(images(column.repeat_interleave(len(x))) for column in draws.T)
            starts = images(x.repeat(len(draws)))
            ended = sampler(data, starts, ends, noise=noise, **options).flatten()
            per_step = noise.calls / (len(ends) - 1)
            assert per_step == len(kinds), "the sampler draws more or less than expected"
            bound = nodes_at(ends[-1])[-1].item()
            values = expected(ended.clamp(-bound, bound)).unflatten(0, (-1, len(x)))
            return torch.einsum("m,mnk->nk", weights, values)

        return before

    expected: Curve = waves
    if kinds:
        for sigma, sigma_next in reversed(list(pairwise(sigmas))):
            before = run([sigma, sigma_next], kinds if sigma_next else "", expected)
            expected = spline(nodes_at(sigma), before(nodes_at(sigma)))
    else:
        expected = run(sigmas, "", waves)
    found, exact = (
        data.density(nodes, sigma) * (nodes[1] - nodes[0]) @ curve(nodes)
        for sigma, curve in ((sigmas[0], expected), (sigmas[-1], waves))
        for nodes in [nodes_at(sigma)]
    )
    return float((found - exact).abs().max())


def nodes_at(sigma: float) -> Tensor:
    """Points that hold all of a distribution of about unit variance at noise level `sigma`."""
    return torch.linspace(-7, 7, 251, dtype=torch.float64) * math.hypot(1, sigma)


def waves(x: Tensor) -> Tensor:
    """cos kx and sin kx, [n] -> [n, 16]."""
    phases = torch.tensor([0.0, -math.pi / 2], dtype=torch.float64)
    frequencies = torch.linspace(0.5, 4, 8, dtype=torch.float64)
    return (x[:, None, None] * frequencies[:, None] + phases).cos().flatten(1)


def quadrature(kinds: str) -> tuple[Tensor, Tensor]:
    """Points [m, draws] and weights [m] over a step's draws: normals, and signs that are 1."""
    num_points = 24 if len(kinds.replace("s", "")) == 1 else 5
    rule = np.polynomial.hermite_e.hermegauss(num_points)
    points, weights = (torch.from_numpy(part) for part in rule)
    one = torch.ones(1, dtype=torch.float64)
    axes = [(one, one) if kind == "s" else (points, weights / weights.sum()) for kind in kinds]
    axes += [(one, one)] * 2  # a product of fewer than two axes has another shape
    grid, shares = (torch.cartesian_prod(*[axis[part] for axis in axes]) for part in (0, 1))
    return grid[:, : len(kinds)], shares.prod(1)


def spline(nodes: Tensor, values: Tensor) -> Curve:
    """A cubic spline through values [n, k] at nodes [n]: [m] -> [m, k]."""
    curve = CubicSpline(nodes.numpy(), values.numpy())
    return lambda x: torch.from_numpy(curve(x.numpy()))


def law_order(sampler: Sampler, steps: Sequence[int], *, kinds: str, **options: Any) -> float:
    """Order of the error in law."""
    grids = [rho_grid(n + 1, END, START).tolist() for n in steps]
    return fitted_order(steps, [law_error(sampler, g, kinds=kinds, **options) for g in grids])


def coarse_draws(fine: Tensor, h: float, ratio: int, kinds: str) -> Iterator[Tensor]:
    """Draws of steps of length h * ratio that follow the Wiener paths of steps of length h.

    Args:
        fine: the draws (e0, e1) of every fine step, [steps, 2, n, 1, 1, 1].
        h: length of a fine step.
        ratio: fine steps in a coarse one.
        kinds: what is drawn in a step: "z" and "w" for the two normals of `correlated`, "d" for
            dW / sqrt(h) alone, "s" for a sign, which is 1.

    Yields:
        One draw after the other, [n, 1, 1, 1].
    """
    w, z = (
        part.unflatten(0, (-1, ratio))
        for part in correlated(Draws([fine[:, 0], fine[:, 1]]), fine[:, 0], h)
    )
    dW, dZ = w.sum(1), (z + h * (w.cumsum(1) - w)).sum(1)
    span = h * ratio
    e0 = dZ / math.sqrt(span**3 / 3)
    e1 = (dW - math.sqrt(3 * span) / 2 * e0) / (math.sqrt(span) / 2)
    drawn = {"z": e0, "w": e1, "d": dW / math.sqrt(span), "s": torch.ones_like(dW)}
    for i in range(len(dW)):
        yield from (drawn[kind][i] for kind in kinds)


def strong_order(
    sampler: Sampler, steps: Sequence[int], *, kinds: str, rho: float = 7.0, **options: Any
) -> float:
    """Order of the root mean square distance from SRA1 on a fine grid and the same paths.

    On NOISY data from NOISY_START, where the terms of the formal order are seen at moderate steps.

    Args:
        sampler: what to measure.
        steps: numbers of steps, powers of 2 well below 1024.
        kinds: the draws of a step, as in `coarse_draws`.
        rho: exponent of the time variable, in which the steps are even.
        options: of the sampler; SRA1 gets the same beta.
    """
    finest = 1024
    generator = torch.Generator().manual_seed(0)
    fine = torch.randn(finest, 2, 1000, 1, 1, 1, generator=generator, dtype=torch.float64)
    x = math.hypot(1, NOISY_START) * torch.randn(fine[0, 0].shape, generator=generator).double()
    h = step_size(NOISY_START, END, rho) / finest

    def run(solver: Sampler, n: int, kinds: str, **options: Any) -> Tensor:
        noise = Draws(coarse_draws(fine, h, finest // n, kinds))
        sigmas = rho_grid(n + 1, END, NOISY_START, rho).tolist()
        return solver(NOISY, x, sigmas, noise=noise, **options)

    exact = run(sra1, finest, "zw", rho=rho, beta=options.get("beta", 1.0))
    found = [run(sampler, n, kinds, **options) for n in steps]
    return fitted_order(steps, [(x - exact).square().mean().sqrt().item() for x in found])


def final_variance(
    sampler: Sampler, sigmas: Sequence[float], data_std: float, start: float, **options: Any
) -> float:
    """Exact variance of the result on data N(0, data_std^2), where every step is affine.

    One row of the batch starts from 1 without noise, each other from 0 with one of the draws 1.

    Args:
        sampler: what to measure.
        sigmas: noise levels.
        data_std: standard deviation of the data.
        start: variance of the state at sigmas[0].
        options: of the sampler.
    """

    def denoise(x: Tensor, sigma: Tensor | float) -> Tensor:
        return data_std**2 / (sigma * sigma + data_std**2) * x

    probe = zeros()
    sampler(denoise, images(torch.ones(1, dtype=torch.float64)), sigmas, noise=probe, **options)
    basis = torch.eye(probe.calls + 1, dtype=torch.float64)
    draws = Draws(map(images, basis[1:]))
    responses = sampler(denoise, images(basis[0]), sigmas, noise=draws, **options)
    squares = responses.flatten().square()
    return float(start * squares[0] + squares[1:].sum())


def default_grid_order(
    sampler: Sampler,
    grids: Callable[[int], Sequence[float]],
    steps: Sequence[int],
    std: float = 0.5,
    **options: Any,
) -> float:
    """Order of the error of the final variance on a default grid, its step to 0 included."""
    errors = []
    for n in steps:
        sigmas = grids(n)
        variance = final_variance(sampler, sigmas, std, sigmas[0] ** 2 + std**2, **options)
        errors.append(abs(variance / (std**2 + sigmas[-1] ** 2) - 1))
    return fitted_order(steps, errors)


def variance_order(sampler: Sampler, steps: Sequence[int], **options: Any) -> float:
    """Order of the error of the variance at a positive level, for steps that remember others.

    Their law cannot be carried through the steps one by one, but is exact as a whole: on Gaussian
    data the result is an affine function of the start and all draws.
    """
    std = 0.3  # with which the error of dpmpp_3m_sde has one sign
    return default_grid_order(
        sampler, lambda n: rho_grid(n + 1, END, START).tolist(), steps, std, **options
    )


def euler_maruyama(
    denoise: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Callable[[Tensor], Tensor],
    beta: float = 1.0,
    rho: float = 7.0,
) -> Tensor:
    """The first-order method for the SDE of `samplers.solvers.increments`, to compare with."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            return denoised
        at, h = rates(sigma, rho, beta), step_size(sigma, sigma_next, rho)
        x = x + at.drift * h * (x - denoised) / sigma
        x = raise_noise(x, noise(x), 0.0, at.noise * math.sqrt(h))
    return x
