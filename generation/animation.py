"""Animations of a sampler: all images together, a grid a frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from generation.frames import Frames, View, chosen_steps
from generation.setup import Setup
from samplers.describe import grid_names
from samplers.generate import not_finite
from samplers.outputs import failing
from samplers.requests import LabelWords
from torch_utils.animations import check_animation, save_animation
from torch_utils.files import prepare_folder
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


class Animation:
    """Keeps what is shown of the images while they are made, then writes it; a callback of solvers.

    Args:
        setup: what the images are.
        view: what is shown of a step.
        path: the WebP.
        num_frames: how many; None for the default.
        fps: frames a second; None for the default.

    Raises:
        UserError: the file cannot be written, or there are not so many steps.
    """

    def __init__(
        self, setup: Setup, view: View, path: str, num_frames: int | None, fps: float | None
    ) -> None:
        check_animation(path)
        num_steps = len(setup.sampling.sigmas) - 1
        self.steps = chosen_steps(num_steps, num_frames, DEFAULT_FRAMES)
        prepare_folder(Path(path).parent)
        self._setup, self._path, self._fps = setup, path, fps or DEFAULT_FPS
        self._frames = Frames(view, self.steps, num_steps)
        num_shown = num_animated(len(setup.requested), setup.image_shape)
        shape = num_shown, len(self.steps), *setup.image_shape
        self._shown = torch.zeros(shape, dtype=torch.uint8)
        self._is_lost = torch.zeros(num_shown, dtype=torch.int32)

    def __call__(self, i: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        """Keep a step if it is chosen."""
        self._frames(i, sigma, x, denoised)

    def take(self, first: int, images: Tensor) -> None:
        """End a batch; `first` is the position of its first image among the requested ones."""
        frames, room = self._frames.take(images), max(0, len(self._shown) - first)
        self._shown[first : first + len(frames)] = frames[:room]
        self._is_lost[first : first + len(frames)] = not_finite(images).int().cpu()[:room]

    def finish(self) -> list[str]:
        """Write the file, unless no image is in it; on all processes, which have met.

        The places of images that are not finite stay empty.

        Returns:
            A line on it for the main process, which has written it.
        """
        world = self._setup.world
        world.sum(self._shown)
        is_lost = world.sum(self._is_lost).tolist()
        if not world.is_main or all(is_lost):
            return []
        images = [
            [None if bad else image for bad, image in zip(is_lost, frame, strict=True)]
            for frame in self._shown.transpose(0, 1).numpy()
        ]
        with failing(self._path):
            save_animation(self._path, _pictures(self._setup, images, self.steps), fps=self._fps)
        num_shown, num = len(is_lost), len(self._setup.requested)
        few = f", {num_shown:,} of {num:,} images" if num_shown < num else ""
        return [f"animation: {self._path}, {len(images)} frames{few}"]


def _pictures(
    setup: Setup, images: Sequence[Sequence[np.ndarray | None]], steps: Sequence[int]
) -> list[PIL.Image.Image]:
    """The frames, all of one size."""
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
    return pictures


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
