"""From a source of images to a dataset in EDM's layout: what `dataset_tool.py convert` does."""

import contextlib
import os
from pathlib import Path

import numpy as np

from data.cache import cache_folder
from data.decoding import to_channels_first
from data.sources import open_source
from data.transforms import NATURAL_SIZES, TRANSFORMS
from data.writer import DatasetWriter, EncodedImage, encode
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
    num_threads: int | None = None,
) -> int:
    """Turn a source of images into a dataset.

    Args:
        source: what `data.sources.open_source` takes.
        dest: name of the zip, or an empty or absent folder.
        max_images: look only at the first so many.
        transform: a name in `data.transforms.TRANSFORMS`.
        resolution: width and height; None leaves the sizes alone, or as the transform gives them.
        split: the part of the source; None for its default.
        num_threads: None for one a core; the result is the same.

    Returns:
        The number of images written.

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

    def prepare(image: np.ndarray, where: str) -> EncodedImage | None:
        try:
            sized = image if size is None else TRANSFORMS[transform](image, *size)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return None if sized is None else encode(to_channels_first(sized))

    images = open_source(source, max_images, split)
    names, kind = images.label_names, images.label_kind
    with (
        DatasetWriter(dest, label_names=names, label_kind=kind) as writer,
        Progress(len(images), "converting") as progress,
    ):
        for index, (image, label) in enumerate(images.images(prepare, num_threads)):
            progress.update()
            if image is not None:
                writer.add(image, label, index=index, origin=images.where(index))
        if not writer.num_images:
            raise UserError(
                f"all {len(images)} images of {source} are too small for --transform={transform} "
                "or cannot be read: lower --resolution"
            )
    return writer.num_images


def as_dataset(path: str | os.PathLike[str]) -> Path:
    """The dataset that a path means; `torchvision:NAME` is converted once and kept.

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
                convert(text, str(kept))
    return kept
