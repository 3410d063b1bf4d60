"""From a source of images to a dataset in EDM's layout: what `dataset_tool.py convert` does."""

import contextlib
import os
import sys
from pathlib import Path

import numpy as np

from data.cache import cache_folder
from data.listing import LeftOut, phrases
from data.modes import Plain
from data.sources import open_source
from data.transforms import CHANNELS, NATURAL_SIZES, TRANSFORMS, UNPADDED
from data.writer import DatasetWriter, EncodedImage, check_dest, encode_plain
from torch_utils.errors import UserError, unknown_name
from torch_utils.files import drop_temporaries, writing
from torch_utils.locks import holding
from torch_utils.progress import Progress

TORCHVISION = "torchvision:"


def convert(
    source: str,
    dest: str,
    *,
    max_images: int | None = None,
    transform: str = "none",
    resolution: tuple[int, int] | None = None,
    split: str | None = None,
    channels: str | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    num_threads: int | None = None,
) -> int:
    """Turn a source of images into a dataset.

    Args:
        source: what `data.sources.open_source` takes.
        dest: name of the zip, or a folder.
        max_images: take only the first so many.
        transform: a name in `data.transforms.TRANSFORMS`.
        resolution: width and height; None for the sizes of the source, or of the transform.
        split: the part of the source; None for its default.
        channels: make all images "rgb" or "gray"; None for the channels of the source, or of the
            transform.
        skip_bad: leave out images and folders that cannot be read, with a warning.
        overwrite: replace a dataset that exists at `dest`.
        num_threads: None for one a core; the result is the same.

    Returns:
        The number of images written. What was left out is counted on stderr, and in the dataset.

    Raises:
        UserError: an argument or an image cannot be used.
    """
    if transform not in TRANSFORMS:
        raise unknown_name("transform", transform, TRANSFORMS)
    size = resolution or NATURAL_SIZES.get(transform)
    if transform != "none" and size is None:
        raise UserError(f"--transform={transform} needs --resolution=WxH")
    for option, value in (("--source", source), ("--dest", dest)):
        if not value:
            raise UserError(f"{option} is empty: give a path")

    check_dest(dest, overwrite=overwrite)
    images = open_source(source, max_images, split, skip_bad=skip_bad)
    rows, columns = images.margins if transform in UNPADDED else (0, 0)

    def prepare(image: Plain, where: str) -> EncodedImage | None:
        if rows or columns:
            image = np.asarray(image)
            image = image[rows : len(image) - rows, columns : image.shape[1] - columns]
        try:
            sized = image if size is None else TRANSFORMS[transform](image, *size)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if sized is None:
            return None
        return encode_plain(CHANNELS[channels](sized) if channels else sized)

    names, kind = images.label_names, images.label_kind
    left_out = LeftOut()
    with (
        DatasetWriter(
            dest, source=source, overwrite=overwrite, label_names=names, label_kind=kind
        ) as writer,
        Progress(len(images), "converting") as progress,
    ):
        for index, visited in enumerate(images.images(prepare, num_threads)):
            progress.update()
            if visited.result is not None:
                where = images.where(index)
                writer.add(visited.result, visited.label, index=index, origin=where)
            else:
                reason = "cannot be read" if visited.problem else f"too small for {transform}"
                left_out["image", reason] += 1
        if not writer.num_images:
            raise UserError(
                f"all {len(images)} images of {source} are too small for --transform={transform} "
                "or cannot be read: lower --resolution"
            )
        writer.left_out = [*images.left_out, *phrases(left_out)]
        if writer.left_out:
            print(f"left out: {', '.join(writer.left_out)}", file=sys.stderr)
    return writer.num_images


def as_dataset(path: str | os.PathLike[str]) -> Path:
    """The dataset at a path; `torchvision:NAME` is converted once and kept.

    The zip is kept beside the decoded data sets, in the folder `converted` of the cache. Several
    processes may ask at once: one converts, the others wait for it.

    Args:
        path: a zip or folder, or torchvision:NAME.

    Raises:
        UserError: torchvision has no data set of that name, or cannot get it.
    """
    text = str(path)
    if not text.startswith(TORCHVISION):
        return Path(path)
    name = "".join(c if c.isalnum() else "-" for c in text.removeprefix(TORCHVISION))
    folder = cache_folder() / "converted"
    kept = folder / f"{name}.zip"
    if not kept.exists():
        with contextlib.ExitStack() as stack:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                lock = holding(folder / f".{name}.lock", f"converts {text}")
                is_held = stack.enter_context(lock)
            if is_held:
                drop_temporaries(folder, name)
            if not kept.exists():
                convert(text, str(kept), overwrite=True)  # where locks do nothing
    return kept
