"""Between the latents of two seeds: spherical interpolation, one angle for each sample.

Shoemake 1985. Unit normals in many dimensions lie near a sphere, and so do the points between.
"""

from torch import Tensor

_PARALLEL = 1e-6  # sine of the angle below which the arc is a line, or is not determined


def slerp(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Interpolate each pair of samples along the arc between them.

    Args:
        a, b: [N, ...].
        weights: [N], from 0 (a, to the bit) to 1 (b, to the bit).

    Returns:
        sin((1 - w) angle) / sin(angle) a + sin(w angle) / sin(angle) b, of the shape of a. Where a
        and b are parallel, it is (1 - w) a + w b.
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = (flat_a * flat_b).sum(1) / (flat_a.norm(dim=1) * flat_b.norm(dim=1))
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    is_line = ~(sine > _PARALLEL)  # also where a or b is 0
    weights = weights.to(a)
    shape = (-1, *[1] * (a.ndim - 1))
    share_a = (((1 - weights) * angle).sin() / sine).where(~is_line, 1 - weights).reshape(shape)
    share_b = ((weights * angle).sin() / sine).where(~is_line, weights).reshape(shape)
    between: Tensor = share_a * a + share_b * b
    return between
