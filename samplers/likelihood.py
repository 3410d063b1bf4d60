"""Exact likelihood of a model as the probability-flow ODE samples it, by a change of variables.

Song et al. 2021 ("Score SDE"), sec. 4.3 and appendix D.2; the trace of the Jacobian is estimated
as by Grathwohl et al. 2019 (FFJORD), sec. 3.1. In s = ln(sigma), the ODE of Karras et al. 2022,
eq. 3, is dx/ds = x - D(x, sigma). Along its solutions d/ds log p = tr(dD/dx) - d, where d is the
number of values of an image. `scoring.nll` makes bits per dimension of it.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from torch_utils.errors import UserError

# Dormand and Prince 1980, the fifth-order solution of RK5(4)7M. On a model of the digits it needs
# 60 calls for an error of 0.001 bits per dimension; Runge-Kutta of order 4 takes 100, of order 3
# more than 160, Heun's method several hundred. Even steps in rho 7 or rho 20 are no better.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_STAGES: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_WEIGHTS = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
CALLS_PER_STEP = len(_NODES)


def log_likelihood(
    denoise: DenoiseFunction,
    x: Tensor,
    probes: Tensor,
    *,
    sigma_min: float,
    sigma_max: float,
    steps: int,
    prior_scale: float,
    watch: Callable[[int], None] | None = None,
) -> Tensor:
    """The log density of images at the lowest noise level, in nats.

    It is the density of the ODE's solutions whose state at `sigma_max` has the distribution
    N(0, prior_scale^2), as the start of samplers has. The ODE is integrated upwards in even steps
    of ln(sigma), each of CALLS_PER_STEP calls of D and as many backward passes for each probe.

    Args:
        denoise: D(x, sigma), differentiable in x, at every level of the range.
        x: images, [N, C, H, W], in the precision of the arithmetic.
        probes: vectors e, [K, N, C, H, W], the same at all levels. The trace is estimated by
            e^T (dD/dx) e, without bias if E[e e^T] is the identity. The d vectors that have
            sqrt(d) at one place and 0 elsewhere give the exact trace as their mean.
        sigma_min, sigma_max: range of noise levels.
        steps: number of steps.
        prior_scale: standard deviation of the state at `sigma_max`.
        watch: called after each step with the number of steps that are done.

    Returns:
        An estimate for each probe and image, [K, N].

    Raises:
        UserError: the range is empty, or there is no step.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise UserError(
            f"likelihood between the noise levels sigma_min={sigma_min:g} and "
            f"sigma_max={sigma_max:g}: sigma_min must be positive and below sigma_max"
        )
    if steps < 1:
        raise UserError(f"steps is {steps}: the integration needs at least 1")
    x, num_values = x.detach(), x[0].numel()
    h = math.log(sigma_max / sigma_min) / steps
    gained = x.new_zeros(probes.shape[:2])  # log p at sigma_min less log p at the present level
    for i in range(steps):
        slopes: list[Tensor] = []
        rates: list[Tensor] = []
        for node, row in zip(_NODES, _STAGES, strict=True):
            sigma = sigma_min * math.exp((i + node) * h)
            stage = _advanced(x, h, row, slopes)
            denoised, trace = denoised_and_trace(denoise, stage, sigma, probes)
            slopes.append(stage - denoised)
            rates.append(num_values - trace)
        x, gained = _advanced(x, h, _WEIGHTS, slopes), _advanced(gained, h, _WEIGHTS, rates)
        if watch is not None:
            watch(i + 1)
    return _log_normal(x, prior_scale) + gained


def denoised_and_trace(
    denoise: DenoiseFunction, x: Tensor, sigma: float, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """D, [N, C, H, W], and e^T (dD/dx) e for each probe e, [K, N], without autocast.

    One forward pass, and a backward pass for each probe. On a CPU, both together take twice the
    time of a call; a dual pass of forward-mode AD takes eight times.
    """
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        point = x.detach().requires_grad_()
        denoised = denoise(point, sigma)
        traces = []
        for k, probe in enumerate(probes):
            is_last = k == len(probes) - 1
            along = (denoised * probe).sum()  # images do not interact: one pass for all of them
            (gradient,) = torch.autograd.grad(along, point, retain_graph=not is_last)
            traces.append((gradient * probe).flatten(1).sum(1))
    return denoised.detach(), torch.stack(traces)


def _advanced(y: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """y + h sum_j w_j k_j."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            y = y + h * weight * slope
    return y


def _log_normal(x: Tensor, std: float) -> Tensor:
    """Log density of N(0, std^2) for each image, [N]."""
    log_norm = x[0].numel() * math.log(std * math.sqrt(2 * math.pi))
    return -(x / std).square().flatten(1).sum(1) / 2 - log_norm
