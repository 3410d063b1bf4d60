"""Animations of a sampler: all images together, a grid a frame."""

from collections.abc import Sequence

import numpy as np
import PIL.Image

from generation.setup import Setup
from samplers.describe import grid_names
from samplers.requests import LabelWords
from torch_utils.animations import save_animation
from torch_utils.grid_layout import Names
from torch_utils.grids import grid_picture, square_columns
from torch_utils.images import num_panels

DEFAULT_FRAMES, DEFAULT_FPS = 24, 8.0
_MOST_PIXELS = 2304**2  # of a frame: 81 images of 256x256, or 1,296 small ones
_LEAST_SIDE = 64  # pixels to which small images are enlarged
_MOST_SEEDS, _MOST_CLASSES = 64, 128  # of a grid with a row for each class


def num_animated(num_images: int, shape: tuple[int, int, int]) -> int:
    """How many images of shape (C, H, W) an animation has room for, of so many."""
    channels, height, width = shape
    cell = max(_LEAST_SIDE, width) * num_panels(channels) * max(_LEAST_SIDE, height)
    return min(num_images, max(1, _MOST_PIXELS // cell))


def write_animation(
    setup: Setup,
    path: str,
    images: Sequence[Sequence[np.ndarray | None]],
    steps: Sequence[int],
    fps: float | None,
) -> None:
    """Write the animation.

    Args:
        setup: what the images are.
        path: the WebP.
        images: of each frame, those of the first images that were requested, uint8 [C, H, W]; None
            for places that stay empty.
        steps: of the frames.
        fps: frames a second; None for the default.
    """
    num_columns, names = _layout(setup, len(images[0]))
    titles = [_title(names.title, step, setup.sampling.sigmas) for step in steps]

    def draw(frame: int, width: int = 0) -> PIL.Image.Image:
        return grid_picture(
            images[frame],
            num_columns,
            row_names=names.rows,
            row_numbers=names.row_numbers,
            column_names=names.columns,
            title=titles[frame],
            min_width=width,
        )

    pictures = [draw(frame) for frame in range(len(steps))]
    width = max(picture.width for picture in pictures)
    for frame, picture in enumerate(pictures):
        if picture.width < width:  # its title is shorter
            pictures[frame] = draw(frame, width)
    save_animation(path, pictures, fps=fps or DEFAULT_FPS)


def _layout(setup: Setup, num_images: int) -> tuple[int, Names]:
    """Images in a row, and names: if each class was asked for, it has a row if there is room."""
    asked, requested = setup.asked, setup.requested
    num_seeds, num_channels = len(asked.seeds), setup.image_shape[0]
    said = LabelWords() if setup.sampling.ignores_labels else asked.words
    if said.class_ == "each" or asked.words.class_ == "each":
        is_whole = num_images == len(requested)
        has_room = num_seeds <= _MOST_SEEDS and len(requested) // num_seeds <= _MOST_CLASSES
        if not (is_whole and has_room):
            return square_columns(num_images, num_channels), Names()
        return num_seeds, grid_names(requested, said, setup.source.names, asked.seeds)
    names = grid_names(requested, said, setup.source.names, asked.seeds)
    return square_columns(num_images, num_channels), names


def _title(label: str, step: int, sigmas: Sequence[float]) -> str:
    """The line above a frame. No two of a solver are equal, and so no two frames."""
    num_steps = len(sigmas) - 1
    what = f"noise level {sigmas[step]:.3g}" if step < num_steps else "image"
    return f"{f'{label}, ' if label else ''}step {step} of {num_steps}: {what}"
