"""Derivatives of a denoiser along a direction in (x, sigma): forward-mode AD or differences.

Both see x and sigma at once, P = (dD/dx) v_x + (dD/dsigma) v_sigma, so one direction costs one
dual pass (on CPUs four to seven forward passes) or one more forward pass.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from torch_utils.errors import UserError

DIFFERENCE_STEP = 1e-3  # of sigma; there float32 rounding and curvature err about equally
DUAL_DIFFERENCE_STEP = 1e-2  # the same between two dual passes
SECOND_DIFFERENCE_STEP = 3e-2  # the same for a second difference


def check_continuous(
    owner: str, sigmas: Sequence[float], round_sigma: Callable[[float], float]
) -> None:
    """Refuse a model that rounds noise levels: its derivative in sigma is 0 or nonsense.

    Args:
        owner: the sampler's name for the message.
        sigmas: decreasing noise levels that will be visited.
        round_sigma: nearest level that the model knows.

    Raises:
        UserError: levels between those visited are rounded.
    """
    between = [(a + b) / 2 for a, b in pairwise(sigmas) if b > 0]
    if any(round_sigma(sigma) != sigma for sigma in between):
        raise UserError(
            f"{owner} takes a derivative in sigma, but this model rounds its noise levels: "
            "use sra1 or heun, or a model without quantize"
        )


def _in_full_precision(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


@functools.cache
def _load_rules() -> None:
    """Let PyTorch load its forward-mode rules; some versions warn of their own code here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


def by_jvp(
    denoise: DenoiseFunction,
    x: Tensor,
    sigma: float,
    denoised: Tensor | None,
    direction: tuple[Tensor, float],
    size: float,
) -> tuple[Tensor, Tensor]:
    """(D, P) by one dual pass of forward-mode AD, without autocast.

    Args:
        denoise: D(x, sigma).
        x, sigma: the point.
        denoised: D there, or None; not used.
        direction: (v_x, v_sigma).
        size: typical length of the direction; not used.
    """
    _load_rules()
    level, rate = (torch.tensor(value, dtype=torch.float64) for value in (sigma, direction[1]))
    with _in_full_precision(x):
        found, along = torch.func.jvp(denoise, (x, level), (direction[0], rate))[:2]
    return found, along


def by_difference(
    denoise: DenoiseFunction,
    x: Tensor,
    sigma: float,
    denoised: Tensor | None,
    direction: tuple[Tensor, float],
    size: float,
) -> tuple[Tensor, Tensor]:
    """(D, P) by a one-sided difference of DIFFERENCE_STEP sigma, without autocast.

    Args:
        denoise, x, sigma, direction: as in `by_jvp`.
        denoised: D at the point; None computes it.
        size: typical length of the direction. It depends on the step alone, so that no image
            depends on others of its batch.
    """
    step = DIFFERENCE_STEP * sigma / size
    with _in_full_precision(x):
        here = denoise(x, sigma) if denoised is None else denoised
        ahead = denoise(x + step * direction[0], sigma + step * direction[1])
    return here, (ahead - here) / step


def second_by_jvp(
    denoise: DenoiseFunction, x: Tensor, sigma: float, denoised: Tensor, direction: Tensor
) -> Tensor:
    """The second derivative of D along a direction in x: the difference of two dual passes.

    A dual pass through a dual pass would be exact, but SiLU's derivative has no forward-mode rule.

    Args:
        denoise: D(x, sigma).
        x, sigma: the point.
        denoised: D there; not used.
        direction: in x, with entries of about 1.
    """
    _load_rules()
    step = DUAL_DIFFERENCE_STEP * sigma

    def first(point: Tensor) -> Tensor:
        tangent: Tensor = torch.func.jvp(lambda y: denoise(y, sigma), (point,), (direction,))[1]
        return tangent

    with _in_full_precision(x):
        return (first(x + step * direction) - first(x - step * direction)) / (2 * step)


def second_by_difference(
    denoise: DenoiseFunction, x: Tensor, sigma: float, denoised: Tensor, direction: Tensor
) -> Tensor:
    """The same by a central difference of SECOND_DIFFERENCE_STEP sigma; two forward passes."""
    step = SECOND_DIFFERENCE_STEP * sigma
    with _in_full_precision(x):
        ahead, behind = (denoise(x + s * direction, sigma) for s in (step, -step))
    return (ahead - 2 * denoised + behind) / step**2


FIRST = {"jvp": by_jvp, "fd": by_difference}
SECOND = {"jvp": second_by_jvp, "fd": second_by_difference}
