"""Golden cases of samplers, on the closed-form denoiser with noise from a tape."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.tables import beta_linear
from samplers.levels import solver_of, visited_levels
from samplers.settings import GenerationSettings, generation_settings
from tests.parity.harness import Case, NotBuilt, relative_error
from tests.parity.kinds.common import VARIANCES, log_snr_schedule, mixture


class Tape:
    """Noise from a fixed tape: call number i returns entry i, around and around."""

    def __init__(self, seed: int, shape: list[int]) -> None:
        self.entries = np.random.RandomState(seed).standard_normal(shape)
        self.calls = 0

    def __call__(self, like: Tensor) -> Tensor:
        entry = self.entries[self.calls % len(self.entries)]
        self.calls += 1
        return torch.from_numpy(entry).to(like)


# published names of samplers whose state starts as that of EDM -> the flat form of our settings
SAMPLERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "edm": lambda args: {"name": "heun", **args},
    "ablation": lambda args: {"name": "ablation", **args},
    "backward_sde": lambda args: {
        "name": "reverse_sde",
        "corrector": "published" if args.pop("second_order", False) else "none",
        "last_step": "published",
        **args,
    },
    "second_order_published": lambda args: {"name": "ito_taylor", "scheme": "published", **args},
}


def samplers(case: Case) -> float:
    """A sampler on the closed-form denoiser, its noise from the tape."""
    name, args = case.spec["sampler"], dict(case.spec["args"])
    preserves_variance = name in ("ddim", "ddpm", "log_snr")
    if preserves_variance:
        settings, sigmas = preserving_sampler(case)
    elif name in SAMPLERS:
        steps = {"steps": args.pop("num_steps")} if "num_steps" in args else {}
        settings = generation_settings({**SAMPLERS[name](args), **steps})
        sigmas = visited_levels(settings, 0.0, math.inf, float)[0]
    else:
        raise NotBuilt(f"sampler {name}")
    latents = torch.from_numpy(case.arrays[case.document["latents"]])
    scale = math.hypot(1, sigmas[0]) if preserves_variance else sigmas[0]
    denoise = mixture(case)
    is_clipped = args.get("clip_denoised", False)
    result = solver_of(settings)(
        (lambda x, sigma: denoise(x, sigma).clamp(-1, 1)) if is_clipped else denoise,
        latents * scale,
        sigmas,
        noise=Tape(**case.document["tape"]),
    )
    return relative_error(result.numpy(), case.arrays[case.name])


def preserving_sampler(case: Case) -> tuple[GenerationSettings, list[float]]:
    """The sampler and the noise levels of a case from a variance-preserving family."""
    args = case.spec["args"]
    is_ddim = "ddim" in (case.spec["sampler"], args.get("sampler"))
    if is_ddim:
        chosen = {"name": "ddim", "eta": args.get("eta", 0.0)}
    else:
        variance = VARIANCES[args["variance"]]
        chosen = {"name": "ddpm", "variance": variance, "fraction": args.get("intp_frac")}
    if case.spec["sampler"] == "log_snr":
        bounds = {key: args[key] for key in ("logsnr_min", "logsnr_max") if key in args}
        levels = log_snr_schedule(args["logsnr_schedule"], bounds)
        settings = generation_settings({**chosen, "steps": args["timesteps"], "levels": levels})
        return settings, visited_levels(settings, 0.0, math.inf, float)[0]
    visited = beta_linear().levels[case.spec["timesteps"]][::-1]  # repetitions included
    return generation_settings(chosen), [*visited.tolist(), 0.0]
