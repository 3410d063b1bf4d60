"""A page for people to look at: scores, images, curves, and what all of it was computed from.

One HTML file with everything in it, which asks no server for anything and runs no script. Names
come from outside; the template escapes every one of them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scoring import charts
from scoring.curves import Run, figures_of
from scoring.fact_list import Fact, facts_of, split_shared
from scoring.pictures import grid_of
from scoring.results import Scores
from scoring.score_table import Entry, score_table
from torch_utils.files import replacing, writing
from torch_utils.text import printable

_TEMPLATE = "report.html"
_NUM_COLORS = 6


@dataclass(frozen=True)
class Subject:
    """A thing that was scored.

    Attributes:
        name: for people, e.g. its path.
        rows: its scores, one for each range of seeds.
        images: some of its images, uint8 [N, C, H, W]; None if there are none to show.
        stats: rows of its run's stats.jsonl; None if it is no run.
    """

    name: str
    rows: list[Scores]
    images: np.ndarray | None
    stats: list[dict[str, Any]] | None


def report_html(subjects: Sequence[Subject], *, title: str) -> str:
    """The page. The same subjects give the same page.

    Args:
        subjects: in the order of the page.
        title: its heading.
    """
    letters = [letter_of(index) for index in range(len(subjects))]
    named = list(zip(letters, subjects, strict=True))
    scored = [(letter, subject) for letter, subject in named if subject.rows]
    shared, own = split_shared([facts_of(subject.rows) for _, subject in scored])
    grids = [
        (letter, subject.name, grid_of(subject.images))
        for letter, subject in named
        if subject.images is not None and len(subject.images)
    ]
    runs = [Run(letter, subject.name, subject.stats) for letter, subject in named if subject.stats]
    page: str = _template().render(
        title=title,
        slots={letter: slot for slot, letter in enumerate(letters)},
        byline=_byline(len(subjects), shared),
        table=score_table([Entry(letter, s.name, s.rows) for letter, s in scored]),
        grids=grids,
        figures=figures_of(runs),
        box=charts,
        num_colors=_NUM_COLORS,
        shared=shared,
        own=[(letter, s.name, facts) for (letter, s), facts in zip(scored, own, strict=True)],
    )
    return page


def write_report(path: str | os.PathLike[str], subjects: Sequence[Subject], *, title: str) -> None:
    """Write the page to a file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    page = report_html(subjects, title=title)
    with writing(path), replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _byline(count: int, shared: Sequence[Fact]) -> str:
    """A line on what the page is about."""
    what = "One set of images" if count == 1 else f"{count} sets of images"
    known = {fact.term: fact.text for fact in shared}
    parts = [f"{term} {known[term]}" for term in ("detector", "reference") if term in known]
    return ", ".join([what, *parts])


def letter_of(index: int) -> str:
    """A, B, ..., Z, AA, AB, ...: a subject is known by its letter all over the page."""
    first, last = divmod(index, 26)
    return (letter_of(first - 1) if first else "") + chr(ord("A") + last)


def _template() -> Any:
    """The template, which escapes what is filled in and refuses to leave anything out."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE)


def _finalize(value: object) -> object:
    """Texts without control characters, marks of direction and bytes that are not UTF-8."""
    return printable(value) if type(value) is str else value
