"""The mode `interpolate`: images between those of neighbouring seeds, as strips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch

from generation.pictures import check_no_images, check_picture, class_name, rows_in_grid
from generation.setup import Setup
from samplers.describe import png_text
from samplers.generate import not_finite, solve, to_uint8
from samplers.interpolation import slerp
from samplers.outputs import check_folder, failing, picture_path
from samplers.starts import Sample, Start, check_samples, start_of
from torch_utils.devices import upload
from torch_utils.errors import Failure, UserError
from torch_utils.files import prepare_folder
from torch_utils.grids import save_grid
from torch_utils.progress import Progress
from torch_utils.text import some

DEFAULT_FRAMES = 8
Strip = list[np.ndarray | None]


@dataclass(frozen=True)
class Pair:
    """Two neighbouring seeds with the same folder.

    Attributes:
        a, b: the ends.
        path: the picture of the strip.
    """

    a: Sample
    b: Sample
    path: Path

    @property
    def name(self) -> str:
        """Both seeds."""
        return f"{self.a.seed}-{self.b.seed}"


def interpolate(setup: Setup, *, frames: int | None, grid: str | None) -> None:
    """Write a strip for each pair of neighbouring seeds. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        frames: images of a strip, both ends included.
        grid: also put all strips into this PNG.
    """
    num = frames or DEFAULT_FRAMES
    pairs, world = _pairs(setup), setup.world
    check_samples([sample for sample, _ in setup.requested], setup.source.dim, setup.source)
    check_folder(setup.asked.outdir)
    check_no_images([pair.path for pair in pairs])
    prepare_folder(setup.asked.outdir)
    if grid is not None:
        check_picture("--grid", grid)
    setup.announce(_cautions(setup))

    weights = [k / (num - 1) for k in range(num)]
    num_rows = rows_in_grid(len(pairs), num, setup.image_shape) if grid else 0
    kept = torch.zeros(num_rows, num, *setup.image_shape, dtype=torch.uint8)
    is_lost = torch.zeros(len(pairs), dtype=torch.int32)
    first, stop = world.range_of(len(pairs))
    progress = Progress((stop - first) * num, "interpolating", shown=world.is_main)
    with progress as bar:
        strips = _strips(setup, pairs[first:stop], weights, bar)
        for position, strip in enumerate(strips, first):
            whole = [image for image in strip if image is not None]
            if len(whole) < num:
                is_lost[position] = 1
                with failing(setup.asked.outdir):
                    pairs[position].path.unlink(missing_ok=True)
                continue
            _write_strip(setup, pairs[position], whole, weights)
            if position < num_rows:
                kept[position] = torch.from_numpy(np.stack(whole))
    world.meet()
    world.sum(is_lost)
    world.sum(kept)
    if not world.is_main:
        return
    lost = is_lost.nonzero().flatten().tolist()
    if grid is not None and not set(range(num_rows)) <= set(lost):
        _save_grid(setup, pairs, kept.numpy(), lost, weights, grid)
    click.echo(f"{len(pairs) - len(lost)} strips of {num} images in {setup.asked.outdir}")
    if lost:
        names = some([pairs[position].name for position in lost])
        raise Failure(
            f"{len(lost)} of {len(pairs)} strips have images that are not finite, of the seeds "
            f"{names}: nothing was written for them; the snapshot's weights or the sampler's "
            "settings are at fault"
        )


def _write_strip(
    setup: Setup, pair: Pair, images: Sequence[np.ndarray], weights: Sequence[float]
) -> None:
    names = [f"seed {pair.a.seed}", *_inner(weights), f"seed {pair.b.seed}"]
    text = png_text(setup.settings, [pair.a.seed, pair.b.seed], setup.network)
    with failing(setup.asked.outdir):
        save_grid(pair.path, images, len(images), column_names=names, text=text)


def _save_grid(
    setup: Setup,
    pairs: Sequence[Pair],
    strips: np.ndarray,
    lost: Sequence[int],
    weights: Sequence[float],
    path: str,
) -> None:
    """All strips in one picture, a row each."""
    num = len(weights)
    images = [
        None if position in lost else image
        for position, strip in enumerate(strips)
        for image in strip
    ]
    rows = [_row_name(setup, pair) for pair in pairs[: len(strips)]]
    text = png_text(setup.settings, setup.asked.seeds, setup.network)
    columns = ["0", *_inner(weights), "1"]
    with failing(path):
        shown = save_grid(path, images, num, row_names=rows, column_names=columns, text=text) // num
    few = f", {shown:,} of {len(pairs):,} strips" if shown < len(pairs) else ""
    click.echo(f"grid: {path}{few}")


def _inner(weights: Sequence[float]) -> list[str]:
    """Names of the columns between the ends."""
    return [f"{weight:.2g}" for weight in weights[1:-1]]


def _pairs(setup: Setup) -> list[Pair]:
    """Neighbours among the seeds, for each class if there is one strip for each."""
    asked, num = setup.asked, len(setup.asked.seeds)
    if num < 2:
        raise UserError("mode interpolate goes from one seed to the next: give --seeds=0,1 or more")
    pairs = []
    for begin in range(0, len(setup.requested), num):
        row = setup.requested[begin : begin + num]
        for (a, folder), (b, _) in pairwise(row):
            file = picture_path(asked.outdir, a.seed, folder, subdirs=asked.subdirs)
            pairs.append(Pair(a, b, file.with_name(f"{a.seed:06d}-{b.seed:06d}.png")))
    return pairs


def _row_name(setup: Setup, pair: Pair) -> str:
    """The class, if it was asked for, and both seeds."""
    index = None if setup.sampling.ignores_labels else pair.a.class_index
    return pair.name if index is None else f"{class_name(setup, index)}, {pair.name}"


def _cautions(setup: Setup) -> list[str]:
    settings = setup.settings
    if not settings.row.is_stochastic(settings.options):
        return []
    return [
        f"sampler {settings.name} draws noise with these options: all images of a strip have the "
        "noise of its first seed, so the last one is not that of its seed alone; a deterministic "
        "sampler such as heun or ddim has both ends right"
    ]


def _strips(
    setup: Setup, pairs: Sequence[Pair], weights: Sequence[float], bar: Progress
) -> Iterator[Strip]:
    """The images of each pair, uint8 [C, H, W], in order; None for one that is not finite."""
    sampling, num = setup.sampling, len(weights)
    places = [(pair, weight) for pair in pairs for weight in weights]
    waiting: Strip = []
    for begin in range(0, len(places), setup.asked.batch):
        chunk = places[begin : begin + setup.asked.batch]
        images = solve(
            sampling,
            _between(setup, chunk),
            callback=lambda i, sigma, x, _: bar.within(len(x), i / (len(sampling.sigmas) - 1)),
        )
        is_lost = not_finite(images).tolist()
        pictures = to_uint8(images).cpu().numpy()
        waiting += [None if bad else p for bad, p in zip(is_lost, pictures, strict=True)]
        bar.update(len(chunk))
        while len(waiting) >= num:
            yield waiting[:num]
            del waiting[:num]


def _between(setup: Setup, chunk: Sequence[tuple[Pair, float]]) -> Start:
    """Where the solver starts: latents on the arc, labels on the line, noise of the first seed."""
    source, rng_device = setup.source, setup.asked.rng_device
    a, b = (
        start_of(setup.sampling, samples, source=source, rng_device=rng_device)
        for samples in ([pair.a for pair, _ in chunk], [pair.b for pair, _ in chunk])
    )
    weights = upload(torch.tensor([weight for _, weight in chunk]).double(), a.latents.device)
    latents = slerp(a.latents, b.latents, weights)
    if a.labels is None or b.labels is None:
        return replace(a, latents=latents)
    labels = torch.lerp(a.labels, b.labels, weights.to(a.labels)[:, None])
    return replace(a, latents=latents, labels=labels)
