"""From images to latents: the probability-flow ODE from low noise levels to high ones.

Song et al. 2021 (Score SDE), sec. 4.3; for DDIM's steps Song et al. 2021 (DDIM), Eq. 14. The same
solvers run over the levels in reverse.
"""

from torch import Tensor

from samplers import SAMPLERS
from samplers.generate import solve_from
from samplers.sampling import Sampling
from samplers.solvers.interface import Callback
from samplers.starts import Start
from torch_utils.errors import UserError

_VISIBLE_SIGMA = 0.05  # six gray levels


def check_upwards(sampling: Sampling) -> list[str]:
    """Refuse settings with which no image has a latent.

    Returns:
        A warning if the lowest level has noise that is seen, since the image has none.

    Raises:
        UserError: the sampler draws noise, its formulas hold for falling levels only, or there is
            only one level.
    """
    settings = sampling.settings
    others = ", ".join(name for name, row in SAMPLERS.items() if row.goes_up)
    if settings.row.is_stochastic(settings.options):
        raise UserError(
            f"sampler {settings.name} draws noise with these options, so that no image has a "
            f"latent: take {others}, without noise"
        )
    if not settings.row.goes_up:
        raise UserError(
            f"sampler {settings.name} cannot go from low noise levels to high ones: take {others}"
        )
    levels = rising(sampling)
    if len(levels) < 2:
        raise UserError("there is one noise level, so no step goes up: take more steps")
    if levels[0] <= _VISIBLE_SIGMA:
        return []
    return [
        f"the lowest noise level is {levels[0]:.3g}, but the images have no noise: their latents "
        "are those of other images; take more steps, a lower sigma_min, or grid rho"
    ]


def rising(sampling: Sampling) -> list[float]:
    """The levels of the way up: those of the sampler above 0, in reverse."""
    return [sigma for sigma in reversed(sampling.sigmas) if sigma > 0]


def encode(
    sampling: Sampling, start: Start, images: Tensor, *, callback: Callback | None = None
) -> Tensor:
    """The latents from which the ODE leads to some images.

    An image stands at the lowest level above 0: what noise it would have there is not seen.

    Args:
        sampling: settings that `check_upwards` accepts, and models in evaluation mode.
        start: its labels are used.
        images: [N, C, H, W], data range [-1, 1], in the solver's dtype, on the model's device.
        callback: given to the solver.

    Returns:
        [N, C, H, W]; of images like the training set's, about unit normals. `solve` with a start
        that has them leads to the images, up to the solver's error.
    """
    levels = rising(sampling)
    state = solve_from(sampling, start, images, levels, callback=callback)
    return state / sampling.denoiser.prior_scale(levels[-1])
