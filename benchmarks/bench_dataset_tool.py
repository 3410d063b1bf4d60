"""Images a second of dataset_tool.py convert, beside the published way of making a data set.

    python -m benchmarks.bench_dataset_tool --out=benchmarks/results/dataset_tool-cpu.json

The published way is `benchmarks.published_data`: one image after the other. Ours runs on one thread
and on one a core; all three take turns, and must give the same pixels and labels.
"""

import io
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import torch

from benchmarks import published_data as published
from benchmarks.hardware import hardware, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, ratio, spread
from data.convert import convert
from data.dataset import ImageDataset
from torch_utils.command import Command
from torch_utils.threads import num_cores


def pictures(num: int, size: tuple[int, int]) -> Iterator[PIL.Image.Image]:
    """Smooth random pictures with some grain, which take about as many bytes as photographs."""
    random = np.random.default_rng(0)
    for _ in range(num):
        coarse = PIL.Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, PIL.Image.Resampling.BICUBIC), np.float32)
        grain = random.normal(0, 4, smooth.shape)
        yield PIL.Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def encoded(picture: PIL.Image.Image, kind: str) -> bytes:
    """A picture as a file."""
    content = io.BytesIO()
    picture.save(content, format=kind, quality=90)
    return content.getvalue()


def write_folder(path: Path, num: int, size: tuple[int, int], kind: str) -> None:
    """A folder of files."""
    path.mkdir()
    for index, picture in enumerate(pictures(num, size)):
        (path / f"{index:05d}.{kind}").write_bytes(encoded(picture, kind))


def write_cifar(path: Path, num: int) -> None:
    """CIFAR-10's archive with fewer images."""
    flat = [np.asarray(one).transpose(2, 0, 1).ravel() for one in pictures(num, (32, 32))]
    parts: dict[str, Any] = {"batches.meta": {"label_names": list("abcdefghij")}}
    for number, rows in enumerate(np.array_split(np.stack(flat), 5), 1):
        labels = [index % 10 for index in range(len(rows))]
        parts[f"data_batch_{number}"] = {"data": rows, "labels": labels}
    with tarfile.open(path, "w:gz") as archive:
        for name, part in parts.items():
            content = pickle.dumps(part, 2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_zip(path: Path, num: int) -> None:
    """A data set of CIFAR's size in a zip."""
    cifar = path.with_name("cifar-10-python.tar.gz")
    write_cifar(cifar, num)
    published.convert(published.open_cifar(cifar), lambda image: image, path)


def write_lmdb(path: Path, num: int) -> None:
    """An lmdb as LSUN's."""
    import lmdb

    environment = lmdb.open(str(path), map_size=2**30)
    with environment, environment.begin(write=True) as transaction:
        for index, picture in enumerate(pictures(num, (341, 256))):
            transaction.put(f"{index:08x}".encode(), encoded(picture, "webp"))


@dataclass(frozen=True)
class Case:
    """A source of images and what is made of them.

    Attributes:
        name: of the source, in an empty folder.
        write: writes so many images there.
        read: reads them the published way.
        size: to which ours and theirs bring the images.
        transform: ours, by name.
        theirs: the same one, as it is published.
        small: whether images take so little time that ten times as many are made.
    """

    name: str
    write: Callable[[Path, int], None]
    read: Callable[[Path], Iterator[published.Labelled]]
    size: int
    transform: str = "none"
    theirs: Callable[[published.Image, int], published.Image] = published.resized
    small: bool = False


CASES = {
    "photographs 500x375, centre to 64x64": Case(
        "photographs",
        partial(write_folder, size=(500, 375), kind="jpeg"),
        published.open_folder,
        64,
        "center-crop",
        published.cropped,
    ),
    "PNGs 256x256 to 64x64": Case(
        "pngs", partial(write_folder, size=(256, 256), kind="png"), published.open_folder, 64
    ),
    "PNGs 32x32 as they are": Case(
        "small",
        partial(write_folder, size=(32, 32), kind="png"),
        published.open_folder,
        32,
        small=True,
    ),
    "zip 32x32 as it is": Case("images.zip", write_zip, published.open_zip, 32, small=True),
    "CIFAR-10's archive": Case(
        "cifar-10-python.tar.gz", write_cifar, published.open_cifar, 32, small=True
    ),
    "lmdb 341x256, centre to 64x64": Case(
        "set_lmdb", write_lmdb, published.open_lmdb, 64, "center-crop", published.cropped
    ),
}


def measure(case: Case, num: int, rounds: int, threads: int) -> dict[str, Any]:
    """Images a second of a case, and how many times as fast as published."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / case.name
        case.write(source, num)

        def theirs() -> None:
            images = case.read(source)
            published.convert(
                images, lambda image: case.theirs(image, case.size), Path(folder) / "theirs.zip"
            )

        def ours(num_threads: int) -> None:
            convert(
                str(source),
                f"{folder}/ours.zip",
                overwrite=True,
                num_threads=num_threads,
                transform=case.transform,
                resolution=(case.size, case.size),
            )

        calls = {"published": theirs, "one": partial(ours, 1), "all": partial(ours, threads)}
        times = interleaved(calls, torch.device("cpu"), rounds)
        same = _content(Path(folder) / "ours.zip") == _content(Path(folder) / "theirs.zip")
    assert same, f"{case.name}: not what the published way makes"
    return {
        "images": num,
        "images_per_s": {
            name: spread([num / seconds for seconds in found]) for name, found in times.items()
        },
        "one_over_published": ratio(times["published"], times["one"]),
        "all_over_published": ratio(times["published"], times["all"]),
    }


def _content(path: Path) -> tuple[bytes, bytes | None]:
    """Pixels and labels of a data set."""
    dataset = ImageDataset(path)
    has_labels = published_labels(path)
    labels = ImageDataset(path, use_labels=True).raw_labels if has_labels else None
    return dataset.load(progress=False).tobytes(), None if labels is None else labels.tobytes()


def published_labels(path: Path) -> bool:
    """Whether a data set has labels."""
    return next(published.open_zip(path))[1] is not None


@click.command(cls=Command)
@count_option("--num", 200, "Large images; small ones, 10 times.")
@count_option("--rounds", FEWEST_PAIRS, "All ways, in turn.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(num: int, rounds: int, out: str | None) -> None:
    """Measure conversions with one thread, with one a core, and the published way."""
    threads = min(8, num_cores())
    record: dict[str, Any] = {"hardware": hardware(torch.device("cpu")), "threads": threads}
    for name, case in CASES.items():
        row = measure(case, 10 * num if case.small else num, rounds, threads)
        record[name] = row
        rates = ", ".join(
            f"{way} {row['images_per_s'][way]['median']}" for way in row["images_per_s"]
        )
        print(f"{name}: images/s: {rates}", flush=True)
        for way in ("one", "all"):
            print(f"  {way} over published: {row[f'{way}_over_published']}", flush=True)
    write_results(out, record)


if __name__ == "__main__":
    main()
