"""Text about generated images: names and PNG text of a grid, and the lines at the end."""

import math
import os
from collections.abc import Sequence

import yaml

from samplers.generate import some_seeds
from samplers.labels import LabelSource
from samplers.requests import LabelWords, Requests
from samplers.settings import GenerationSettings
from torch_utils.grid_layout import Names
from torch_utils.text import some

_MOST_SEEDS = 64  # columns of a grid with a seed above each


def grid_names(
    requested: Requests, words: LabelWords, names: Sequence[str], seeds: Sequence[int]
) -> Names:
    """What is printed on a grid of all images.

    With all classes, a row is a class and a column a seed. One label of all images that was asked
    for is the title. Drawn labels are not printed.

    Args:
        requested: what was generated, in order.
        words: the labels that were asked for.
        names: of the classes.
        seeds: of the images, or of those of each class.
    """
    if words.class_ is not None:
        starts = [sample for sample, _ in requested[:: len(seeds)]]
        numbers = [sample.class_index or 0 for sample in starts]
        rows = [names[number] if names else str(number) for number in numbers]
        if words.class_ != "each":
            number = str(numbers[0])
            return Names(title=f"class {number}" + (f": {rows[0]}" if rows[0] != number else ""))
        has_room = len(seeds) <= _MOST_SEEDS
        return Names(rows, numbers, [f"seed {seed}" for seed in seeds] if has_room else ())
    word = words.tags if words.tags is not None else words.label
    if word is None:
        return Names()
    return Names(title=", ".join(word.split(",")) or "no tags")


def summary(
    words: LabelWords,
    source: LabelSource,
    classes: Sequence[int],
) -> list[str]:
    """Lines on the labels of all images.

    Args:
        words: the labels that were asked for.
        source: what the model's labels are, and what they were drawn from.
        classes: number of images of each class.
    """
    if not source.is_class:
        what = "tags" if source.kind == "multi_hot" else "labels"
        if words.given:
            ((_, value),) = words.given
            return [f"{what}: {value or 'none'}"]
        if source.examples is None:
            return [f"{what}: none"]
        return [f"{what}: drawn from {len(source.examples):,} of the training set"]
    if not source.names:
        return []
    found = [f"{name} {num}" for name, num in zip(source.names, classes, strict=True) if num]
    return [f"classes: {some(found, 20)}"]


def png_text(
    settings: GenerationSettings, seeds: Sequence[int], snapshot: str | os.PathLike[str]
) -> dict[str, str]:
    """The text inside a grid's PNG, keyword -> text; `sampler` can be pasted into a recipe."""
    flat = yaml.safe_dump(
        settings.as_mapping(), default_flow_style=True, sort_keys=False, width=math.inf
    )
    return {
        "seeds": ranges(seeds),
        "sampler": flat.strip(),
        "snapshot": os.path.basename(snapshot),
    }


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as `--seeds` takes them: 0-3,7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def not_finite_line(requested: Requests, lost: Sequence[int]) -> str:
    """The error about images that are not finite, by their positions."""
    found = [requested[position] for position in lost]
    seeds = [f"{s.seed} (class {folder})" if folder else s.seed for s, folder in found]
    return (
        f"{len(lost)} of {len(requested)} images are not finite, of {some_seeds(seeds)}: nothing "
        "was written for them; the snapshot's weights or the sampler's settings are at fault"
    )
