"""The variational bound of a chain of N steps, one of which is drawn for each sample.

Ho et al. 2020 ("DDPM"), Eq. 5: the sum over t of KL(q(x_s | x_t, y) || p(x_s | x_t)) and the
decoder's -ln p(y | x at the first step); here in bits per dimension and for one uniform t. The
model's mean takes D for y.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from diffusion.preconditioning import broadcast_sigma
from diffusion.schedules import Schedule
from diffusion.steps import VARIANCES, variance_small
from losses.batch import Context, NoisedBatch
from losses.levels import NoiseLevel, UniformTime
from losses.terms import Term
from torch_utils.errors import UserError

_HALF_BIN = 1 / 255  # of 8-bit data in [-1, 1]
_EDGE = 0.999  # beyond this, the bin extends to infinity
_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class VariationalBound(Term):
    """KL of one step to the posterior, or the decoder's likelihood at the first step.

    Attributes:
        schedule: of the chain.
        num_steps: N; step i goes from time i/N to (i - 1)/N.
        variance: of the model's step: small, large, or interpolated, small^(1-f) large^f.
        fraction: f.
    """

    schedule: Schedule
    num_steps: int
    variance: str = "large"
    fraction: float = 0.0

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], level: NoiseLevel, schedule: Schedule | None
    ) -> Self:
        """Make the term for the chain that the noise level draws steps from.

        Raises:
            UserError: the noise level has no steps.
        """
        if not (isinstance(level, UniformTime) and level.num_steps):
            raise UserError(
                "loss term vlb sums over the steps of a chain: it needs the noise level"
                " {name: uniform_time, num_steps: N}"
            )
        return cls(level.schedule, level.num_steps, **options)

    def __call__(
        self, noised: NoisedBatch, context: Context, draws: Mapping[str, Tensor]
    ) -> Tensor:
        """Bits per element, [N, C, H, W]."""
        step = (self.schedule.time(noised.sigma.double()) * self.num_steps).round()
        sigma = self.schedule.sigma(step / self.num_steps)
        sigma_next = self.schedule.sigma((step - 1) / self.num_steps)
        small = variance_small(sigma, sigma_next)
        variance = VARIANCES[self.variance](sigma, sigma_next, self.fraction)
        moved = -torch.expm1(2 * (sigma_next.log() - sigma.log()))  # 1 - q
        error = noised.residual

        def shaped(values: Tensor) -> Tensor:
            return broadcast_sigma(values, error)

        ratio = shaped(small / variance)
        divergence = (ratio - 1 - ratio.log() + shaped(moved**2 / variance) * error.square()) / 2
        std = shaped((variance / (1 + sigma_next**2)).sqrt())
        is_last = shaped(step) == 1
        bits = torch.where(is_last, -log_likelihood(noised.y, -error, std), divergence)
        return bits / math.log(2)


def log_likelihood(y: Tensor, centred: Tensor, std: Tensor) -> Tensor:
    """ln of the probability of y's 8-bit bin under a normal distribution. DDPM, Eq. 13.

    Args:
        y: data in [-1, 1].
        centred: y minus the mean.
        std: standard deviation.
    """
    above, below = _cdf((centred + _HALF_BIN) / std), _cdf((centred - _HALF_BIN) / std)
    inner = torch.where(y > _EDGE, 1 - below, above - below)
    probability = torch.where(y < -_EDGE, above, inner)
    return probability.clamp(min=_LEAST_PROBABILITY).log()


def _cdf(u: Tensor) -> Tensor:
    """The normal distribution function as the published systems approximate it.

    Its probability of bins far from the mean is what likelihoods were reported with.
    """
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3))) / 2
