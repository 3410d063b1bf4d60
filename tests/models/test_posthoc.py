"""Profiles of averages and their fits agree with numerical integrals and with simulated training.

Karras et al. 2024, section 3: a few stored averages give that of any length.
"""

import numpy as np
import pytest
from scipy.integrate import quad

from models.posthoc import (
    LENGTHS,
    Profile,
    checked_length,
    checked_lengths,
    fit,
    gamma_of,
    inner_products,
    power_decay,
)
from torch_utils.errors import UserError

STEPS, BATCH = 2048, 64


def density(profile: Profile, tau: float) -> float:
    """How much the weights at tau images count in an average."""
    gamma, end = gamma_of(profile.length), profile.images
    return 0.0 if tau > end else (gamma + 1) / end * (tau / end) ** gamma


@pytest.mark.parametrize("length", [0.001, 0.02, 0.05, 0.1, 0.2, 0.28])
def test_the_length_is_the_deviation_of_the_profile(length: float) -> None:
    profile = Profile(length, 1.0)
    start = max(0.0, 1 - 60 * length)

    def moment(power: int) -> float:
        return quad(lambda tau: tau**power * density(profile, tau), start, 1, epsabs=1e-12)[0]

    assert moment(0) == pytest.approx(1)
    assert np.sqrt(moment(2) - moment(1) ** 2) == pytest.approx(length, rel=1e-4)


def test_published_exponents() -> None:
    """Karras et al. 2024 give the lengths of 0.05 and 0.10 as gamma 16.97 and 6.94."""
    assert [round(gamma_of(length), 2) for length in LENGTHS] == [16.97, 6.94]


def test_inner_products_are_those_of_numerical_integration() -> None:
    profiles = [Profile(0.05, 0.7), Profile(0.1, 1.0), Profile(0.28, 0.2), Profile(0.1, 0.5)]
    found = inner_products(profiles) / profiles[-1].images
    for i, a in enumerate(profiles):
        for j, b in enumerate(profiles):
            end = min(a.images, b.images)
            expected, _ = quad(lambda tau, a=a, b=b: density(a, tau) * density(b, tau), 0, end)
            assert found[i, j] == pytest.approx(expected, rel=1e-6)


def test_the_weights_of_a_step_count_as_the_profile_says() -> None:
    length, total = 0.1, 50
    gamma = gamma_of(length)
    share = np.zeros(total)
    for step in range(total):
        beta = power_decay(length, seen=step * BATCH, batch=BATCH)
        share *= beta
        share[step] = 1 - beta
    edges = (np.arange(total + 1) / total) ** (gamma + 1)
    np.testing.assert_allclose(share, np.diff(edges), rtol=1e-9, atol=1e-15)
    assert power_decay(length, seen=0, batch=BATCH) == 0  # nothing of the initial weights is left


def stored(every: int, end: int = STEPS) -> list[Profile]:
    images = range(every * BATCH, (end + 1) * BATCH, every * BATCH)
    return [Profile(length, count) for count in images for length in LENGTHS]


def test_the_residual_is_that_of_numerical_integration() -> None:
    profiles, target = stored(512), Profile(0.07, STEPS * BATCH)
    found = fit(target, profiles)
    tau = (np.arange(200_000) + 0.5) / 200_000 * target.images
    wanted = np.array([density(target, t) for t in tau])
    summed = sum(
        c * np.array([density(p, t) for t in tau])
        for c, p in zip(found.coefficients, profiles, strict=True)
    )
    residual = np.linalg.norm(summed - wanted) / np.linalg.norm(wanted)
    assert found.residual == pytest.approx(residual, rel=1e-3)
    assert sum(found.coefficients) == pytest.approx(1, abs=1e-12)
    for index in range(len(profiles)):  # no other sum is closer
        moved = np.array(found.coefficients)
        moved[index] += 1e-3
        moved[index - 1] -= 1e-3
        gram = inner_products([*profiles, target])
        rest = np.append(moved, -1.0)
        assert np.sqrt(rest @ gram @ rest / gram[-1, -1]) > found.residual


def tracked(weights: np.ndarray, length: float) -> np.ndarray:
    """The averages after every step of a training run with these weights, [steps, N]."""
    average, rows = np.zeros(weights.shape[1]), []
    for step, current in enumerate(weights):
        beta = power_decay(length, seen=step * BATCH, batch=BATCH)
        average = current + beta * (average - current)
        rows.append(average)
    return np.array(rows)


@pytest.mark.parametrize(
    ("length", "end"),
    [(0.03, STEPS), (0.05, STEPS), (0.075, STEPS), (0.15, STEPS), (0.2, STEPS), (0.08, STEPS // 2)],
)
def test_a_made_average_is_the_tracked_one(length: float, end: int) -> None:
    """On weights that settle, drift and jitter; stored in float32 at 64 points."""
    random, every = np.random.default_rng(0), STEPS // 64
    jitter = random.standard_normal((STEPS, 32))
    settling = 3 * np.exp(-np.arange(STEPS) / 300)[:, None]
    weights = random.standard_normal(32) + settling + 0.02 * np.cumsum(jitter, 0) + 0.1 * jitter
    averages = {kept: tracked(weights, kept).astype(np.float32) for kept in LENGTHS}
    profiles = stored(every)
    found = fit(Profile(length, end * BATCH), profiles)
    made = sum(
        c * averages[p.length][int(p.images) // BATCH - 1].astype(np.float64)
        for c, p in zip(found.coefficients, profiles, strict=True)
    )
    direct = tracked(weights, length)[end - 1]
    assert np.linalg.norm(made - direct) < 1e-3 * np.linalg.norm(direct)
    assert not found.is_poor
    near = averages[0.05][end - 1]  # else this would prove little
    assert length == 0.05 or np.linalg.norm(near - direct) > 5e-3 * np.linalg.norm(direct)


def test_a_fit_to_too_few_snapshots_is_poor() -> None:
    end = STEPS * BATCH
    assert fit(Profile(0.2, end), stored(512)).is_poor
    assert not fit(Profile(0.2, end), stored(64)).is_poor
    assert fit(Profile(0.1, end), stored(STEPS)).residual < 1e-6  # it is stored


def test_many_snapshots_do_not_blow_up_the_coefficients() -> None:
    found = fit(Profile(0.12, STEPS * BATCH), stored(4))
    assert found.residual < 1e-4
    assert max(map(abs, found.coefficients)) < 10


def test_lengths_without_an_average_or_a_file_name_are_refused() -> None:
    for length in (0.0, -0.1, 0.3, float("nan")):
        with pytest.raises(UserError, match=r"must be from 0\.001 to 0\.28"):
            checked_length(length)
    with pytest.raises(UserError, match="three decimals"):
        checked_lengths((0.0505,))
    with pytest.raises(UserError, match=r"once, not 0\.050, 0\.050"):
        checked_lengths((0.05, 0.05))
