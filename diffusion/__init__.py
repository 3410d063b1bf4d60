"""The mathematics of diffusion in one coordinate system: x = y + sigma n, data y in [-1, 1].

Everything here is a pure function or a thin module over one. No training, no sampling loop. The
tables below are torch-free; their targets are imported when used.
"""

import math

from torch_utils.registry import Row

_BETAS = {"num_steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
_BOUNDS = {"logsnr_min": -20.0, "logsnr_max": 20.0}

# Names are distinct where published ones collide: "cosine" and "linear" each mean two things.
SCHEDULES = {
    "beta_linear": Row(
        target="diffusion.tables:beta_linear",
        options=_BETAS,
        summary="betas in even steps; Ho et al. 2020, sec. 4",
    ),
    "beta_quad": Row(
        target="diffusion.tables:beta_quad",
        options=_BETAS,
        summary="square roots of betas in even steps; Song et al. 2021 (DDIM), code of SA-DPM",
    ),
    "beta_const": Row(
        target="diffusion.tables:beta_const",
        options={"num_steps": 1000, "beta_end": 0.02},
        summary="one beta for all steps",
    ),
    "beta_jsd": Row(
        target="diffusion.tables:beta_jsd",
        options={"num_steps": 1000},
        summary="beta = 1/T, 1/(T-1), ..., 1; Sohl-Dickstein et al. 2015, sec. 2.4",
    ),
    "beta_sigmoid": Row(
        target="diffusion.tables:beta_sigmoid",
        options=_BETAS,
        summary="betas along a logistic curve over [-6, 6]",
    ),
    "beta_cosine": Row(
        target="diffusion.tables:beta_cosine",
        options={"num_steps": 1000, "offset": 0.008, "beta_max": 0.999},
        summary="alpha_bar a squared cosine, betas capped; Nichol and Dhariwal 2021, Eq. 17",
    ),
    "iddpm": Row(
        target="diffusion.tables:iddpm",
        options={"num_steps": 1000, "c_1": 0.001, "c_2": 0.008},
        summary="the cosine schedule as EDM writes it; Karras et al. 2022, Table 1",
    ),
    "logsnr_cosine": Row(
        target="diffusion.schedules:LogSNRCosine",
        options=_BOUNDS,
        summary="alpha the cosine of an angle linear in t; Salimans and Ho 2022, sec. 3",
    ),
    "logsnr_alpha2_linear": Row(
        target="diffusion.schedules:Alpha2Linear",
        options=_BOUNDS,
        summary="alpha^2 linear in t; called linear by v-diffusion",
    ),
    "logsnr_linear": Row(
        target="diffusion.schedules:LogSNRLinear",
        options=_BOUNDS,
        summary="log-SNR linear in t; called sigmoid by v-diffusion; Kingma et al. 2021",
    ),
    "logsnr_legacy": Row(
        target="diffusion.schedules:LogSNRLegacy",
        summary="the limit of DDPM's linear betas for many steps; called legacy by v-diffusion",
    ),
    "vp": Row(
        target="diffusion.schedules:VPSchedule",
        options={"beta_d": 19.9, "beta_min": 0.1},
        summary="the variance-preserving SDE; Song et al. 2021 (Score SDE), Eq. 33",
    ),
    "ve": Row(
        target="diffusion.schedules:VESchedule",
        options={"sigma_min": 0.02, "sigma_max": 100.0},
        summary="ln(sigma) linear in t; Song et al. 2021 (Score SDE), sec. 3.4",
    ),
    "edm": Row(
        target="diffusion.schedules:EDMSchedule",
        options={"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
        summary="sigma^(1/rho) linear in t; Karras et al. 2022, Eq. 5",
    ),
    "flow": Row(
        target="diffusion.schedules:FlowSchedule",
        summary="sigma = t / (1 - t), straight paths; Lipman et al. 2023",
    ),
}

_EPSILON_S = 1e-3

# Time grids, for samplers and losses: nodes(num_steps, sigma_min, sigma_max, **options). Those
# without a range among their options cover the model's.
GRIDS = {
    "rho": Row(
        target="diffusion.grids:rho_grid",
        options={"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
        summary="sigma^(1/rho) in even steps; Karras et al. 2022, Eq. 5",
    ),
    "steps": Row(
        target="diffusion.grids:steps_grid",
        options={"spacing": "exact", "levels": None},
        choices={"spacing": ("exact", "leading", "linspace", "trailing", "quad", "all")},
        summary="steps of a noise schedule, by default the model's own; Ho et al. 2020",
    ),
    "vp": Row(
        target="diffusion.grids:vp_grid",
        options={
            # the levels of VPSchedule(19.9, 0.1) at epsilon_s and 1
            "sigma_min": math.sqrt(math.expm1(19.9 / 2 * _EPSILON_S**2 + 0.1 * _EPSILON_S)),
            "sigma_max": math.sqrt(math.expm1(19.9 / 2 + 0.1)),
            "epsilon_s": _EPSILON_S,
        },
        ranges={"epsilon_s": (1e-9, 0.5)},
        summary="even times of the variance-preserving SDE; Karras et al. 2022, Table 1",
    ),
    "ve": Row(
        target="diffusion.grids:ve_grid",
        options={"sigma_min": 0.02, "sigma_max": 100.0},
        summary="ln(sigma) in even steps; Karras et al. 2022, Table 1",
    ),
    "iddpm": Row(
        target="diffusion.grids:iddpm_grid",
        options={"sigma_min": 0.002, "sigma_max": 81.0, "C_1": 0.001, "C_2": 0.008, "M": 1000},
        ranges={"M": (2, 2**16)},
        summary="even steps of improved DDPM's levels; Karras et al. 2022, Table 1",
    ),
}
