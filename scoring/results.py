"""Numbers with everything they were computed from: as lines for people, and as JSON."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metrics.names import key_name, shown_name
from metrics.scores import NUM_SPLITS
from metrics.table import METRICS
from torch_utils.errors import UserError
from torch_utils.files import prepare_folder, replacing, writing

HASH_DIGITS = 12  # of a hash, in lines for people


@dataclass(frozen=True)
class Scores:
    """The numbers of one set of images.

    Attributes:
        what: what was scored, for people: a path, with seeds where there are several ranges.
        values: fid, is, is_std, is_all, kid, kid_std, precision, recall; those asked for.
        facts: what they were computed from, plain values that JSON can hold. Always there: `count`,
            `detector` {name, weights_sha256, features} and `reference` {name, source, count} or
            None.
    """

    what: str
    values: Mapping[str, float]
    facts: Mapping[str, Any]

    @property
    def names(self) -> dict[str, str]:
        """Value -> what it may be called in a file, e.g. fid -> fid2k."""
        detector, count = self.facts["detector"]["name"], self.facts["count"]
        main = [value for value in self.values if value not in _DETAILS]
        return {value: key_name(value, detector, count) for value in main}

    def shown(self, value: str) -> str:
        """What a value is called on a screen, e.g. FID."""
        return shown_name(value, self.facts["detector"]["name"], self.facts["count"])


_DETAILS = ("is_std", "is_all", "kid_std")
MAIN_VALUES = tuple(
    value for row in METRICS.values() for value in row.values if value not in _DETAILS
)


def as_json(scores: Scores) -> dict[str, Any]:
    """One flat record: the values, `names`, and the facts. Infinite numbers become None."""
    values = {key: value if math.isfinite(value) else None for key, value in scores.values.items()}
    return {"what": scores.what, **values, "names": scores.names, **scores.facts}


def summary_of(several: Sequence[Scores]) -> dict[str, dict[str, float]]:
    """Minimum, mean and standard deviation (of n - 1) of each value over ranges of seeds."""
    found = {}
    for value in several[0].names:
        numbers = np.array([scores.values[value] for scores in several], dtype=np.float64)
        found[value] = {
            "min": float(numbers.min()),
            "mean": float(numbers.mean()),
            "std": float(numbers.std(ddof=1)),
        }
    return found


def summary_lines(several: Sequence[Scores]) -> list[str]:
    """A line for each value: what several ranges of seeds say together; none for a single one."""
    if len(several) < 2:
        return []
    first, num = several[0], len(several)
    return [
        f"{first.shown(value)} over {num} ranges of {first.facts['count']} seeds: "
        f"minimum {found['min']:g}, mean {found['mean']:g} +- {found['std']:.2g}"
        for value, found in summary_of(several).items()
    ]


def ranges_as_json(several: Sequence[Scores]) -> dict[str, Any]:
    """One record of a network: that of its only range, or those of all ranges with a summary."""
    if len(several) == 1:
        return as_json(several[0])
    return {"ranges": [as_json(scores) for scores in several], "summary": summary_of(several)}


def append_log(path: str, scores: Scores) -> None:
    """Append a line with the numbers, as SA-DPM's programs do for their --fid_log.

    It names the last two parts of what was scored.

    Raises:
        UserError: the file cannot be written.
    """
    numbers = ", ".join(f"{name} {scores.values[value]:g}" for value, name in scores.names.items())
    append_line(path, scores.what, numbers)


def append_line(path: str, what: str, numbers: str) -> None:
    """Append a line as `append_log` does: the last two parts of a path, and numbers.

    Raises:
        UserError: the file cannot be written.
    """
    where = os.path.join(*Path(what).parts[-2:])
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(f"Checkpoint {where} -> {numbers}\n")


def lines_of(scores: Scores) -> list[str]:
    """A line for each number, and one on what made them."""
    count, against = scores.facts["count"], _against(scores)
    values, lines = scores.values, []
    if "fid" in values:
        lines.append(f"{scores.shown('fid')}: {values['fid']:g}   {count} images{against}")
    if "is" in values:
        lines.append(_score_line(scores))
    if "kid" in values:
        spread = f"{values['kid']:g} +- {values['kid_std']:g}"
        lines.append(f"{scores.shown('kid')}: {spread}   over 100 subsets of 1000{against}")
    if "precision" in values:
        pair = f"{values['precision']:.4f}   {scores.shown('recall')}: {values['recall']:.4f}"
        lines.append(f"{scores.shown('precision')}: {pair}   k = 3{against}")
    lines.append(made_with(scores))
    return lines


def _against(scores: Scores) -> str:
    reference = scores.facts["reference"]
    if reference is None:
        return ""
    theirs = reference["count"] or "unknown number of"
    return f" vs {reference['name']} ({theirs} images)"


def _score_line(scores: Scores) -> str:
    count, values, name = scores.facts["count"], scores.values, scores.shown("is")
    if "is_std" not in values:
        return (
            f"{name}: {values['is']:g}   {count} images at once; published scores use "
            f"{NUM_SPLITS} splits"
        )
    return (
        f"{name}: {values['is']:g} +- {values['is_std']:g}   over {NUM_SPLITS} splits of "
        f"{count} images, as published; {values['is_all']:g} over all at once"
    )


def made_with(scores: Scores) -> str:
    """One line: detector, weights, and for generated images seeds, sampler, calls and network."""
    facts, parts = scores.facts, _common(scores)
    if "network" in facts:
        parts += [f"network {facts['network']}", *_sampling(facts)]
    return "  made with " + ", ".join(parts)


def _sampling(facts: Mapping[str, Any]) -> list[str]:
    """How the images of a network were made."""
    steps = f"{facts['steps']} steps, {facts['calls']} calls"
    parts = [f"seeds {facts['seeds']}", f"sampler {facts['sampler']}", steps]
    precision = facts.get("settings", {}).get("precision", "fp32")
    return parts if precision == "fp32" else [*parts, precision]


def _common(scores: Scores) -> list[str]:
    """What several sets of images share."""
    detector, reference = scores.facts["detector"], scores.facts["reference"] or {}
    weights = detector["weights_sha256"][:HASH_DIGITS] or "none"
    parts = [f"detector {detector['name']}", f"weights {weights}"]
    if identity := reference.get("sha256") or reference.get("content_key"):
        parts.append(f"reference {identity[:HASH_DIGITS]}")
    return parts


def table_of(several: Sequence[Scores]) -> list[str]:
    """A table for people: a row for each set of images, a column for each number.

    The lines after it say what they share, and how the images of networks were made.
    """
    columns = [value for value in MAIN_VALUES if any(value in s.values for s in several)]
    first = several[0]
    head = ["", *(first.shown(value) for value in columns)]
    rows = [head] + [[s.what, *(_cell(s, value) for value in columns)] for s in several]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    lines.append(f"  {first.facts['count']} images each{_against(first)}")
    lines.append("  made with " + ", ".join(_common(first)))
    for scores in several:
        if "network" in scores.facts:
            lines.append(f"  {scores.facts['network']}: {', '.join(_sampling(scores.facts))}")
    return lines


def _cell(scores: Scores, value: str) -> str:
    if value not in scores.values:
        return "-"
    text = f"{scores.values[value]:.5g}"
    std = scores.values.get(f"{value}_std")
    return text if std is None else f"{text} +- {std:.2g}"


def write_json(path: str | None, content: Any) -> None:
    """Write strict JSON, whole or not at all, if there is a file to write.

    Raises:
        UserError: the file cannot be written.
    """
    if path is None:
        return
    with writing(path), replacing(path) as temporary:
        text = json.dumps(content, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def check_writable(*paths: str | None) -> None:
    """Check before the work that files can be written; None stands for no file.

    Raises:
        UserError: one cannot, or is a folder.
    """
    for path in paths:
        if path is None:
            continue
        if os.path.isdir(path):
            raise UserError(f"{path} is a folder: give a file")
        prepare_folder(os.path.dirname(os.path.abspath(path)))
