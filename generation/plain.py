"""The mode `generate`: an image for every seed, in a file of its own. Other modes write so, too."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import click
import torch

from generation.setup import Setup
from samplers.describe import grid_names, not_finite_line, png_text, summary
from samplers.generate import GeneratedBatch, generate
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


class Batches(Protocol):
    """Makes some of the images that were asked for."""

    def __call__(
        self, first: int, stop: int, within: Callable[[int, float], None]
    ) -> Iterable[GeneratedBatch]:
        """Make the images first <= i < stop, in order.

        Args:
            first, stop: positions in `Setup.requested`.
            within: to be told the size of the current batch and the share of it that is done.
        """


def generate_images(setup: Setup, *, grid: str | None) -> None:
    """Generate the images and write them. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        grid: also put all images into this PNG.
    """
    sampling = setup.sampling

    def batches(
        first: int, stop: int, within: Callable[[int, float], None]
    ) -> Iterable[GeneratedBatch]:
        return generate(
            sampling,
            [sample for sample, _ in setup.requested[first:stop]],
            source=setup.source,
            batch_size=setup.asked.batch,
            rng_device=setup.asked.rng_device,
            callback=lambda i, sigma, x, _: within(len(x), i / (len(sampling.sigmas) - 1)),
        )

    write_images(setup, batches, "generating", grid, _save_grid)


def write_images(
    setup: Setup,
    batches: Batches,
    doing: str,
    grid: str | None,
    draw_grid: Callable[[Setup, Images, str], int],
    lines: Callable[[], Sequence[str]] = lambda: (),
) -> None:
    """Write a file for each image that was asked for, and print what there is to say.

    Args:
        setup: opened and checked.
        batches: makes the images.
        doing: the words before the bar.
        grid: also draw this PNG.
        draw_grid: (setup, images, PNG) -> how many of them it has room for.
        lines: further lines to print; called by all processes when all images are made.

    Raises:
        UserError: the files cannot be written; nothing has been done.
        Failure: a file could not be written, or images are not finite.
    """
    asked, requested, sampling = setup.asked, setup.requested, setup.sampling
    outdir = asked.outdir
    paths = [picture_path(outdir, s.seed, name, subdirs=asked.subdirs) for s, name in requested]
    check_outputs(outdir, grid, sampling.denoiser.img_channels)
    setup.announce(check_room(outdir, paths, setup.image_shape, has_grid=grid is not None))

    world = setup.world
    first, stop = world.range_of(len(requested))
    progress = Progress(stop - first, doing, shown=world.is_main)
    with progress as bar, PictureWriter(outdir) as writer:
        made = batches(first, stop, bar.within)
        own_lost, classes = write_batches(made, paths[first:stop], writer, bar.update)
    is_lost = torch.zeros(len(requested), dtype=torch.int32)
    is_lost[[first + position for position in own_lost]] = 1
    counts = torch.bincount(torch.tensor(classes, dtype=torch.int64), minlength=setup.source.dim)
    world.meet()
    world.sum(counts)
    world.sum(is_lost)
    further = lines()
    if not world.is_main:
        return
    lost = is_lost.nonzero().flatten().tolist()
    if len(lost) < len(requested):
        if grid is not None:
            with failing(grid):
                shown = draw_grid(setup, PictureFiles(paths), grid)
            few = f", {shown:,} of {len(requested):,} images" if shown < len(requested) else ""
            click.echo(f"grid: {grid}{few}")
        if setup.source.dim and not sampling.ignores_labels:
            for line in summary(asked.words, setup.source, counts.tolist()):
                click.echo(line)
        for line in further:
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
