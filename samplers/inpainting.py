"""Inpainting: pixels that are known stay at their noise level while the others are made.

After each step, known pixels become y + sigma n. There are two rules for n: fresh unit normals
(Song et al. 2021 (Score SDE), sec. I.2; Lugmayr et al. 2022 (RePaint), Eq. 8 without going back),
or the slope (x - D) / sigma that the model sees at the start of the step. The latter is the rule of
CDM's program (Daras et al. 2023), which takes the second slope of Heun's method where there is one.
On correlated Gaussian data the model's own slope comes near the exact conditional distribution, and
fresh noise leaves the unknown pixels too far from the known ones, most of all without churn.
"""

from dataclasses import replace

from torch import Tensor

from samplers.generate import solve
from samplers.sampling import Sampling
from samplers.solvers.interface import Callback
from samplers.starts import Start

RULES = ("model", "fresh")


def inpaint(
    sampling: Sampling,
    start: Start,
    images: Tensor,
    is_known: Tensor,
    *,
    rule: str = RULES[0],
    callback: Callback | None = None,
) -> Tensor:
    """Make the unknown pixels of some images, with any sampler.

    Fresh noise comes from the generators of the seeds, after the noise of the step.

    Args:
        sampling: settings and models, in evaluation mode.
        start: latents, labels and generators.
        images: [N, C, H, W], data range [-1, 1], in the solver's dtype, on the model's device.
        is_known: bool [N, 1, H, W].
        rule: of RULES.
        callback: given to the solver.

    Returns:
        [N, C, H, W], not clipped; known pixels are those of `images`, to the bit.
    """
    sigma = sampling.sigmas[0]
    scale = sampling.denoiser.prior_scale(sigma)
    latents = ((images + sigma * start.latents) / scale).where(is_known, start.latents)
    noise: Tensor | None = None

    def watch(i: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        nonlocal noise
        if rule == "model":
            noise = (x - denoised) / sigma
        if callback is not None:
            callback(i, sigma, x, denoised)

    def project(x: Tensor, sigma: float) -> Tensor:
        if sigma == 0:
            return images.where(is_known, x)
        known = start.random.like(x) if noise is None else noise
        return (images + sigma * known).where(is_known, x)

    made = solve(sampling, replace(start, latents=latents), callback=watch, project=project)
    return images.where(is_known, made)
