"""Mean and covariance of features from sums that are collected batch by batch.

The sums are float64 tensors on the device: those of several processes can simply be added.
"""

from dataclasses import dataclass

import numpy as np
import torch

from torch_utils.errors import UserError

MAX_FEATURES = 16384  # a covariance of 2 GiB
_COLUMNS = 256  # of the sum of outer products that are computed at once on a GPU
_FINISHED = 128  # rows of the covariance that are finished at once: they stay in the cache
_MOST_ROWS, _FEWEST_ROWS = 2048, 512
_VALUES = 2**22  # of features that are added at once, if they are not the fewest rows
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


def worthwhile_rows(num_features: int) -> int:
    """How many images' features are best added at once: many, but not too much memory.

    Args:
        num_features: of an image.
    """
    return min(_MOST_ROWS, max(_FEWEST_ROWS, _VALUES // num_features))


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
        shape = [num_features, num_features]
        self.outer = (
            torch.from_numpy(np.zeros(shape))  # takes no memory before it is written
            if torch.device(device).type == "cpu"
            else torch.zeros(shape, dtype=torch.float64, device=device)
        )

    def update(self, features: torch.Tensor) -> None:
        """Add the features [N, F] of N images; does not wait for the device.

        The sums are read and written each time, so `worthwhile_rows` images at once cost least.
        """
        assert features.shape[1:] == self.total.shape, (features.shape, self.total.shape)
        self.count += features.shape[0]
        if self.total.device.type == "cpu":
            self._add_on_host(features.detach().to(self.total).numpy())
        else:
            self._add_on_device(features.detach().to(self.total))

    def _add_on_host(self, values: np.ndarray) -> None:
        """PyTorch would compute both triangles, and its threads spin while others compute."""
        from scipy.linalg.blas import dsyrk  # where it is needed: it takes long to load

        self.total += torch.from_numpy(values.sum(0))
        if len(values):
            target = self.outer.numpy().T
            found = dsyrk(1.0, values.T, beta=1.0, c=target, lower=1, overwrite_c=1)
            assert np.shares_memory(found, target)

    def _add_on_device(self, values: torch.Tensor) -> None:
        self.total += values.sum(0)
        for first in range(0, values.shape[1], _COLUMNS):
            strip = slice(first, first + _COLUMNS)
            self.outer[strip, first:].addmm_(values[:, strip].T, values[:, first:])

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
        mu, outer = self.total.cpu().numpy() / num, self.outer.cpu().numpy()
        # the diagonal tells: no covariance exceeds both variances
        is_finite = np.isfinite(outer.diagonal()).all()
        assert is_finite, "the detector gave features that are not finite"
        sigma = np.empty_like(outer)
        for first in range(0, len(mu), _FINISHED):
            part = slice(first, first + _FINISHED)
            rows = outer[part, first:] - np.outer(num * mu[part], mu[first:])
            rows = np.triu(rows) / (num - 1)  # [R, F - first], from the diagonal on
            square = rows[:, : len(rows)]
            square += np.triu(square, 1).T
            sigma[part, first:], sigma[first:, part] = rows, rows.T
        return Gaussian(mu, sigma, num)
