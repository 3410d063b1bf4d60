"""What modes share that put several images into a picture: checks, room and names."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from generation.setup import Setup
from torch_utils.errors import UserError
from torch_utils.files import prepare_folder
from torch_utils.fonts import drawable
from torch_utils.grid_layout import MOST_PIXELS
from torch_utils.grids import is_grid
from torch_utils.images import num_panels


def check_picture(option: str, path: str) -> None:
    """Refuse a file that cannot become a PNG, before the work.

    Args:
        option: that names the file.
        path: the file.

    Raises:
        UserError: its name does not end in .png, or its folder cannot be written.
    """
    if Path(path).suffix.lower() != ".png" or Path(path).is_dir():
        raise UserError(f"{option}={path}: give a file whose name ends in .png")
    prepare_folder(Path(path).parent)


def check_no_images(paths: Sequence[Path]) -> None:
    """Refuse to put strips in the place of images.

    Raises:
        UserError: there are images under these names.
    """
    images = [path for path in paths if path.exists() and not is_grid(path)]
    if images:
        raise UserError(
            f"strips would take the place of images, {len(images):,} of them, such as {images[0]}: "
            "give another --outdir"
        )


def rows_in_grid(num_rows: int, num_columns: int, shape: tuple[int, int, int]) -> int:
    """How many rows of images of shape (C, H, W) a grid may have room for, of so many."""
    channels, height, width = shape
    return min(
        num_rows, max(1, MOST_PIXELS // (num_columns * num_panels(channels) * width * height))
    )


def sample_names(setup: Setup, positions: Iterable[int]) -> list[str]:
    """What images are called beside each other: the class, if it was asked for, and the seed."""
    names = []
    for position in positions:
        sample, _ = setup.requested[position]
        index = None if setup.sampling.ignores_labels else sample.class_index
        seed = f"seed {sample.seed}"
        names.append(seed if index is None else f"{class_name(setup, index)}, {seed}")
    return names


def class_name(setup: Setup, index: int) -> str:
    """What a class is called in a picture."""
    known, number = setup.source.names, f"class {index}"
    if not known or known[index].isdecimal():
        return number
    return drawable(known[index], number, 16)[0]
