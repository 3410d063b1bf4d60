"""Changes of colour as 4x4 matrices on (R, G, B, 1): the other half of augmentation.

Karras et al. 2020 ("ADA"), Appendix B. Matrices are made on the host.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from torch_utils.devices import upload

BRIGHTNESS_STD = 0.2  # of what is added
CONTRAST_STD = 0.5  # of log2 of the factor
SATURATION_STD = 1.0  # of log2 of the factor

LUMA = torch.full((3,), 1 / math.sqrt(3), dtype=torch.float64)  # the gray axis, a unit vector
GRAY = LUMA.outer(LUMA)  # projects on it
# the cross product with it, which rotates vectors perpendicular to it by a quarter turn
CROSS = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / math.sqrt(3)
EYE = torch.eye(3, dtype=torch.float64)


def recolor(images: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    """Change the colours of images.

    Args:
        images: [k, C, H, W], C = 3; or C = 1, changed by the mean of the three colours' rows.
        params: of `data.augment.draw` for these images.
    """
    matrices = upload(color_matrices(params).float(), images.device)
    linear, added = matrices[:, :3, :3], matrices[:, :3, 3:]
    if images.shape[1] == 1:
        linear = linear.mean(1, keepdim=True).sum(2, keepdim=True)
        added = added.mean(1, keepdim=True)
    return torch.baddbmm(added, linear, images.flatten(2)).view_as(images)


def color_matrices(params: Mapping[str, Tensor]) -> Tensor:
    """All changes of colour of each image as one matrix, float64 [k, 4, 4] on the host."""
    num = len(next(iter(params.values())))
    total = torch.eye(4, dtype=torch.float64).expand(num, 4, 4)
    for name, matrix in COLORS.items():
        if name in params:
            total = matrix(params[name].to(torch.float64)[:, None, None]) @ total
    return total


def _linear(matrix: Tensor) -> Tensor:
    """A change without offset, [k, 3, 3] -> [k, 4, 4]."""
    total = torch.eye(4, dtype=torch.float64).repeat(len(matrix), 1, 1)
    total[:, :3, :3] = matrix
    return total


def _brightness(w: Tensor) -> Tensor:
    total = torch.eye(4, dtype=torch.float64).repeat(len(w), 1, 1)
    total[:, :3, 3:] = BRIGHTNESS_STD * w
    return total


# name -> its variate [k, 1, 1] to [k, 4, 4], in the order in which they act
COLORS: dict[str, Callable[[Tensor], Tensor]] = {
    "brightness": _brightness,
    "contrast": lambda w: _linear(EYE * torch.exp2(CONTRAST_STD * w)),
    "lumaflip": lambda w: _linear(EYE - 2 * GRAY * w),
    # Rodrigues' formula
    "hue": lambda w: _linear(GRAY + (EYE - GRAY) * w.cos() + CROSS * w.sin()),
    "saturation": lambda w: _linear(GRAY + (EYE - GRAY) * torch.exp2(SATURATION_STD * w)),
}
