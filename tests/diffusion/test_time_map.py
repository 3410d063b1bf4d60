"""Times of EDM's ablations: inverses, derivatives and the fit of the VP schedule."""

import math

import pytest

from diffusion import time_map
from diffusion.schedules import VPSchedule
from diffusion.time_map import fit_vp
from samplers import SAMPLERS

LEVELS = [0.003, 0.05, 0.7, 6.0, 70.0]


@pytest.mark.parametrize("schedule", SAMPLERS["ablation"].choices["schedule"])
@pytest.mark.parametrize("scaling", SAMPLERS["ablation"].choices["scaling"])
@pytest.mark.parametrize("sigma", LEVELS)
def test_inverses_and_derivatives_fit(schedule: str, scaling: str, sigma: float) -> None:
    times = time_map.by_names(schedule, scaling, 0.002, 80.0)
    t = times.inverse(sigma)
    assert times.sigma(t) == pytest.approx(sigma, rel=1e-9)
    step = 1e-5 * t
    for value, derivative in ((times.sigma, times.dsigma), (times.s, times.ds)):
        slope = (value(t + step) - value(t - step)) / (2 * step)
        assert derivative(t) == pytest.approx(slope, rel=1e-5, abs=1e-8)
    expected = 1 / math.hypot(1, sigma) if scaling == "vp" else 1.0
    assert times.s(t) == pytest.approx(expected)


def test_the_fit_finds_the_published_betas() -> None:
    published = VPSchedule(19.9, 0.1)
    low, high = float(published.sigma(1e-3)), float(published.sigma(1.0))
    fitted = fit_vp(low, high, 1e-3)
    for t in (1e-3, 0.01, 0.3, 1.0):
        assert fitted.sigma(t) == pytest.approx(float(published.sigma(t)), rel=1e-9)
        assert fitted.inverse(fitted.sigma(t)) == pytest.approx(t, rel=1e-9)


@pytest.mark.parametrize("ends", [(0.5, 80.0), (0.1, 10.0), (0.002, 80.0), (3.0, 3.0)])
def test_the_inverse_grows_from_the_first_level_to_the_last(ends: tuple[float, float]) -> None:
    fitted = fit_vp(*ends)
    levels = [ends[0] * (ends[1] / ends[0]) ** (i / 20) for i in range(21)]
    found = [fitted.inverse(level) for level in levels]
    assert found[0] == pytest.approx(1e-3)
    assert found == sorted(found)
    assert [fitted.sigma(t) for t in found] == pytest.approx(levels, rel=1e-6)
