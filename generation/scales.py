"""The mode `scales`: one picture of every class, or every pair of tags, at several guidance scales.

All cells of a row are of one seed and one label, so the columns differ by the scale alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import click
import torch
from torch import Tensor

from generation.pictures import class_name, rows_in_grid
from generation.setup import Setup
from samplers.describe import png_text
from samplers.generate import generate, not_finite, some_seeds, to_uint8
from samplers.labels import label_of_tags
from samplers.outputs import check_folder, failing
from samplers.requests import LabelWords, requests
from samplers.sampling import Sampling
from samplers.starts import Sample
from torch_utils.errors import Failure, UserError
from torch_utils.files import prepare_folder
from torch_utils.grids import save_grid
from torch_utils.progress import Progress
from torch_utils.text import some

TagGroups = tuple[tuple[str, ...], tuple[str, ...]]
Row = tuple[Sample, str]  # with the name of its label, if it has one


def compare_scales(setup: Setup, *, scales: Sequence[float], tag_groups: TagGroups | None) -> None:
    """Generate rows of one label each and columns of one scale each. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        scales: guidance scales.
        tag_groups: of the rows, for a model of tags; None for every class, or what was asked for.
    """
    asked, sampling, world = setup.asked, setup.sampling, setup.world
    if sampling.guide is None and sampling.denoiser.label_dim == 0:
        raise UserError(
            "mode scales needs a model with labels; this one is unconditional: give a "
            "--guidance-network"
        )
    some_scale = next((scale for scale in scales if scale != 0), 0.0)  # labels count at those
    setup = replace(setup, sampling=_at_scale(sampling, some_scale))
    rows = _rows(setup, tag_groups)
    num = rows_in_grid(len(rows), len(scales), setup.image_shape)
    rows, num_all = rows[:num], len(rows)
    path = Path(asked.outdir) / "scales.png"
    check_folder(asked.outdir)
    prepare_folder(asked.outdir)
    setup.announce()

    cells = torch.zeros((num, len(scales), *setup.image_shape), dtype=torch.uint8)
    is_lost = torch.zeros((num, len(scales)), dtype=torch.int32)
    first, stop = world.range_of(num)
    samples = [sample for sample, _ in rows[first:stop]]
    total = len(samples) * len(scales)
    with Progress(total, "generating", shown=world.is_main) as bar:
        for column, scale in enumerate(scales):
            position = first
            for images in _images(setup, _at_scale(sampling, scale), samples, bar):
                place = slice(position, position + len(images))
                cells[place, column] = to_uint8(images).cpu()
                is_lost[place, column] = not_finite(images).int().cpu()
                position += len(images)
    world.meet()
    world.sum(cells)
    world.sum(is_lost)
    if world.is_main:
        _finish(setup, path, rows, scales, cells, is_lost)
        if num < num_all:
            click.echo(f"the first {num:,} of {num_all:,} rows: a picture has no room for more")
        _report_lost(rows, scales, is_lost)


def _rows(setup: Setup, tag_groups: TagGroups | None) -> list[Row]:
    """What stands in the rows: every label with every seed."""
    asked, source = setup.asked, setup.source
    if tag_groups is not None:
        if source.kind != "multi_hot":
            raise UserError("--tag-groups was given, but the model has no tags")
        if asked.words.given:
            option, _ = asked.words.given[0]
            raise UserError(f"--tag-groups and {option} exclude each other: give one of them")
        return [
            (Sample(seed, label=label_of_tags(tags, source.names)), ", ".join(tags) or "no tags")
            for pair in product(*tag_groups)
            for tags in [[tag for tag in pair if tag]]
            for seed in asked.seeds
        ]
    requested = setup.requested
    if source.is_class and source.dim and not asked.words.given:
        requested = requests(asked.seeds, LabelWords(class_="each"), source)
    word = asked.words.tags if asked.words.tags is not None else asked.words.label
    name = "" if word is None else ", ".join(word.split(",")) or "no tags"
    return [
        (sample, name if sample.class_index is None else class_name(setup, sample.class_index))
        for sample, _ in requested
    ]


def _at_scale(sampling: Sampling, scale: float) -> Sampling:
    guidance = sampling.settings.guidance
    assert guidance is not None
    guidance = guidance.model_copy(update={"scale": scale})
    return replace(sampling, settings=sampling.settings.model_copy(update={"guidance": guidance}))


def _images(
    setup: Setup, sampling: Sampling, samples: Sequence[Sample], bar: Progress
) -> Iterator[Tensor]:
    """The images of one column, [N, C, H, W] at a time."""
    num_steps = len(sampling.sigmas) - 1
    batches = generate(
        sampling,
        samples,
        source=setup.source,
        batch_size=setup.asked.batch,
        rng_device=setup.asked.rng_device,
        callback=lambda i, sigma, x, _: bar.within(len(x), i / num_steps),
    )
    for batch in batches:
        yield batch.images
        bar.update(len(batch.images))


def _row_names(rows: Sequence[Row], has_seeds: bool) -> list[str]:
    named = [(name, f"seed {sample.seed}") for sample, name in rows]
    return [f"{name}, {seed}" if name and has_seeds else name or seed for name, seed in named]


def _finish(
    setup: Setup,
    path: Path,
    rows: Sequence[Row],
    scales: Sequence[float],
    cells: Tensor,
    is_lost: Tensor,
) -> None:
    """Write the picture, unless all images are lost."""
    if bool(is_lost.all()):
        return
    seeds = setup.asked.seeds
    names = _row_names(rows, has_seeds=len(seeds) > 1)
    images = [
        None if bad else image
        for bad, image in zip(is_lost.flatten().tolist(), cells.flatten(0, 1).numpy(), strict=True)
    ]
    title = f"guidance scales, {some_seeds(seeds)}"
    text = png_text(setup.settings, seeds, setup.network)
    text["scales"] = ",".join(f"{scale:g}" for scale in scales)
    with failing(str(path)):
        save_grid(
            path,
            images,
            len(scales),
            row_names=names,
            column_names=[f"{scale:g}" for scale in scales],
            title=title,
            text=text,
        )
    click.echo(f"{len(rows)} rows at {len(scales)} guidance scales: {path}")


def _report_lost(rows: Sequence[Row], scales: Sequence[float], is_lost: Tensor) -> None:
    lost = is_lost.nonzero().tolist()
    if lost:
        names = _row_names(rows, has_seeds=True)
        found = [f"{names[row]} at scale {scales[column]:g}" for row, column in lost]
        raise Failure(
            f"{len(lost)} of {is_lost.numel()} images are not finite ({some(found, 3)}): their "
            "places are empty; the snapshot's weights or the sampler's settings are at fault"
        )
