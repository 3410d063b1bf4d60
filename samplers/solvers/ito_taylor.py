"""Second-order Ito-Taylor solvers of the reverse SDE: the loop over the steps of `taylor_steps`."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from diffusion.denoiser import DenoiseFunction
from samplers.solvers.derivatives import check_continuous
from samplers.solvers.increments import step_size
from samplers.solvers.interface import Callback, Noise, Project
from samplers.solvers.taylor_steps import SCHEMES, Problem, Step
from torch_utils.errors import UserError


def ito_taylor(
    denoise: DenoiseFunction,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    round_sigma: Callable[[float], float] = float,
    project: Project | None = None,
    callback: Callback | None = None,
    scheme: str = "strong1.5",
    beta: float = 1.0,
    derivative: str = "jvp",
    laplacian: bool = False,
    lag: bool = False,
    rho: float = 7.0,
    S_max: float = 50.0,
) -> Tensor:
    """Integrate a reverse SDE by second-order Ito-Taylor steps; the last step, to 0, returns D.

    Schemes:
        strong1.5: strong order 1.5, weak order 2; two draws a step.
        weak2: weak order 2; one draw a step.
        churn: exact noise, then a second-order step of the ODE; one draw a step. Its noise
            vanishes as the steps shrink, and its order is 2.
        published: the second-order solver as it was published, which is of order 1.

    The expansion of strong1.5 and weak2 has a term in the Laplacian of D in x. Without it
    (`laplacian` False, the default) each step has a bias of h^2 g^2, which leaves order 1, and on
    a mixture about the error of Euler-Maruyama, unless D is affine in x or g^2 = O(h).
    `sra1` reaches both orders without derivatives; benchmarks/solver_errors.py compares.

    D must be differentiable in x and in sigma, which is a float or a 0-d tensor, and the model must
    not round noise levels. Noise is not drawn if beta is 0, nor on the step to 0. The callback sees
    each step's start, after the noise of churn.

    Args: those of `Solver`, and
        scheme: one of SCHEMES.
        beta: amount of noise, 0 adds nothing: g^2 = -2 beta sigma sigma'; for churn and published a
            factor on the added variance.
        derivative: "jvp", one dual pass of forward-mode AD, or "fd", a finite difference.
        laplacian: estimate the Laplacian term from one random sign vector a step (Hutchinson
            1990), one more draw; strong1.5 and weak2 only.
        lag: take the slope in the derivative's direction from the step before, which with jvp
            saves one call in each step but the first, and costs accuracy; published always does.
        rho: exponent of the time variable, that of the grid.
        S_max: for published, the level above which its second-order branch is taken.

    Raises:
        UserError: `laplacian` with a scheme that has no such term, or a model that rounds its noise
            levels.
    """
    if laplacian and scheme not in ("strong1.5", "weak2"):
        raise UserError(f"sampler ito_taylor: scheme {scheme} has no Laplacian term")
    check_continuous("sampler ito_taylor", sigmas, round_sigma)
    span = step_size(sigmas[0], min(sigma for sigma in sigmas if sigma > 0), rho)
    problem = Problem(denoise, noise, beta, derivative, laplacian, lag, rho, S_max, span)
    step: Step | None = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        step = SCHEMES[scheme](problem, x, sigma, sigma_next, step)
        if callback is not None:
            callback(i, step.sigma, step.x, step.denoised)
        x = step.x_next if project is None else project(step.x_next, sigma_next)
    return x
