"""UniPC, a predictor with a corrector, in x0: Zhao et al. 2023, Algorithms 1 and 2."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from samplers.solvers.interface import Callback, Noise, Project
from samplers.solvers.log_snr_steps import exponential_step, kernel_moments


def unipc(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    order: int = 3,
    variant: str = "bh2",
    lower_order_final: bool = True,
) -> Tensor:
    """Predict the next state, evaluate D there, and take the step again with this D as well.

    The corrected state is not evaluated: one call a step. The last state is not corrected. The
    first steps have fewer values of D and a lower order. The step to 0 returns D. Noise is not
    drawn. `callback` sees the predicted state, which is the one that D belongs to.

    Args: those of `Solver`, and
        order: number of values of D in a prediction, 1 to 3; the correction has one more.
        variant: bh1 or bh2, the paper's B(h): h or 1 - exp(-h), which take the place of the exact
            weights where a step has two values of D.
        lower_order_final: at the end, take no higher order than there are steps left.
    """
    num_steps = len(sigmas) - 1
    moments = partial(moments_of, variant)
    values: deque[tuple[float, Tensor]] = deque(maxlen=order)  # levels and D, the newest first
    start, used = x, [*values]  # of the step that led to x: its first state and its values
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if callback is not None:
            callback(i, sigma, x, denoised)
        if i > 0:
            x = exponential_step(start, sigmas[i - 1], sigma, [(sigma, denoised), *used], moments)
            x = x if project is None else project(x, sigma)
        values.appendleft((sigma, denoised))
        used = list(values)[: num_steps - i if lower_order_final else order]
        x_next = denoised
        if sigma_next > 0:
            x_next = exponential_step(x, sigma, sigma_next, used, moments)
        start, x = x, x_next if project is None else project(x_next, sigma_next)
    return x


def moments_of(variant: str, h: float, count: int) -> list[float]:
    """The kernel's moments, but for the first one of a step with two values of D: B(h) / 2.

    With more values the paper's system of equations has B(h) on both sides.
    """
    moments = kernel_moments(h, count)
    if count == 2:
        moments[1] = {"bh1": h, "bh2": moments[0]}[variant] / 2
    return moments
