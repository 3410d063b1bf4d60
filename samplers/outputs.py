"""The files of generated images: where they go, whether the disk holds them, writing them.

No image is left half written: a file is whole or absent, and the first error ends the work.
"""

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from samplers.generate import GeneratedBatch, not_finite, to_uint8
from torch_utils.errors import Failure, UserError
from torch_utils.files import prepare_folder
from torch_utils.grids import grid_bound, is_grid
from torch_utils.images import png_bound, save_png

_THREADS = 4
_BACKLOG = 256  # pictures that wait to be written
_BLOCK = 4096  # bytes that the smallest file takes, if the file system does not tell


def picture_path(outdir: str, seed: int, folder: str, *, subdirs: bool) -> Path:
    """The file of an image: EDM's names, in a folder for every thousand seeds if asked for."""
    thousand = f"{seed - seed % 1000:06d}" if subdirs else ""
    return Path(outdir) / folder / thousand / f"{seed:06d}.png"


def check_folder(outdir: str) -> None:
    """Refuse the name of a zip or .npz, for work that writes other files than an image a seed.

    Raises:
        UserError: it is such a name, and no folder.
    """
    if Path(outdir).suffix.lower() in (".zip", ".npz") and not Path(outdir).is_dir():
        raise UserError(
            f"--outdir={outdir}: give a folder; only images that are made one a seed can be put "
            "into a .zip or .npz"
        )


def check_outputs(outdir: str, grid: str | None, num_channels: int) -> None:
    """Make the folders of the output, so that a place that cannot be written is found out early.

    Raises:
        UserError: PNGs cannot hold the images, or the folders cannot be written.
    """
    if num_channels not in (1, 3):
        raise UserError(f"PNGs have 1 or 3 channels; the images of this model have {num_channels}")
    prepare_folder(outdir)
    if grid is not None:
        if Path(grid).suffix.lower() != ".png" or Path(grid).is_dir():
            raise UserError(f"--grid={grid}: give a file whose name ends in .png")
        prepare_folder(Path(grid).parent)


def check_room(
    outdir: str, files: Sequence[Path], shape: tuple[int, int, int], *, has_grid: bool
) -> list[str]:
    """Find out before the work whether the disk holds the images.

    Args:
        outdir: the folder, which exists.
        files: all images that will be written there.
        shape: (C, H, W) of an image.
        has_grid: a grid of them is written too.

    Returns:
        A warning if the folder has other PNGs, which would be scored along with these.

    Raises:
        UserError: there is not enough room for PNGs of this shape at their largest.
    """
    known = {os.path.normpath(path) for path in files}
    old = {path for path in _pictures_in(outdir) if path in known or not is_grid(path)}
    num = len(known - old)  # the others take the place of old ones
    block, free_files = _BLOCK, None
    if hasattr(os, "statvfs"):
        status = os.statvfs(outdir)
        block = status.f_frsize or _BLOCK
        free_files = status.f_favail if status.f_files else None  # 0 where there is no limit
    size = -(-png_bound(shape) // block) * block
    needed = num * size + (grid_bound(len(files), shape) if has_grid else 0)
    free = shutil.disk_usage(outdir).free
    if needed > free:
        raise UserError(
            f"{outdir} has {_size(free)} of free disk space, {num:,} images may need "
            f"{_size(needed)}: make room, or generate fewer at a time"
        )
    if free_files is not None and num > free_files:
        raise UserError(
            f"the disk of {outdir} has room for {free_files:,} more files, not for {num:,} images"
        )
    others = sorted(old - known)
    if not others:
        return []
    return [
        f"{outdir} holds other PNGs, {len(others):,} of them, such as "
        f"{os.path.relpath(others[0], outdir)}: they would be scored along with these images"
    ]


def _pictures_in(outdir: str) -> set[str]:
    """The PNGs in a folder, its sub-folders and theirs, which is as deep as images are put."""
    found: set[str] = set()
    for parent, folders, names in os.walk(outdir):
        if len(Path(parent).relative_to(outdir).parts) >= 2:
            folders.clear()
        paths = (os.path.join(parent, name) for name in names if name.endswith(".png"))
        found.update(map(os.path.normpath, paths))
    return found


def _size(num: int) -> str:
    """Bytes in words."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num >= scale:
            return f"{num / scale:,.1f} {unit}"
    return f"{num / 1e3:.1f} kB"


@contextlib.contextmanager
def failing(place: str) -> Iterator[None]:
    """Turn the system's refusal to write within the block into one line.

    Raises:
        Failure: the system refused something within the block.
    """
    try:
        yield
    except OSError as error:
        raise Failure(
            f"cannot write to {place}: {error.strerror or error}; what is there is whole, the rest "
            "is missing"
        ) from None


class PictureWriter:
    """Writes PNGs in several threads. The first one that fails ends the work.

    It is used as a `with` block. If an error or Ctrl-C leaves the block, pictures that are being
    written are finished, and those that wait are dropped.

    Args:
        outdir: the folder to name in messages.
    """

    def __init__(self, outdir: str) -> None:
        self._outdir = outdir
        self._pool = ThreadPoolExecutor(_THREADS)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> "PictureWriter":
        return self

    def write(self, path: Path, picture: np.ndarray) -> None:
        """Write uint8 [C, H, W] to a file, soon.

        Raises:
            Failure: an earlier picture could not be written.
        """
        self._pending.append(self._pool.submit(save_png, path, picture))
        while self._pending and (self._pending[0].done() or len(self._pending) > _BACKLOG):
            self._finish(self._pending.popleft())

    def _finish(self, future: "Future[None]") -> None:
        with failing(self._outdir):
            future.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._pending:
                self._finish(self._pending.popleft())
        finally:
            self._pool.shutdown(cancel_futures=True)


def write_batches(
    batches: Iterable[GeneratedBatch],
    paths: Sequence[Path],
    writer: PictureWriter,
    advance: Callable[[int], None],
) -> tuple[list[int], list[int]]:
    """Write the images that are finite; for the others, remove the file if an old one is there.

    Args:
        batches: the images.
        paths: a file for each.
        writer: writes them.
        advance: called after every batch with its number of images.

    Returns:
        Positions of the images that are not finite, and the classes of those that are.

    Raises:
        Failure: a file cannot be written.
    """
    lost: list[int] = []
    classes: list[int] = []
    position = 0
    for batch in batches:
        is_lost = not_finite(batch.images).tolist()
        for place, picture in enumerate(to_uint8(batch.images).cpu().numpy()):
            if is_lost[place]:
                lost.append(position + place)
                with failing(os.fspath(paths[position + place])):
                    paths[position + place].unlink(missing_ok=True)
            else:
                writer.write(paths[position + place], picture)
        chosen = batch.classes or []
        classes += [index for index, bad in zip(chosen, is_lost, strict=False) if not bad]
        position += len(is_lost)
        advance(len(is_lost))
    return lost, classes
