"""The mode `decode`: images from the latents that mode encode has written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from generation.given_images import one_seed_each
from generation.plain import Making, Within, save_image_grid, write_images
from generation.setup import Setup
from samplers.generate import GeneratedBatch, solve
from samplers.starts import Sample, check_samples, start_of
from torch_utils.devices import upload
from torch_utils.errors import UserError
from torch_utils.npys import read_npz
from torch_utils.zips import BAD_ZIP

_MAX_BYTES = 2**36


@dataclass(frozen=True)
class _Latents:
    """What a file holds.

    Attributes:
        values: float32 [N, C, H, W].
        labels: float32 [N, label_dim]; None if those of the file are not used.
    """

    values: np.ndarray
    labels: np.ndarray | None


def decode(setup: Setup, *, latents: str, grid: str | None) -> None:
    """Run the sampler from given latents. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        latents: an .npz of `latents` and, of a conditional model, `labels`; seed number i has
            row i.
        grid: also put all images into this PNG.
    """
    given = _read(setup, latents)
    setup, remarks = one_seed_each(setup, len(given.values), "latent")
    num = len(setup.asked.seeds)
    setup = replace(setup, remarks=[*setup.remarks, *remarks])
    sampling = setup.sampling

    def sample(position: int) -> Sample:
        asked = setup.requested[position][0]
        if given.labels is None:
            return asked
        row = given.labels[position % num]
        if setup.source.is_class:
            return replace(asked, class_index=int(row.argmax()))
        return replace(asked, label=row)

    def batches(places: Sequence[int], within: Within) -> Iterator[GeneratedBatch]:
        for begin in range(0, len(places), setup.asked.batch):
            positions = places[begin : begin + setup.asked.batch]
            samples = [sample(position) for position in positions]
            check_samples(samples, setup.source.dim, setup.source)
            start = start_of(
                sampling, samples, source=setup.source, rng_device=setup.asked.rng_device
            )
            rows: Tensor = torch.from_numpy(given.values[[i % num for i in positions]])
            rows = upload(rows, start.latents.device).to(sampling.dtype)
            made = solve(
                sampling,
                replace(start, latents=rows),
                callback=lambda i, sigma, x, _: within(len(x), i / (len(sampling.sigmas) - 1)),
            )
            yield GeneratedBatch(samples, made, start.indices if setup.source.is_class else None)

    making = Making("decoding", batches, save_image_grid, made_of={"mode": "decode"})
    write_images(setup, making, grid=grid)


def _read(setup: Setup, path: str) -> _Latents:
    """Read a file of latents.

    Raises:
        UserError: it cannot be read, or does not fit the model.
    """
    try:
        arrays = read_npz(path, ("latents", "labels"), _MAX_BYTES)
    except UserError:
        raise
    except (OSError, *BAD_ZIP, TypeError) as error:
        raise UserError(
            f"--latents={path} cannot be read as an .npz of mode encode: {error}"
        ) from error
    values = arrays.get("latents")
    shape = setup.image_shape
    if values is None or values.ndim != 4 or values.dtype.kind != "f" or not len(values):
        raise UserError(f"--latents={path} has no array `latents` of numbers [N, C, H, W]")
    if values.shape[1:] != shape:
        raise UserError(
            f"--latents={path} has latents of shape {values.shape[1:]}, the model's images have "
            f"{shape}"
        )
    if not np.isfinite(values).all():
        raise UserError(f"--latents={path} has values that are not finite")
    labels, dim = arrays.get("labels"), setup.source.dim
    if setup.asked.words.given or not dim or labels is None:
        return _Latents(values.astype(np.float32), None)
    if labels.shape != (len(values), dim) or not np.isfinite(labels).all():
        raise UserError(
            f"--latents={path} has labels of shape {labels.shape}, {len(values)} latents of this "
            f"model have ({len(values)}, {dim}): choose labels by an option such as --class"
        )
    return _Latents(values.astype(np.float32), labels.astype(np.float32))
