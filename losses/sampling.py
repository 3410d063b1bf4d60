"""Standard variates of a micro-batch's noise levels: independent, or spread over the global batch.

Quantities of the global batch come from the step's generator. Every process draws all of them and
takes those of its micro-batch, so they do not depend on how many processes share a step.
"""

import math

import torch
from torch import Tensor

from losses.batch import Generators

_EDGE = 1e-7  # float32 uniforms lie in [0, 1 - 2^-24]; mirrored and stratified ones stay inside


def variates(sampling: str, generators: Generators, num: int, *, normal: bool) -> Tensor:
    """Draw standard normals, or uniforms in [0, 1), for `num` samples.

    Args:
        sampling: independent; antithetic: of a global batch of N, the first N//2 + 1 are drawn
            and the rest mirror them (z to -z, u to 1 - u); stratified: sample i lies in the p(i)-th
            of N parts of equal probability, p a random permutation.
        generators: sources, and the micro-batch's place.
        num: samples in the micro-batch.
        normal: normals instead of uniforms.

    Returns:
        float32 [num], on the generators' device.
    """
    if sampling == "independent":
        return _draw(generators.micro, num, normal)
    total = num if generators.total is None else generators.total
    if sampling == "antithetic":
        first = _draw(generators.step, total // 2 + 1, normal)
        mirrored = -first if normal else (1 - first).clamp(max=1 - _EDGE)
        whole = torch.cat([first, mirrored])[:total]
    else:
        assert sampling == "stratified", sampling
        place = torch.randperm(total, generator=generators.step, device=generators.step.device)
        jitter = _draw(generators.step, total, normal=False)
        uniform = ((place + jitter.double()) / total).clamp(max=1 - _EDGE)
        if normal:
            uniform = math.sqrt(2) * torch.erfinv(2 * uniform.clamp(min=_EDGE) - 1)
        whole = uniform.float()
    return whole[generators.first : generators.first + num]


def _draw(generator: torch.Generator, num: int, normal: bool) -> Tensor:
    draw = torch.randn if normal else torch.rand
    return draw(num, generator=generator, device=generator.device)
