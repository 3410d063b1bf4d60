"""What benchmarks/few_steps.py has measured, for the manual and for the test of what auto picks."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samplers.auto import PICKS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "few-steps-cpu.json"
MEASURES = ("digits", "golden", "distance", "frechet")  # all of them better if smaller
Row = Mapping[str, Any]

# FIDs on CIFAR-10, FFHQ-64 and ImageNet-64 of EDM's networks at 5, 6, 8 and 10 calls: the README of
# https://github.com/zju-pi/diff-sampler. The grids are those of the forms.
PUBLISHED: list[tuple[dict[str, Any], dict[int, str]]] = [
    (
        {"name": "heun", "grid": "rho", "end": "sigma_min"},
        {
            6: "99.74 / 142.39 / 89.63",
            8: "38.06 / 57.21 / 37.65",
            10: "15.93 / 29.54 / 16.46",
        },
    ),
    (
        {"name": "euler", "grid": "rho", "end": "sigma_min"},
        {
            5: "49.66 / 43.93 / 43.81",
            6: "35.62 / 35.22 / 34.03",
            8: "22.32 / 24.39 / 22.59",
            10: "15.69 / 18.37 / 16.72",
        },
    ),
    (
        {"name": "dpm2", "grid": "rho", "end": "sigma_min"},
        {
            6: "60.00 / 83.17 / 44.83",
            8: "10.30 / 22.84 / 12.42",
            10: "5.01 / 9.46 / 6.84",
        },
    ),
    (
        {"name": "dpmpp", "order": 3, "grid": "log_sigma", "end": "sigma_min"},
        {
            5: "24.97 / 22.51 / 25.49",
            6: "11.99 / 13.74 / 15.06",
            8: "4.54 / 6.04 / 7.84",
            10: "3.00 / 4.12 / 5.67",
        },
    ),
    (
        {"name": "unipc", "order": 3, "grid": "log_sigma", "end": "sigma_min"},
        {
            5: "23.98 / 21.40 / 24.36",
            6: "11.14 / 12.85 / 14.30",
            8: "3.99 / 5.50 / 7.52",
            10: "2.89 / 3.84 / 5.53",
        },
    ),
    (
        {"name": "ipndm", "order": 4, "grid": "rho", "end": "sigma_min"},
        {
            5: "13.59 / 17.17 / 18.99",
            6: "7.05 / 10.03 / 12.92",
            8: "3.69 / 5.52 / 7.20",
            10: "2.77 / 3.98 / 5.11",
        },
    ),
]


def record() -> dict[str, Any]:
    """All that was measured."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def rows_at(calls: int, rows: Sequence[Row]) -> list[Row]:
    """What was measured for a number of calls."""
    return [row for row in rows if row["calls"] == calls]


def shortfall(row: Row, rows: Sequence[Row]) -> float:
    """How much worse than the best: the geometric mean, over the measures, of the ratio to it.

    Args:
        row: of a sampler that draws no noise.
        rows: all of the same number of calls.
    """
    logs = []
    for key in MEASURES:
        best = min(other[key] for other in rows if other[key] is not None)
        logs.append(math.log(row[key] / best))
    return math.exp(sum(logs) / len(logs))


def few_step_rows() -> list[list[str]]:
    """Cells of the table: for every number of calls the pick, Heun's method and published forms."""
    rows, body = record()["rows"], []
    for calls in PICKS:
        here = rows_at(calls, rows)
        shown = [row for row in here if row["form"] == PICKS[calls]]
        shown += [row for row in here if row["form"]["name"] == "heun"]
        shown += [row for form, _ in PUBLISHED for row in here if row["form"] == form]
        listed: list[Row] = []
        for row in shown:
            if row not in listed:
                listed.append(row)
        fids = [(form, found.get(calls, "")) for form, found in PUBLISHED]
        for row in listed:
            form = row["form"]
            name = f"**`{form['name']}`** (auto)" if form == PICKS[calls] else f"`{form['name']}`"
            rest = {k: v for k, v in form.items() if k not in ("name", "grid")}
            options = ", ".join(f"`{key}={value}`" for key, value in rest.items())
            numbers = [f"{row[key]:.{2 if key == 'frechet' else 3}f}" for key in MEASURES]
            fid = next((text for known, text in fids if known == form), "")
            body.append([str(calls), name, f"`{form['grid']}`", options, *numbers, fid])
    return body


def few_step_caption() -> str:
    """What the numbers of the table were computed from."""
    found = record()
    machine, other = found["hardware"], found["other_seeds"]
    first, second = other["frechet"]
    return (
        f"Frechet distances are those of {found['images']} images of the same seeds: with "
        f"`{other['name']}` in {other['steps']} steps {first:.2f}, and {second:.2f} with other "
        f"seeds. Errors and distances are those of {found['compared']} latents. "
        f"{machine['device']}, {machine['threads']} thread, PyTorch {machine['torch']}, commit "
        f"{machine['commit']}."
    )


HEAD = [
    "calls",
    "sampler",
    "grid",
    "options",
    "error, mixture of digits",
    "error, golden mixture",
    "distance, digits model",
    "Frechet, digits model",
    "published FID",
]
