"""What to generate: from seeds and the words for labels to a list of samples."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from samplers.classes import class_folders, class_number
from samplers.generate import Sample, some_seeds
from samplers.labels import LabelSource, label_from_text, labels_from_file
from torch_utils.errors import UserError, unknown_name

Plan = list[tuple[Sample, str]]  # with the sub-folder of each image
_SEEDS = 1 << 32  # different seeds of a generator


def check_seeds(seeds: Sequence[int]) -> list[str]:
    """Find seeds that would give the same image.

    Returns:
        A warning if seeds are equal modulo 2^32, which is all that a generator takes of them.

    Raises:
        UserError: a seed twice: both images would be the same, in the same file.
    """
    twice = [seed for seed, count in Counter(seeds).items() if count > 1]
    if twice:
        raise UserError(f"--seeds names {some_seeds(twice)} more than once: give each once")
    first: dict[int, int] = {}
    pairs = [(first.setdefault(seed % _SEEDS, seed), seed) for seed in seeds]
    alike = [f"{one} and {other}" for one, other in pairs if one != other]
    if not alike:
        return []
    more = ", ..." if len(alike) > 5 else ""
    return [f"seeds equal modulo 2^32 give equal images: {', '.join(alike[:5])}{more}"]


@dataclass(frozen=True)
class Wish:
    """The words for labels on a command line; at most one is given, without any they are drawn.

    Attributes:
        class_: a number, a name or `each`.
        tags: comma-separated names of tags, of which there may be none.
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


def plan(
    seeds: Sequence[int],
    wish: Wish,
    source: LabelSource,
    *,
    label_kind: str | None,
    label_names: Sequence[str] | None,
) -> Plan:
    """Every image and its sub-folder, in the order of generation.

    Args:
        seeds: one image each.
        wish: what was asked for.
        source: what labels are drawn from.
        label_kind, label_names: of the model's labels.

    Raises:
        UserError: what was asked for is nothing that the model has, or nothing was asked for and
            there is nothing to draw from.
    """
    if len(wish.given) > 1:
        options = " and ".join(option for option, _ in wish.given)
        raise UserError(f"{options} exclude each other: give one of them")
    if not source.is_class:
        rows = _rows(len(seeds), wish, source, label_kind, label_names or [])
        return [(Sample(seed, label=row), "") for seed, row in zip(seeds, rows, strict=True)]
    for option, value in wish.given:
        if option != "--class":
            what = "tags" if option == "--tags" else "label vectors"
            raise UserError(f"{option}={value} was given, but the model has no {what}")
    chosen = wish.class_
    if chosen is None:
        return [(Sample(seed), "") for seed in seeds]
    if source.dim == 0:
        raise UserError(f"--class={chosen} needs a conditional model; this one is unconditional")
    if chosen == "each":
        folders = class_folders(source.present, label_names or []).items()
        return [(Sample(seed, index), folder) for index, folder in folders for seed in seeds]
    index = class_number(chosen, label_names or [], source.dim, words=["each"])
    if index not in source.present:
        raise UserError(f"--class={chosen}: no training image is of it, so nothing was learned")
    return [(Sample(seed, index), "") for seed in seeds]


def _rows(
    num: int,
    wish: Wish,
    source: LabelSource,
    label_kind: str | None,
    names: Sequence[str],
) -> Iterable[Sequence[float] | np.ndarray | None]:
    """The label of every image of a model whose labels are tags or vectors; None to draw it."""
    has_tags = label_kind == "multi_hot"
    if wish.class_ is not None:
        what, use = ("tags", "--tags") if has_tags else ("label vectors", "--label or --labels")
        raise UserError(f"--class={wish.class_} was given, but the model has {what}: use {use}")
    if wish.labels is not None:
        return labels_from_file(wish.labels, num, source.dim)
    if wish.label is not None:
        return [label_from_text(wish.label, source.dim)] * num
    if wish.tags is not None:
        if not has_tags:
            raise UserError(f"--tags={wish.tags} was given, but the model has no tags")
        return [_tag_label(wish.tags, names)] * num
    if source.examples is not None:
        return [None] * num
    if has_tags:
        return [(0.0,) * source.dim] * num
    raise UserError(
        "the snapshot has no examples of its labels to draw from: give --label or --labels"
    )


def _tag_label(tags: str, names: Sequence[str]) -> tuple[float, ...]:
    """The multi-hot label of some tags; none at all is the null label."""
    chosen = [tag for tag in tags.split(",") if tag]
    for tag in chosen:
        if tag not in names:
            raise unknown_name("tag", tag, names)
    return tuple(float(name in chosen) for name in names)
