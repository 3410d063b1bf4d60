"""The modes `denoise` and `progressive`: how each image comes about, as a strip of chosen steps.

A strip has the states of the solver or its estimates of the clean image, the first step and the
final image included. Only the chosen steps are kept, so memory does not grow with their number.
"""

from collections.abc import Iterator, Sequence

import click
import numpy as np
import torch
from torch import Tensor

from generation.animation import Animation
from generation.frames import ESTIMATES, STATES, Frames, View, chosen_steps, step_names
from generation.pictures import check_no_images, check_picture, rows_in_grid, sample_names
from generation.setup import Setup
from samplers.describe import not_finite_line, png_text
from samplers.generate import not_finite, solve
from samplers.outputs import check_folder, failing, picture_path
from samplers.starts import check_samples, start_of
from torch_utils.errors import Failure
from torch_utils.files import prepare_folder
from torch_utils.grids import save_grid
from torch_utils.progress import Progress

_FRAMES = 8  # of a strip


def denoise(
    setup: Setup, *, frames: int | None, grid: str | None, animate: str | None, fps: float | None
) -> None:
    """Show the states of the solver. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        frames: in a strip and in the animation; None for the default of each.
        grid: also put all strips into this PNG.
        animate: also put all images into this WebP, a grid a frame.
        fps: frames a second of the animation; None for the default.
    """
    _make(setup, _Plan(setup, STATES, frames, grid, animate, fps), fps)


def progressive(
    setup: Setup, *, frames: int | None, grid: str | None, animate: str | None, fps: float | None
) -> None:
    """Show the solver's estimates of the clean image; the rest is as in `denoise`."""
    _make(setup, _Plan(setup, ESTIMATES, frames, grid, animate, fps), fps)


class _Plan:
    """What is shown and where it goes, checked before the work.

    Attributes:
        steps: of the strips.
        num_rows: strips that the grid has room for; 0 without one.
        animation: None without one.
        paths: of the strips.
    """

    def __init__(
        self,
        setup: Setup,
        view: View,
        frames: int | None,
        grid: str | None,
        animate: str | None,
        fps: float | None,
    ) -> None:
        self.view, self.grid = view, grid
        asked, num = setup.asked, len(setup.requested)
        self.num_steps = len(setup.sampling.sigmas) - 1
        self.steps = chosen_steps(self.num_steps, frames, _FRAMES)
        self.paths = [
            picture_path(asked.outdir, sample.seed, name, subdirs=asked.subdirs)
            for sample, name in setup.requested
        ]
        check_folder(asked.outdir)
        check_no_images(self.paths)
        self.animation = None
        if animate is not None:
            self.animation = Animation(setup, view, animate, frames, fps)
        self.num_rows = 0
        if grid is not None:
            check_picture("--grid", grid)
            self.num_rows = rows_in_grid(num, len(self.steps), setup.image_shape)
        prepare_folder(asked.outdir)


def _make(setup: Setup, plan: _Plan, fps: float | None) -> None:
    """Generate, write the strips of this process's share, and on the main one the rest."""
    unread = "--fps has no effect: there is no --animate"
    setup.announce([unread] if fps is not None and plan.animation is None else [])
    requested, world = setup.requested, setup.world
    rows = torch.zeros((plan.num_rows, len(plan.steps), *setup.image_shape), dtype=torch.uint8)
    is_lost = torch.zeros(len(requested), dtype=torch.int32)
    for first, strips, lost in _batches(setup, plan):
        is_lost[first : first + len(lost)] = lost
        _write_strips(setup, plan, first, strips, lost)
        rows[first : first + len(strips)] = strips[: max(0, len(rows) - first)]
    world.meet()
    world.sum(rows)
    world.sum(is_lost)
    lines = [] if plan.animation is None else plan.animation.finish()
    if world.is_main:
        _finish(setup, plan, rows, is_lost.tolist(), lines)


def _batches(setup: Setup, plan: _Plan) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of this process's share: position of the first, [N, num_frames, C, H, W], which are lost."""
    asked, sampling, world = setup.asked, setup.sampling, setup.world
    samples = [sample for sample, _ in setup.requested]
    check_samples(samples, sampling.denoiser.label_dim, setup.source)
    frames = Frames(plan.view, plan.steps, plan.num_steps)
    begin, stop = world.range_of(len(samples))
    with Progress(stop - begin, "generating", shown=world.is_main) as bar:

        def callback(i: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
            frames(i, sigma, x, denoised)
            if plan.animation is not None:
                plan.animation(i, sigma, x, denoised)
            bar.within(len(x), i / plan.num_steps)

        for first in range(begin, stop, asked.batch):
            chunk = samples[first : min(stop, first + asked.batch)]
            start = start_of(sampling, chunk, source=setup.source, rng_device=asked.rng_device)
            images = solve(sampling, start, callback=callback)
            if plan.animation is not None:
                plan.animation.take(first, images)
            yield first, frames.take(images), not_finite(images).int().cpu()
            bar.update(len(chunk))


def _write_strips(setup: Setup, plan: _Plan, first: int, frames: Tensor, lost: Tensor) -> None:
    """Write a strip for each image of a batch; remove an old one where the image is lost."""
    names = step_names(plan.steps, setup.sampling.sigmas)
    titles = sample_names(setup, range(first, first + len(frames)))
    for place, strip in enumerate(frames.numpy()):
        path = plan.paths[first + place]
        seed = setup.requested[first + place][0].seed
        with failing(setup.asked.outdir):
            if lost[place]:
                path.unlink(missing_ok=True)
                continue
            text = png_text(setup.settings, [seed], setup.network)
            title = f"{titles[place]}: {plan.view.title}"
            save_grid(path, strip, len(names), column_names=names, title=title, text=text)


def _finish(
    setup: Setup, plan: _Plan, rows: Tensor, is_lost: list[int], lines: Sequence[str]
) -> None:
    """Write the grid, and say what there is, with lines on the animation."""
    requested, outdir = setup.requested, setup.asked.outdir
    lost = [position for position, bad in enumerate(is_lost) if bad]
    if plan.grid is not None and not all(is_lost[: plan.num_rows]):
        images = [
            None if bad else image
            for bad, strip in zip(is_lost, rows.numpy(), strict=False)
            for image in strip
        ]
        _save_grid(setup, plan, images)
    for line in lines:
        click.echo(line)
    num = len(requested) - len(lost)
    click.echo(f"{num} strip{'s' * (num != 1)} of {len(plan.steps)} frames in {outdir}")
    if lost:
        raise Failure(not_finite_line(requested, lost))


def _save_grid(setup: Setup, plan: _Plan, images: Sequence[np.ndarray | None]) -> None:
    """All strips in one picture, a row each."""
    assert plan.grid is not None
    num = len(setup.requested)
    with failing(plan.grid):
        shown = save_grid(
            plan.grid,
            images,
            len(plan.steps),
            row_names=sample_names(setup, range(plan.num_rows)),
            row_numbers=[sample.seed for sample, _ in setup.requested[: plan.num_rows]],
            column_names=step_names(plan.steps, setup.sampling.sigmas),
            title=plan.view.title,
            text=png_text(setup.settings, setup.asked.seeds, setup.network),
        )
    shown //= len(plan.steps)
    few = f", {shown:,} of {num:,} strips" if shown < num else ""
    click.echo(f"grid: {plan.grid}{few}")
