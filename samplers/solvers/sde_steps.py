"""The reverse SDEs of a diffusion model in log-SNR, of which all but the denoiser is exact.

With lambda = -ln(sigma), half of the log-SNR, every eta >= 0 has the marginals of the diffusion:

    dx = (1 + eta) (D - x) dlambda + sqrt(2 eta) sigma dW;

eta = 0 is the probability-flow ODE, eta = 1 the reverse SDE. Lu et al. 2022b ("DPM-Solver++"),
appendix B, for eta = 1. A step of length h, with u from 0 to 1 along it and z = (1 + eta) h, is

    x_next = exp(-z) x + integral of z exp(-z (1 - u)) D(u) du + noise,

so that a method chooses only the polynomial in the place of D.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from samplers.solvers.interface import Noise
from samplers.solvers.log_snr_steps import kernel_moments, log_snr_step


@dataclass(frozen=True)
class SDEStep:
    """One step from sigma to a lower, positive sigma_next.

    Attributes:
        sigma, sigma_next: noise levels.
        eta: amount of noise.
    """

    sigma: float
    sigma_next: float
    eta: float

    @property
    def length(self) -> float:
        """h, the step's length in half the log-SNR."""
        return log_snr_step(self.sigma, self.sigma_next)

    @property
    def moments(self) -> list[float]:
        """Integrals of z exp(-z (1 - u)) u^j from 0 to 1 for j = 0, 1, 2."""
        return kernel_moments((1 + self.eta) * self.length, 3)

    def towards(self, x: Tensor, denoised: Tensor) -> Tensor:
        """The state after the step without noise, if D stays as it is."""
        return x + self.moments[0] * (denoised - x)

    def with_noise(self, x: Tensor, noise: Noise, S_noise: float) -> Tensor:
        """Add the step's noise, of variance sigma_next^2 (1 - exp(-2 eta h)); none if eta is 0."""
        if not self.eta:
            return x
        std = self.sigma_next * math.sqrt(-math.expm1(-2 * self.eta * self.length))
        return x + S_noise * std * noise(x)
