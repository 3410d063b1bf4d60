"""The modes `encode` and `reconstruct`: from images to latents, and back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from generation.given_images import GivenImages, one_seed_each, open_images
from generation.pictures import sample_names
from generation.plain import Making, Within, write_images
from generation.setup import Setup
from samplers.describe import not_finite_line, png_text
from samplers.generate import GeneratedBatch, not_finite, solve, to_uint8
from samplers.inversion import check_upwards, rising
from samplers.inversion import encode as encode_batch
from samplers.outputs import check_folder, failing
from samplers.starts import Start, start_of
from torch_utils.errors import Failure
from torch_utils.files import prepare_folder, replacing
from torch_utils.grids import Images, save_grid
from torch_utils.progress import Progress

LATENTS = "latents.npz"
_COLUMNS = ("original", "reconstruction")
_PEAK = 255  # of a byte


def encode(setup: Setup, *, images: str) -> None:
    """Write the latents of images. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        images: source of the images.
    """
    setup, given = _opened(setup, images)
    check_folder(setup.asked.outdir)
    prepare_folder(setup.asked.outdir)
    setup.announce()
    world, requested = setup.world, setup.requested
    first, stop = world.range_of(len(requested))
    latents = torch.zeros(len(requested), *setup.image_shape)
    labels = torch.zeros(len(requested), setup.source.dim)
    progress = Progress(stop - first, "encoding", shown=world.is_main)
    with progress as bar:
        for start, _, own in _encoded(setup, given, range(first, stop), bar.within, 1.0):
            latents[own] = start.latents.float().cpu()
            if start.labels is not None:
                labels[own] = start.labels.float().cpu()
            bar.update(len(own))
    world.meet()
    world.sum(latents)
    world.sum(labels)
    if not world.is_main:
        return
    path = Path(setup.asked.outdir) / LATENTS
    places = range(len(requested))
    lost = not_finite(latents).nonzero().flatten().tolist()
    with failing(str(path)):
        if lost:
            path.unlink(missing_ok=True)
            raise Failure(not_finite_line(requested, lost))
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                latents=latents.numpy(),
                labels=labels.numpy(),
                seeds=np.array([sample.seed for sample, _ in requested]),
                names=np.array([given.source.where(given.index(i)) for i in places]),
            )
    click.echo(f"latents of {len(requested)} images in {path}")


def reconstruct(setup: Setup, *, images: str, grid: str | None) -> None:
    """Encode images and generate them from their latents. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        images: source of the images.
        grid: also draw this PNG: each image and its reconstruction.
    """
    setup, given = _opened(setup, images)
    num_down = len(setup.sampling.sigmas) - 1
    up = len(rising(setup.sampling)) - 1
    share = up / (up + num_down)  # of the way up in all steps
    errors = torch.full([len(setup.requested)], 0.0, dtype=torch.float64)

    def batches(places: Sequence[int], within: Within) -> Iterator[GeneratedBatch]:
        for start, originals, own in _encoded(setup, given, places, within, share):
            made = solve(
                setup.sampling,
                start,
                callback=lambda i, sigma, x, _: within(len(x), share + (1 - share) * i / num_down),
            )
            errors[own] = _squared_error(made, originals).cpu()
            indices = start.indices if setup.source.is_class else None
            yield GeneratedBatch(start.samples, made, indices)

    class Pairs:
        """Two pictures in a row for each image."""

        def __init__(self, results: Images) -> None:
            self._results = results

        def __len__(self) -> int:
            return 2 * len(self._results)

        def __getitem__(self, index: int, /) -> np.ndarray | None:
            row, column = divmod(index, 2)
            return self._results[row] if column else given.image(row)

    def draw(setup: Setup, results: Images, path: str) -> int:
        text = png_text(setup.settings, setup.asked.seeds, setup.network)
        rows = sample_names(setup, range(len(setup.requested)))
        pairs = Pairs(results)
        return save_grid(path, pairs, 2, row_names=rows, column_names=_COLUMNS, text=text) // 2

    def lines() -> list[str]:
        return [psnr_line(setup.world.sum(errors).tolist())]

    making = Making("reconstructing", batches, draw, lines, {"mode": "reconstruct"})
    write_images(setup, making, grid=grid)


def psnr_line(errors: Sequence[float]) -> str:
    """The line about peak signal-to-noise ratios.

    Args:
        errors: mean squared error of each image's bytes; nan for an image that is not finite.
    """
    known = [error for error in errors if not math.isnan(error)]
    ratios = [10 * math.log10(_PEAK**2 / error) for error in known if error > 0]
    num_equal = len(known) - len(ratios)
    if not ratios:
        return f"PSNR: infinite, all {num_equal} images are equal to the originals"
    mean = sum(ratios) / len(ratios)
    line = f"PSNR: mean {mean:.2f} dB, {min(ratios):.2f} to {max(ratios):.2f}"
    return line + (f"; infinite for {num_equal} of {len(known)}" if num_equal else "")


def _squared_error(made: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the bytes of each image, [N]; nan if it is not finite."""
    difference = to_uint8(made).double() - to_uint8(originals).double()
    return difference.square().flatten(1).mean(1).where(~not_finite(made), torch.nan)


def _opened(setup: Setup, path: str) -> tuple[Setup, GivenImages]:
    """The images, and the setup with a seed for each and with what is to be said."""
    warnings = check_upwards(setup.sampling)
    given, more = open_images(setup, path)
    setup, remarks = one_seed_each(setup, len(given.source), "image")
    given = replace(given, num_seeds=len(setup.asked.seeds))
    lowest = rising(setup.sampling)[0]
    remarks = [*setup.remarks, *remarks, f"images stand at noise level {lowest:.4g}"]
    warnings = [*setup.warnings, *warnings, *more]
    return replace(setup, remarks=remarks, warnings=warnings), given


def _encoded(
    setup: Setup,
    given: GivenImages,
    places: Sequence[int],
    within: Within,
    share: float,
) -> Iterator[tuple[Start, torch.Tensor, list[int]]]:
    """Encode the images of some positions batch by batch.

    Yields:
        A start with their latents, the images, and their positions.
    """
    sampling = setup.sampling
    num_steps = len(rising(sampling)) - 1
    for begin in range(0, len(places), setup.asked.batch):
        positions = list(places[begin : begin + setup.asked.batch])
        samples, originals = given.batch(setup, positions, sampling.dtype)
        start = start_of(sampling, samples, source=setup.source, rng_device=setup.asked.rng_device)
        latents = encode_batch(
            sampling,
            start,
            originals,
            callback=lambda i, sigma, x, _: within(len(x), share * i / num_steps),
        )
        yield replace(start, latents=latents), originals, positions
