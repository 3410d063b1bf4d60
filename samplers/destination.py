"""Where images go: into a folder, or into a zip or .npz.

Those two are packed at the end, from a hidden folder beside them to which all processes write: a
command that is killed leaves no half file, and can be taken up again.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samplers import packed_npz, packed_zip
from samplers.packed import Contents, Form
from samplers.records import difference
from torch_utils.errors import Failure
from torch_utils.zips import BAD_ZIP

_PACKED: dict[str, Form] = {".zip": packed_zip, ".npz": packed_npz}


@dataclass(frozen=True)
class Destination:
    """Where images go; made by `destination_of`.

    Attributes:
        outdir: the folder or file.
        is_packed: whether it is a file.
        form: how an image is encoded; of a folder, that of a zip.
    """

    outdir: str
    is_packed: bool
    form: Form

    @property
    def folder(self) -> Path:
        """Where images are written: the folder, or a hidden one for the parts of the file."""
        path = Path(self.outdir)
        return path.with_name(f".{path.name}.parts") if self.is_packed else path

    @property
    def parent(self) -> Path:
        """A folder that stays, on the disk of the images."""
        return Path(self.outdir).parent if self.is_packed else Path(self.outdir)

    @property
    def takes_every_channel(self) -> bool:
        """Whether images may have another number of channels than PNGs."""
        return self.form.SUFFIX == packed_npz.SUFFIX

    def file(self, name: str) -> Path:
        """The file of an image, before it is packed."""
        return self.folder / (name + self.form.SUFFIX)

    def packed(self) -> Contents | None:
        """What is in the zip or .npz; None if there is none.

        Raises:
            UserError: it is not one that we wrote.
        """
        if not self.is_packed or not os.path.lexists(self.outdir):
            return None
        return self.form.contents(self.outdir)

    def pack(
        self,
        names: Sequence[str],
        shape: tuple[int, int, int],
        request: Mapping[str, Any],
        *,
        keep_old: bool,
        classes: Mapping[str, int],
        class_names: Sequence[str],
        advance: Callable[[int], None],
    ) -> None:
        """Put all images into the file.

        Args:
            names: of the images; one that is nowhere is left out.
            shape: (C, H, W) of an image.
            request: what they were made of.
            keep_old: keep the images that the file has, if they are of this request; those of other
                names come first.
            classes: class number by name, where it is known.
            class_names: of all classes; may be empty.
            advance: called after every image.

        Raises:
            OSError: the file cannot be written.
            Failure: the file that is there is damaged.
        """
        old, mine = self.packed() if keep_old else None, set(names)
        if old is not None and difference(old.request, request) is not None:
            old = None
        new = {name for name in names if self.file(name).exists()}
        before = [] if old is None else [name for name in old.names if name not in mine]
        kept = new if old is None else new.union(old.names)

        def read(name: str) -> bytes:
            if name in new:
                return self.file(name).read_bytes()
            assert old is not None, name
            try:
                return old.read(name)
            except BAD_ZIP as error:
                raise Failure(f"{self.outdir} is damaged at {name}: {error}") from None

        known = {**({} if old is None else old.classes), **classes}
        order = [*before, *(name for name in names if name in kept)]
        joined = Contents(order, shape, request, read, known, class_names)
        if order:
            self.form.write(self.outdir, joined, advance)

    def images(self, names: Sequence[str], shape: tuple[int, int, int]) -> "Pictures":
        """The images as a grid takes them, once they are written and packed."""
        return Pictures(self, names, shape)

    def remove_parts(self, names: Sequence[str]) -> None:
        """Remove what was packed; parts of other images stay."""
        assert self.is_packed
        for name in names:
            with contextlib.suppress(OSError):
                self.file(name).unlink()


class Pictures:
    """Images by position, uint8 [C, H, W]; None for one that is not there."""

    def __init__(
        self, destination: Destination, names: Sequence[str], shape: tuple[int, int, int]
    ) -> None:
        self._destination, self._names, self._shape = destination, names, shape
        self._packed = destination.packed()
        self._there = frozenset(() if self._packed is None else self._packed.names)

    def __len__(self) -> int:
        """How many places there are."""
        return len(self._names)

    def __getitem__(self, index: int, /) -> np.ndarray | None:
        """One image."""
        name, form = self._names[index], self._destination.form
        if self._packed is None:
            path = self._destination.file(name)
            return form.decoded(path.read_bytes(), self._shape) if path.exists() else None
        return form.decoded(self._packed.read(name), self._shape) if name in self._there else None


def destination_of(outdir: str) -> Destination:
    """The destination that a name means: a name that ends in .zip or .npz is a file.

    A folder that exists is one, whatever its name, and so is a name with a slash at its end.
    """
    form = _PACKED.get(Path(outdir).suffix.lower())
    if form is None or outdir.endswith(("/", os.sep)) or Path(outdir).is_dir():
        return Destination(outdir, False, packed_zip)
    return Destination(outdir, True, form)
