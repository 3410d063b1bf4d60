"""Line charts as plain geometry: scales, ticks and SVG paths. The page's template draws them.

Positions are in the units of the chart's `viewBox`, y downwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 560.0, 310.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 534.0, 36.0, 264.0  # of the box in which the curves lie

_LOG_RATIO = 20.0  # a curve that spans more is read better on a logarithmic axis
_BUCKETS = 330  # of a thinned curve; each keeps three points at most
_MOST_MARKERS = 60  # points that are still told apart
_LABEL_GAP = 15.0  # between the letters at the ends of curves
_LARGEST = 1e300  # so that differences of numbers stay finite
_EQUAL = 1e-9  # part of a number that its ticks cannot show
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Series:
    """A curve to draw.

    Attributes:
        letter: written at its end.
        xs: float64 [n], finite.
        ys: float64 [n]; a number that is not finite breaks the curve.
    """

    letter: str
    xs: np.ndarray
    ys: np.ndarray


@dataclass(frozen=True)
class Tick:
    """A position on an axis, and the number written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A curve as it is drawn: an SVG path, dots if they are few, and where its letter stands."""

    letter: str
    path: str
    dots: list[tuple[float, float]]
    letter_at: float


@dataclass(frozen=True)
class Chart:
    """All that a template needs beside the words."""

    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    is_log: bool


@dataclass(frozen=True)
class Scale:
    """A map from numbers low..high to positions start..stop, linear or logarithmic."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The positions of numbers; those of a logarithmic scale must be positive."""
        low, high = (math.log10(x) if self.is_log else x for x in (self.low, self.high))
        given = np.log10(values) if self.is_log else values
        positions: np.ndarray = self.start + (given - low) / (high - low) * (self.stop - self.start)
        return positions


def line_chart(several: Sequence[Series]) -> Chart | None:
    """Lay out curves over one pair of axes; y is logarithmic where the numbers span decades.

    Returns:
        The chart, or None if no curve has a finite number.
    """
    curves = [Series(one.letter, *thin(one.xs, _tame(one.ys))) for one in several]
    curves = [one for one in curves if np.isfinite(one.ys).any()]
    if not curves:
        return None
    xs = np.concatenate([one.xs for one in curves])
    ys = np.concatenate([one.ys[np.isfinite(one.ys)] for one in curves])
    is_log = wants_log(ys)
    x_scale = Scale(*limits(xs, pad=0.0), LEFT, RIGHT)
    y_limits = (float(ys.min()) / 1.15, float(ys.max()) * 1.15) if is_log else limits(ys)
    y_scale = Scale(*y_limits, BOTTOM, TOP, is_log)
    lines = []
    for one in curves:
        is_drawn = np.isfinite(one.ys)
        x, y = x_scale(one.xs), np.full(len(one.ys), np.nan)
        y[is_drawn] = y_scale(one.ys[is_drawn])
        shown = list(zip(x[is_drawn].tolist(), y[is_drawn].tolist(), strict=True))
        dots = shown if len(shown) <= _MOST_MARKERS else []
        lines.append(Line(one.letter, path_of(x, y), dots, shown[-1][1]))
    places = spread([line.letter_at for line in lines], _LABEL_GAP, TOP, BOTTOM)
    lines = [
        Line(line.letter, line.path, line.dots, place)
        for line, place in zip(lines, places, strict=True)
    ]
    return Chart(_ticks(x_scale, 8), _ticks(y_scale, 6), lines, is_log)


def _tame(values: np.ndarray) -> np.ndarray:
    """Numbers within bounds; those that are not finite as NaN."""
    finite = np.where(np.isfinite(values), values, np.nan)
    return np.clip(finite, -_LARGEST, _LARGEST)


def _ticks(scale: Scale, count: int) -> list[Tick]:
    low, high = scale.low, scale.high
    numbers = log_ticks(low, high) if scale.is_log else linear_ticks(low, high, count)
    places = scale(np.array(numbers)).tolist()
    return [Tick(at, text) for at, text in zip(places, tick_texts(numbers), strict=True)]


def wants_log(values: np.ndarray) -> bool:
    """Whether finite numbers are read better on a logarithmic axis."""
    low, high = values.min(), values.max()
    return bool(low > 0 and high / _LOG_RATIO > low)


def limits(values: np.ndarray, pad: float = 0.04) -> tuple[float, float]:
    """The ends of a linear axis for finite numbers; it starts at 0 if that is not far away.

    Args:
        values: at least one.
        pad: room above, and below if it does not start at 0, as a part of the range.
    """
    low, high = float(values.min()), float(values.max())
    largest = max(abs(low), abs(high))
    if high - low <= _EQUAL * largest:
        size = largest / 2 or 1.0
        return low - size, high + size
    room = (high - low) * pad
    if 0 <= low < high / 3:
        return 0.0, high + room
    return low - room, high + room


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within low..high, `count` + 1 of them at most."""
    size = (high - low) / count
    power = 10.0 ** math.floor(math.log10(size))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within low..high; over many decades some powers only."""
    decades = math.log10(high) - math.log10(low)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if decades <= 2.5 else (1,)
    every = max(1, math.ceil(decades / 7))
    powers = range(first, last + 1)
    found = [_power(factor, power) for power in powers if power % every == 0 for factor in factors]
    return [number for number in found if low <= number <= high]


def _power(factor: int, power: int) -> float:
    return float(f"{factor}e{power}")  # exact where 10.0**power is not


def tick_texts(numbers: Sequence[float]) -> list[str]:
    """Numbers of one axis. Multiples of one step get the same number of decimals."""
    texts = [number_text(number) for number in numbers]
    steps = np.diff(numbers)
    is_even = len(steps) > 1 and bool(np.allclose(steps, steps[0], rtol=1e-6, atol=0.0))
    if not is_even or any("×" in text or "10⁻" in text for text in texts):
        return texts
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [_with_decimals(text, decimals) for text in texts]


def _with_decimals(text: str, num: int) -> str:
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest.ljust(num, '0')}" if num else whole


def number_text(number: float, digits: int = 10) -> str:
    """A finite number for people: 12,800, 0.02, 3×10⁻⁵; a minus is a minus sign."""
    size = abs(float(f"{number:.{digits}g}"))
    if size == 0:
        return "0"
    sign = "−" if number < 0 else ""
    if 1e-4 <= size < 1e6:
        whole, _, rest = f"{size:.12f}".rstrip("0").partition(".")
        return sign + f"{int(whole):,}" + (f".{rest}" if rest else "")
    mantissa, _, power = f"{size:.{digits - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    ten = "10" + str(int(power)).translate(_SUPERSCRIPTS)
    return sign + (ten if mantissa == "1" else f"{mantissa}×{ten}")


def thin(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most about 1,000 points that looks the same: extremes and breaks stay.

    Args:
        xs: [n].
        ys: [n]; NaN is a break.
    """
    if len(ys) <= 3 * _BUCKETS:
        return xs, ys
    kept = {0, len(ys) - 1}
    for indices in np.array_split(np.arange(len(ys)), _BUCKETS):
        part = ys[indices]
        is_break = np.isnan(part)
        if is_break.any():
            kept.add(int(indices[is_break.argmax()]))
        if not is_break.all():
            kept |= {int(indices[np.nanargmin(part)]), int(indices[np.nanargmax(part)])}
    order = sorted(kept)
    return xs[order], ys[order]


def path_of(xs: np.ndarray, ys: np.ndarray) -> str:
    """An SVG path through points. NaN breaks it; a point alone is a line of no length."""
    words, is_down, is_alone = [], False, False
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        if math.isnan(y):
            words += ["h0"] if is_alone else []
            is_down = is_alone = False
            continue
        words.append(f"{'L' if is_down else 'M'}{x:.1f} {y:.1f}")
        is_alone, is_down = not is_down, True
    words += ["h0"] if is_alone else []
    return "".join(words)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places apart, as little as needed and within low..high if they fit there.

    Args:
        places: in any order.
        gap: the least distance.
        low: the least place.
        high: the largest place.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    found = list(places)
    lowest = low
    for index in order:
        found[index] = lowest = max(places[index], lowest)
        lowest += gap
    highest = high
    for index in reversed(order):
        found[index] = min(found[index], highest)
        highest = found[index] - gap
    return found
