"""Images in an .npz, as guided-diffusion (Dhariwal and Nichol, 2021) writes its samples.

`arr_0` is uint8 [N, H, W, C]; labels and statistics may lie beside it. 50,000 images of 256x256
have 9.8 GB: they are read from front to back, a batch at a time.
"""

import contextlib
import copy
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from metrics.statistics import Gaussian
from torch_utils.bounded import growth_limit
from torch_utils.errors import UserError
from torch_utils.npys import read_header
from torch_utils.progress import ByteProgress
from torch_utils.subsets import subset_indices
from torch_utils.text import printable, some
from torch_utils.zips import BAD_ZIP, MemberStream, open_zip

IMAGES_KEY = "arr_0"
_MAX_HEADER = 2**16
_MAX_IMAGE_BYTES = 2**28
_MAX_CHANNELS = 4
_DIGITS = 32  # hexadecimal, of a content key
_EXPECTED = f"expected {IMAGES_KEY}: uint8 [N, H, W, C], channels last"


def is_npz(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a zip of arrays, not of pictures; by its name if it is no sound zip."""
    if not os.path.isfile(path):
        return False
    try:
        with open_zip(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except BAD_ZIP:
        names = []
    is_named_so = Path(path).suffix.lower() == ".npz"
    return is_named_so or (bool(names) and all(name.endswith(".npy") for name in names))


class NpzImages:
    """The images of an .npz, in its order.

    Args:
        path: the file.
        gaussian: statistics of the whole data set that lie beside the images, if there are any.

    Attributes:
        name: its base name, without .npz.
        image_shape: (C, H, W).
        gaussian: as given.

    Raises:
        UserError: the file is damaged or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str], gaussian: Gaussian | None = None) -> None:
        self._path = os.fspath(path)
        self.name = printable(Path(path).stem)
        self.gaussian = gaussian
        with self._reading(), open_zip(path) as archive:
            member = self._member(archive)
            content = io.BytesIO(b"".join(_beginning(archive, member)))
            shape, is_fortran, dtype = read_header(content)
        self._header = content.getvalue()[: content.tell()]
        num, height, width, channels = self._checked(shape, dtype, is_fortran)
        self.image_shape = (channels, height, width)
        self._size = channels * height * width  # bytes of an image
        if member.file_size != len(self._header) + num * self._size:
            raise UserError(f"{self._path} is damaged: it has no {num} images of its {IMAGES_KEY}")
        self._indices = np.arange(num, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def subset(self, num: int, seed: int = 0) -> "NpzImages":
        """A part of the images, chosen as `subset_indices` does."""
        part = copy.copy(self)
        part._indices = self._indices[subset_indices(len(self), num, seed)]
        return part

    def batches(
        self, batch_size: int, first: int = 0, stop: int | None = None
    ) -> Iterator[np.ndarray]:
        """Read the images in order, one batch in memory at a time.

        Args:
            batch_size: images in a batch; the last one may be smaller.
            first, stop: the range of images, first <= i < stop; None for all from `first` on.

        Yields:
            uint8 [n, C, H, W].

        Raises:
            UserError: the file is damaged or was changed.
        """
        channels, height, width = self.image_shape
        wanted = self._indices[first:stop]
        with self._reading(), self._stream() as stream:
            for start in range(0, len(wanted), batch_size):
                indices = wanted[start : start + batch_size]
                images = np.empty([len(indices), height, width, channels], np.uint8)
                target, place = images.reshape(-1), 0
                for part in self._parts(stream, indices):
                    target[place : place + len(part)] = np.frombuffer(part, np.uint8)
                    place += len(part)
                yield np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def content_key(self) -> str:
        """A name for the images in use, which changes with any of them; reads them all.

        Returns:
            32 hexadecimal digits.

        Raises:
            UserError: the file is damaged or was changed.
        """
        digest = hashlib.sha256(f"images {len(self)} {self.image_shape}".encode())
        with (
            self._reading(),
            self._stream() as stream,
            ByteProgress(len(self) * self._size, f"{self.name}: checksum") as bar,
        ):
            for part in self._parts(stream, self._indices):
                digest.update(part)
                bar.update(len(part))
        return digest.hexdigest()[:_DIGITS]

    def _parts(self, stream: MemberStream, indices: np.ndarray) -> Iterator[bytes]:
        """The bytes of some images, whose numbers ascend."""
        for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1):
            if len(run):
                start = len(self._header) + int(run[0]) * self._size
                stream.skip(start - stream.position)
                yield from stream.parts(len(run) * self._size)

    @contextlib.contextmanager
    def _stream(self) -> Iterator[MemberStream]:
        """The array of this object's own file, behind its header."""
        with open_zip(self._path) as archive:
            stream = MemberStream(archive, self._member(archive))
            if b"".join(stream.parts(len(self._header))) != self._header:
                raise UserError(f"{self._path} was changed while it was read: start again")
            yield stream

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Say in one line what is wrong with the file."""
        try:
            yield
        except UserError:
            raise
        except BAD_ZIP as error:
            reason = str(error) or type(error).__name__
            raise UserError(f"{self._path} is damaged or not an .npz file: {reason}") from error

    def _member(self, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
        members = [each for each in archive.infolist() if each.filename == f"{IMAGES_KEY}.npy"]
        if len(members) != 1:
            names = [printable(each.filename.removesuffix(".npy")) for each in archive.infolist()]
            raise UserError(f"{self._path} has the arrays {some(names) or 'none'}: {_EXPECTED}")
        if members[0].file_size > growth_limit(members[0].compress_size):
            raise UserError(
                f"{self._path} has more bytes of images than can be true of so small a file: if "
                "they are sound, save them uncompressed"
            )
        return members[0]

    def _checked(
        self, shape: tuple[int, ...], dtype: np.dtype[np.generic], is_fortran: bool
    ) -> tuple[int, int, int, int]:
        if dtype != np.uint8 or len(shape) != 4 or 0 in shape or shape[3] > _MAX_CHANNELS:
            raise UserError(f"{self._path} has {IMAGES_KEY}: {dtype} {list(shape)}; {_EXPECTED}")
        num, height, width, channels = shape
        if is_fortran:
            raise UserError(
                f"{self._path} has {IMAGES_KEY} in Fortran order: save numpy.ascontiguousarray"
            )
        if height * width * channels > _MAX_IMAGE_BYTES:
            raise UserError(f"{self._path} has images of {height}x{width}: they are too large")
        return num, height, width, channels


def _beginning(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of a member in which its header must lie."""
    return MemberStream(archive, member).parts(min(member.file_size, _MAX_HEADER))
