"""What to generate: from seeds and the words for classes or tags to a list of samples."""

from collections.abc import Sequence

from samplers.classes import class_folders, class_number
from samplers.generate import Sample
from torch_utils.errors import UserError, unknown_name

Plan = list[tuple[Sample, str]]  # with the sub-folder of each image


def plan(
    seeds: Sequence[int],
    *,
    chosen: str | None,
    tags: str | None,
    label_dim: int,
    label_kind: str | None,
    label_names: Sequence[str] | None,
) -> Plan:
    """Every image and its sub-folder, in the order of generation.

    Args:
        seeds: one image each.
        chosen: the class, a number, a name or `each`; None to draw it from the seed.
        tags: comma-separated names of tags; a model with tags gets the null label without.
        label_dim, label_kind, label_names: of the model's labels.

    Raises:
        UserError: what was asked for is nothing that the model has.
    """
    if chosen is not None and tags is not None:
        raise UserError("--class and --tags exclude each other: give one of them")
    if label_kind == "multi_hot":
        if chosen is not None:
            raise UserError(f"--class={chosen} was given, but the model has tags: use --tags")
        label = _tag_label(tags or "", label_names or [])
        return [(Sample(seed, label=label), "") for seed in seeds]
    if tags is not None:
        raise UserError(f"--tags={tags} was given, but the model has no tags")
    if chosen is None:
        return [(Sample(seed), "") for seed in seeds]
    if label_dim == 0:
        raise UserError(f"--class={chosen} needs a conditional model; this one is unconditional")
    if chosen == "each":
        folders = class_folders(range(label_dim), label_names or []).items()
        return [(Sample(seed, index), folder) for index, folder in folders for seed in seeds]
    index = class_number(chosen, label_names or [], label_dim)
    return [(Sample(seed, index), "") for seed in seeds]


def _tag_label(tags: str, names: Sequence[str]) -> tuple[float, ...]:
    """The multi-hot label of some tags; none at all is the null label."""
    chosen = [tag for tag in tags.split(",") if tag]
    for tag in chosen:
        if tag not in names:
            raise unknown_name("tag", tag, names)
    return tuple(float(name in chosen) for name in names)
