"""Single steps from one noise level to a lower one, sigma_next < sigma.

Ho et al. 2020 ("DDPM"), Eq. 6-7; Song et al. 2021 ("DDIM"), Eq. 12 and 16; Karras et al. 2022
("EDM"), Algorithm 2. The papers write z = alpha x with alpha = 1 / sqrt(1 + sigma^2); here every
formula is in x = y + sigma n, with q = sigma_next^2 / sigma^2.

Solvers pass noise levels as host floats and get host floats back. Losses pass tensors that
broadcast with the images, one level for each image. Images are tensors of any shape.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

Level = TypeVar("Level", float, Tensor)


def _std(variance: Level) -> Level:
    """The square root of a variance that rounding may have left below 0."""
    if isinstance(variance, Tensor):
        return variance.clamp(min=0).sqrt()
    return math.sqrt(max(variance, 0.0))


def slope(x: Tensor, denoised: Tensor, sigma: float | Tensor) -> Tensor:
    """dx/dsigma of the probability-flow ODE, (x - D) / sigma. EDM, Eq. 3 with sigma(t) = t."""
    return (x - denoised) / sigma


def raise_noise(x: Tensor, noise: Tensor, sigma: Level, sigma_hat: Level) -> Tensor:
    """Add fresh noise so that the level rises from sigma to sigma_hat. EDM, Algorithm 2, line 6."""
    return x + _std(sigma_hat**2 - sigma**2) * noise


def posterior_mean(x: Tensor, denoised: Tensor, sigma: Level, sigma_next: Level) -> Tensor:
    """Mean of x_next given x and y = D. DDPM, Eq. 7: q x + (1 - q) D."""
    q = (sigma_next / sigma) ** 2
    return q * x + (1 - q) * denoised


def variance_small(sigma: Level, sigma_next: Level) -> Level:
    """Variance of x_next given x and y; DDPM's beta-tilde: sigma_next^2 (1 - q)."""
    return sigma_next**2 * (1 - (sigma_next / sigma) ** 2)


def variance_large(sigma: Level, sigma_next: Level) -> Level:
    """DDPM's beta as a variance of x_next: the forward step's noise, at alpha_next's scale."""
    return (sigma**2 - sigma_next**2) * (1 + sigma_next**2) / (1 + sigma**2)


def variance_interpolated(sigma: Level, sigma_next: Level, fraction: float) -> Level:
    """Geometric interpolation: small^(1-f) large^f. Nichol and Dhariwal 2021, Eq. 15."""
    small, large = variance_small(sigma, sigma_next), variance_large(sigma, sigma_next)
    variance: Level = small ** (1 - fraction) * large**fraction
    return variance


# name -> (sigma, sigma_next, fraction) -> variance of x_next given x, for floats and tensors
VARIANCES: Mapping[str, Callable[[Any, Any, float], Any]] = {
    "small": lambda sigma, sigma_next, _: variance_small(sigma, sigma_next),
    "large": lambda sigma, sigma_next, _: variance_large(sigma, sigma_next),
    "interpolated": variance_interpolated,
}


def ddim_step(
    x: Tensor,
    denoised: Tensor,
    sigma: float,
    sigma_next: float,
    eta: float = 0.0,
    noise: Tensor | None = None,
    image: Tensor | None = None,
) -> Tensor:
    """One DDIM step. Song et al. 2021, Eq. 12 with the variance of Eq. 16.

    Args:
        x: state at `sigma`.
        denoised: D(x, sigma).
        sigma: current noise level, on the host as the next one: whether to add noise is decided
            there.
        sigma_next: next one; 0 returns D without noise.
        eta: 0 is deterministic, 1 has the variance of DDPM's posterior.
        noise: unit normals of the shape of x; needed unless eta is 0.
        image: what takes the place of D where it stands for the image; the direction of the noise
            is that of D.

    Returns:
        State at `sigma_next`.
    """
    image = denoised if image is None else image
    if sigma_next == 0:
        return image
    variance = eta**2 * variance_small(sigma, sigma_next)
    kept = _std(sigma_next**2 - variance)
    x_next = image + kept / sigma * (x - denoised)
    if variance == 0:
        return x_next
    assert noise is not None, "a stochastic DDIM step needs noise"
    return x_next + _std(variance) * noise


def ancestral_step(
    x: Tensor, denoised: Tensor, sigma: Level, sigma_next: Level, variance: Level, noise: Tensor
) -> Tensor:
    """One step of ancestral sampling. DDPM, Algorithm 2.

    Args:
        x: state at `sigma`.
        denoised: D(x, sigma).
        sigma: current noise level.
        sigma_next: next one, positive.
        variance: of x_next given x, by one of VARIANCES.
        noise: unit normals of the shape of x.

    Returns:
        State at `sigma_next`.
    """
    return posterior_mean(x, denoised, sigma, sigma_next) + _std(variance) * noise


def reverse_sde_step(
    x: Tensor, d: Tensor, sigma: Level, sigma_next: Level, std: Level, noise: Tensor
) -> Tensor:
    """One Euler-Maruyama step of dx = 2 f dsigma + sqrt(2 sigma) dW, whose marginals are exact.

    Song et al. 2021 ("Score SDE"), Eq. 6 for the variance-exploding SDE, with sigma as the time.

    Args:
        x: state at `sigma`.
        d: f = (x - D) / sigma, or an average of it over the step.
        sigma: current noise level.
        sigma_next: next one.
        std: of the noise over the step, by `frozen_std` or `exact_std`.
        noise: unit normals of the shape of x.

    Returns:
        State at `sigma_next`.
    """
    return x + 2 * (sigma_next - sigma) * d + std * noise


def frozen_std(sigma: Level, sigma_next: Level) -> Level:
    """Standard deviation of the reverse SDE's noise over a step, sqrt(2 sigma) as at its start."""
    return _std(2 * (sigma - sigma_next) * sigma)


def exact_std(sigma: Level, sigma_next: Level) -> Level:
    """Standard deviation of the reverse SDE's noise over a step, 2 sigma integrated over it."""
    return _std(sigma**2 - sigma_next**2)
