"""Check every image and label of a dataset, and list what is in it."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator

from data.archive import ImageArchive, Label
from data.dataset import decode_image
from data.labels import (
    absent_classes,
    class_names,
    kind_of_labels,
    label_problems,
    load_labels,
    width_of,
)
from data.parallel import in_runs
from data.shapes import describe_shape, remedy
from torch_utils.errors import UserError
from torch_utils.progress import Progress

Shape = tuple[int, ...]


def _contents(archive: ImageArchive) -> Iterator[tuple[str, Shape | str, bytes]]:
    """Name, shape (or what is wrong) and digest of the pixels of every image."""

    def look(name: str) -> tuple[str, Shape | str, bytes]:
        try:
            image = decode_image(archive, name)
        except UserError as error:
            return name, str(error), b""
        digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
        digest.update(image.tobytes())
        return name, image.shape, digest.digest()

    with Progress(len(archive.names), "checking") as progress:
        for found in in_runs(look, archive.names):
            progress.update()
            yield found


def _image_problems(archive: ImageArchive) -> Iterator[str]:
    shapes: dict[str, Shape] = {}
    first_with: dict[bytes, str] = {}
    duplicates = []
    for name, shape, digest in _contents(archive):
        if isinstance(shape, str):
            yield shape
            continue
        shapes[name] = shape
        original = first_with.setdefault(digest, name)
        if original != name:
            duplicates.append(f"{archive.where(name)} has the same pixels as {original}")
    if shapes:
        usual, _ = Counter(shapes.values()).most_common(1)[0]
        for name, shape in shapes.items():
            if shape != usual:
                yield (
                    f"{archive.where(name)} has {describe_shape(shape)}, most have "
                    f"{describe_shape(usual)}: convert with {remedy(shape, usual)}"
                )
    yield from duplicates


def _label_problems(archive: ImageArchive, labels: dict[str, Label]) -> Iterator[str]:
    where = archive.where_index
    known = set(archive.names)
    for name in archive.names:
        if name not in labels:
            yield f"{archive.where(name)} has no label in dataset.json"
    for name in labels:
        if name not in known:
            yield f"{where} has a label for {name!r}, which is not there"
    problems = list(label_problems(archive, labels))
    yield from problems
    if problems or not known.issubset(labels):
        return
    array = load_labels(archive)
    kind_of_labels(archive, array)
    class_names(archive, width_of(array))


def problems_of(path: str) -> Iterator[str]:
    """Yield a line for everything that is wrong with a dataset zip or folder.

    Args:
        path: the dataset, as it would be given to `train.py --data`.
    """
    try:
        archive = ImageArchive(path)
    except UserError as error:
        yield str(error)
        return
    yield from _image_problems(archive)
    for name in archive.extra_indices:
        yield f"{archive.where(name)} is not used: give its folder, or one dataset.json for all"
    try:
        labels = archive.labels()
        if labels is not None:
            yield from _label_problems(archive, labels)
    except UserError as error:
        yield str(error)


def facts_of(path: str) -> list[str]:
    """Return a line each on a dataset's number of images, its labels, and what was left out.

    Args:
        path: as for `problems_of`.
    """
    try:
        archive = ImageArchive(path)
    except UserError:
        return []
    facts = [f"images: {len(archive.names)}"]
    if archive.left_out:
        facts.append(f"left out: {', '.join(archive.left_out)}")
    with contextlib.suppress(UserError):  # problems_of() says what is wrong with dataset.json
        facts += _label_facts(archive)
        if former := archive.left_out_before():
            facts.append(f"left out when it was converted: {', '.join(former)}")
    return facts


def _label_facts(archive: ImageArchive) -> Iterator[str]:
    if archive.labels() is None:
        yield "labels: none"
        return
    array = load_labels(archive)
    kind, width = kind_of_labels(archive, array), width_of(array)
    if kind != "class":
        yield f"labels: {'tags' if kind == 'multi_hot' else 'vectors'}, {width} each"
        return
    present = set(array.tolist())
    yield f"labels: {len(present)} classes"
    if absent := absent_classes(present, archive.label_names() or ()):
        yield absent
