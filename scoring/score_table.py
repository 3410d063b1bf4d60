"""The table of scores: what stands in each cell, and which numbers are the best of their column.

Numbers share a column only under one name, so fid2k and fid5k have two. They are compared only
if they come from as many images, the same detector and the same reference, if they have one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metrics.names import shown_name
from metrics.table import METRICS
from scoring.results import MAIN_VALUES, Scores, summary_of

_MISSING = "–"
_DIGITS = 4  # of the largest number in a column
_SUMMARY = {"min": "minimum", "mean": "mean", "std": "standard deviation"}
_ROW_OF_VALUE = {value: row for row in METRICS.values() for value in row.values}


@dataclass(frozen=True)
class Column:
    """A heading, whether a smaller number is better, and whether spreads stand beside numbers."""

    heading: str
    is_distance: bool
    has_spread: bool


@dataclass(frozen=True)
class Cell:
    """A number, its spread if it has one, and whether it is the best of its column."""

    text: str
    spread: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of the table; `kind` is only, range, min, mean or std."""

    label: str
    kind: str
    count: str
    cells: list[Cell]


@dataclass(frozen=True)
class Group:
    """All rows of one subject."""

    letter: str
    name: str
    lines: list[Line]


@dataclass(frozen=True)
class Table:
    """The whole table, with the sentences that belong under it."""

    columns: list[Column]
    groups: list[Group]
    notes: list[str]

    @property
    def width(self) -> int:
        """Cells of a row, those of names and counts included."""
        return 2 + len(self.columns) + sum(column.has_spread for column in self.columns)


@dataclass(frozen=True)
class Entry:
    """A subject of the table: its letter and name, and scores of one or several seed ranges."""

    letter: str
    name: str
    rows: Sequence[Scores]


def score_table(entries: Sequence[Entry]) -> Table | None:
    """Lay out the scores; None if there are none."""
    entries = [entry for entry in entries if entry.rows]
    columns = _columns(entries)
    if not columns:
        return None
    best = {column: _best(entries, column) for column in columns}
    are_comparable = all(len(_bases(entries, column)) == 1 for column in columns)
    decimals = {column: _decimals(entries, column) for column in columns}
    groups = [
        Group(entry.letter, entry.name, _lines(entry, columns, best, decimals)) for entry in entries
    ]
    spreads = {key for entry in entries for scores in entry.rows for key in scores.values}
    heads = [
        Column(heading, _ROW_OF_VALUE[value].is_distance, f"{value}_std" in spreads)
        for value, heading in columns
    ]
    return Table(heads, groups, _notes(entries, columns, best, are_comparable))


_Key = tuple[str, str]  # a value, and what it is called


def _columns(entries: Sequence[Entry]) -> list[_Key]:
    """Values in the order of the metrics, each under every name that it has."""
    found = dict.fromkeys(
        (value, _called(scores, value))
        for entry in entries
        for scores in entry.rows
        for value in scores.values
        if value in MAIN_VALUES
    )
    return sorted(found, key=lambda column: MAIN_VALUES.index(column[0]))


def _called(scores: Scores, value: str) -> str:
    return shown_name(value, scores.facts["detector"]["name"], scores.facts["count"])


def _number(scores: Scores, column: _Key) -> float | None:
    value, heading = column
    has_it = value in scores.values and _called(scores, value) == heading
    return scores.values[value] if has_it else None


def _compared(entry: Entry, column: _Key) -> float | None:
    """The number by which a subject is compared: its only one, or the mean over its ranges."""
    numbers = [_number(scores, column) for scores in entry.rows]
    known = [number for number in numbers if number is not None]
    if not known or len(known) < len(numbers):
        return None
    mean = sum(known) / len(known)
    return mean if math.isfinite(mean) else None


def _bases(entries: Sequence[Entry], column: _Key) -> set[tuple[Any, ...]]:
    """What the numbers of a column depend on beside the images."""
    found = set()
    for entry in entries:
        for scores in entry.rows:
            if _number(scores, column) is None:
                continue
            detector = scores.facts["detector"]
            reference = scores.facts.get("reference") or {}
            has_reference = _ROW_OF_VALUE[column[0]].needs_reference
            whose = reference.get("sha256") or reference.get("source") if has_reference else None
            found.add((detector["name"], detector["weights_sha256"], scores.facts["count"], whose))
    return found


def _best(entries: Sequence[Entry], column: _Key) -> set[str]:
    """Letters of the subjects with the best number, if there is something to compare."""
    numbers = {entry.letter: _compared(entry, column) for entry in entries}
    known = {letter: number for letter, number in numbers.items() if number is not None}
    if len(set(known.values())) < 2 or len(_bases(entries, column)) > 1:
        return set()
    choose = min if _ROW_OF_VALUE[column[0]].is_distance else max
    target = choose(known.values())
    return {letter for letter, number in known.items() if number == target}


def _decimals(entries: Sequence[Entry], column: _Key) -> int:
    """Decimal places of a column, the same in all its rows, so that numbers align."""
    numbers = [_number(scores, column) for entry in entries for scores in entry.rows]
    sizes = [abs(n) for n in numbers if n is not None and math.isfinite(n) and n]
    power = math.floor(math.log10(max(sizes, default=1.0)))
    return min(8, max(2, _DIGITS - 1 - power))


def _lines(
    entry: Entry,
    columns: Sequence[_Key],
    best: dict[_Key, set[str]],
    decimals: dict[_Key, int],
) -> list[Line]:
    is_only = len(entry.rows) == 1
    lines = []
    for scores in entry.rows:
        cells = [
            _cell(scores, column, decimals[column], is_only and entry.letter in best[column])
            for column in columns
        ]
        seeds = scores.facts.get("seeds")
        label = scores.what if seeds is None else f"seeds {seeds}"
        count = f"{scores.facts['count']:,}"
        lines.append(Line(label, "only" if is_only else "range", count, cells))
    if is_only:
        return lines
    summary = summary_of(entry.rows)
    for kind, label in _SUMMARY.items():
        cells = []
        for column in columns:
            if _number(entry.rows[0], column) is None:
                cells.append(Cell(_MISSING))
                continue
            is_best = kind == "mean" and entry.letter in best[column]
            text = _text(summary[column[0]][kind], decimals[column])
            cells.append(Cell(text, is_best=is_best))
        lines.append(Line(label, kind, "", cells))
    return lines


def _cell(scores: Scores, column: _Key, decimals: int, is_best: bool) -> Cell:
    number = _number(scores, column)
    if number is None:
        return Cell(_MISSING)
    std = scores.values.get(f"{column[0]}_std")
    return Cell(_text(number, decimals), "" if std is None else _text(std, decimals), is_best)


def _text(number: float, decimals: int) -> str:
    if math.isnan(number):
        return "not a number"
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    return f"{number:,.{decimals}f}".replace("-", "−")


def _notes(
    entries: Sequence[Entry],
    columns: Sequence[_Key],
    best: dict[_Key, set[str]],
    are_comparable: bool,
) -> list[str]:
    notes = []
    if any(best.values()):
        has_ranges = any(len(entry.rows) > 1 for entry in entries)
        notes.append(
            "Bold with a star: the best of its column"
            + ("; of several seed ranges, their mean is compared." if has_ranges else ".")
        )
    if not are_comparable:
        notes.append(
            "No best number is marked where counts of images, detectors, weights or references "
            "differ: such numbers cannot be compared."
        )
    spreads = {key for entry in entries for scores in entry.rows for key in scores.values}
    if "is_std" in spreads:
        notes.append(f"{_headings(columns, 'is')}: mean ± standard deviation over 10 splits.")
    if "kid_std" in spreads:
        heading = _headings(columns, "kid")
        notes.append(f"{heading}: mean ± standard deviation over 100 subsets of 1,000 images.")
    if any(len(entry.rows) > 1 for entry in entries):
        notes.append("Standard deviations over seed ranges divide by n − 1.")
    return notes


def _headings(columns: Sequence[_Key], value: str) -> str:
    return ", ".join(heading for key, heading in columns if key == value)
