"""Runs golden cases: any folder of json descriptions with npz arrays beside them.

A kind is an adapter from a case to (ours, golden) pairs; see `tests.parity.kinds`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


class NotBuilt(Exception):
    """The case asks for something that Driftless does not have."""


@dataclass(frozen=True)
class Case:
    """One golden case.

    Attributes:
        kind: which adapter runs it.
        name: its name.
        spec: its own entry of the json file.
        document: the whole json file, for what cases share.
        arrays: the npz file.
        folder: where both lie.
    """

    kind: str
    name: str
    spec: dict[str, Any]
    document: dict[str, Any]
    arrays: Arrays
    folder: Path

    @property
    def tolerance(self) -> float:
        """Largest error that passes."""
        return float(self.document["tolerance"])


@dataclass(frozen=True)
class Result:
    """Outcome of one case; `reason` says why there is no error to compare."""

    case: Case
    error: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.case.tolerance

    def line(self) -> str:
        """kind, name, error, tolerance, verdict."""
        verdict = "ok" if self.passed else "FAIL"
        case = self.case
        return f"{case.kind} {case.name} {self.error:.3g} {case.tolerance:g} {verdict}"


def relative_error(ours: np.ndarray, golden: np.ndarray) -> float:
    """Largest max|ours - golden| / max|golden| over slices of the first axis."""
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    if ours.shape != golden.shape:
        return float("inf")
    golden = golden.reshape(len(golden), -1) if golden.ndim > 1 else golden.reshape(-1, 1)
    ours = ours.reshape(golden.shape)
    scale = np.maximum(np.abs(golden).max(1), 1e-12)
    error = (np.abs(ours - golden).max(1) / scale).max()
    return float(error) if np.isfinite(error) else float("inf")


def read_cases(folder: Path) -> Iterator[Case]:
    """Every case of every json file of a folder, in order of file names."""
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        arrays: Arrays = {}
        if path.with_suffix(".npz").exists():
            with np.load(path.with_suffix(".npz")) as file:
                arrays = {name: file[name] for name in file.files}
        for spec in document["cases"]:
            yield Case(document["kind"], spec["name"], spec, document, arrays, folder)


def run_case(case: Case, kinds: dict[str, Callable[[Case], float]]) -> Result:
    """Run one case; what is not built, and what fails, is a failed case with its reason."""
    if case.kind not in kinds:
        return Result(case, float("inf"), "this kind is not built")
    try:
        return Result(case, kinds[case.kind](case))
    except NotBuilt as missing:
        return Result(case, float("inf"), f"not built: {missing}")
    except Exception as error:  # a case that raises must not hide the ones after it
        text = " ".join(str(error).split())
        return Result(case, float("inf"), f"{type(error).__name__}: {text}")
