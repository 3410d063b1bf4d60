"""The Ito-Taylor solver: published and exact numbers, derivatives, draws and calls."""

import itertools
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.solver_errors import SOLVERS, passes
from diffusion import preconditioning
from diffusion.denoiser import Denoiser
from diffusion.grids import rho_grid
from samplers import SAMPLERS
from samplers.solvers.derivatives import SECOND, check_continuous
from samplers.solvers.euler import euler
from samplers.solvers.heun import heun
from samplers.solvers.increments import correlated, rates
from samplers.solvers.ito_taylor import ito_taylor
from tests.closed_form import GaussianMixture
from tests.networks.small import small_net
from tests.samplers.orders import (
    Draws,
    Sampler,
    euler_maruyama,
    final_variance,
    forbidden,
    zeros,
)
from torch_utils.errors import UserError

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
STD = 0.5
SCHEMES = ("strong1.5", "weak2", "churn", "published")

# Var(x) / STD^2 after steps from 80 to 0.002 and 0, rho 3, from variance 80^2, to 5 digits
COLUMNS: dict[str, tuple[Sampler, dict[str, Any]]] = {
    "euler": (euler, {}),
    "heun": (heun, {}),
    "without noise": (ito_taylor, {"rho": 3.0, "scheme": "churn", "beta": 0.0}),
    "churn, lag": (ito_taylor, {"rho": 3.0, "scheme": "churn", "lag": True}),
    "published, 50": (ito_taylor, {"rho": 3.0, "scheme": "published", "S_max": 50.0}),
    "published, 0": (ito_taylor, {"rho": 3.0, "scheme": "published", "S_max": 0.0}),
}
TO_ZERO = {
    18: ("0.61529", "1.20101", "0.86103", None, "0.70914", "24.253"),
    42: ("0.81722", "1.03152", "0.97199", "0.92857", "0.87954", "4.6948"),
    84: ("0.90505", "1.00744", "0.99284", "0.98013", "0.93743", "2.1612"),
    168: ("0.95159", "1.00177", "0.99816", "0.99478", "0.96807", "1.4610"),
    336: ("0.97554", "1.00040", "0.99950", "0.99863", "0.98425", "1.2058"),
}

# error of the variance relative to 0.02^2 + STD^2, from 10 to 0.02 in 100, 200, 400, 800 steps
TO_POSITIVE: list[tuple[Sampler, dict[str, Any], tuple[str, ...]]] = [
    (ito_taylor, {"beta": 1.0}, ("-7.308e-4", "-1.726e-4", "-4.194e-5", "-1.034e-5")),
    (
        ito_taylor,
        {"beta": 1.0, "scheme": "weak2"},
        ("-8.558e-4", "-2.022e-4", "-4.915e-5", "-1.212e-5"),
    ),
    (euler_maruyama, {"beta": 1.0}, ("1.198e-3", "3.156e-4", "8.630e-5", "2.519e-5")),
    (ito_taylor, {"beta": 0.5}, ("7.030e-5", "2.092e-5", "5.644e-6", "1.462e-6")),
    (euler_maruyama, {"beta": 0.5}, ("-2.507e-2", "-1.315e-2", "-6.731e-3", "-3.406e-3")),
]


def last_digit(printed: str) -> float:
    """One unit of the last digit of a printed number."""
    mantissa, _, exponent = printed.partition("e")
    return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))


def mixture() -> GaussianMixture:
    """Three coupled modes in six pixels."""
    means = torch.randn(3, 1, 2, 3, generator=torch.Generator().manual_seed(3))
    return GaussianMixture(means.double(), 0.4)


def normals(seed: int, n: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 2, 3, generator=generator, dtype=torch.float64)


def seeded(seed: int) -> Any:
    """Noise from one generator."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("steps", TO_ZERO)
@pytest.mark.parametrize("column", range(len(COLUMNS)), ids=list(COLUMNS))
def test_the_variance_after_a_step_to_zero_is_the_tabulated_one(steps: int, column: int) -> None:
    printed = TO_ZERO[steps][column]
    if printed is None:
        return
    sampler, options = list(COLUMNS.values())[column]
    sigmas = [*rho_grid(steps, 0.002, 80.0, 3.0).tolist(), 0.0]
    found = final_variance(sampler, sigmas, STD, 80.0**2, **options) / STD**2
    assert found == pytest.approx(float(printed), rel=0, abs=last_digit(printed))


@pytest.mark.parametrize("case", TO_POSITIVE, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def test_the_variance_at_a_positive_level_is_the_tabulated_one(case: Any) -> None:
    sampler, options, errors = case
    for steps, printed in zip((100, 200, 400, 800), errors, strict=True):
        sigmas = rho_grid(steps + 1, 0.02, 10.0).tolist()
        found = final_variance(sampler, sigmas, STD, 10.0**2 + STD**2, **options)
        error = found / (0.02**2 + STD**2) - 1
        assert error == pytest.approx(float(printed), rel=0, abs=last_digit(printed)), steps


def test_churn_noise_leaves_the_order_of_the_ode() -> None:
    """The noise is there, and changes the variance by less than its fourth digit."""
    sigmas = [*rho_grid(84, 0.002, 80.0, 3.0).tolist(), 0.0]
    found, still = (
        final_variance(ito_taylor, sigmas, STD, 80.0**2, scheme="churn", rho=3.0, beta=beta)
        for beta in (1.0, 0.0)
    )
    assert 0 < abs(found - still) < 1e-4 * STD**2


def test_the_published_solver_is_reproduced_with_its_defects() -> None:
    document = json.loads((GOLDEN / "samplers.json").read_text(encoding="utf-8"))
    (case,) = [case for case in document["cases"] if case["name"] == "second-order-seed-84"]
    tape = np.random.RandomState(document["tape"]["seed"]).standard_normal(
        document["tape"]["shape"]
    )
    args = dict(case["args"])
    ends = args.pop("num_steps"), args.pop("sigma_min"), args.pop("sigma_max"), args["rho"]
    sigmas = [*rho_grid(*ends).tolist(), 0.0]
    with np.load(GOLDEN / "samplers.npz") as arrays:
        data = GaussianMixture(torch.from_numpy(arrays["means"]), document["denoiser"]["std"])
        x = torch.from_numpy(arrays["latents"]) * sigmas[0]
        golden = torch.from_numpy(arrays[case["name"]])
    noise = Draws(map(torch.from_numpy, tape))
    found = ito_taylor(data, x, sigmas, noise=noise, scheme="published", **args)
    assert noise.calls == case["noise_draws"]
    torch.testing.assert_close(found, golden, rtol=0, atol=1e-6 * golden.abs().max().item())


def test_a_published_step_has_every_term_that_was_published() -> None:
    """Two large steps, written out for D = c(sigma) x: the first is of first order."""
    rho, levels, drawn, x, f_before = 3.0, [2.0, 1.2, 0.7], [0.4, -0.9, 1.1, 0.3], 1.7, 0.0
    span = levels[-1] ** (1 / rho) - levels[0] ** (1 / rho)
    draws = Draws(torch.tensor(drawn, dtype=torch.float64))
    start = torch.full([1, 1, 2, 3], x, dtype=torch.float64)
    found = ito_taylor(
        lambda x, sigma: STD**2 / (STD**2 + sigma * sigma) * x,
        start,
        levels,
        noise=draws,
        scheme="published",
        rho=rho,
        S_max=0.0,
    )
    for i, (sigma, after) in enumerate(pairwise(levels)):
        h = (after ** (1 / rho) - sigma ** (1 / rho)) / span
        g = h ** (rho / 2) * math.sqrt((-span) ** rho * sigma)
        e0, e1 = drawn[2 * i : 2 * i + 2]
        dW, dZ = math.sqrt(3 * h) / 2 * e0 + math.sqrt(h) / 2 * e1, math.sqrt(h**3 / 3) * e0
        noised, sigma = x + g * dW, math.sqrt(sigma**2 + h * g**2)
        h = (after ** (1 / rho) - sigma ** (1 / rho)) / span
        G = (after - sigma) / h  # its Taylor sum is exact for an integer rho
        c, dc = (STD**2 / (STD**2 + sigma**2), -2 * sigma * STD**2 / (STD**2 + sigma**2) ** 2)
        f = (noised - c * noised) / sigma
        if i == 0:
            x = x + f * G * h
        else:
            along = c * (h**2 / 2 * G / sigma * f_before + dZ / sigma)
            along += dc * noised * h**2 / (2 * sigma)
            q = h**2 * G / sigma * f_before + h**2 / (2 * sigma) * g * dW + dZ / sigma - along
            x = noised + (f * h + q) * G
        f_before = f
    torch.testing.assert_close(found, torch.full_like(start, x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_point_mass_is_found_exactly(scheme: str) -> None:
    point = normals(0, 1)
    sigmas = [*rho_grid(7, 0.002, 80.0).tolist(), 0.0]
    found = ito_taylor(
        lambda x, sigma: point.expand_as(x),
        normals(1) * 80,
        sigmas,
        noise=seeded(0),
        scheme=scheme,
    )
    torch.testing.assert_close(found, point.expand_as(found), rtol=0, atol=1e-12)


def test_churn_has_the_exact_law_of_a_point_mass_at_every_level() -> None:
    for end in (30.0, 1.0, 0.01):
        sigmas = rho_grid(5, end, 80.0).tolist()
        found = final_variance(ito_taylor, sigmas, 0.0, 80.0**2, scheme="churn", beta=3.0)
        assert found == pytest.approx(end**2, rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"scheme": "weak2"}, {"laplacian": True}], ids=str)
@pytest.mark.parametrize("lag", [False, True])
def test_a_finite_difference_agrees_with_the_dual_pass(options: dict[str, Any], lag: bool) -> None:
    sigmas = [*rho_grid(20, 0.01, 20.0).tolist(), 0.0]
    found = [
        ito_taylor(
            mixture(),
            normals(2) * 20,
            sigmas,
            noise=seeded(1),
            derivative=derivative,
            lag=lag,
            **options,
        )
        for derivative in ("jvp", "fd")
    ]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=3e-3)
    assert not torch.equal(found[1], found[0])


@pytest.mark.parametrize("derivative", SECOND)
def test_sign_vectors_estimate_the_laplacian_without_bias(derivative: str) -> None:
    model, x, sigma = mixture(), normals(3, 1), 0.7
    denoised = model(x, sigma)
    estimates = [
        SECOND[derivative](model, x, sigma, denoised, torch.tensor(signs).double().reshape_as(x))
        for signs in itertools.product((-1, 1), repeat=6)
    ]
    hessian = torch.func.hessian(lambda flat: model(flat.reshape_as(x), sigma).flatten())(
        x.flatten()
    )
    laplacian = hessian.diagonal(dim1=1, dim2=2).sum(1).reshape_as(x)
    torch.testing.assert_close(torch.stack(estimates).mean(0), laplacian, rtol=1e-2, atol=1e-3)
    assert laplacian.abs().max() > 0.05


def test_the_increments_have_the_covariance_of_a_wiener_path_and_its_integral() -> None:
    h, one, nought = 0.3, torch.ones(1), torch.zeros(1)
    pairs = [correlated(Draws(draws), one, h) for draws in ([one, nought], [nought, one])]
    dW, dZ = (torch.stack([pair[part] for pair in pairs]).flatten() for part in (0, 1))
    assert (dW @ dW).item() == pytest.approx(h)
    assert (dW @ dZ).item() == pytest.approx(h**2 / 2)
    assert (dZ @ dZ).item() == pytest.approx(h**3 / 3)


def test_the_rates_are_derivatives_of_one_another() -> None:
    """In t = -v: g^2 = -2 beta sigma sigma', and the drift belongs to it."""
    rho, beta, v, d = 3.0, 0.7, 1.4, 1e-6
    at, later, earlier = (rates((v - s) ** rho, rho, beta) for s in (0, d, -d))
    sigma = v**rho
    assert at.sigma == pytest.approx(((v - d) ** rho - (v + d) ** rho) / (2 * d))
    assert at.noise**2 == pytest.approx(-2 * beta * sigma * at.sigma)
    assert at.drift == pytest.approx(at.sigma - at.noise**2 / (2 * sigma))
    for name, rate in [
        ("sigma", "sigma_second"),
        ("drift", "drift_rate"),
        ("noise", "noise_rate"),
    ]:
        change = getattr(later, name) - getattr(earlier, name)
        assert getattr(at, rate) == pytest.approx(change / (2 * d))


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("derivative", ["jvp", "fd"])
def test_the_row_counts_calls_for_all_options(steps: int, derivative: str) -> None:
    row = SAMPLERS["ito_taylor"]
    sigmas = [*rho_grid(steps, 0.01, 80.0).tolist(), 0.0]
    for scheme, lag, laplacian, beta in itertools.product(
        SCHEMES, (False, True), (False, True), (0.0, 1.0)
    ):
        if laplacian and scheme in ("churn", "published"):
            continue
        calls = []

        def counted(x: Tensor, sigma: Any, calls: list[float] = calls) -> Tensor:
            calls.append(float(sigma))
            return x / (1 + sigma * sigma)

        chosen = {
            "scheme": scheme,
            "derivative": derivative,
            "lag": lag,
            "laplacian": laplacian,
            "beta": beta,
        }
        ito_taylor(counted, normals(4), sigmas, noise=seeded(2), S_max=0.0, **chosen)
        expected = row.num_calls(steps, {**row.options, **chosen}, True)
        if (scheme, derivative) == ("published", "fd"):
            assert len(calls) <= expected, chosen
        else:
            assert len(calls) == expected, chosen


def test_the_benchmark_counts_a_dual_pass_as_two() -> None:
    work = {
        solver.name: passes(solver, [*rho_grid(5, 0.01, 80.0).tolist(), 0.0]) for solver in SOLVERS
    }
    assert work["Heun"] == work["sra1"] == 2 * 4 + 1
    assert work["ito_taylor strong1.5"] == work["ito_taylor churn"] == 3 * 4 + 1
    assert work["ito_taylor strong1.5 with Laplacian"] == 7 * 4 + 1
    assert work["ito_taylor churn with lag"] == 3 + 2 * 3 + 1


@pytest.mark.parametrize(
    ("options", "draws"),
    [
        ({}, 2),
        ({"laplacian": True}, 3),
        ({"scheme": "weak2"}, 1),
        ({"scheme": "weak2", "laplacian": True}, 2),
        ({"scheme": "churn"}, 1),
        ({"scheme": "published", "S_max": 0.0}, 2),
    ],
    ids=str,
)
def test_noise_is_drawn_in_steps_to_positive_levels_only(
    options: dict[str, Any], draws: int
) -> None:
    sigmas = [*rho_grid(6, 0.01, 80.0).tolist(), 0.0]
    noise = zeros()
    ito_taylor(mixture(), normals(5), sigmas, noise=noise, **options)
    assert noise.calls == 5 * draws
    ito_taylor(mixture(), normals(5), sigmas, noise=forbidden, beta=0.0, **options)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_callback_sees_where_D_was_evaluated(scheme: str) -> None:
    model, seen = mixture(), []
    sigmas = [*rho_grid(6, 0.01, 80.0).tolist(), 0.0]
    ito_taylor(
        model,
        normals(6) * 80,
        sigmas,
        noise=seeded(3),
        scheme=scheme,
        callback=lambda i, sigma, x, denoised: seen.append((i, sigma, x, denoised)),
        project=lambda x, sigma: x.clamp(-100, 100),
    )
    assert [entry[0] for entry in seen] == list(range(6))
    for i, sigma, x, denoised in seen:
        torch.testing.assert_close(denoised, model(x, sigma))
        is_raised = scheme in ("churn", "published") and i < 5
        assert sigma > sigmas[i] if is_raised else sigma == sigmas[i]


def test_what_has_no_derivative_or_no_effect_is_refused() -> None:
    sigmas = [*rho_grid(6, 0.01, 80.0).tolist(), 0.0]

    def rounded(sigma: float) -> float:
        return min(sigmas, key=lambda level: abs(level - sigma))

    with pytest.raises(UserError, match="rounds its noise levels"):
        ito_taylor(mixture(), normals(7), sigmas, noise=zeros(), round_sigma=rounded)
    check_continuous("sampler ito_taylor", sigmas, float)
    options = {"scheme": "churn", "laplacian": True}
    with pytest.raises(UserError, match="no Laplacian term"):
        ito_taylor(mixture(), normals(7), sigmas, noise=zeros(), **options)


@pytest.mark.parametrize("derivative", ["jvp", "fd"])
@pytest.mark.parametrize("laplacian", [False, True])
def test_a_float32_network_is_integrated_image_by_image(derivative: str, laplacian: bool) -> None:
    """As generate.py runs it: inference mode, float64 states, images that depend on their seed."""
    net = small_net(resolution=(8, 12), img_channels=1)
    model = Denoiser(
        net, preconditioning.create("edm"), img_resolution=(8, 12), img_channels=1
    ).eval()
    sigmas = [*rho_grid(4, 0.1, 5.0).tolist(), 0.0]
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 1, 8, 12, generator=generator, dtype=torch.float64) * 5
    tape = torch.randn(9, 2, 1, 8, 12, generator=generator, dtype=torch.float64)
    options = {"derivative": derivative, "laplacian": laplacian}
    with torch.inference_mode():
        both = ito_taylor(model, x, sigmas, noise=Draws(tape), **options)
        alone = ito_taylor(model, x[1:], sigmas, noise=Draws(tape[:, 1:]), **options)
    assert both.dtype == torch.float64
    assert torch.isfinite(both).all()
    # a finite difference also divides the rounding of kernels by its step
    tolerance = 1e-3 if derivative == "jvp" else 3e-2
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=tolerance)
