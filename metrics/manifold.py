"""Improved precision and recall (Kynkaanniemi et al., 2019), on the features of any detector.

A set of images stands for the union of balls around their features; a ball reaches to the k-th
nearest neighbour in the set. Precision is the share of the scored images within the real set's
union, recall the share of the real ones within the other's. Never more than two blocks of distances
are in memory.
"""

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError

NUM_NEIGHBOURS = 3
BLOCK = 4096  # rows and columns of the distances that are computed at once
_ROUNDING = 1e-12  # of a squared distance, relative to the squared lengths of its features


def precision_recall(
    features: np.ndarray,
    reference: np.ndarray,
    *,
    k: int = NUM_NEIGHBOURS,
    device: torch.device | str = "cpu",
    block: int = BLOCK,
) -> tuple[float, float]:
    """Precision and recall of one set of features against another.

    Args:
        features: of the images that are scored, [N, F].
        reference: of the real ones, [M, F].
        k: the neighbour that gives the radius of a ball, not counting the point itself.
        device: where distances are computed, in float64.
        block: rows and columns of the distances that are computed at once.

    Returns:
        Precision and recall, each from 0 to 1.

    Raises:
        UserError: a set has too few images to have k neighbours.
    """
    assert features.shape[1] == reference.shape[1], (features.shape, reference.shape)
    for whose, values in (("scored", features), ("reference", reference)):
        if len(values) <= k:
            raise UserError(
                f"precision and recall need more than {k} {whose} images, got {len(values)}"
            )
    # products of centred features lose fewer digits
    centre = reference.mean(0, dtype=np.float64)
    ours, theirs = (_Points(values, centre, device, block) for values in (features, reference))
    return _share_within(ours, theirs, k), _share_within(theirs, ours, k)


class _Points:
    """Features on the host, centred and moved to the device block by block.

    Args:
        values: [N, F].
        centre: [F], subtracted.
        device: where blocks go.
        block: their size.
    """

    def __init__(
        self, values: np.ndarray, centre: np.ndarray, device: torch.device | str, block: int
    ) -> None:
        self._values, self._centre, self._device = values, centre, device
        self.starts = range(0, len(values), block)
        self._size = block

    def block(self, start: int) -> Tensor:
        """Float64 [n, F], n <= block."""
        part = self._values[start : start + self._size] - self._centre
        return torch.from_numpy(part).to(self._device)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """[n, m]; exactly 0 where rounding could have made the difference."""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    squared = torch.addmm(lengths, x, y.T, alpha=-2)
    return torch.where(squared <= _ROUNDING * lengths, 0, squared)


def _radii(points: _Points, k: int) -> list[Tensor]:
    """Squared distances to the k-th neighbour, a tensor for each block."""
    found = []
    for start in points.starts:
        x = points.block(start)
        nearest = x.new_full((len(x), k), torch.inf)
        for other in points.starts:
            distances = _squared_distances(x, points.block(other))
            if other == start:
                distances.fill_diagonal_(torch.inf)  # a point is not its own neighbour
            both = torch.cat([nearest, distances], 1)
            nearest = both.topk(k, dim=1, largest=False).values
        found.append(nearest.amax(1))
    return found


def _share_within(queries: _Points, balls: _Points, k: int) -> float:
    """The share of the queries that lie in a ball of the other set, edges included."""
    radii = _radii(balls, k)
    num = inside = 0
    for start in queries.starts:
        x = queries.block(start)
        is_inside = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for other, radius in zip(balls.starts, radii, strict=True):
            is_inside |= (_squared_distances(x, balls.block(other)) <= radius).any(1)
        inside += int(is_inside.sum())
        num += len(x)
    return inside / num
