"""Flips, whole-pixel moves and affine maps of images: the geometric half of augmentation.

Karras et al. 2020 ("ADA"), Appendix B, as Karras et al. 2022 ("EDM"), Appendix F.2, use it.
Whole-pixel operations are copies. Affine maps resample at twice the resolution, between a wavelet
filter and its adjoint; the two together reconstruct an image that is not moved.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.devices import upload

INT_SHIFT = 0.125  # largest whole-pixel shift, of the image's side
SHIFT_STD = 0.125  # standard deviation of subpixel shifts, of the image's side
SCALE_STD = 0.2  # of log2 of the scale
ANISO_STD = 0.2  # of log2 of the stretch along one axis

WHOLE_PIXELS = ("xflip", "yflip", "rotate_int", "translate_int")
AFFINE = ("scale", "rotate_frac", "aniso", "translate_frac")

# low-pass filter of the wavelet sym6 (Daubechies), 12 taps
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
PAD = len(SYM6) // 4  # pixels beyond the image that the downsampling filter reads


def largest_shift(height: int, width: int) -> Tensor:
    """How far whole-pixel shifts go before they are rounded: (x, y) in pixels, [2]."""
    return INT_SHIFT * torch.tensor([width, height], dtype=torch.float64)


def move_pixels(images: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    """Flip, turn and shift images by whole pixels; the image is mirrored at its borders.

    Args:
        images: [k, C, H, W].
        params: of `data.augment.draw` for these images.
    """
    height, width = images.shape[2:]
    moves = upload(_moves(params, height, width), images.device)
    right, down, is_transposed, columns, rows = moves[:, :, None, None].unbind(1)
    y = torch.arange(height, device=images.device)[:, None]
    x = torch.arange(width, device=images.device)
    y, x = _mirrored(y + down, height), _mirrored(x - right, width)  # [k, H, 1], [k, 1, W]
    row, column = torch.where(is_transposed > 0, x, y), torch.where(is_transposed > 0, y, x)
    row = torch.where(rows > 0, height - 1 - row, row)  # [k, H, W]
    column = torch.where(columns > 0, width - 1 - column, column)
    source = (row * width + column).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, source).view_as(images)


def _moves(params: Mapping[str, Tensor], height: int, width: int) -> Tensor:
    """All whole-pixel operations of each image as one row, int64 [k, 5] on the host.

    In order of execution: flip columns and rows (the last two entries), transpose (the third),
    shift right and down (the first two).
    """
    num = len(next(iter(params.values())))
    zero = torch.zeros(num, dtype=torch.int64)
    turns = params.get("rotate_int", zero)
    shift = params.get("translate_int", torch.zeros(num, 2))
    right, down = (shift * largest_shift(height, width)).round().long().unbind(1)
    columns = params.get("xflip", zero) ^ ((turns == 1) | (turns == 2)).long()
    rows = params.get("yflip", zero) ^ (turns >= 2).long()
    return torch.stack([right, down, turns % 2, columns, rows], 1)


def _mirrored(position: Tensor, size: int) -> Tensor:
    """The pixel at a position, mirrored beyond the border; the border pixel is not repeated."""
    return (size - 1) - ((size - 1) - position.remainder(max(2 * size - 2, 1))).abs()


def resample(images: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    """Scale, rotate, stretch and shift images, mirrored once beyond each border, 0 beyond that.

    The published code pads a batch by what its farthest image needs, so shapes depend on the data.
    We always pad by its maximum, a whole image less one pixel on every side. Padding, insertion of
    zeros and filter are then one constant matrix an axis, and an image does not depend on its
    neighbours in the batch.

    Args:
        images: [k, C, H, W].
        params: of `data.augment.draw` for these images.
    """
    num, channels, height, width = images.shape
    up = [upsampling(size, images.device) for size in (height, width)]
    down = [downsampling(size, images.device) for size in (height, width)]
    size_in, size_out = [len(m) for m in up], [m.shape[1] for m in down]
    theta = _theta(affine(params, height, width), size_in, size_out).float()
    grid = F.affine_grid(
        upload(theta, images.device), [num, channels, *size_out], align_corners=False
    )
    fine = up[0] @ F.linear(images, up[1])
    moved = F.grid_sample(fine, grid, "bilinear", "zeros", align_corners=False)
    return down[0] @ F.linear(moved, down[1])


def affine(params: Mapping[str, Tensor], height: int, width: int) -> Tensor:
    """All affine operations of each image as one map from output to input.

    Returns:
        float64 [k, 3, 3] on the host; in pixels, origin at the image's centre, x right, y down.
    """
    num = len(next(iter(params.values())))
    total = torch.eye(3, dtype=torch.float64).expand(num, 3, 3)
    if "scale" in params:
        inverse = torch.exp2(-SCALE_STD * params["scale"])
        total = total @ _diagonal(inverse, inverse)
    if "rotate_frac" in params:
        total = total @ _rotation(params["rotate_frac"])
    if "aniso" in params:
        stretch, angle = torch.exp2(ANISO_STD * params["aniso"]), params["aniso_angle"]
        total = total @ _rotation(-angle) @ _diagonal(1 / stretch, stretch) @ _rotation(angle)
    if "translate_frac" in params:
        x, y = params["translate_frac"].unbind(1)
        total = total @ _translation(-SHIFT_STD * width * x, -SHIFT_STD * height * y)
    return total


def _theta(maps: Tensor, size_in: list[int], size_out: list[int]) -> Tensor:
    """Pixel maps as `affine_grid` takes them at twice the resolution, [k, 2, 3]."""
    half, two = torch.tensor([0.5], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    maps = _diagonal(two, two) @ maps @ _diagonal(half, half)
    maps = _translation(-half, -half) @ maps @ _translation(half, half)
    to_unit = [two / size for size in reversed(size_in)]
    from_unit = [half * size for size in reversed(size_out)]
    return (_diagonal(*to_unit) @ maps @ _diagonal(*from_unit))[:, :2]


@lru_cache(maxsize=64)
def upsampling(size: int, device: torch.device) -> Tensor:
    """One axis: mirror the borders, double the resolution; float32 [6 size - 4, size].

    The reversed filter over the padded line with zeros between its pixels: output t sees padded
    pixel i through tap 5 + t - 2i.
    """
    padded = 3 * size - 2
    taps = np.zeros((2 * padded, padded))
    for i in range(padded):
        for tap, value in enumerate(SYM6):
            t = tap - 5 + 2 * i
            if 0 <= t < 2 * padded:
                taps[t, i] = value
    mirrored = _mirrored(torch.arange(padded) - (size - 1), size).numpy()
    matrix = taps @ np.eye(size)[mirrored]
    return torch.from_numpy(matrix.astype(np.float32)).to(device)


@lru_cache(maxsize=64)
def downsampling(size: int, device: torch.device) -> Tensor:
    """One axis: filter, halve the resolution, crop; float32 [size, 2 size + 12]."""
    matrix = np.zeros((size, 2 * (size + 2 * PAD)))
    for pixel in range(size):
        first = 2 * (pixel + PAD) - 5
        matrix[pixel, first : first + len(SYM6)] = SYM6
    return torch.from_numpy(matrix.astype(np.float32)).to(device)


def _matrix(rows: list[list[Tensor | float]]) -> Tensor:
    """[k, 3, 3] of a matrix whose entries are numbers or [k]."""
    (like,) = {len(e): e for row in rows for e in row if isinstance(e, Tensor)}.values()
    full = [[e if isinstance(e, Tensor) else torch.full_like(like, e) for e in r] for r in rows]
    return torch.stack([torch.stack(row, -1) for row in full], -2)


def _diagonal(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def _translation(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return _matrix([[c, -s, 0], [s, c, 0], [0, 0, 1]])
