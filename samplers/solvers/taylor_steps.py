"""One step of each scheme of `ito_taylor`, with one derivative of the denoiser.

Kloeden and Platen 1992, "Numerical Solution of Stochastic Differential Equations", sec. 10.4
(strong order 1.5) and sec. 14.2 (weak order 2), for the SDE of `samplers.solvers.increments`. With
f = (x - D) / sigma all derivatives of the drift follow from those of D, because
(df/dx) w = (w - (dD/dx) w) / sigma and df/dsigma = -(f + dD/dsigma) / sigma.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from diffusion.steps import raise_noise, slope
from samplers.solvers.derivatives import FIRST, SECOND
from samplers.solvers.increments import Increment, correlated, parallel, rates, step_size
from samplers.solvers.interface import Noise

DrawIncrements = Callable[[Noise, Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Problem:
    """What all steps of a run share; the options are explained at `ito_taylor`.

    Attributes:
        span: length of the grid in sigma^(1/rho), from the first level to the last positive one,
            against which churn and published measure the noise of a step.
    """

    denoise: DenoiseFunction
    noise: Noise
    beta: float
    derivative: str
    laplacian: bool
    lag: bool
    rho: float
    S_max: float
    span: float


@dataclass(frozen=True)
class Step:
    """One step that was taken.

    Attributes:
        x: the state at the start of the step, after churn's noise, [N, C, H, W].
        sigma: its noise level.
        denoised: D(x, sigma).
        x_next: the state at the end of the step.
    """

    x: Tensor
    sigma: float
    denoised: Tensor
    x_next: Tensor

    @property
    def f(self) -> Tensor:
        """The slope at the start."""
        return slope(self.x, self.denoised, self.sigma)


@dataclass(frozen=True)
class Direction:
    """The direction of a derivative: v_x = factor f + shift, v_sigma = sigma.

    Attributes:
        size: typical length of (v_x, v_sigma) in a pixel, the same for all images.
    """

    factor: float
    shift: Increment
    sigma: float
    size: float


def evaluate(
    problem: Problem, x: Tensor, sigma: float, before: Step | None, direction: Direction
) -> tuple[Tensor, Tensor]:
    """D and P = (dD/dx) v_x + (dD/dsigma) v_sigma.

    Args:
        problem: the run.
        x, sigma: the state and its noise level.
        before: the step whose f sets the direction; None takes f at x, by one more call.
        direction: the direction (v_x, v_sigma).
    """
    if before is None:
        denoised = problem.denoise(x, sigma)
        f = slope(x, denoised, sigma)
    else:
        denoised, f = None, before.f
    tangent = direction.factor * f + direction.shift, direction.sigma
    return FIRST[problem.derivative](problem.denoise, x, sigma, denoised, tangent, direction.size)


def last_step(problem: Problem, x: Tensor, sigma: float) -> Step:
    """The step to 0: D, which is Euler's; f has no second-order expansion there."""
    denoised = problem.denoise(x, sigma)
    return Step(x, sigma, denoised, denoised)


def taylor_step(
    problem: Problem,
    x: Tensor,
    sigma: float,
    sigma_next: float,
    before: Step | None,
    *,
    draw: DrawIncrements,
) -> Step:
    """One step of the Ito-Taylor expansion for additive noise.

    x + a h + g dW + g' (h dW - dZ) + (h^2 / 2) L0 a + (da/dx) g dZ, where a = kappa f and
    L0 a = a_t + (da/dx) a + (g^2 / 2) Laplace a. The derivatives of D are collected in one
    direction, v_x = h^2 kappa f / 2 + g dZ, v_sigma = h^2 sigma' / 2.

    Args:
        problem: the run.
        x: state at `sigma`.
        sigma, sigma_next: noise levels; sigma_next may be 0.
        before: the step before, None in the first one.
        draw: gives (dW, dZ).
    """
    if sigma_next == 0:
        return last_step(problem, x, sigma)
    h = step_size(sigma, sigma_next, problem.rho)
    at = rates(sigma, problem.rho, problem.beta)
    dW, dZ = draw(problem.noise, x, h) if at.noise else (0.0, 0.0)
    half = h**2 / 2
    direction = Direction(
        factor=half * at.drift,
        shift=at.noise * dZ,
        sigma=half * at.sigma,
        size=half * abs(at.drift) + at.noise * math.sqrt(h**3 / 3),
    )
    denoised, along = evaluate(problem, x, sigma, before if problem.lag else None, direction)
    f = slope(x, denoised, sigma)
    x_next = (
        x
        + h * at.drift * f
        + at.noise * dW
        + at.noise_rate * (h * dW - dZ)
        + half * (at.drift_rate - at.drift * at.noise**2 / (2 * sigma**2)) * f
        + at.drift / sigma * (at.noise * dZ - along)
    )
    if problem.laplacian and at.noise:
        signs = torch.sign(problem.noise(x))
        bend = SECOND[problem.derivative](problem.denoise, x, sigma, denoised, signs)
        x_next = x_next - half * at.noise**2 * at.drift / (2 * sigma) * bend
    return Step(x, sigma, denoised, x_next)


def churn_variance(problem: Problem, sigma: float, sigma_next: float) -> float:
    """Variance that a step of churn and of published adds: h (|B| h)^rho sigma, times beta.

    |B| h is the step in sigma^(1/rho), and h its share of the grid.
    """
    step = step_size(sigma, sigma_next, problem.rho)
    return float(problem.beta * step / problem.span * step**problem.rho * sigma)


def churn_step(
    problem: Problem, x: Tensor, sigma: float, sigma_next: float, before: Step | None
) -> Step:
    """Exact noise, then a second-order Taylor step of the probability-flow ODE.

    x + ds f - ds^2 / (2 sigma) ((dD/dx) f + dD/dsigma): the terms in f / sigma of df/dx f and
    of df/dsigma cancel. Exact where D is constant. Arguments as in `taylor_step`.
    """
    if sigma_next == 0:
        return last_step(problem, x, sigma)
    variance = churn_variance(problem, sigma, sigma_next)
    if variance:
        sigma_hat = math.sqrt(sigma**2 + variance)
        x, sigma = raise_noise(x, problem.noise(x), sigma, sigma_hat), sigma_hat
    ds = sigma_next - sigma
    direction = Direction(1.0, 0.0, 1.0, size=1.0)
    denoised, along = evaluate(problem, x, sigma, before if problem.lag else None, direction)
    x_next = x + ds * slope(x, denoised, sigma) - ds**2 / (2 * sigma) * along
    return Step(x, sigma, denoised, x_next)


def published_step(
    problem: Problem, x: Tensor, sigma: float, sigma_next: float, before: Step | None
) -> Step:
    """The second-order step as it was published, its errors included.

    Four errors matter most. The terms in f / sigma add where they should cancel, and v_sigma lacks
    a factor G; both leave order 1. dZ lacks the factor g. The first-order branch starts from x, but
    takes D at x plus noise. Above S_max the step to 0 is of second order too, and adds no noise.
    Arguments as in `taylor_step`.
    """
    if sigma_next == 0 and (before is None or sigma < problem.S_max):
        return last_step(problem, x, sigma)
    x_hat = x
    dZ: Increment = 0.0
    added: Increment = 0.0  # g dW
    variance = churn_variance(problem, sigma, sigma_next) if sigma_next > 0 else 0.0
    if variance:
        h = step_size(sigma, sigma_next, problem.rho) / problem.span
        dW, dZ = correlated(problem.noise, x, h)
        added = math.sqrt(variance / h) * dW
        x_hat, sigma = x + added, math.sqrt(sigma**2 + variance)
    h = step_size(sigma, sigma_next, problem.rho) / problem.span
    growth = published_growth(problem, sigma, h)
    if before is None or sigma < problem.S_max:
        denoised = problem.denoise(x_hat, sigma)
        return Step(x_hat, sigma, denoised, x + growth * h * slope(x_hat, denoised, sigma))
    half = h**2 / (2 * sigma)
    direction = Direction(
        factor=half * growth,
        shift=dZ / sigma,
        sigma=half,
        size=half * abs(growth) + math.sqrt(h**3 / 3) / sigma,
    )
    denoised, along = evaluate(problem, x_hat, sigma, before, direction)
    correction = 2 * half * growth * before.f + half * added + dZ / sigma - along
    x_next = x_hat + growth * (h * slope(x_hat, denoised, sigma) + correction)
    return Step(x_hat, sigma, denoised, x_next)


def published_growth(problem: Problem, sigma: float, h: float) -> float:
    """G = (sigma_next - sigma) / h as the Taylor sum of (sigma^(1/rho) - span h)^rho.

    Exact for an integer rho; cut after as many terms for others, as it was published.
    """
    rho = problem.rho
    binomials = [math.prod((rho - k) / (k + 1) for k in range(j)) for j in range(1, int(rho) + 1)]
    return float(
        sum(
            h ** (j - 1) * binomial * (-problem.span) ** j * sigma ** ((rho - j) / rho)
            for j, binomial in enumerate(binomials, start=1)
        )
    )


TakeStep = Callable[[Problem, Tensor, float, float, Step | None], Step]

SCHEMES: dict[str, TakeStep] = {
    "strong1.5": partial(taylor_step, draw=correlated),
    "weak2": partial(taylor_step, draw=parallel),
    "churn": churn_step,
    "published": published_step,
}
