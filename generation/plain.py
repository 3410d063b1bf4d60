"""The mode `generate`: an image for every seed, in a file of its own, or all in one.

Other modes that make an image for every seed write it here, too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import click
import torch
from torch import Tensor

from generation.animation import Animation
from generation.frames import STATES
from generation.setup import Setup
from samplers.beginning import Begun, begun
from samplers.describe import grid_names, not_finite_line, png_text, summary
from samplers.destination import Destination, destination_of
from samplers.generate import GeneratedBatch, generate
from samplers.outputs import (
    PictureWriter,
    check_outputs,
    failing,
    picture_name,
    write_batches,
)
from samplers.records import request_of
from samplers.requests import LabelWords
from samplers.starts import classes_of
from torch_utils.errors import Failure, UserError
from torch_utils.grids import Images, save_grid, square_columns
from torch_utils.progress import Progress

_UNKNOWN = -1  # of a class
Within = Callable[[int, float], None]  # (images of the batch, share of them that is done)


@dataclass(frozen=True)
class Making:
    """How a mode makes an image for every seed.

    Attributes:
        doing: the words before the bar.
        batches: (positions in `Setup.requested`, whom to tell of progress) -> their images.
        draw_grid: (setup, images, PNG) -> how many images it has room for.
        lines: further lines to print; called by all processes when all images are made.
        made_of: what the images depend on beside seeds, labels and settings.
    """

    doing: str
    batches: Callable[[Sequence[int], Within], Iterable[GeneratedBatch]]
    draw_grid: Callable[[Setup, Images, str], int]
    lines: Callable[[], Sequence[str]] = lambda: ()
    made_of: Mapping[str, str] = field(default_factory=dict)


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
    asked, sampling = setup.asked, setup.sampling
    num_steps, animation = len(sampling.sigmas) - 1, None
    if animate is not None:
        if resume:
            raise UserError("--animate and --resume: it shows images while they are made; give one")
        animation = Animation(setup, STATES, animate, frames, fps)
    elif frames is not None or fps is not None:
        setup.warnings.append("--frames and --fps have no effect: there is no --animate")

    def batches(positions: Sequence[int], within: Within) -> Iterator[GeneratedBatch]:
        def callback(i: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
            within(len(x), i / num_steps)
            if animation is not None:
                animation(i, sigma, x, denoised)

        done = 0
        for batch in generate(
            sampling,
            [setup.requested[position][0] for position in positions],
            source=setup.source,
            batch_size=asked.batch,
            rng_device=asked.rng_device,
            callback=callback,
        ):
            if animation is not None:
                animation.take(positions[done], batch.images)
            done += len(batch.images)
            yield batch

    lines = (lambda: ()) if animation is None else animation.finish
    making = Making("generating", batches, save_image_grid, lines)
    write_images(setup, making, grid=grid, resume=bool(resume))


def write_images(setup: Setup, making: Making, *, grid: str | None, resume: bool = False) -> None:
    """Make and write an image for every seed, and print what there is to say.

    Args:
        setup: opened and checked.
        making: how.
        grid: also put all images into this PNG.
        resume: make only the images that are missing.

    Raises:
        UserError: the images cannot be written there; nothing has been done.
        Failure: one could not be written, or is not finite.
    """
    asked, sampling, world = setup.asked, setup.sampling, setup.world
    destination = destination_of(asked.outdir)
    names = [picture_name(s.seed, part, subdirs=asked.subdirs) for s, part in setup.requested]
    check_outputs(asked.outdir, grid, sampling.denoiser.img_channels)
    with begun(
        destination,
        names,
        setup.image_shape,
        lambda: {
            **request_of(sampling, asked.words, rng_device=asked.rng_device, subdirs=asked.subdirs),
            **making.made_of,
        },
        world=world,
        resume=resume,
        has_grid=grid is not None,
    ) as there:
        setup.announce(there.warnings)
        made = _make(setup, making, destination, names, there)
        if world.is_main:
            _finish(setup, making, destination, names, there, made, grid=grid, resume=resume)


@dataclass(frozen=True)
class _Made:
    """What all processes together have made.

    Attributes:
        lost: positions of the images that are not finite.
        classes: of every image; _UNKNOWN if it is lost, or the model has no classes.
        lines: further lines to print.
    """

    lost: list[int]
    classes: list[int]
    lines: Sequence[str]


def _make(
    setup: Setup, making: Making, destination: Destination, names: Sequence[str], there: Begun
) -> _Made:
    """Make this process's share of the missing images, and learn of the others'."""
    asked, sampling, world = setup.asked, setup.sampling, setup.world
    samples = [sample for sample, _ in setup.requested]
    first, stop = world.range_of(len(there.missing))
    own = there.missing[first:stop]
    progress = Progress(len(own), making.doing, shown=world.is_main)
    with progress as bar, PictureWriter(destination, asked.batch) as writer:
        own_lost, own_classes = write_batches(
            making.batches(own, bar.within),
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
    has_classes = setup.source.dim and setup.source.is_class and not sampling.ignores_labels
    if has_classes and kept[first:stop]:
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
    lost = is_lost.nonzero().flatten().tolist()
    return _Made(lost, (classes - 1).tolist(), making.lines())


def _finish(
    setup: Setup,
    making: Making,
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
                shown = making.draw_grid(setup, destination.images(names, setup.image_shape), grid)
            few = f", {shown:,} of {len(names):,} images" if shown < len(names) else ""
            click.echo(f"grid: {grid}{few}")
        if setup.source.dim and not setup.sampling.ignores_labels:
            counts = torch.bincount(torch.tensor(made.classes) + 1, minlength=setup.source.dim + 1)
            for line in summary(setup.asked.words, setup.source, counts[1:].tolist()):
                click.echo(line)
        for line in made.lines:
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


def save_image_grid(setup: Setup, images: Images, path: str) -> int:
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
