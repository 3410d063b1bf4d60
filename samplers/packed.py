"""Generated images in one file: what such a file tells, and the two forms that it can have.

A zip is a data set: PNGs under the names that they have in a folder, stored as they are, with
dataset.json. An .npz is what guided-diffusion (Dhariwal and Nichol 2021) writes. Both also tell
what the images were made of.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Contents:
    """Images that are in a file, or are to be put into one.

    Attributes:
        names: of the images, in order, as in a folder but without suffix: `ant/000005`.
        shape: (C, H, W) of each.
        request: what they were made of; see `samplers.records`.
        read: gives the content of the file that an image had before it was packed.
        classes: class number by name; not of all images if they are not known.
        class_names: of all classes; may be empty.
    """

    names: Sequence[str]
    shape: tuple[int, int, int]
    request: Mapping[str, Any]
    read: Callable[[str], bytes]
    classes: Mapping[str, int] = field(default_factory=dict)
    class_names: Sequence[str] = ()

    @property
    def known_classes(self) -> list[int] | None:
        """The class of each image; None if that of any is not known."""
        if not self.names or not all(name in self.classes for name in self.names):
            return None
        return [self.classes[name] for name in self.names]

    @property
    def seeds(self) -> list[int]:
        """The seed of each image, which its name ends in."""
        return [int(name.rpartition("/")[2]) for name in self.names]


class Form(Protocol):
    """A form of such a file: the modules `samplers.packed_zip` and `samplers.packed_npz`."""

    SUFFIX: str  # of the file that an image has before it is packed

    def encoded(self, picture: np.ndarray) -> bytes:
        """The content of that file for an image, uint8 [C, H, W]."""

    def decoded(self, content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        """The image in such a content, uint8 [C, H, W]."""

    def is_whole(self, path: Path, shape: tuple[int, int, int]) -> bool:
        """Whether a file holds an image of this shape, to its last byte."""

    def contents(self, path: str | os.PathLike[str]) -> Contents:
        """What a file of this form holds; it stays open.

        Raises:
            UserError: it is damaged, or we did not write it.
        """

    def write(
        self, path: str | os.PathLike[str], contents: Contents, advance: Callable[[int], None]
    ) -> None:
        """Write a file, whole or not at all; `advance` is called after every image.

        Raises:
            OSError: it cannot be written.
        """


def each(contents: Contents, advance: Callable[[int], None]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every image, counted when it has been used."""
    for name in contents.names:
        yield name, contents.read(name)
        advance(1)
