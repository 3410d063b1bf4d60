"""The files of generated images: their names, and writing them while others are computed.

No image is left half written: a file is whole or absent, and the first error ends the work.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from samplers.destination import Destination, destination_of
from samplers.generate import GeneratedBatch, not_finite, to_uint8
from torch_utils.devices import Download
from torch_utils.errors import Failure, UserError
from torch_utils.files import prepare_folder, replacing

_THREADS = 4
_BACKLOG = 256  # pictures that wait to be written


def picture_name(seed: int, folder: str, *, subdirs: bool) -> str:
    """The name of an image, EDM's without its suffix: `000005`, or `ant/001000/001005`.

    Args:
        seed: of the image.
        folder: that it is in; may be empty.
        subdirs: put it into a folder for every thousand seeds.
    """
    thousand = f"{seed - seed % 1000:06d}" if subdirs else ""
    return "/".join(part for part in (folder, thousand, f"{seed:06d}") if part)


def picture_path(outdir: str, seed: int, folder: str, *, subdirs: bool) -> Path:
    """The PNG of an image in a folder."""
    return Path(outdir) / f"{picture_name(seed, folder, subdirs=subdirs)}.png"


def check_folder(outdir: str) -> None:
    """Refuse the name of a zip or .npz, for work that writes other files than an image a seed.

    Raises:
        UserError: it is such a name, and no folder.
    """
    if destination_of(outdir).is_packed:
        raise UserError(
            f"--outdir={outdir}: give a folder; only images that are made one a seed can be put "
            "into a .zip or .npz"
        )


def check_outputs(outdir: str, grid: str | None, num_channels: int) -> None:
    """Make the folders of the output, so that a place that cannot be written is found out early.

    Args:
        outdir: a folder, or a name that ends in .zip or .npz.
        grid: a PNG to write; None for none.
        num_channels: of an image.

    Raises:
        UserError: PNGs cannot hold the images, or the folders cannot be written.
    """
    destination = destination_of(outdir)
    if num_channels not in (1, 3) and not destination.takes_every_channel:
        raise UserError(
            f"PNGs have 1 or 3 channels; the images of this model have {num_channels}: give "
            "--outdir=FILE.npz, which holds images of any number of channels"
        )
    prepare_folder(destination.parent)
    if grid is not None:
        if Path(grid).suffix.lower() != ".png" or Path(grid).is_dir():
            raise UserError(f"--grid={grid}: give a file whose name ends in .png")
        prepare_folder(Path(grid).parent)


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
    """Writes pictures in several threads. The first one that fails ends the work.

    It is used as a `with` block. If an error or Ctrl-C leaves the block, pictures that are being
    written are finished, and those that wait are dropped.

    Args:
        destination: where they go.
        batch: pictures that come at once. So many may wait, or the next batch could not be computed
            meanwhile.
    """

    def __init__(self, destination: Destination, batch: int = 1) -> None:
        self._destination = destination
        self._backlog = max(_BACKLOG, batch)
        self._pool = ThreadPoolExecutor(_THREADS)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> "PictureWriter":
        return self

    def write(self, name: str, picture: np.ndarray) -> None:
        """Write uint8 [C, H, W] to the file of an image, soon.

        Raises:
            Failure: an earlier picture could not be written.
        """
        self.write_when_there(name, lambda: picture)

    def write_when_there(self, name: str, picture: Callable[[], np.ndarray | None]) -> None:
        """Write the picture that a function gives, which may wait for it; it is called in a thread.

        If it gives None, the file of the image is removed, if there is an old one.

        Raises:
            Failure: an earlier picture could not be written, or an old one not be removed.
        """
        self._pending.append(self._pool.submit(self._save, name, picture))
        while self._pending and (self._pending[0].done() or len(self._pending) > self._backlog):
            self._finish(self._pending.popleft())

    def _save(self, name: str, picture: Callable[[], np.ndarray | None]) -> None:
        path, found = self._destination.file(name), picture()
        if found is None:
            with failing(os.fspath(path)):
                path.unlink(missing_ok=True)
            return
        with replacing(path) as temporary:
            temporary.write_bytes(self._destination.form.encoded(found))

    def _finish(self, future: "Future[None]") -> None:
        with failing(self._destination.outdir):
            future.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._pending:
                self._finish(self._pending.popleft())
        finally:
            self._pool.shutdown(cancel_futures=True)


def write_batches(
    batches: Iterable[GeneratedBatch],
    names: Sequence[str],
    writer: PictureWriter,
    advance: Callable[[int], None],
) -> tuple[list[int], list[int]]:
    """Write the images that are finite; for the others, remove the file if an old one is there.

    Only the writer's threads wait for the device, so that it is given the next batch meanwhile.

    Args:
        batches: the images.
        names: one for each.
        writer: writes them.
        advance: called after every batch with its number of images.

    Returns:
        Positions of the images that are not finite, and the classes of those that are.

    Raises:
        Failure: a file cannot be written.
    """
    facts: list[Download] = []
    position = 0
    for batch in batches:
        is_lost, num = not_finite(batch.images), len(batch.images)
        facts.append(Download(is_lost, *([] if batch.indices is None else [batch.indices])))
        pictures = Download(to_uint8(batch.images), is_lost)
        for place, name in enumerate(names[position : position + num]):
            writer.write_when_there(name, partial(_finite_picture, pictures, place))
        position += num
        advance(num)
    is_lost_of_all: list[bool] = []
    classes: list[int] = []
    for fact in facts:
        flags, *indices = (copy.tolist() for copy in fact.read())
        is_lost_of_all += flags
        for chosen in indices:
            classes += [index for index, bad in zip(chosen, flags, strict=True) if not bad]
    return [place for place, bad in enumerate(is_lost_of_all) if bad], classes


def _finite_picture(pictures: Download, place: int) -> np.ndarray | None:
    """One picture of a batch; None if it is not finite."""
    values, is_lost = pictures.read()
    picture: np.ndarray = values[place].numpy()
    return None if is_lost[place] else picture
