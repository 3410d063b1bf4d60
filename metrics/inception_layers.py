"""The layers of Inception-v3 (Szegedy et al., 2016) as FID uses it, a table without torch.

It differs from the network of the paper in details: average pooling leaves out the padding, and the
last block has max pooling. The names are those of the published file of weights.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Unit(NamedTuple):
    """A convolution without bias, a batch normalisation and a ReLU.

    Without `is_valid` it is padded so that a stride of 1 keeps the size.
    """

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    is_valid: bool = False


class Pool(NamedTuple):
    """A pooling of 3x3 pixels: `max` or `mean`; the mean is over those that are not padding."""

    kind: str
    stride: int = 1


Fork = tuple[Unit, ...]  # units that see the same input; their outputs are put side by side
Branch = Sequence[Unit | Pool | Fork]
MEAN = Pool("mean")
HALVE = Pool("max", stride=2)

STEM: Branch = (
    Unit("Conv2d_1a_3x3", 32, (3, 3), stride=2, is_valid=True),
    Unit("Conv2d_2a_3x3", 32, (3, 3), is_valid=True),
    Unit("Conv2d_2b_3x3", 64, (3, 3)),
    HALVE,
    Unit("Conv2d_3b_1x1", 80),
    Unit("Conv2d_4a_3x3", 192, (3, 3), is_valid=True),
    HALVE,
)


def _block_a(pooled: int) -> list[Branch]:
    return [
        [Unit("branch1x1", 64)],
        [Unit("branch5x5_1", 48), Unit("branch5x5_2", 64, (5, 5))],
        [
            Unit("branch3x3dbl_1", 64),
            Unit("branch3x3dbl_2", 96, (3, 3)),
            Unit("branch3x3dbl_3", 96, (3, 3)),
        ],
        [MEAN, Unit("branch_pool", pooled)],
    ]


def _block_b() -> list[Branch]:
    return [
        [Unit("branch3x3", 384, (3, 3), stride=2, is_valid=True)],
        [
            Unit("branch3x3dbl_1", 64),
            Unit("branch3x3dbl_2", 96, (3, 3)),
            Unit("branch3x3dbl_3", 96, (3, 3), stride=2, is_valid=True),
        ],
        [HALVE],
    ]


def _block_c(inner: int) -> list[Branch]:
    return [
        [Unit("branch1x1", 192)],
        [
            Unit("branch7x7_1", inner),
            Unit("branch7x7_2", inner, (1, 7)),
            Unit("branch7x7_3", 192, (7, 1)),
        ],
        [
            Unit("branch7x7dbl_1", inner),
            Unit("branch7x7dbl_2", inner, (7, 1)),
            Unit("branch7x7dbl_3", inner, (1, 7)),
            Unit("branch7x7dbl_4", inner, (7, 1)),
            Unit("branch7x7dbl_5", 192, (1, 7)),
        ],
        [MEAN, Unit("branch_pool", 192)],
    ]


def _block_d() -> list[Branch]:
    return [
        [Unit("branch3x3_1", 192), Unit("branch3x3_2", 320, (3, 3), stride=2, is_valid=True)],
        [
            Unit("branch7x7x3_1", 192),
            Unit("branch7x7x3_2", 192, (1, 7)),
            Unit("branch7x7x3_3", 192, (7, 1)),
            Unit("branch7x7x3_4", 192, (3, 3), stride=2, is_valid=True),
        ],
        [HALVE],
    ]


def _block_e(pool: Pool) -> list[Branch]:
    return [
        [Unit("branch1x1", 320)],
        [
            Unit("branch3x3_1", 384),
            (Unit("branch3x3_2a", 384, (1, 3)), Unit("branch3x3_2b", 384, (3, 1))),
        ],
        [
            Unit("branch3x3dbl_1", 448),
            Unit("branch3x3dbl_2", 384, (3, 3)),
            (Unit("branch3x3dbl_3a", 384, (1, 3)), Unit("branch3x3dbl_3b", 384, (3, 1))),
        ],
        [pool, Unit("branch_pool", 192)],
    ]


BLOCKS: dict[str, list[Branch]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e(MEAN),
    "Mixed_7c": _block_e(Pool("max")),
}
