"""Golden cases of few-step solvers, on the closed-form denoiser over the levels that are given."""

from collections.abc import Callable
from typing import Any

import torch

from diffusion.denoiser import DenoiseFunction
from diffusion.guidance import clipped, dynamic_clip
from samplers.levels import solver_of
from samplers.settings import generation_settings
from tests.parity.harness import Case, NotBuilt, relative_error
from tests.parity.kinds.common import mixture
from tests.parity.kinds.samplers import Tape


def with_S_noise(args: dict[str, Any]) -> dict[str, Any]:
    """The scale of the noise under EDM's name, which is s_noise in some programs."""
    return {"S_noise" if key == "s_noise" else key: value for key, value in args.items()}


# published names of samplers -> the flat form of our settings
SAMPLERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "ipndm": lambda args: {"name": "ipndm", **args},
    "adams": lambda args: {"name": "adams", **args},
    "dpmpp": lambda args: {"name": "dpmpp", **args},
    "dpmpp_2m": lambda args: {"name": "dpmpp", "order": 2, "lower_order_final": False, **args},
    "unipc": lambda args: {"name": "unipc", **args},
    "dpm2": lambda args: {"name": "dpm2", **args},
    "dpmpp_2m_sde": lambda args: {"name": "dpmpp_2m_sde", **with_S_noise(args)},
    "dpmpp_3m_sde": lambda args: {"name": "dpmpp_3m_sde", **with_S_noise(args)},
    "restart": lambda args: {"name": "restart", **with_S_noise(args)},
}


def few_step(case: Case) -> float:
    """A sampler from latents * sigmas[0] to the last level, its noise from the tape."""
    name, args = case.spec["sampler"], dict(case.spec["args"])
    if name not in SAMPLERS:
        raise NotBuilt(f"sampler {name}")
    denoise = thresholded(mixture(case), args.pop("threshold", None))
    solver = solver_of(generation_settings(SAMPLERS[name](args)))
    sigmas = case.arrays[f"{case.name}/sigmas"].tolist()
    latents = torch.from_numpy(case.arrays[case.document["latents"]])
    noise = Tape(**case.document["tape"])
    result = solver(denoise, latents * sigmas[0], sigmas, noise=noise)
    drawn = case.spec.get("noise_draws", noise.calls)
    assert noise.calls == drawn, f"{noise.calls} draws of noise instead of {drawn}"
    return relative_error(result.numpy(), case.arrays[case.name])


def thresholded(denoise: DenoiseFunction, threshold: str | None) -> DenoiseFunction:
    """A denoiser that clips its estimates by the rule of a case, if it has one."""
    if threshold is None:
        return denoise
    if threshold != "dynamic":
        raise NotBuilt(f"threshold {threshold}")
    return clipped(denoise, dynamic_clip)
