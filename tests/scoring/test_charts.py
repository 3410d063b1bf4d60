"""Charts are true: ticks, scales and paths say what the numbers are."""

import math
import re

import numpy as np
import pytest

from scoring import charts
from scoring.charts import Scale, Series, line_chart


def points(path: str) -> list[tuple[str, float, float]]:
    """Letter, x and y of every step of a path."""
    found = re.findall(r"([ML])(-?[\d.]+) (-?[\d.]+)", path)
    return [(letter, float(x), float(y)) for letter, x, y in found]


def series(ys: list[float], xs: list[float] | None = None, letter: str = "A") -> Series:
    return Series(
        letter, np.arange(len(ys), dtype=float) if xs is None else np.array(xs), np.array(ys)
    )


def value_at(ticks: list[charts.Tick], at: float, *, is_log: bool) -> float:
    """The number at a position, read off the ticks as a person would."""
    numbers = [float(tick.text.replace(",", "").replace("−", "-")) for tick in ticks]
    known = np.log10(numbers) if is_log else np.array(numbers)
    slope, offset = np.polyfit([tick.at for tick in ticks], known, 1)
    read = slope * at + offset
    return float(10**read if is_log else read)


@pytest.mark.parametrize(
    ("ys", "is_log"),
    [
        ([3.0, 2.0, 2.5, 1.1], False),
        ([300.0, 40.0, 5.5, 2.1], True),
        ([-4.0, 9.0, 300.0, 2.0], False),
    ],
    ids=["linear", "log", "negative"],
)
def test_a_curve_read_off_the_axes_has_its_numbers(ys: list[float], is_log: bool) -> None:
    xs = [0.0, 10.0, 25.0, 51.2]
    chart = line_chart([series(ys, xs)])
    assert chart is not None
    assert chart.is_log == is_log
    drawn = points(chart.lines[0].path)
    assert [letter for letter, _, _ in drawn] == ["M", "L", "L", "L"]
    for (_, x, y), true_x, true_y in zip(drawn, xs, ys, strict=True):
        assert value_at(chart.x_ticks, x, is_log=False) == pytest.approx(true_x, abs=0.02)
        assert value_at(chart.y_ticks, y, is_log=is_log) == pytest.approx(true_y, rel=0.02, abs=0.2)
    assert [(round(x, 1), round(y, 1)) for x, y in chart.lines[0].dots] == [p[1:] for p in drawn]


def test_larger_numbers_stand_higher_and_later_ones_to_the_right() -> None:
    chart = line_chart([series([1.0, 2.0])])
    assert chart is not None
    (_, x0, y0), (_, x1, y1) = points(chart.lines[0].path)
    assert x0 < x1
    assert y0 > y1


def test_a_scale_maps_its_ends_to_its_ends() -> None:
    assert Scale(2.0, 6.0, 10.0, 50.0)(np.array([2.0, 3.0, 6.0])).tolist() == [10, 20, 50]
    log = Scale(1.0, 100.0, 90.0, 10.0, is_log=True)
    np.testing.assert_allclose(log(np.array([1.0, 10.0, 100.0])), [90, 50, 10])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 50.0, [0, 10, 20, 30, 40, 50]),
        (0.0, 1.15, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3.0, 4.0, [-2, 0, 2, 4]),
        (4.6, 9.1, [5, 6, 7, 8, 9]),
        (0.0, 200_000.0, [0, 50_000, 100_000, 150_000, 200_000]),
    ],
)
def test_linear_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.linear_ticks(low, high, 6) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.5, 60.0, [2, 5, 10, 20, 50]),
        (1e-3, 20.0, [1e-3, 1e-2, 0.1, 1, 10]),
        (1e-12, 1e12, [1e-12, 1e-8, 1e-4, 1, 1e4, 1e8, 1e12]),
    ],
)
def test_logarithmic_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.log_ticks(low, high) == pytest.approx(expected)


def test_every_axis_has_ticks() -> None:
    """Over all ranges that may occur, two at least, within the axis, and not too many."""
    generator = np.random.default_rng(0)
    for _ in range(500):
        low = 10.0 ** generator.uniform(-9, 9)
        high = low * (1 + 10.0 ** generator.uniform(-3, 2))
        assert 2 <= len(charts.linear_ticks(low, high, 6)) <= 7, (low, high)
        high = low * 10.0 ** generator.uniform(1.3, 20)
        ticks = charts.log_ticks(low, high)
        assert 2 <= len(ticks) <= 9, (low, high)
        assert low <= ticks[0] < ticks[-1] <= high


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (12_800.0, "12,800"),
        (0.02, "0.02"),
        (-1.5, "−1.5"),
        (3e-5, "3×10⁻⁵"),
        (1e9, "10⁹"),
        (-2.5e12, "−2.5×10¹²"),
    ],
)
def test_numbers_are_written_for_people(number: float, text: str) -> None:
    assert charts.number_text(number) == text


def test_numbers_are_rounded_before_their_form_is_chosen() -> None:
    assert charts.number_text(999_999.9, digits=4) == "10⁶"
    assert charts.number_text(12.3456, digits=4) == "12.35"
    assert charts.number_text(123_456.0, digits=4) == "123,500"


def test_ticks_of_one_axis_have_the_same_decimals() -> None:
    assert charts.tick_texts([0, 0.5, 1.0]) == ["0.0", "0.5", "1.0"]
    assert charts.tick_texts([0.1, 1, 10]) == ["0.1", "1", "10"]
    assert charts.tick_texts([0.2 * index for index in range(4)]) == ["0.0", "0.2", "0.4", "0.6"]
    assert charts.tick_texts([0, 1e6, 2e6]) == ["0", "10⁶", "2×10⁶"]


def test_a_number_that_is_not_finite_breaks_the_curve() -> None:
    chart = line_chart([series([1.0, 2.0, math.nan, 3.0, math.inf, 2.0, 1.0])])
    assert chart is not None
    (line,) = chart.lines
    assert "nan" not in line.path.lower()
    assert "inf" not in line.path.lower()
    assert [letter for letter, _, _ in points(line.path)] == ["M", "L", "M", "M", "L"]
    assert line.path.count("h0") == 1  # the point alone is seen
    assert len(line.dots) == 5


@pytest.mark.parametrize("ys", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_finite_is_no_chart(ys: list[float]) -> None:
    assert line_chart([series(ys)]) is None


@pytest.mark.parametrize(
    "ys",
    [[5.0], [0.0, 0.0], [-2.0, -2.0], [1e300, 1e308, -1e308], [1e-320, 1.0], [1.0, 1.0 + 1e-15]],
    ids=str,
)
def test_extreme_numbers_stay_within_the_box(ys: list[float]) -> None:
    chart = line_chart([series(ys)])
    assert chart is not None
    for _, x, y in points(chart.lines[0].path):
        assert charts.LEFT - 0.1 <= x <= charts.RIGHT + 0.1
        assert charts.TOP - 0.1 <= y <= charts.BOTTOM + 0.1
    for tick in (*chart.x_ticks, *chart.y_ticks):
        assert math.isfinite(tick.at)


def test_a_long_curve_is_thinned_and_keeps_its_extremes_and_breaks() -> None:
    generator = np.random.default_rng(1)
    ys = generator.normal(size=100_000)
    ys[[777, 50_000, 99_998]] = 40.0, math.nan, -30.0
    xs = np.arange(len(ys), dtype=float)
    thin_xs, thin_ys = charts.thin(xs, ys)
    assert len(thin_ys) <= 1000
    assert (np.diff(thin_xs) > 0).all()
    np.testing.assert_array_equal(ys[thin_xs.astype(int)], thin_ys)  # true points, none invented
    assert (np.nanmax(thin_ys), np.nanmin(thin_ys)) == (40.0, -30.0)
    assert (thin_xs[0], thin_xs[-1]) == (0, 99_999)
    assert np.isnan(thin_ys).sum() == 1


def test_letters_at_the_ends_do_not_overlap() -> None:
    places = charts.spread([100.0, 101.0, 50.0, 102.0], 15.0, 0.0, 200.0)
    assert np.diff(sorted(places)).min() >= 15
    assert sorted(range(4), key=places.__getitem__) == [2, 0, 1, 3]  # in the order of the curves
    low = charts.spread([198.0, 199.0], 15.0, 0.0, 200.0)
    assert low == [185.0, 200.0]
