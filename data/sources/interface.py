"""The interface of sources: number of images, how one is read, and what its label means."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from data.archive import Label
from data.modes import Plain
from data.parallel import in_runs
from torch_utils.errors import UserError
from torch_utils.text import printable

Result = TypeVar("Result")
Item = tuple[Plain, Label | None]


@dataclass(frozen=True)
class Visited(Generic[Result]):
    """An image that was read, or left out.

    Attributes:
        result: of the function; None if the function, or a problem, left the image out.
        label: its label or None.
        problem: why it could not be read; "" if it could.
    """

    result: Result | None
    label: Label | None
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """Images to convert.

    Attributes:
        num: how many.
        read_plain: image number i, plain (`data.modes`), and its label or None; may be called by
            several threads. Raises a `UserError` that names the image.
        where: the name of image number i for a message.
        label_names: names of the classes or of the elements of the vectors, if they are known.
        label_kind: "multi_hot" if labels are tags; None if the labels themselves tell.
        skips_damaged: an image that cannot be read is left out with a warning.
        margins: rows and columns of zeros that `read` adds on each side of an image.
        left_out: other files, which are not images of the source, e.g. "6 files (.heic)".
    """

    num: int
    read_plain: Callable[[int], Item]
    where: Callable[[int], str]
    label_names: list[str] | None = None
    label_kind: str | None = None
    skips_damaged: bool = False
    margins: tuple[int, int] = (0, 0)
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return self.num

    def read(self, index: int) -> tuple[np.ndarray, Label | None]:
        """An image as an array, uint8 [H, W] or [H, W, 3], and its label or None.

        Raises:
            UserError: it cannot be read.
        """
        image, label = self.read_plain(index)
        return np.asarray(image), label

    def images(
        self, function: Callable[[Plain, str], Result | None], num_threads: int | None = None
    ) -> Iterator[Visited[Result]]:
        """Read all images in order, some ahead of time in threads.

        Args:
            function: applied to each image and its name by the threads; None leaves it out.
            num_threads: None for one a core.

        Yields:
            One for each image.

        Raises:
            UserError: an image cannot be read.
        """

        def visit(index: int) -> Visited[Result]:
            try:
                image, label = self.read_plain(index)
            except UserError as error:
                if not self.skips_damaged:
                    raise UserError(f"{error} (--skip-bad leaves such images out)") from None
                return Visited(None, None, str(error))
            return Visited(function(image, self.where(index)), label)

        for visited in in_runs(visit, range(self.num), num_threads):
            if visited.problem:
                print(f"warning: left out: {printable(visited.problem)}", file=sys.stderr)
            yield visited


def choose_part(what: str, split: str, parts: Sequence[str]) -> str:
    """The part asked for; by default the first of `parts`.

    Raises:
        UserError: it is not one of them.
    """
    if split and split not in parts:
        known = f"take one of {', '.join(parts)}" if parts else "leave --split out"
        raise UserError(f"{what} has no part {split!r}: {known}")
    return split or (parts[0] if parts else "")
