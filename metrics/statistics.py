"""Mean and covariance of features from sums that are collected batch by batch.

The sums are float64 tensors on the device: those of several processes can simply be added.
"""

from dataclasses import dataclass

import numpy as np
import torch

from torch_utils.errors import UserError

MAX_FEATURES = 16384  # a covariance of 2 GiB
_COLUMNS = 256  # of the sum of outer products that are computed at once
_ROUNDING = 1e-6  # of a covariance in float32, relative to its norm


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian that stands for a set of images.

    Attributes:
        mu: mean of the features, float64 [F].
        sigma: covariance, normalised by num - 1, float64 [F, F].
        num: images that it was computed from; None if a published file does not say.
    """

    mu: np.ndarray
    sigma: np.ndarray
    num: int | None


def is_covariance(sigma: np.ndarray) -> bool:
    """Whether a symmetric matrix is positive semidefinite, up to the rounding of float32.

    Args:
        sigma: float64 [F, F].
    """
    import scipy.linalg  # where it is needed: it takes long to load

    shifted = sigma.copy()
    np.fill_diagonal(shifted, shifted.diagonal() + _ROUNDING * np.linalg.norm(sigma) + 1e-30)
    try:
        scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return False
    return True


class FeatureStatistics:
    """Count, sum and sum of outer products of feature vectors.

    Attributes:
        count: images seen, int64 [].
        total: sum of the features, float64 [F].
        outer: sum of features^T features, float64 [F, F]; of this symmetric matrix, only the upper
            triangle counts.
    """

    def __init__(self, num_features: int, device: torch.device | str = "cpu") -> None:
        """Start from zero.

        Args:
            num_features: F.
            device: where the sums live.

        Raises:
            UserError: F is so large that the covariance would not fit in memory.
        """
        if num_features > MAX_FEATURES:
            raise UserError(
                f"images of {num_features} features need a covariance of "
                f"{num_features**2 * 8 / 2**30:.0f} GiB: use smaller images or another detector"
            )
        self.count = torch.zeros([], dtype=torch.int64, device=device)
        self.total = torch.zeros([num_features], dtype=torch.float64, device=device)
        self.outer = torch.zeros([num_features, num_features], dtype=torch.float64, device=device)

    def update(self, features: torch.Tensor) -> None:
        """Add the features [N, F] of N images; does not wait for the device.

        The sums are read and written each time, so a few hundred images at once cost least.
        """
        assert features.shape[1:] == self.total.shape, (features.shape, self.total.shape)
        values = features.detach().to(self.total)
        self.count += values.shape[0]
        self.total += values.sum(0)
        for first in range(0, values.shape[1], _COLUMNS):
            columns = values[:, first : first + _COLUMNS]
            self.outer[first : first + _COLUMNS, first:].addmm_(columns.T, values[:, first:])

    def finalize(self) -> Gaussian:
        """Compute mean and covariance; the sums stay and can grow on.

        Returns:
            The Gaussian, on the host: mu = S1/n, sigma = (S2 - n mu mu^T)/(n - 1).

        Raises:
            UserError: fewer than two images.
        """
        num = int(self.count)
        if num < 2:
            raise UserError(f"a covariance needs at least 2 images, got {num}")
        mu = self.total / num
        sigma = ((self.outer - num * torch.outer(mu, mu)) / (num - 1)).triu_()
        sigma += sigma.triu(1).T
        assert bool(sigma.isfinite().all()), "the detector gave features that are not finite"
        return Gaussian(mu.cpu().numpy(), sigma.cpu().numpy(), num)
