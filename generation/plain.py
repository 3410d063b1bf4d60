"""The mode `generate`: an image for every seed, in a file of its own, or all in one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import click
import torch
from torch import Tensor

from generation.animation import Animation
from generation.frames import STATES
from generation.setup import Setup
from samplers.beginning import Begun, begun
from samplers.describe import grid_names, not_finite_line, png_text, summary
from samplers.destination import Destination, destination_of
from samplers.generate import GeneratedBatch, classes_of, generate
from samplers.outputs import (
    PictureWriter,
    check_outputs,
    failing,
    picture_name,
    write_batches,
)
from samplers.records import request_of
from samplers.requests import LabelWords
from torch_utils.errors import Failure, UserError
from torch_utils.grids import Images, save_grid, square_columns
from torch_utils.progress import Progress

_UNKNOWN = -1  # of a class


def generate_images(
    setup: Setup,
    *,
    grid: str | None,
    resume: bool | None,
    animate: str | None,
    frames: int | None,
    fps: float | None,
) -> None:
    """Generate the images and write them. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        grid: also put all images into this PNG.
        resume: make only the images that are missing.
        animate: also show in this WebP how all images come about.
        frames, fps: of the animation, and in a second of it; None for the defaults.
    """
    animation = None
    if animate is not None:
        if resume:
            raise UserError("--animate and --resume: it shows images while they are made; give one")
        animation = Animation(setup, STATES, animate, frames, fps)
    elif frames is not None or fps is not None:
        setup.warnings.append("--frames and --fps have no effect: there is no --animate")
    asked, sampling, world = setup.asked, setup.sampling, setup.world
    destination = destination_of(asked.outdir)
    names = [picture_name(s.seed, part, subdirs=asked.subdirs) for s, part in setup.requested]
    check_outputs(asked.outdir, grid, sampling.denoiser.img_channels)
    with begun(
        destination,
        names,
        setup.image_shape,
        lambda: request_of(
            sampling, asked.words, rng_device=asked.rng_device, subdirs=asked.subdirs
        ),
        world=world,
        resume=bool(resume),
        has_grid=grid is not None,
    ) as there:
        setup.announce(there.warnings)
        made = _make(setup, destination, names, there, animation)
        if world.is_main:
            if animation is not None:
                animation.write(made.lost)
            _finish(setup, destination, names, there, made, grid=grid, resume=bool(resume))


@dataclass(frozen=True)
class _Made:
    """What all processes together have made.

    Attributes:
        lost: positions of the images that are not finite.
        classes: of every image; _UNKNOWN if it is lost, or the model has no classes.
    """

    lost: list[int]
    classes: list[int]


def _make(
    setup: Setup,
    destination: Destination,
    names: Sequence[str],
    there: Begun,
    animation: Animation | None,
) -> _Made:
    """Make this process's share of the missing images, and learn of the others'."""
    asked, sampling, world = setup.asked, setup.sampling, setup.world
    samples = [sample for sample, _ in setup.requested]
    first, stop = world.range_of(len(there.missing))
    own = there.missing[first:stop]
    num_steps = len(sampling.sigmas) - 1
    progress = Progress(len(own), "generating", shown=world.is_main)
    with progress as bar, PictureWriter(destination, asked.batch) as writer:

        def callback(i: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
            bar.within(len(x), i / num_steps)
            if animation is not None:
                animation(i, sigma, x, denoised)

        batches = generate(
            sampling,
            [samples[position] for position in own],
            source=setup.source,
            batch_size=asked.batch,
            rng_device=asked.rng_device,
            callback=callback,
        )
        own_lost, own_classes = write_batches(
            _shown(batches, animation, first),
            [names[position] for position in own],
            writer,
            bar.update,
        )
    is_lost = torch.zeros(len(names), dtype=torch.int32)
    is_lost[[own[place] for place in own_lost]] = 1
    classes = torch.zeros(len(names), dtype=torch.int64)  # counted from 1, to be summed
    if own_classes:
        done = [position for position in own if not is_lost[position]]
        classes[done] = torch.tensor(own_classes) + 1
    kept = [position for position, is_there in enumerate(there.is_there) if is_there]
    first, stop = world.range_of(len(kept))
    if setup.source.dim and setup.source.is_class and kept[first:stop]:
        found = classes_of(
            sampling,
            [samples[position] for position in kept[first:stop]],
            source=setup.source,
            batch_size=asked.batch,
            rng_device=asked.rng_device,
        )
        classes[kept[first:stop]] = torch.tensor(found) + 1
    world.meet()
    world.sum(is_lost)
    world.sum(classes)
    if animation is not None:
        animation.collect()
    return _Made(is_lost.nonzero().flatten().tolist(), (classes - 1).tolist())


def _shown(
    batches: Iterable[GeneratedBatch], animation: Animation | None, first: int
) -> Iterator[GeneratedBatch]:
    """The batches, which the animation sees as well; the first one begins at this position."""
    for batch in batches:
        if animation is not None:
            animation.take(first, batch.images)
        first += len(batch.images)
        yield batch


def _finish(
    setup: Setup,
    destination: Destination,
    names: Sequence[str],
    there: Begun,
    made: _Made,
    *,
    grid: str | None,
    resume: bool,
) -> None:
    """Pack the images if they go into a file, draw the grid, and print; on the main process."""
    num = len(names) - len(made.lost)
    if destination.is_packed and any(destination.file(name).exists() for name in names):
        with Progress(num, "packing") as bar, failing(destination.outdir):
            destination.pack(
                names,
                setup.image_shape,
                there.request,
                keep_old=resume,
                classes=_known_classes(setup, names, made),
                class_names=setup.source.names if setup.source.is_class else (),
                advance=bar.update,
            )
        destination.remove_parts()
    if num:
        if grid is not None:
            with failing(grid):
                shown = _save_grid(setup, destination.images(names, setup.image_shape), grid)
            few = f", {shown:,} of {len(names):,} images" if shown < len(names) else ""
            click.echo(f"grid: {grid}{few}")
        if setup.source.dim and not setup.sampling.ignores_labels:
            counts = torch.bincount(torch.tensor(made.classes) + 1, minlength=setup.source.dim + 1)
            for line in summary(setup.asked.words, setup.source, counts[1:].tolist()):
                click.echo(line)
    kept = f" ({sum(there.is_there)} were there)" if resume else ""
    click.echo(f"{num} images in {destination.outdir}{kept}")
    if made.lost:
        raise Failure(not_finite_line(setup.requested, made.lost))


def _known_classes(setup: Setup, names: Sequence[str], made: _Made) -> dict[str, int]:
    """Class by name, if labels count."""
    if setup.sampling.ignores_labels:
        return {}
    pairs = zip(names, made.classes, strict=True)
    return {name: index for name, index in pairs if index != _UNKNOWN}


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
