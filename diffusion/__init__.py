"""The mathematics of diffusion: pure functions, or thin modules over them. No loops, no training.

Everything works in one coordinate system, x = y + sigma n: y is data in [-1, 1], n ~ N(0, I).
- A denoiser is D(x, sigma) ~ E[y | x]. Every model is one, whatever its network predicts.
- f = (x - D) / sigma is the predicted noise and dx/dsigma of the ODE; the score is -f / sigma.
- A paper's variance-preserving state is z = alpha x with alpha = 1 / sqrt(1 + sigma^2), and its
  log-SNR is L = -2 ln(sigma). Formulas are translated once, here; no state is ever in z.
- A schedule maps a time to sigma and back. A grid is the list of sigmas that a sampler visits.

Reading order: steps (from one sigma to the next), outputs and preconditioning (D from a network's
output), denoiser (both as a module), guidance (D from two denoisers), schedules and tables (time
to sigma), grids, time_map (the times of EDM's ablations). The tables below need no torch: a row
imports its target when it is used.
"""

import math

from diffusion.time_map import vp_sigma
from torch_utils.numbers import is_number
from torch_utils.registry import BETWEEN_0_AND_1, NOT_NEGATIVE, POSITIVE, Row, Rule

MAX_LOG_SNR = 20.0
MAX_STEPS = 2**16  # of a discrete schedule

_BETAS = {"num_steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
_BETA_RULES = {"beta_start": BETWEEN_0_AND_1, "beta_end": BETWEEN_0_AND_1}
_LEAST_BETA = 1e-12  # smaller ones would leave equal noise levels
_BETA_LIST = Rule(
    f"a list of 2 to {MAX_STEPS} numbers from {_LEAST_BETA:g} to 1",
    lambda value: (
        isinstance(value, list | tuple)
        and 2 <= len(value) <= MAX_STEPS
        and all(is_number(beta) and _LEAST_BETA <= beta <= 1 for beta in value)
    ),
)
_STEPS = {"num_steps": (2, MAX_STEPS)}
_BOUNDS = {"logsnr_min": -MAX_LOG_SNR, "logsnr_max": MAX_LOG_SNR}
_BOUND_RANGES = dict.fromkeys(_BOUNDS, (-MAX_LOG_SNR, MAX_LOG_SNR))
IDDPM_STEPS, IDDPM_C_1, IDDPM_C_2 = 1000, 0.001, 0.008  # EDM, Table 1: M, C_1, C_2
_BETA_D, _BETA_MIN = 19.9, 0.1
_SIGMAS = {"sigma_min": (0.0, math.inf), "sigma_max": (0.0, math.inf)}

# Names are distinct where published ones collide: "cosine" and "linear" each mean two things.
SCHEDULES: dict[str, Row] = {
    "beta_linear": Row(
        target="diffusion.tables:beta_linear",
        options=_BETAS,
        ranges=_STEPS,
        rules=_BETA_RULES,
        summary="betas in even steps; Ho et al. 2020, sec. 4",
    ),
    "beta_quad": Row(
        target="diffusion.tables:beta_quad",
        options=_BETAS,
        ranges=_STEPS,
        rules=_BETA_RULES,
        summary="square roots of betas in even steps; Song et al. 2021 (DDIM), code of SA-DPM",
    ),
    "beta_const": Row(
        target="diffusion.tables:beta_const",
        options={"num_steps": 1000, "beta_end": 0.02},
        ranges=_STEPS,
        rules={"beta_end": BETWEEN_0_AND_1},
        summary="one beta for all steps",
    ),
    "beta_jsd": Row(
        target="diffusion.tables:beta_jsd",
        options={"num_steps": 1000},
        ranges=_STEPS,
        summary="beta = 1/T, 1/(T-1), ..., 1; Sohl-Dickstein et al. 2015, sec. 2.4",
    ),
    "beta_sigmoid": Row(
        target="diffusion.tables:beta_sigmoid",
        options=_BETAS,
        ranges=_STEPS,
        rules=_BETA_RULES,
        summary="betas along a logistic curve over [-6, 6]",
    ),
    "beta_cosine": Row(
        target="diffusion.tables:beta_cosine",
        options={"num_steps": 1000, "offset": 0.008, "beta_max": 0.999},
        ranges=_STEPS,
        rules={"offset": NOT_NEGATIVE, "beta_max": BETWEEN_0_AND_1},
        summary="alpha_bar a squared cosine, betas capped; Nichol and Dhariwal 2021, Eq. 17",
    ),
    "beta_list": Row(
        target="diffusion.tables:beta_list",
        options={"betas": [1e-4, 0.02]},
        rules={"betas": _BETA_LIST},
        summary="betas one by one",
    ),
    "iddpm": Row(
        target="diffusion.tables:iddpm",
        options={"num_steps": IDDPM_STEPS, "c_1": IDDPM_C_1, "c_2": IDDPM_C_2},
        ranges=_STEPS,
        rules={"c_1": BETWEEN_0_AND_1, "c_2": NOT_NEGATIVE},
        summary="the cosine schedule as EDM writes it; Karras et al. 2022, Table 1",
    ),
    "logsnr_cosine": Row(
        target="diffusion.schedules:LogSNRCosine",
        options=_BOUNDS,
        ranges=_BOUND_RANGES,
        summary="alpha the cosine of an angle linear in t; Salimans and Ho 2022, sec. 3",
    ),
    "logsnr_alpha2_linear": Row(
        target="diffusion.schedules:Alpha2Linear",
        options=_BOUNDS,
        ranges=_BOUND_RANGES,
        summary="alpha^2 linear in t; called linear by v-diffusion",
    ),
    "logsnr_linear": Row(
        target="diffusion.schedules:LogSNRLinear",
        options=_BOUNDS,
        ranges=_BOUND_RANGES,
        summary="log-SNR linear in t; called sigmoid by v-diffusion; Kingma et al. 2021",
    ),
    "logsnr_legacy": Row(
        target="diffusion.schedules:LogSNRLegacy",
        summary="the limit of DDPM's linear betas for many steps; called legacy by v-diffusion",
    ),
    "vp": Row(
        target="diffusion.schedules:VPSchedule",
        options={"beta_d": _BETA_D, "beta_min": _BETA_MIN},
        rules={"beta_d": POSITIVE, "beta_min": POSITIVE},
        summary="the variance-preserving SDE; Song et al. 2021 (Score SDE), Eq. 33",
    ),
    "ve": Row(
        target="diffusion.schedules:VESchedule",
        options={"sigma_min": 0.02, "sigma_max": 100.0},
        rules={"sigma_min": POSITIVE, "sigma_max": POSITIVE},
        summary="ln(sigma) linear in t; Song et al. 2021 (Score SDE), sec. 3.4",
    ),
    "edm": Row(
        target="diffusion.schedules:EDMSchedule",
        options={"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
        rules={"sigma_min": POSITIVE, "sigma_max": POSITIVE, "rho": POSITIVE},
        summary="sigma^(1/rho) linear in t; Karras et al. 2022, Eq. 5",
    ),
    "flow": Row(
        target="diffusion.schedules:FlowSchedule",
        summary="sigma = t / (1 - t), straight paths; Lipman et al. 2023",
    ),
}

_EPSILON_S = 1e-3
SPACINGS = ("exact", "leading", "linspace", "linspace_rounded", "trailing", "quad", "all")

DEFAULT_STEPS = 18  # of a time grid; EDM's
ENDS = ("zero", "sigma_min")
_END = (
    "zero: the last step goes from sigma_min to 0; sigma_min: there is none, and steps are calls."
)

# Time grids, for samplers and losses: nodes(num_steps, sigma_min, sigma_max, **options). Those
# without a range among their options cover the model's.
GRIDS: dict[str, Row] = {
    "rho": Row(
        target="diffusion.grids:rho_grid",
        options={"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "end": "zero"},
        choices={"end": ENDS},
        flags={
            "sigma_min": "Lowest noise level.",
            "sigma_max": "Highest noise level.",
            "rho": "Exponent of the grid rho.",
            "end": _END,
        },
        ranges=_SIGMAS,
        rules={"rho": POSITIVE},
        summary="sigma^(1/rho) in even steps; Karras et al. 2022, Eq. 5",
    ),
    "log_sigma": Row(
        target="diffusion.grids:log_sigma_grid",
        options={"sigma_min": 0.002, "sigma_max": 80.0, "end": "zero"},
        choices={"end": ENDS},
        flags={"end": _END},
        ranges=_SIGMAS,
        summary="ln(sigma), and so log-SNR, in even steps; Lu et al. 2022 (DPM-Solver), sec. 3.4",
    ),
    "steps": Row(
        target="diffusion.grids:steps_grid",
        options={"spacing": "exact", "levels": None, "offset": 0},
        choices={"spacing": SPACINGS},
        ranges={"offset": (0, MAX_STEPS)},
        flags={"spacing": "Which of the levels."},
        entries={"levels": ("schedule", SCHEDULES)},
        summary="steps of a noise schedule, by default the model's own; Ho et al. 2020",
    ),
    "vp": Row(
        target="diffusion.grids:vp_grid",
        options={
            # the levels of the schedule vp at epsilon_s and 1
            "sigma_min": vp_sigma(_EPSILON_S, _BETA_D, _BETA_MIN),
            "sigma_max": vp_sigma(1.0, _BETA_D, _BETA_MIN),
            "epsilon_s": _EPSILON_S,
        },
        ranges={**_SIGMAS, "epsilon_s": (1e-9, 0.5)},
        summary="even times of the variance-preserving SDE; Karras et al. 2022, Table 1",
    ),
    "ve": Row(
        target="diffusion.grids:ve_grid",
        options={"sigma_min": 0.02, "sigma_max": 100.0},
        ranges=_SIGMAS,
        summary="ln(sigma) in even steps; Karras et al. 2022, Table 1",
    ),
    "iddpm": Row(
        target="diffusion.grids:iddpm_grid",
        options={
            "sigma_min": 0.002,
            "sigma_max": 81.0,
            "C_1": IDDPM_C_1,
            "C_2": IDDPM_C_2,
            "M": IDDPM_STEPS,
        },
        ranges={**_SIGMAS, "M": (2, MAX_STEPS)},
        rules={"C_1": BETWEEN_0_AND_1, "C_2": NOT_NEGATIVE},
        summary="even steps of improved DDPM's levels; Karras et al. 2022, Table 1",
    ),
}
