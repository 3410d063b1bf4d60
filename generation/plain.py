"""The mode `generate`: an image for every seed, in a file of its own."""

import click
import torch

from generation.setup import Setup
from samplers.describe import grid_names, not_finite_line, png_text, summary
from samplers.generate import generate
from samplers.outputs import (
    PictureWriter,
    check_outputs,
    check_room,
    failing,
    picture_path,
    write_batches,
)
from samplers.requests import LabelWords
from torch_utils.errors import Failure
from torch_utils.grids import Images, PictureFiles, save_grid, square_columns
from torch_utils.progress import Progress


def generate_images(setup: Setup, *, grid: str | None) -> None:
    """Generate the images and write them. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        grid: also put all images into this PNG.
    """
    asked, requested, sampling = setup.asked, setup.requested, setup.sampling
    outdir = asked.outdir
    paths = [picture_path(outdir, s.seed, name, subdirs=asked.subdirs) for s, name in requested]
    check_outputs(outdir, grid, sampling.denoiser.img_channels)
    setup.announce(check_room(outdir, paths, setup.image_shape, has_grid=grid is not None))

    world = setup.world
    first, stop = world.range_of(len(requested))
    progress = Progress(stop - first, "generating", shown=world.is_main)
    with progress as bar, PictureWriter(outdir) as writer:
        batches = generate(
            sampling,
            [sample for sample, _ in requested[first:stop]],
            source=setup.source,
            batch_size=asked.batch,
            rng_device=asked.rng_device,
            callback=lambda i, sigma, x, _: bar.within(len(x), i / (len(sampling.sigmas) - 1)),
        )
        own_lost, classes = write_batches(batches, paths[first:stop], writer, bar.update)
    is_lost = torch.zeros(len(requested), dtype=torch.int32)
    is_lost[[first + position for position in own_lost]] = 1
    counts = torch.bincount(torch.tensor(classes, dtype=torch.int64), minlength=setup.source.dim)
    world.meet()
    world.sum(counts)
    world.sum(is_lost)
    if not world.is_main:
        return
    lost = is_lost.nonzero().flatten().tolist()
    if len(lost) < len(requested):
        if grid is not None:
            with failing(grid):
                shown = _save_grid(setup, PictureFiles(paths), grid)
            few = f", {shown:,} of {len(requested):,} images" if shown < len(requested) else ""
            click.echo(f"grid: {grid}{few}")
        if setup.source.dim and not sampling.ignores_labels:
            for line in summary(asked.words, setup.source, counts.tolist()):
                click.echo(line)
    click.echo(f"{len(requested) - len(lost)} images in {outdir}")
    if lost:
        raise Failure(not_finite_line(requested, lost))


def _save_grid(setup: Setup, images: Images, path: str) -> int:
    """Write a grid of all images; returns how many it has room for."""
    asked, requested, sampling = setup.asked, setup.requested, setup.sampling
    is_each = asked.words.class_ == "each"
    in_a_row = square_columns(len(requested), sampling.denoiser.img_channels)
    said = LabelWords() if sampling.ignores_labels else asked.words
    names = grid_names(requested, said, setup.source.names, asked.seeds)
    return save_grid(
        path,
        images,
        len(asked.seeds) if is_each else in_a_row,
        row_names=names.rows,
        row_numbers=names.row_numbers,
        column_names=names.columns,
        title=names.title,
        text=png_text(setup.settings, asked.seeds, setup.network),
    )
