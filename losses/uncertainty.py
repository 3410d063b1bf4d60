"""Learned uncertainty: the logarithm of the loss's variance as a function of the noise level.

Karras et al. 2024 ("EDM2"), Eq. 21 and Appendix B.2: the loss L becomes L / e^u + u, least at
u = ln E[L], so that every noise level contributes alike at every time of training.
"""

import math

import torch
from torch import Tensor, nn


class LogVariance(nn.Module):
    """u(sigma): random Fourier features of ln(sigma)/4 and a linear layer that starts at 0.

    Args:
        num_channels: number of features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, num_channels: int = 128) -> None:
        super().__init__()
        # depends on the size alone, so that no random stream of the run is touched
        generator = torch.Generator().manual_seed(num_channels)
        turns = 2 * math.pi * torch.randn(num_channels, generator=generator)
        self.register_buffer("frequencies", turns)
        self.register_buffer("phases", 2 * math.pi * torch.rand(num_channels, generator=generator))
        self.weight = nn.Parameter(torch.zeros(num_channels))

    def forward(self, sigma: Tensor) -> Tensor:
        """The logarithm of the variance at noise levels [N], in their dtype."""
        angle = torch.outer(sigma.float().log() / 4, self.frequencies) + self.phases
        features = math.sqrt(2 / len(self.weight)) * angle.cos()
        return (features @ self.weight).to(sigma.dtype)
