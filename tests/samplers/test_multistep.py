"""Multistep solvers: their weights, what they keep, and how good they are with few calls."""

import gc
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from diffusion.grids import rho_grid
from samplers.levels import solver_of, visited_levels
from samplers.settings import generation_settings, overlay
from samplers.solvers.adams import adams
from samplers.solvers.dpmpp import dpmpp
from samplers.solvers.euler import euler
from samplers.solvers.ipndm import WEIGHTS, ipndm
from samplers.solvers.log_snr_steps import exponential_step, kernel_moments
from samplers.solvers.multistep import even_moments, quadrature_weights
from samplers.solvers.unipc import unipc
from tests.closed_form import GaussianMixture
from tests.samplers.orders import MIXTURE, forbidden, images
from torch_utils.errors import UserError

MULTISTEP: dict[str, tuple[Callable[..., Tensor], int]] = {  # with the highest order
    "ipndm": (ipndm, 4),
    "adams": (adams, 4),
    "dpmpp": (dpmpp, 3),
    "unipc": (unipc, 3),
}
ORDERS = [(name, order) for name, (_, most) in MULTISTEP.items() for order in range(1, most + 1)]


def few_images(seed: int = 0, num: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 1, 4, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_weights_integrate_polynomials_of_their_degree_on_uneven_steps(count: int) -> None:
    places = [0.0, -0.7, -3.1, -3.4][:count]
    weights = quadrature_weights(places, even_moments(count))
    for degree in range(count):
        found = sum(w * (2 + 3 * u) ** degree for w, u in zip(weights, places, strict=True))
        assert found == pytest.approx((5 ** (degree + 1) - 2 ** (degree + 1)) / (3 * (degree + 1)))


@pytest.mark.parametrize("h", [1e-8, 1e-3, 0.3, 2.0, 10.6, 40.0])
def test_the_moments_are_the_integrals_of_the_kernel(h: float) -> None:
    for power, found in enumerate(kernel_moments(h, 4)):
        exact, _ = quad(
            lambda u, power=power: h * math.exp(-h * (1 - u)) * u**power, 0, 1, epsabs=0, limit=500
        )
        assert found == pytest.approx(exact, rel=1e-12)


def test_a_step_in_log_snr_is_exact_where_the_estimate_is_a_polynomial() -> None:
    """D = 1 - 2 lambda + lambda^2 / 2: the ODE dx/dlambda = D - x has a polynomial solution too."""

    def estimate(sigma: float) -> Tensor:
        log_snr = -math.log(sigma)
        return images(torch.tensor([1 - 2 * log_snr + log_snr**2 / 2]))

    def solution(sigma: float) -> Tensor:
        log_snr = -math.log(sigma)
        return images(torch.tensor([4 - 3 * log_snr + log_snr**2 / 2 + 7 * sigma]))

    values = [(level, estimate(level)) for level in (2.0, 3.0, 11.0)]
    found = exponential_step(solution(2.0), 2.0, 0.3, values)
    torch.testing.assert_close(found, solution(0.3))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_is_the_method_of_adams_on_even_steps_only(order: int) -> None:
    weights = quadrature_weights([-float(k) for k in range(order)], even_moments(order))
    assert WEIGHTS[order] == pytest.approx(weights)
    x = few_images() * 5
    even, uneven = (rho_grid(12, 0.2, 5.0, rho).tolist() for rho in (1.0, 7.0))
    for sigmas, is_same in ((even, True), (uneven, order == 1)):
        ours, other = (
            sampler(MIXTURE, x, sigmas, noise=forbidden, order=order) for sampler in (ipndm, adams)
        )
        assert torch.allclose(ours, other, rtol=1e-10) == is_same


@pytest.mark.parametrize("name", ["ipndm", "adams", "dpmpp"])
def test_order_1_is_euler(name: str) -> None:
    sampler, _ = MULTISTEP[name]
    sigmas = [*rho_grid(7, 0.02, 5.0).tolist(), 0.0]
    x = few_images() * 5
    found = sampler(MIXTURE, x, sigmas, noise=forbidden, order=1)
    torch.testing.assert_close(found, euler(MIXTURE, x, sigmas, noise=forbidden))


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_no_more_is_kept_than_the_order_needs(name: str, order: int) -> None:
    """In the last step, beside what the first has: old values, a state, a corrector's first one."""
    sampler, _ = MULTISTEP[name]
    found = {}

    def count(i: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        if i in (0, 11):
            gc.collect()
            alive = [entry for entry in gc.get_objects() if type(entry) is Tensor]
            found[i] = sum(tensor.shape == x.shape for tensor in alive)

    sigmas, x = rho_grid(13, 0.02, 5.0).tolist(), torch.zeros(1, 2, 3, 41, dtype=torch.float64)
    gc.freeze()  # what is there already, a million objects, is not looked through
    try:
        sampler(MIXTURE, x, sigmas, noise=forbidden, callback=count, order=order)
    finally:
        gc.unfreeze()
    assert found[11] - found[0] <= order + 1 + (name == "unipc")


@pytest.mark.parametrize("is_lowered", [True, False])
@pytest.mark.parametrize(("name", "order"), [each for each in ORDERS if each[0] in MULTISTEP])
def test_fewer_steps_than_the_order_are_taken_too(name: str, order: int, is_lowered: bool) -> None:
    """Also of one step: what a solver makes is between the estimate and the state."""
    sampler, _ = MULTISTEP[name]
    options = {"lower_order_final": is_lowered} if name in ("dpmpp", "unipc") else {}
    x = few_images() * 5
    for sigmas in ([5.0, 0.0], [5.0, 0.5], [5.0, 1.0, 0.0], [5.0, 2.0, 1.0, 0.5]):
        found = sampler(MIXTURE, x, sigmas, noise=forbidden, order=order, **options)
        assert torch.isfinite(found).all()
        if sigmas[1:] == [0.0]:
            torch.testing.assert_close(found, MIXTURE(x, 5.0))


@pytest.mark.parametrize("name", ["dpmpp", "unipc"])
def test_the_last_steps_take_the_order_that_still_fits(name: str) -> None:
    """The last step is then one of order 1 and the one before of order 2, from the same states."""
    sampler, _ = MULTISTEP[name]
    sigmas = rho_grid(7, 0.1, 5.0).tolist()
    seen: list[tuple[float, Tensor, Tensor]] = []
    x = few_images() * 5
    last = sampler(
        MIXTURE,
        x,
        sigmas,
        noise=forbidden,
        order=3,
        callback=lambda i, sigma, x, denoised: seen.append((sigma, x, denoised)),
    )
    free = sampler(MIXTURE, x, sigmas, noise=forbidden, order=3, lower_order_final=False)
    assert not torch.allclose(last, free)
    if name == "dpmpp":
        sigma, state, denoised = seen[-1]
        ratio = sigmas[-1] / sigma
        torch.testing.assert_close(last, ratio * state + (1 - ratio) * denoised)


def test_the_corrector_changes_the_state_and_costs_no_call() -> None:
    """UniPC's prediction of order 1 is DPM-Solver++'s; what follows is nearer to the solution."""
    sigmas = rho_grid(9, 0.1, 5.0).tolist()
    x = images(torch.linspace(-1.5, 1.5, 31, dtype=torch.float64) * 5.0)
    exact = MIXTURE.flow(x, 5.0, 0.1)
    calls: dict[str, list[Tensor]] = {"dpmpp": [], "unipc": []}
    errors = {}
    for name, states in calls.items():
        found = MULTISTEP[name][0](
            MIXTURE,
            x,
            sigmas,
            noise=forbidden,
            order=1,
            callback=lambda i, sigma, x, denoised, to=states: to.append(x),
        )
        errors[name] = (found - exact).abs().max().item()
    assert len(calls["unipc"]) == len(calls["dpmpp"]) == 8
    torch.testing.assert_close(calls["unipc"][1], calls["dpmpp"][1])
    assert not torch.allclose(calls["unipc"][2], calls["dpmpp"][2])
    assert errors["unipc"] < 0.7 * errors["dpmpp"], errors


def test_the_variants_differ_where_two_values_are_used() -> None:
    sigmas = rho_grid(9, 0.1, 5.0).tolist()
    x = few_images() * 5
    bh1, bh2 = (
        unipc(MIXTURE, x, sigmas, noise=forbidden, order=2, variant=variant)
        for variant in ("bh1", "bh2")
    )
    assert not torch.allclose(bh1, bh2)


@pytest.mark.parametrize("name", MULTISTEP)
def test_every_state_that_is_evaluated_was_projected(name: str) -> None:
    sampler, _ = MULTISTEP[name]
    known = few_images(1)

    def project(x: Tensor, sigma: float) -> Tensor:
        return torch.cat([known[..., :2] * (1 + sigma), x[..., 2:]], dim=3)

    seen = []

    def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
        seen.append((x, sigma))
        return MIXTURE(x, sigma)

    sigmas = [*rho_grid(6, 0.02, 5.0).tolist(), 0.0]
    found = sampler(denoise, few_images() * 5, sigmas, noise=forbidden, project=project)
    for x, sigma in [*seen[1:], (found, 0.0)]:
        assert torch.equal(x[..., :2], known[..., :2] * (1 + sigma))


@pytest.mark.parametrize("name", MULTISTEP)
def test_an_order_that_there_is_not_is_refused_and_belongs_to_its_sampler(name: str) -> None:
    most = MULTISTEP[name][1]
    for order, message in [
        (0, f"order is 0: it must be from 1 to {most}"),
        (most + 1, f"order is {most + 1}: it must be from 1 to {most}"),
        (1.5, "order is 1.5: it must be an integer"),
    ]:
        with pytest.raises(UserError, match=message):
            generation_settings({"name": name, "order": order})
    for other in MULTISTEP.keys() - {name}:
        merged = overlay({"name": name, "order": most}, {"name": other})
        assert generation_settings(merged) == generation_settings({"name": other})


# ---- few calls

GRIDS = {
    "heun": {"grid": "rho", "steps": 5},  # two calls a step
    "ipndm": {"grid": "rho", "steps": 10},
    "dpmpp": {"grid": "log_sigma", "steps": 10},
    "unipc": {"grid": "log_sigma", "steps": 10},
}


@pytest.fixture(scope="module")
def few_calls() -> Callable[[dict[str, Any]], float]:
    """The error of 10 calls from 80 to 0.002 on a mixture of five images, by its settings."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.float64) / 2
    start = 80 * torch.randn(16, 3, 4, 4, generator=generator, dtype=torch.float64)
    model = GaussianMixture(means, 0.15)
    fine = rho_grid(801, 0.002, 80.0).tolist()
    exact = unipc(model, start, fine, noise=forbidden, lower_order_final=False)

    def error(mapping: dict[str, Any]) -> float:
        settings = generation_settings(
            {"sigma_min": 0.002, "sigma_max": 80.0, "end": "sigma_min", **mapping}
        )
        calls = []

        def denoise(x: Tensor, sigma: float | Tensor) -> Tensor:
            calls.append(sigma)
            return model(x, sigma)

        sigmas, _ = visited_levels(settings, 0.0, math.inf, float)
        found = solver_of(settings)(denoise, start, sigmas, noise=forbidden)
        assert sigmas[-1] == pytest.approx(0.002)
        assert len(calls) == 10
        return (found - exact).square().mean().sqrt().item()

    return error


@pytest.mark.parametrize(
    "options",
    [
        {"name": "ipndm"},
        {"name": "dpmpp", "order": 2},
        {"name": "unipc"},
        {"name": "unipc", "order": 2},
    ],
    ids=str,
)
def test_with_10_calls_the_error_is_at_most_a_third_of_heuns(
    options: dict[str, Any], few_calls: Callable[[dict[str, Any]], float]
) -> None:
    heun = few_calls({"name": "heun", **GRIDS["heun"]})
    assert few_calls({**GRIDS[options["name"]], **options}) <= heun / 3
