"""Improved precision and recall (Kynkaanniemi et al., 2019), on the features of any detector.

A set of images stands for the union of balls around their features; a ball reaches to the k-th
nearest neighbour in the set. Precision is the share of the scored images within the real set's
union, recall the share of the real ones within the other's. Distances are computed block by block:
beyond the features, at most a GiB is in use, for any number of images.
"""

import numpy as np
import torch
from torch import Tensor

from torch_utils.errors import UserError

NUM_NEIGHBOURS = 3
BLOCK = 4096  # rows and columns of the distances that are computed at once
_BLOCK_VALUES = 2**23  # of the features in a block, at most
_KEPT_VALUES = 2**24  # of a set's features, at most, that are kept in float64
_SMALL_BLOCK = 384  # of such a set: of the distances within it, fewer are computed twice
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

    The edge of a ball belongs to it. A feature that rounding could have put outside lies in the
    ball, too: so a copy lies in a ball of radius 0. Features count as equal if they differ by less
    than about a millionth of their length.

    Args:
        features: of the images that are scored, [N, F].
        reference: of the real ones, [M, F].
        k: the neighbour that gives the radius of a ball, not counting the point itself.
        device: where distances are computed, in float64.
        block: rows and columns of the distances that are computed at once, at most.

    Returns:
        Precision and recall, each from 0 to 1.

    Raises:
        UserError: a set has too few images to have k neighbours.
    """
    assert features.shape[1] == reference.shape[1], (features.shape, reference.shape)
    for whose, values in (("scored", features), ("reference", reference)):
        if len(values) <= k:
            raise UserError(
                f"precision and recall need more than {k} {whose} images, got {len(values)}: "
                "use more"
            )
    # products of centred features lose fewer digits
    centre = torch.from_numpy(reference.mean(0, dtype=np.float64)).to(device)
    ours, theirs = (_Points(values, centre, block) for values in (features, reference))
    return _shares_within(ours, _radii(ours, k), theirs, _radii(theirs, k))


class _Points:
    """Features on the host, moved to the device and centred block by block.

    Args:
        values: [N, F].
        centre: float64 [F] on the device, subtracted.
        block: points in a block, at most.
    """

    def __init__(self, values: np.ndarray, centre: Tensor, block: int) -> None:
        self._values, self._centre = values, centre
        self._converted: Tensor | None = None
        size = min(block, max(_BLOCK_VALUES // len(centre), 1))
        if values.size <= _KEPT_VALUES:  # converted once, so small blocks cost nothing
            self._converted = self._points(slice(None))
            size = min(size, _SMALL_BLOCK)
        self.parts = [slice(i, min(i + size, len(values))) for i in range(0, len(values), size)]
        self._lengths = torch.cat([self[part].square().sum(1) for part in self.parts])

    def full(self, shape: list[int], value: float | bool) -> Tensor:
        """A tensor [N, *shape] of one value, on the device."""
        return torch.full([len(self._values), *shape], value, device=self._centre.device)

    def __getitem__(self, part: slice) -> Tensor:
        """The points of a block, float64 [n, F]."""
        return self._points(part) if self._converted is None else self._converted[part]

    def _points(self, part: slice) -> Tensor:
        values = torch.from_numpy(self._values[part].astype(np.float64))
        return values.to(self._centre.device).sub_(self._centre)

    def squared_distances(
        self, part: slice, x: Tensor, others: "_Points", other: slice, rounding: float = 0
    ) -> Tensor:
        """Of the points x [n, F] of a block to those of another one.

        Returns:
            [n, m], less the share `rounding` of the squared lengths of both.
        """
        lengths = self._lengths[part, None] + others._lengths[other]
        return lengths.mul_(1 - rounding).addmm_(x, others[other].T, alpha=-2)


def _radii(points: _Points, k: int) -> Tensor:
    """Squared distances [N] to the k-th neighbour."""
    nearest = points.full([k], torch.inf).double()
    for number, part in enumerate(points.parts):
        x = points[part]
        for other in points.parts[number:]:
            squared = points.squared_distances(part, x, points, other)
            if other == part:
                squared.fill_diagonal_(torch.inf)  # a point is not its own neighbour
            else:
                nearest[other] = _smallest(nearest[other], squared.T, k)
            nearest[part] = _smallest(nearest[part], squared, k)
    return nearest.amax(1)


def _smallest(found: Tensor, more: Tensor, k: int) -> Tensor:
    """The k smallest values of each row of two matrices."""
    return torch.cat([found, more], 1).topk(k, dim=1, largest=False).values


def _shares_within(
    ours: _Points, our_radii: Tensor, theirs: _Points, their_radii: Tensor
) -> tuple[float, float]:
    """The share of our points in one of their balls, and of theirs in one of ours."""
    is_precise, is_recalled = ours.full([], False), theirs.full([], False)
    for part in ours.parts:
        x = ours[part]
        for other in theirs.parts:
            squared = ours.squared_distances(part, x, theirs, other, _ROUNDING)
            is_precise[part] |= (squared <= their_radii[other]).any(1)
            is_recalled[other] |= (squared <= our_radii[part, None]).any(0)
    return float(is_precise.double().mean()), float(is_recalled.double().mean())
