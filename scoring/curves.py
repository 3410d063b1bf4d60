"""Figures of what runs logged: rows of stats.jsonl -> curves over the images seen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scoring.charts import Chart, Series, line_chart, number_text
from torch_utils.numbers import is_number

_PROGRESS = "Progress/kimg"
_LOSS = "Loss/loss"
_SCORES = "Score/"
_LARGER_IS_BETTER = ("is", "score", "precision", "recall")  # beginnings of names of scores
_LARGEST_KIMG = 1e12

# (largest number of thousands of images, what an axis counts, thousands in one of it)
_UNITS = (
    (1.0, "images seen", 1e-3),
    (1e4, "images seen (thousands)", 1.0),
    (math.inf, "images seen (millions)", 1e3),
)


@dataclass(frozen=True)
class Run:
    """A run to draw: its letter and name, and its rows."""

    letter: str
    name: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A line of a legend: the curve's letter and name, and its numbers in words."""

    letter: str
    name: str
    text: str


@dataclass(frozen=True)
class Figure:
    """A chart with its words."""

    title: str
    x_label: str
    y_label: str
    chart: Chart
    legend: list[Entry]


def figures_of(runs: Sequence[Run]) -> list[Figure]:
    """A figure of the loss, and one of each score that a run logged."""
    scores = dict.fromkeys(
        key for run in runs for row in run.rows for key in row if key.startswith(_SCORES)
    )
    figures = (_figure(key, runs) for key in (_LOSS, *scores))
    return [figure for figure in figures if figure is not None]


def points_of(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Thousands of images seen, and the means of a quantity; NaN where one was not finite.

    Rows without the quantity, or without progress, are left out.
    """
    points = []
    for row in rows:
        seen, entry = _mean(row.get(_PROGRESS)), row.get(key)
        if isinstance(entry, Mapping) and 0 <= seen <= _LARGEST_KIMG:
            points.append((seen, _mean(entry)))
    found = np.array(points, dtype=np.float64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _mean(entry: Any) -> float:
    mean: Any = entry.get("mean") if isinstance(entry, Mapping) else None
    return float(mean) if is_number(mean) else math.nan


def _figure(key: str, runs: Sequence[Run]) -> Figure | None:
    points = {run.letter: points_of(run.rows, key) for run in runs}
    shown = [run for run in runs if np.isfinite(points[run.letter][1]).any()]
    if not shown:
        return None
    largest = max(float(points[run.letter][0].max()) for run in shown)
    x_label, per_unit = next((label, size) for most, label, size in _UNITS if largest <= most)
    series, legend = [], []
    for run in shown:
        xs, ys = points[run.letter]
        series.append(Series(run.letter, xs / per_unit, ys))
        legend.append(Entry(run.letter, run.name, _in_words(key, xs, ys)))
    chart = line_chart(series)
    assert chart is not None  # each has a finite number
    title, y_label = _words(key)
    scale = ", logarithmic axis" if chart.is_log else ""
    return Figure(title, x_label, y_label + scale, chart, legend)


def is_larger_better(key: str) -> bool:
    """Whether of a score, by its name in stats.jsonl, the larger number is the better one."""
    return key.removeprefix(_SCORES).startswith(_LARGER_IS_BETTER)


def _words(key: str) -> tuple[str, str]:
    if key == _LOSS:
        return "Training loss", "mean per pixel and channel"
    better = "larger" if is_larger_better(key) else "smaller"
    return key.removeprefix(_SCORES), f"{better} is better"


def _in_words(key: str, xs: np.ndarray, ys: np.ndarray) -> str:
    """Best and last number of a curve, for those who cannot see it."""
    finite = np.flatnonzero(np.isfinite(ys))
    is_up = key != _LOSS and is_larger_better(key)
    best = finite[ys[finite].argmax() if is_up else ys[finite].argmin()]
    word = "highest" if is_up else "lowest"
    last = finite[-1]
    if best == last:
        return f"last and {word} {_short(ys[last])} at {_short(xs[last])} kimg"
    return (
        f"{word} {_short(ys[best])} at {_short(xs[best])} kimg, "
        f"last {_short(ys[last])} at {_short(xs[last])} kimg"
    )


def _short(number: float) -> str:
    return number_text(float(number), digits=4)
