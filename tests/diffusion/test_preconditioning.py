"""Preconditioning against its definition: the target is what makes D exact, scales are right."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from diffusion import preconditioning, schedules
from diffusion.denoiser import Denoiser, residual
from diffusion.outputs import OUTPUTS
from diffusion.preconditioning import PRESETS, Preconditioning, broadcast_sigma
from diffusion.tables import iddpm_levels
from torch_utils.errors import UserError

SIGMAS = torch.tensor([1e-3, 0.05, 0.5, 2.0, 80.0], dtype=torch.float64).reshape(-1, 1, 1, 1)


class Affine(torch.nn.Module):
    """A stand-in network: F = a x + b c_noise, elementwise."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.3))
        self.calls: list[torch.dtype] = []

    def forward(self, x, c_noise, labels=None, label_mask=None, augment_labels=None):  # type: ignore[no-untyped-def]
        self.calls.append(x.dtype)
        return self.a * x + 0.1 * c_noise[:, None, None, None]


def images(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 2, 4, 6, generator=generator, dtype=torch.float64)


CHOSEN = {name: preconditioning.create(name) for name in PRESETS}


def denoiser() -> Denoiser:
    return Denoiser(Affine(), CHOSEN["edm"], img_resolution=(4, 6), img_channels=2)


def variants(name: str) -> list[Preconditioning]:
    """A preset with several values of the constants that it depends on."""
    deviations = (0.25, 0.5, 1.0) if CHOSEN[name].uses_sigma_data else (None,)
    return [preconditioning.create(name, sigma_data=value) for value in deviations]


@pytest.mark.parametrize(
    "chosen",
    [pytest.param(v, id=f"{name}-{v.sigma_data}") for name in PRESETS for v in variants(name)],
)
def test_the_exact_network_output_gives_the_clean_image(chosen: Preconditioning) -> None:
    y, n = images(0), images(1)
    exact = torch.cat(chosen.target(y, n, SIGMAS), dim=1)
    x = y + SIGMAS * n
    denoised, error = chosen.denoised_and_error(x, exact, y, n, SIGMAS)
    torch.testing.assert_close(denoised, y, rtol=1e-12, atol=1e-11)
    assert not error.any()
    denoised, error = chosen.denoised_and_error(x, exact + 0.1, y, n, SIGMAS)
    assert torch.equal(denoised, chosen.denoised(x, exact + 0.1, SIGMAS))
    torch.testing.assert_close(error, denoised - y, rtol=1e-9, atol=1e-10)


# the table of the coordinate system: output -> c_skip, c_out(s), F*(s) at sigma 0.7, sigma_data 0.5
@pytest.mark.parametrize(
    ("output", "c_skip", "c_out", "target"),
    [
        ("eps", 1, [-0.7], lambda y, n: [n]),
        ("neg_eps", 1, [0.7], lambda y, n: [-n]),
        ("score", 1, [0.49], lambda y, n: [-n / 0.7]),
        ("x0", 0, [1], lambda y, n: [y]),
        ("v", 1 / 1.49, [-0.7 / math.sqrt(1.49)], lambda y, n: [(n - 0.7 * y) / math.sqrt(1.49)]),
        (
            "edm",
            0.25 / 0.74,
            [0.35 / math.sqrt(0.74)],
            lambda y, n: [(1.4 * y - 0.5 * n) / math.sqrt(0.74)],
        ),
        ("flow", 1 / 1.7, [-0.7 / 1.7], lambda y, n: [n - y]),
        ("x0_eps", 1 / 1.49, [0.49 / 1.49, -0.7 / 1.49], lambda y, n: [y, n]),
    ],
)
def test_the_table_of_outputs(output: str, c_skip: float, c_out: list[float], target: Any) -> None:
    chosen = preconditioning.create("edm", output=output)
    sigma, y, n = torch.tensor(0.7, dtype=torch.float64), images(0), images(1)
    skip, outs = chosen.coefficients(sigma)
    assert skip.item() == pytest.approx(c_skip)
    assert [out.item() for out in outs] == pytest.approx(c_out)
    for found, expected in zip(chosen.target(y, n, sigma), target(y, n), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("log_snr", [-20.0, -3.0, 0.0, 4.0, 20.0])
def test_conversions_keep_their_digits_over_the_whole_range(output: str, log_snr: float) -> None:
    chosen = preconditioning.create("edm", output=output)
    sigma = torch.tensor(log_snr, dtype=torch.float64).div(-2).exp()
    y, n = images(0), images(1)
    raw = torch.cat(chosen.target(y, n, sigma), dim=1)
    x, sigma = y + sigma * n, sigma.reshape(1, 1, 1, 1)
    denoised = chosen.denoised(x, raw, sigma)
    torch.testing.assert_close(denoised, y, rtol=1e-9, atol=1e-9 * max(1, sigma.item()))
    double = x, raw * (1 + 1e-3), y, n, sigma
    _, error = chosen.denoised_and_error(*double)
    _, single = chosen.denoised_and_error(*(value.float() for value in double))
    assert (single - error).abs().max() <= 1e-3 * error.abs().max()


@pytest.mark.parametrize(("name", "sign"), [("vp", 1), ("iddpm", 1), ("ve", -1)])
def test_targets_of_eps_models_are_the_noise_up_to_its_sign(name: str, sign: int) -> None:
    y, n = images(0), images(1)
    chosen = CHOSEN[name]
    assert torch.equal(*chosen.target(y, n, SIGMAS), sign * n)
    c_skip, (c_out,) = chosen.coefficients(SIGMAS)
    assert torch.equal(c_skip, torch.ones_like(SIGMAS))
    assert torch.equal(c_out, -sign * SIGMAS)


def test_input_scales_are_those_of_their_process() -> None:
    sigma = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    for name in ("vp", "iddpm"):
        torch.testing.assert_close(CHOSEN[name].c_in(sigma), 1 / (1 + sigma**2).sqrt())
    assert torch.equal(CHOSEN["ve"].c_in(sigma), torch.ones_like(sigma))


def test_ranges_are_the_published_ones_without_their_rounding() -> None:
    ranges = {name: (p.sigma_min, p.sigma_max) for name, p in CHOSEN.items()}
    assert ranges["edm"] == (0, math.inf)
    assert ranges["ve"] == (0.02, 100)
    assert ranges["vp"] == pytest.approx((1.000497627e-3, 152.1669703), rel=1e-9)
    assert ranges["iddpm"] == pytest.approx((0.0064254, 20291.17), rel=1e-5)


def test_vp_conditioning_counts_time_in_steps_of_a_thousand() -> None:
    for time in (1e-5, 1e-3, 0.3, 1.0):
        exact = math.sqrt(math.expm1(19.9 / 2 * time**2 + 0.1 * time))
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
            c_noise = CHOSEN["vp"].c_noise(torch.tensor([exact], dtype=dtype))
            assert c_noise.dtype == dtype
            assert c_noise.item() == pytest.approx(999 * time, rel=tolerance)


def test_ve_conditioning_is_the_logarithm_of_half_the_level() -> None:
    assert CHOSEN["ve"].c_noise(torch.tensor([5.0])).item() == pytest.approx(math.log(2.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_iddpm_conditioning_is_the_reversed_index_of_the_nearest_level(dtype: torch.dtype) -> None:
    chosen = CHOSEN["iddpm"]
    levels = torch.from_numpy(iddpm_levels())[:-1]
    expected = 999 - torch.arange(1000, dtype=dtype)
    assert torch.allclose(chosen.c_noise(levels.to(dtype)), expected, rtol=0, atol=1e-9)
    inside = (levels[:-1] * 0.51 + levels[1:] * 0.49).to(dtype)[:, None, None, None]
    assert torch.allclose(chosen.c_noise(inside).flatten(), expected[:-1], rtol=0, atol=1e-9)
    assert chosen.table is not None
    kept = chosen.table.log_levels(levels)
    assert torch.equal(chosen.c_noise(inside, kept), chosen.c_noise(inside))


def test_quantized_models_round_to_the_nearest_level_and_others_do_not() -> None:
    chosen = CHOSEN["iddpm"]
    assert chosen.table is not None
    assert chosen.round_sigma(80.0) == pytest.approx(80.204, abs=1e-3)
    assert chosen.round_sigma(1e9) == chosen.sigma_max
    assert chosen.round_sigma(1e-9) == chosen.sigma_min
    assert all(chosen.round_sigma(level) == level for level in chosen.table.levels)
    others = [preset for name, preset in CHOSEN.items() if name != "iddpm"]
    assert all(preset.round_sigma(0.1234) == 0.1234 for preset in others)


def test_ddpm_conditioning_is_the_index_and_linear_in_the_logarithm_between() -> None:
    chosen = CHOSEN["ddpm"]
    assert chosen.table is not None
    levels = torch.from_numpy(chosen.table.levels)
    whole = torch.arange(1000, dtype=torch.float64)
    torch.testing.assert_close(chosen.c_noise(levels), whole, rtol=0, atol=1e-9)
    between = (levels[:-1].log() * 0.75 + levels[1:].log() * 0.25).exp()
    torch.testing.assert_close(chosen.c_noise(between), whole[:-1] + 0.25, rtol=0, atol=1e-9)
    single = chosen.c_noise(levels.float())
    torch.testing.assert_close(single, whole.float(), rtol=0, atol=1e-3)
    outside = torch.tensor([1e-4, 1e4], dtype=torch.float64)
    assert chosen.c_noise(outside).tolist() == [0, 999]
    rounded = preconditioning.create("ddpm", quantize=True)
    torch.testing.assert_close(rounded.c_noise(between), whole[:-1], rtol=0, atol=1e-9)
    reverse = preconditioning.create("ddpm", conditioning="reversed_step")
    torch.testing.assert_close(reverse.c_noise(levels), 999 - whole, rtol=0, atol=1e-9)


def test_vdiff_conditioning_is_a_thousand_times_the_time() -> None:
    times = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64)
    for entry in ("logsnr_cosine", "logsnr_legacy", "beta_linear"):
        chosen = preconditioning.create("vdiff", schedule=entry)
        sigma = schedules.create(entry).sigma(times)
        torch.testing.assert_close(chosen.c_noise(sigma), 1000 * times)


def test_latents_are_scaled_to_pure_noise() -> None:
    preserving = {"ddpm", "vdiff"}
    for name, preset in CHOSEN.items():
        expected = math.sqrt(50) if name in preserving else 7.0
        assert preset.prior_scale(7.0) == pytest.approx(expected)


def test_flow_takes_the_state_of_the_straight_path() -> None:
    sigma = torch.tensor(3.0, dtype=torch.float64)
    y, n = images(0), images(1)
    assert torch.allclose(CHOSEN["flow"].c_in(sigma) * (y + 3 * n), 0.25 * y + 0.75 * n)


def test_edm_input_and_target_have_unit_variance_for_gaussian_data() -> None:
    chosen = preconditioning.create("edm", sigma_data=0.7)
    generator = torch.Generator().manual_seed(0)
    y = 0.7 * torch.randn(1, 200_000, generator=generator, dtype=torch.float64)
    n = torch.randn(1, 200_000, generator=generator, dtype=torch.float64)
    for sigma in torch.tensor([0.01, 0.7, 30.0], dtype=torch.float64):
        x = y + sigma * n
        assert (chosen.c_in(sigma) * x).std() == pytest.approx(1, abs=0.01)
        assert chosen.target(y, n, sigma)[0].std() == pytest.approx(1, abs=0.01)


def test_edm_conditioning_is_a_quarter_of_the_logarithm() -> None:
    level = torch.tensor([2.0])
    assert CHOSEN["edm"].c_noise(level).item() == pytest.approx(0.17328679)


def test_the_denoiser_sums_in_the_precision_of_its_input() -> None:
    model = denoiser()
    x = images(2) + 1e-9
    result = model(x, 3.0)
    assert result.dtype == torch.float64
    assert model.model.calls == [torch.float32]
    c_skip, (c_out,) = CHOSEN["edm"].coefficients(torch.tensor(3.0, dtype=torch.float64))
    c_in = CHOSEN["edm"].c_in(torch.tensor(3.0, dtype=torch.float64))
    raw = model.model((c_in * x).float(), torch.full([5], 3.0).log() / 4).double()
    torch.testing.assert_close(result, c_skip * x + c_out * raw, rtol=1e-7, atol=1e-9)


def test_a_number_and_a_vector_of_levels_agree() -> None:
    model, x = denoiser(), images(3)
    torch.testing.assert_close(model(x, 0.4), model(x, torch.full([5], 0.4, dtype=torch.float64)))


class DoubledChannels(Affine):
    """A network that predicts noise and, like improved DDPM, a variance."""

    def forward(self, x, c_noise, labels=None, label_mask=None, augment_labels=None):  # type: ignore[no-untyped-def]
        eps = super().forward(x, c_noise)
        return torch.cat([eps, torch.full_like(eps, 1e3)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_level_is_shaped_in_the_precision_of_the_images(dtype: torch.dtype) -> None:
    x, sigma = torch.zeros(2, 1, 4, 6, dtype=dtype), 0.1 + 0.2  # no number of either precision
    expected = torch.tensor(sigma, dtype=dtype).reshape(1, 1, 1, 1)
    for given in (sigma, np.float64(sigma), torch.tensor(sigma, dtype=torch.float64)):
        level = broadcast_sigma(given, x)
        assert level.dtype == dtype
        assert torch.equal(level, expected)
    assert broadcast_sigma(torch.ones(2, dtype=torch.float64), x).shape == (2, 1, 1, 1)


def test_the_denoiser_keeps_the_table_and_drops_the_learned_variance() -> None:
    chosen, model = CHOSEN["iddpm"], DoubledChannels()
    wrapped = Denoiser(model, chosen, img_resolution=(4, 6), img_channels=2)
    assert list(wrapped.state_dict()) == ["u", "model.a"]
    table = wrapped.state_dict()["u"]
    assert (table.dtype, list(table.shape)) == (torch.float32, [1001])
    torch.testing.assert_close(table, torch.from_numpy(iddpm_levels()).float())
    x, sigma = images(2), float(iddpm_levels()[400])
    plain = Denoiser(Affine(), chosen, img_resolution=(4, 6), img_channels=2)
    assert torch.equal(wrapped(x, sigma * 1.0001), plain(x, sigma * 1.0001))
    expected = x - sigma * (0.3 * x / math.sqrt(1 + sigma**2) + 0.1 * (999 - 400))
    torch.testing.assert_close(plain(x, sigma), expected, rtol=1e-6, atol=1e-5)
    y, n = images(4), images(5)
    denoised, difference = wrapped.residual(y + sigma * n, y, n, sigma)
    torch.testing.assert_close(denoised - y, difference)


def test_the_fixed_preset_takes_constants_of_its_schedule() -> None:
    chosen = preconditioning.create("iddpm", schedule={"name": "iddpm", "num_steps": 50})
    levels = iddpm_levels(50)
    assert (chosen.sigma_min, chosen.sigma_max) == (levels[-2], levels[0])
    assert chosen.output_multiple == 2


def test_the_levels_of_loaded_weights_count() -> None:
    wrapped, other = (
        Denoiser(DoubledChannels(), CHOSEN["iddpm"], img_resolution=(4, 6), img_channels=2)
        for _ in range(2)
    )
    state = wrapped.state_dict()
    levels = state["u"] * torch.cat([torch.linspace(1.2, 0.8, 1000), torch.zeros(1)])
    other.load_state_dict(state | {"u": levels})
    x, sigma = images(2), float(levels[400])
    assert other.round_sigma(1.001 * sigma) == sigma != wrapped.round_sigma(1.001 * sigma)
    expected = x - sigma * (0.3 * x / math.sqrt(1 + sigma**2) + 0.1 * (999 - 400))
    torch.testing.assert_close(other(x, sigma), expected, rtol=1e-6, atol=1e-5)
    assert torch.equal(other.state_dict()["u"], levels)
    other.load_state_dict(state)
    assert torch.equal(other(x, sigma), wrapped(x, sigma))
    with pytest.raises(UserError, match="do not fall to 0"):
        other.load_state_dict(state | {"u": levels.flip(0)})


def test_only_the_published_table_is_part_of_the_state() -> None:
    for name in PRESETS:
        wrapped = Denoiser(Affine(), CHOSEN[name], img_resolution=(4, 6), img_channels=2)
        assert ("u" in wrapped.state_dict()) == (name == "iddpm")
        assert list(wrapped.state_dict())[-1] == "model.a"


@pytest.mark.parametrize("name", PRESETS)
def test_the_derivative_in_the_noise_level_is_that_of_finite_differences(name: str) -> None:
    wrapped = Denoiser(Affine(), CHOSEN[name], img_resolution=(4, 6), img_channels=2).double()
    x, sigma = images(3), torch.full([5], 1.7, dtype=torch.float64)
    one = torch.ones_like(sigma)
    with torch.no_grad():
        tangent = torch.func.jvp(lambda level: wrapped(x, level), (sigma,), (one,))[1]
        difference = (wrapped(x, sigma + 1e-6) - wrapped(x, sigma - 1e-6)) / 2e-6
    torch.testing.assert_close(tangent, difference, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", PRESETS)
def test_the_denoiser_compiles_without_breaks(name: str) -> None:
    wrapped = Denoiser(Affine(), CHOSEN[name], img_resolution=(4, 6), img_channels=2)
    compiled = torch.compile(wrapped, fullgraph=True, backend="aot_eager")
    x, sigma = images(3).float(), torch.tensor([0.03, 0.5, 1.0, 7.0, 70.0])
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, sigma), wrapped(x, sigma))


def test_the_residual_is_the_difference_without_its_rounding() -> None:
    y, n = images(4).float(), images(5).float()
    sigma = torch.full([5], 1e-4)
    _, difference = denoiser().residual(y + 1e-4 * n, y, n, sigma)
    exact = denoiser().double()(y.double() + 1e-4 * n.double(), sigma.double()) - y.double()
    naive = denoiser()(y + 1e-4 * n, sigma) - y
    scale = exact.abs().max()
    assert (difference - exact).abs().max() / scale < 1e-4
    assert (naive - exact).abs().max() > 10 * (difference - exact).abs().max()


def test_the_residual_of_any_callable_is_its_difference() -> None:
    y, n, sigma = images(6), images(7), torch.full([5], 0.3, dtype=torch.float64)
    x = y + 0.3 * n
    denoised, difference = residual(lambda x, sigma: 0.5 * x, x, y, n, sigma)  # type: ignore[arg-type]
    torch.testing.assert_close(denoised, 0.5 * x)
    torch.testing.assert_close(difference, denoised - y)


def test_unknown_names_and_constants_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'edm'"):
        preconditioning.create("edn")
    with pytest.raises(UserError, match="did you mean 'x0_eps'"):
        preconditioning.create("ddpm", output="x0_ep")
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="sigma_data"):
            preconditioning.create("edm", sigma_data=wrong)


def test_a_range_may_be_given_as_a_checkpoint_has_it() -> None:
    chosen = preconditioning.create("vp", sigma_min=9.765625e-4, sigma_max=152.0)
    assert (chosen.sigma_min, chosen.sigma_max) == (9.765625e-4, 152.0)
    assert chosen.c_noise(SIGMAS).equal(CHOSEN["vp"].c_noise(SIGMAS))


@pytest.mark.parametrize(
    ("name", "constants", "message"),
    [
        ("vp", {"sigma_data": 0.5}, "vp does not depend on sigma_data"),
        ("ve", {"sigma_data": 0.5}, "ve does not depend on sigma_data"),
        ("iddpm", {"sigma_data": 0.5}, "iddpm does not depend on sigma_data"),
        ("ve", {"sigma_min": 100.0}, "sigma_min must be below sigma_max"),
        ("edm", {"sigma_min": -0.1}, "sigma_min is -0.1: it must be at least 0"),
        ("edm", {"sigma_max": math.nan}, "sigma_max is nan: give a number"),
        ("iddpm", {"output": "v"}, "iddpm is fixed"),
        ("iddpm", {"schedule": "beta_linear"}, "iddpm is fixed"),
        ("edm", {"schedule": "beta_linear"}, "has no use for a schedule"),
        ("edm", {"conditioning": "step"}, "give one"),
        ("vdiff", {"quantize": True}, "needs a discrete schedule"),
    ],
)
def test_constants_without_effect_and_empty_ranges_are_refused(
    name: str, constants: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        preconditioning.create(name, **constants)
