"""What to generate: from seeds and the words for labels to a list of samples."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from samplers.classes import class_folders, class_number
from samplers.generate import some_seeds
from samplers.labels import LabelSource, label_from_text, label_of_tags, labels_from_file
from samplers.starts import Sample
from torch_utils.errors import UserError
from torch_utils.text import some

Requests = list[tuple[Sample, str]]  # with the sub-folder of each image
_SEEDS = 1 << 32  # different seeds of a generator


def check_seeds(seeds: Sequence[int]) -> list[str]:
    """Find seeds that would give the same image.

    Returns:
        A warning if seeds are equal modulo 2^32: a generator ignores the rest of a seed.

    Raises:
        UserError: a seed is given twice: both images would be the same, in the same file.
    """
    twice = [seed for seed, count in Counter(seeds).items() if count > 1]
    if twice:
        raise UserError(f"--seeds names {some_seeds(twice)} more than once: give each once")
    first: dict[int, int] = {}
    pairs = [(first.setdefault(seed % _SEEDS, seed), seed) for seed in seeds]
    alike = [f"{one} and {other}" for one, other in pairs if one != other]
    if not alike:
        return []
    return [f"seeds equal modulo 2^32 give equal images: {some(alike, 5)}"]


@dataclass(frozen=True)
class LabelWords:
    """The label options of a command line. At most one is given; without it, labels are drawn.

    Attributes:
        class_: a number, a name or `each`.
        tags: comma-separated names of tags; may be empty.
        label: comma-separated numbers, one label for all images.
        labels: a .npy file of labels, one a seed.
    """

    class_: str | None = None
    tags: str | None = None
    label: str | None = None
    labels: str | None = None

    @property
    def given(self) -> list[tuple[str, str]]:
        """Option and value of what is given."""
        options = {"--class": self.class_, "--tags": self.tags}
        options |= {"--label": self.label, "--labels": self.labels}
        return [(option, value) for option, value in options.items() if value is not None]


def requests(
    seeds: Sequence[int],
    words: LabelWords,
    source: LabelSource,
) -> Requests:
    """Every image and its sub-folder, in the order of generation.

    Args:
        seeds: one image each.
        words: the labels that were asked for.
        source: what the model's labels are, and what they are drawn from.

    Raises:
        UserError: more than one option is given, the model has no such label, or no option is given
            and the snapshot has no examples to draw labels from.
    """
    if len(words.given) > 1:
        options = " and ".join(option for option, _ in words.given)
        raise UserError(f"{options} exclude each other: give one of them")
    if not source.is_class:
        rows = _rows(len(seeds), words, source)
        return [(Sample(seed, label=row), "") for seed, row in zip(seeds, rows, strict=True)]
    for option, value in words.given:
        if option != "--class":
            what = "tags" if option == "--tags" else "label vectors"
            raise UserError(f"{option}={value} was given, but the model has no {what}")
    chosen = words.class_
    if chosen is None:
        return [(Sample(seed), "") for seed in seeds]
    if source.dim == 0:
        raise UserError(f"--class={chosen} needs a conditional model; this one is unconditional")
    if chosen == "each":
        folders = class_folders(source.present, source.names).items()
        return [(Sample(seed, index), folder) for index, folder in folders for seed in seeds]
    index = class_number(chosen, source.names, source.dim, words=["each"])
    if index not in source.present:
        raise UserError(f"--class={chosen}: no training image has it: the model never learned it")
    return [(Sample(seed, index), "") for seed in seeds]


def _rows(
    num: int,
    words: LabelWords,
    source: LabelSource,
) -> Iterable[Sequence[float] | np.ndarray | None]:
    """The label of every image of a model whose labels are tags or vectors; None to draw it."""
    has_tags = source.kind == "multi_hot"
    if words.class_ is not None:
        what, use = ("tags", "--tags") if has_tags else ("label vectors", "--label or --labels")
        raise UserError(f"--class={words.class_} was given, but the model has {what}: use {use}")
    if words.labels is not None:
        return labels_from_file(words.labels, num, source.dim)
    if words.label is not None:
        return [label_from_text(words.label, source.dim)] * num
    if words.tags is not None:
        if not has_tags:
            raise UserError(f"--tags={words.tags} was given, but the model has no tags")
        tags = [tag for tag in words.tags.split(",") if tag]
        return [label_of_tags(tags, source.names)] * num
    if source.examples is not None:
        return [None] * num
    if has_tags:
        return [(0.0,) * source.dim] * num
    raise UserError(
        "the snapshot has no examples of its labels to draw from: give --label or --labels"
    )
