"""Exact denoisers of known distributions, in float64: what solvers and losses are judged by."""

import torch
from torch import Tensor, nn

from diffusion.preconditioning import broadcast_sigma


class GaussianMixture(nn.Module):
    """D of an equal mixture of isotropic Gaussians; with labels, of the component they select.

    D = sum_k softmax_k(-|x - m_k|^2 / (2v)) (m_k + (std^2 / v)(x - m_k)), v = std^2 + sigma^2.
    """

    def __init__(self, means: Tensor, std: float) -> None:
        super().__init__()
        self.register_buffer("means", means)  # [K, C, H, W]
        self.std = std

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Denoise; a label row is a weight of each component, an all-zero row the whole mixture."""
        variance = self.std**2 + broadcast_sigma(sigma, x).square()
        means, points = self.means.flatten(1), x.flatten(1)
        # -|x - m|^2 / (2v), but for |x|^2, which is the same for all components
        logits = (points @ means.T - means.square().sum(1) / 2) / variance.reshape(-1, 1)
        if labels is not None:
            rows = labels.to(x.dtype)
            if label_mask is not None:
                rows = rows * label_mask[:, None]
            is_null = rows.sum(1, keepdim=True) == 0
            logits = logits + torch.where(is_null, torch.ones_like(rows), rows).log()
        mean = (logits.softmax(1) @ means).reshape(x.shape)
        shrink = self.std**2 / variance
        return shrink * x + (1 - shrink) * mean
