"""Whether the disk holds images, found out before the work."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from torch_utils.errors import UserError
from torch_utils.grids import grid_bound, is_grid
from torch_utils.images import png_bound

_BLOCK = 4096  # bytes that the smallest file takes, if the file system does not tell
_MEMBER = 512  # bytes that a zip or .npz has for an image beside its content


def check_room(
    place: str | os.PathLike[str],
    num: int,
    shape: tuple[int, int, int],
    *,
    num_packed: int = 0,
    num_in_grid: int = 0,
) -> None:
    """Find out before the work whether the disk holds the images.

    Args:
        place: a folder on the disk.
        num: files that will be new there, one an image; PNGs or arrays.
        shape: (C, H, W) of an image.
        num_packed: images that are also put into one file.
        num_in_grid: images that are also put into a grid.

    Raises:
        UserError: there is not enough room for PNGs of this shape at their largest.
    """
    block, free_files = _BLOCK, None
    if hasattr(os, "statvfs"):
        status = os.statvfs(place)
        block = status.f_frsize or _BLOCK
        free_files = status.f_favail if status.f_files else None  # 0 where there is no limit
    size = -(-png_bound(shape) // block) * block
    needed = num * size + num_packed * (png_bound(shape) + _MEMBER)
    if num_in_grid:
        needed += grid_bound(num_in_grid, shape)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{place} has {_size(free)} of free disk space, {max(num, num_packed):,} images may "
            f"need {_size(needed)}: make room, or generate fewer at a time"
        )
    if free_files is not None and num > free_files:
        raise UserError(
            f"the disk of {place} has room for {free_files:,} more files, not for {num:,} images"
        )


def other_pictures(outdir: str, present: Iterable[str], names: Iterable[str]) -> list[str]:
    """A warning if a folder has other PNGs, which would be scored along with these images.

    Args:
        outdir: the folder.
        present: files in it, relative.
        names: the files of the images, relative.
    """
    known = set(names)
    found = (name for name in present if name not in known and name.endswith(".png"))
    others = sorted(name for name in found if not is_grid(Path(outdir) / name))
    if not others:
        return []
    return [
        f"{outdir} holds other PNGs, {len(others):,} of them, such as {others[0]}: they would be "
        "scored along with these images"
    ]


def _size(num: int) -> str:
    """Bytes in words."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num >= scale:
            return f"{num / scale:,.1f} {unit}"
    return f"{num / 1e3:.1f} kB"
