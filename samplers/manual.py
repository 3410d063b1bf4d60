"""The tables of docs/sampling.md, written from the registries.

`python -m samplers.manual docs/sampling.md` brings the page up to date; a test says when to.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samplers import GRIDS, SAMPLERS
from torch_utils.registry import Row

STEPS = 18  # the number of steps for which calls are counted


def sampler_table() -> str:
    """One row for each sampler, in Markdown."""
    rows = [
        [
            f"`{name}`",
            row.summary,
            f"`{row.grid}`",
            f"{row.order:g}{f' ({row.order_note})' if row.order_note else ''}",
            str(row.num_calls(STEPS)),
            "yes" if row.is_stochastic(row.options) else "no",
            _options(row),
            row.paper,
        ]
        for name, row in SAMPLERS.items()
    ]
    calls = f"calls for {STEPS} steps"
    head = ["sampler", "what it is", "grid", "order", calls, "draws noise", "options", "source"]
    return _table(head, rows)


def grid_table() -> str:
    """One row for each time grid, in Markdown."""
    rows = [[f"`{name}`", row.summary, _options(row)] for name, row in GRIDS.items()]
    return _table(["grid", "what it is", "options"], rows)


def _options(row: Row) -> str:
    """Every option with its default, and what else it can be where that is one of some names.

    Without a default the model or the grid decides.
    """
    shown = []
    for key, value in row.options.items():
        others = [name for name in row.choices.get(key, ()) if name != value]
        entry = f"`{key}`" if value is None else f"`{key}={_value(value)}`"
        shown.append(f"{entry} ({', '.join(others)})" if others else entry)
    return ", ".join(shown)


def _value(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


TABLES: dict[str, Callable[[], str]] = {"samplers": sampler_table, "grids": grid_table}


def updated(page: str) -> str:
    """A page with its tables, those between `<!-- name -->` and `<!-- end -->`, as they are now."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n", "\n<!-- end -->"
        before, _, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        assert closed, f"the page has no place for the table {name}"
        page = f"{before}{start}{table()}{end}{after}"
    return page


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(updated(target.read_text(encoding="utf-8")), encoding="utf-8")
