"""Samplers: functions over a decreasing grid of noise levels, and the table that lists them.

Adding one is a function in solvers/, with the arguments of `samplers.solvers.interface.Solver`,
and a row in SAMPLERS; few_step_rows.py has those of the few-step solvers. The table is torch-free;
functions are imported when used.

How one image comes about: settings.py reads what was asked for (command_line.py, where that was
options of a program), with auto.py where that was a number of calls; levels.py chooses the noise
levels; requests.py and labels.py choose seeds and labels; sampling.py brings settings and model
together; starts.py draws what a seed determines; generate.py calls the solver; outputs.py writes
the PNG, or float_images.py hands the numbers to Python.
"""

import math

from diffusion import DEFAULT_STEPS
from diffusion import GRIDS as GRIDS
from samplers.few_step_rows import FEW_STEP
from samplers.row import Options, one_a_step, two_a_step
from samplers.row import SamplerRow as SamplerRow
from torch_utils.registry import POSITIVE

DEFAULT_SAMPLER = "heun"
MAX_STEPS = 100_000

_CHURN = {"S_churn": 0.0, "S_min": 0.0, "S_max": math.inf, "S_noise": 1.0}
_CHURN_RANGES = dict.fromkeys(_CHURN, (0.0, math.inf))
_CHURN_FLAGS = {
    "S_churn": "Amount of fresh noise; 0 is deterministic.",
    "S_min": "Lowest level that gets fresh noise.",
    "S_max": "Highest level that gets fresh noise; for ito_taylor with scheme published, the level "
    "from which its second-order branch is taken.",
    "S_noise": "Scale of the fresh noise.",
}


def _of_ablation(num_steps: int, options: Options, to_zero: bool) -> int:
    return 2 * num_steps - to_zero if options["solver"] == "heun" else num_steps


def _of_reverse_sde(num_steps: int, options: Options, to_zero: bool) -> int:
    return num_steps if options["corrector"] == "none" else 2 * num_steps - to_zero


def _of_ito_taylor(num_steps: int, options: Options, to_zero: bool) -> int:
    """A pass with a forward derivative counts as one call, although it does the work of two.

    With derivative fd, scheme published makes this many calls or fewer.
    """
    num_noisy = num_steps - to_zero
    calls = num_steps + num_noisy
    if options["derivative"] == "jvp":
        if options["scheme"] == "published":
            calls = num_steps
        elif options["lag"]:
            calls = num_steps + (num_noisy > 0)
    if options["laplacian"] and options["beta"] != 0:
        calls += 2 * num_noisy
    return calls


# With too few steps, explicit solvers of the reverse SDE amplify noise. On EDM's grid they need 15
# (shared), 16 (weak2), 17 (strong1.5, sra1) and 18 (published) steps, as measured by
# `samplers.stability.least_steps`; Euler's method in the time of ve needs 22.
_CORRECTED_STEPS = {"none": DEFAULT_STEPS, "shared": 24, "published": 24}
_EXPANDED_STEPS = {"strong1.5": 24, "weak2": 24}


def _steps_of_ablation(options: Options) -> int:
    is_ve_euler = (options["schedule"], options["solver"]) == ("ve", "euler")
    return 32 if is_ve_euler else DEFAULT_STEPS


SAMPLERS: dict[str, SamplerRow] = {
    "heun": SamplerRow(
        target="samplers.solvers.heun:heun",
        options=_CHURN,
        ranges=_CHURN_RANGES,
        flags=_CHURN_FLAGS,
        summary="Heun's method with optional churn",
        grid="rho",
        order=2,
        num_calls=two_a_step,
        is_stochastic=lambda options: options["S_churn"] != 0,
        goes_up=True,
        least_steps=4,
        paper="Karras et al. 2022 (EDM), Algorithm 2",
    ),
    "euler": SamplerRow(
        target="samplers.solvers.euler:euler",
        summary="Euler's method on the probability-flow ODE",
        grid="rho",
        order=1,
        num_calls=one_a_step,
        is_stochastic=lambda options: False,
        goes_up=True,
        least_steps=1,
        paper="Karras et al. 2022 (EDM), Eq. 3",
    ),
    "ddim": SamplerRow(
        target="samplers.solvers.ddim:ddim",
        options={"eta": 0.0, "clip_x0": False},
        ranges={"eta": (0.0, 1.0)},
        flags={"eta": "Fresh noise: 0 is none, 1 as much as in ddpm or the reverse SDE."},
        summary="implicit models, from deterministic (eta 0) to ancestral (eta 1)",
        grid="steps",
        order=1,
        order_note="in law if eta is not 0",
        num_calls=one_a_step,
        is_stochastic=lambda options: options["eta"] != 0,
        goes_up=True,
        least_steps=1,
        paper="Song et al. 2021 (DDIM), Eq. 12",
    ),
    "ddpm": SamplerRow(
        target="samplers.solvers.ddpm:ddpm",
        options={"variance": "small", "fraction": 0.0},
        choices={"variance": ("small", "large", "interpolated")},
        ranges={"fraction": (0.0, 1.0)},
        summary="ancestral sampling",
        grid="steps",
        order=1,
        order_note="in law",
        num_calls=one_a_step,
        is_stochastic=lambda options: True,
        least_steps=1,
        paper="Ho et al. 2020 (DDPM), Algorithm 2",
    ),
    "ablation": SamplerRow(
        target="samplers.solvers.ablation:ablation",
        options={
            "solver": "heun",
            "schedule": "linear",
            "scaling": "none",
            "alpha": 1.0,
            **_CHURN,
            # shared with the grid, where it has them
            "sigma_min": None,
            "sigma_max": None,
            "epsilon_s": 1e-3,
        },
        choices={
            "solver": ("euler", "heun"),
            "schedule": ("linear", "ve", "vp"),
            "scaling": ("none", "vp"),
        },
        ranges={
            "alpha": (0.01, 1.0),
            "sigma_min": (0.0, math.inf),
            "sigma_max": (0.0, math.inf),
            "epsilon_s": (1e-9, 0.5),
            **_CHURN_RANGES,
        },
        flags={
            "solver": "Solver.",
            "schedule": "Noise level as a function of time.",
            "scaling": "Scale of the state.",
        },
        summary="EDM's ablations: solver, time and scale of the state, each by name",
        grid="rho",
        order=2,
        order_note="1 with solver=euler",
        num_calls=_of_ablation,
        is_stochastic=lambda options: options["S_churn"] != 0,
        steps=_steps_of_ablation,
        goes_up=True,
        least_steps=4,
        paper="Karras et al. 2022 (EDM), Table 1 and Algorithm 1",
    ),
    "reverse_sde": SamplerRow(
        target="samplers.solvers.reverse_sde:reverse_sde",
        options={"corrector": "none", "last_step": "denoise"},
        choices={
            "corrector": ("none", "published", "shared"),
            "last_step": ("denoise", "published"),
        },
        summary="the reverse SDE in sigma by Euler-Maruyama or stochastic Heun",
        grid="rho",
        order=1,
        order_note="in law; 2 with corrector=shared",
        num_calls=_of_reverse_sde,
        is_stochastic=lambda options: True,
        steps=lambda options: _CORRECTED_STEPS[str(options["corrector"])],
        least_steps=12,
        paper="Song et al. 2021 (Score SDE), Eq. 6; Daras et al. 2023 (CDM)",
    ),
    "ito_taylor": SamplerRow(
        target="samplers.solvers.ito_taylor:ito_taylor",
        takes_derivatives=True,
        options={
            "scheme": "strong1.5",
            "beta": 1.0,
            "derivative": "jvp",
            "laplacian": False,
            "lag": False,
            "rho": 7.0,
            "S_max": 50.0,
        },
        choices={
            "scheme": ("strong1.5", "weak2", "churn", "published"),
            "derivative": ("jvp", "fd"),
        },
        ranges={"beta": (0.0, math.inf), "S_max": (0.0, math.inf)},
        flags={"scheme": "Which second-order step.", "beta": "Amount of noise; 0 is the ODE."},
        rules={"rho": POSITIVE},
        summary="second-order steps of the reverse SDE, by the derivative of the denoiser",
        grid="rho",
        order=1,
        order_note="in law; 2 with laplacian=true, beta=0 or scheme=churn, or if D is affine in x",
        num_calls=_of_ito_taylor,
        is_stochastic=lambda options: options["beta"] != 0,
        steps=lambda options: _EXPANDED_STEPS.get(str(options["scheme"]), DEFAULT_STEPS),
        least_steps=17,
        paper="Kloeden and Platen 1992, sec. 10.4 and 14.2",
    ),
    "sra1": SamplerRow(
        target="samplers.solvers.sra1:sra1",
        options={"beta": 1.0, "rho": 7.0},
        ranges={"beta": (0.0, math.inf)},
        rules={"rho": POSITIVE},
        summary="the reverse SDE by a Runge-Kutta method for additive noise",
        grid="rho",
        order=2,
        order_note="in law; strong order 1.5",
        num_calls=two_a_step,
        is_stochastic=lambda options: options["beta"] != 0,
        steps=lambda options: 24,
        least_steps=17,
        paper="Roessler 2010, scheme SRA1",
    ),
    **FEW_STEP,
}
