"""Animated pictures: WebP without loss, so that every frame is shown as it was drawn.

Only Pillow, as in `torch_utils.grids`, which draws the frames.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import PIL.features
import PIL.Image

from torch_utils.errors import UserError
from torch_utils.files import replacing

MOST_SIDE = 16383  # pixels a side that WebP has room for


def check_animation(path: str | os.PathLike[str]) -> None:
    """Refuse a file that `save_animation` cannot write, before the work.

    Raises:
        UserError: its name does not end in .webp, it is a folder, or this Pillow lacks WebP.
    """
    if Path(path).suffix.lower() != ".webp" or Path(path).is_dir():
        raise UserError(f"--animate={os.fspath(path)}: give a file whose name ends in .webp")
    if not PIL.features.check("webp"):
        raise UserError(
            f"--animate={os.fspath(path)}: this Pillow was built without WebP: install another"
        )


def save_animation(
    path: str | os.PathLike[str],
    frames: Sequence[PIL.Image.Image],
    *,
    fps: float,
    pause: float = 2.0,
) -> None:
    """Write an animation that repeats forever, whole or not at all.

    Args:
        path: the WebP to write.
        frames: at least one, all of one size and in RGB. Equal neighbours become one frame.
        fps: frames a second.
        pause: seconds that the last frame is shown.
    """
    durations = [1000 / fps] * (len(frames) - 1) + [1000 * pause]
    with replacing(path) as temporary:
        frames[0].save(
            temporary,
            format="webp",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            lossless=True,
        )
