"""The mode `inpaint`: make the white pixels of a mask anew, and keep the others."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from diffusion.denoiser import device_of
from generation.given_images import open_images
from generation.masks import open_masks
from generation.pictures import sample_names
from generation.plain import Making, Within, write_images
from generation.setup import Setup
from samplers.describe import png_text
from samplers.generate import GeneratedBatch
from samplers.inpainting import RULES
from samplers.inpainting import inpaint as inpaint_batch
from samplers.starts import start_of
from torch_utils.devices import upload
from torch_utils.grids import Images, save_grid
from torch_utils.images import LINE

_COLUMNS = ("known", "original", "result")


def inpaint(
    setup: Setup, *, images: str, mask: str, known_noise: str | None, grid: str | None
) -> None:
    """Inpaint an image for every seed. A `generation.setup.Mode`.

    Args:
        setup: opened and checked.
        images: source of the images.
        mask: a picture, or a source of one for each image.
        known_noise: of `samplers.inpainting.RULES`; the first one by default.
        grid: also draw this PNG: known pixels, original and result of each image.
    """
    given, warnings = open_images(setup, images)
    is_known = open_masks(mask, setup.image_shape[1:])
    if is_known(0).all():
        warnings.append(f"the mask {mask} has no white pixel: nothing is made anew")
    setup.warnings.extend(warnings)
    sampling, device = setup.sampling, device_of(setup.sampling.denoiser)

    def batches(places: Sequence[int], within: Within) -> Iterator[GeneratedBatch]:
        for begin in range(0, len(places), setup.asked.batch):
            positions = places[begin : begin + setup.asked.batch]
            samples, originals = given.batch(setup, positions, sampling.dtype)
            start = start_of(
                sampling, samples, source=setup.source, rng_device=setup.asked.rng_device
            )
            masks = torch.from_numpy(np.stack([is_known(given.index(i)) for i in positions]))
            made = inpaint_batch(
                sampling,
                start,
                originals,
                upload(masks, device),
                rule=known_noise or RULES[0],
                callback=lambda i, sigma, x, _: within(len(x), i / (len(sampling.sigmas) - 1)),
            )
            yield GeneratedBatch(samples, made, start.indices if setup.source.is_class else None)

    class Triples:
        """Three pictures in a row for each image."""

        def __init__(self, results: Images) -> None:
            self._results = results

        def __len__(self) -> int:
            return 3 * len(self._results)

        def __getitem__(self, index: int, /) -> np.ndarray | None:
            row, column = divmod(index, 3)
            if column == 2:
                return self._results[row]
            original = given.image(row)
            if column == 1:
                return original
            return np.where(is_known(given.index(row)), original, np.uint8(LINE))

    def draw(setup: Setup, results: Images, path: str) -> int:
        shown = save_grid(
            path,
            Triples(results),
            3,
            row_names=sample_names(setup, range(len(setup.requested))),
            column_names=_COLUMNS,
            text=png_text(setup.settings, setup.asked.seeds, setup.network),
        )
        return shown // 3

    making = Making("inpainting", batches, draw, made_of={"mode": "inpaint"})
    write_images(setup, making, grid=grid)
