"""Weightings w(sigma) in E[w(sigma) |D - y|^2]; they do not depend on what the network predicts."""

from collections.abc import Callable

import torch
from torch import Tensor

from losses.levels import NoiseLevel
from torch_utils.errors import UserError

Weight = Callable[[Tensor], Tensor]


def constant() -> Weight:
    """1: the squared error of y itself."""
    return torch.ones_like


def snr() -> Weight:
    """The signal-to-noise ratio, 1 / sigma^2: equal weight of the error in predicted noise.

    Ho et al. 2020 ("DDPM"), Eq. 14; Karras et al. 2022, Table 1, columns VP and VE.
    """
    return lambda sigma: 1 / sigma.square()


def snr_trunc() -> Weight:
    """max(1, SNR): the larger of the errors in y and in noise. Salimans and Ho 2022, Eq. 9."""
    return lambda sigma: (1 / sigma.square()).clamp(min=1)


def snr_1plus() -> Weight:
    """1 + SNR: equal weight of the error in predicted v. Salimans and Ho 2022, sec. 4."""
    return lambda sigma: 1 + 1 / sigma.square()


def edm(sigma_data: float) -> Weight:
    """EDM's weighting, which makes the effective weight of every noise level one at the start.

    (sigma^2 + sigma_data^2) / (sigma sigma_data)^2. Karras et al. 2022, Table 1.
    """
    return lambda sigma: (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def flow() -> Weight:
    """(1 + 1 / sigma)^2: equal weight of the error in predicted velocity. Lipman et al. 2023."""
    return lambda sigma: (1 + 1 / sigma).square()


def min_snr(gamma: float) -> Weight:
    """min(SNR, gamma), which keeps small noise from dominating. Hang et al. 2023, Eq. 9."""
    return lambda sigma: (1 / sigma.square()).clamp(max=gamma)


def vlb(level: NoiseLevel) -> Weight:
    """SNR / (2 p(L)): makes the loss the diffusion part of the variational bound, in nats.

    Kingma et al. 2021 ("VDM"), Eq. 17: the bound is 1/2 the integral of SNR |D - y|^2 over the
    log-SNR L, whatever the distribution p of L that training draws from.

    Raises:
        UserError: the noise level is a distribution over steps.
    """
    if not level.has_density:
        raise UserError(
            "weight vlb divides by the density of the noise level, and a distribution over steps"
            " has none: take another noise level, e.g. uniform_time, or the loss term vlb"
        )

    def weight(sigma: Tensor) -> Tensor:
        log_snr = -2 * sigma.log()
        return (log_snr - level.log_density(log_snr)).exp() / 2

    return weight
