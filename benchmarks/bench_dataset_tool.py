"""How much faster dataset_tool.py is with a thread a core than with one.

One and all take turns in one run. Each turn lies between two looks at what the machine gives to
pure arithmetic: on a shared machine, the turns in which it gave less than its cores do not count.
Run from the root of the repository: `python benchmarks/bench_dataset_tool.py`.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import PIL.Image
import torch

from benchmarks.hardware import hardware, write_results
from data.convert import convert
from torch_utils.command import Command
from torch_utils.threads import num_cores

# Name -> size of the source, its file type, and the options of the conversion.
CASES: dict[str, tuple[tuple[int, int], str, dict[str, Any]]] = {
    "photographs_to_64x64": (
        (500, 375),
        "jpg",
        {"transform": "center-crop", "resolution": (64, 64)},
    ),
    "png_256x256_to_64x64": ((256, 256), "png", {"resolution": (64, 64)}),
}


def write_images(folder: Path, num: int, size: tuple[int, int], kind: str) -> None:
    """Write smooth random pictures with some grain, about as large as photographs."""
    random = np.random.default_rng(0)
    for index in range(num):
        coarse = PIL.Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size, PIL.Image.Resampling.BICUBIC), np.float32)
        grain = random.normal(0, 4, smooth.shape)
        image = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        PIL.Image.fromarray(image).save(folder / f"{index:05d}.{kind}", quality=90)


def spin(_: int) -> bytes:
    """Arithmetic without the interpreter's lock or much memory: what a core can do."""
    return hashlib.pbkdf2_hmac("sha256", b"x", b"y", 50_000)


def machine_scaling(threads: int) -> float:
    """How many times one core the machine gives at this moment, at most `threads`."""
    start = time.perf_counter()
    spin(0)
    alone = time.perf_counter() - start
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(spin, range(threads)))
        return threads * alone / (time.perf_counter() - start)


def one_round(work: Callable[[int], object], threads: int) -> dict[str, float]:
    """Time the work on one thread and on all, between two looks at what the machine gives."""
    before = machine_scaling(threads)
    row: dict[str, float] = {}
    for name, num in (("one", 1), ("all", threads)):
        start, cpu = time.perf_counter(), time.process_time()
        work(num)
        row[f"{name}_s"] = time.perf_counter() - start
        row[f"{name}_cores"] = (time.process_time() - cpu) / row[f"{name}_s"]
    row["ratio"] = row["one_s"] / row["all_s"]
    row["machine"] = min(before, machine_scaling(threads))
    return row


def compare(
    work: Callable[[int], object], threads: int, rounds: int, rest: float
) -> dict[str, float]:
    """Medians over the rounds in which the machine gave nine tenths of its cores or more."""
    work(threads)  # imports, page cache
    rows = []
    for _ in range(rounds):
        time.sleep(rest)
        rows.append(one_round(work, threads))
    quiet = [row for row in rows if row["machine"] >= 0.9 * threads]
    medians = {key: round(median(row[key] for row in quiet or rows), 3) for key in rows[0]}
    return medians | {"quiet_rounds": len(quiet), "rounds": rounds}


@click.command(cls=Command)
@click.option("--num", default=100, show_default=True, help="Images of each kind.")
@click.option("--rounds", default=10, show_default=True, help="One and all, in turn.")
@click.option("--rest", default=1.0, show_default=True, help="Seconds before each round.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(num: int, rounds: int, rest: float, out: str | None) -> None:
    """Measure the conversion with one thread and with one a core."""
    threads = min(8, num_cores())
    record: dict[str, Any] = {
        "hardware": hardware(torch.device("cpu")),
        "threads": threads,
        "images": num,
    }
    for name, (size, kind, options) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "source")
            source.mkdir()
            write_images(source, num, size, kind)

            def work(num_threads: int, folder: str = folder, options: Any = options) -> None:
                convert(
                    f"{folder}/source",
                    f"{folder}/o.zip",
                    overwrite=True,
                    num_threads=num_threads,
                    **options,
                )

            record[name] = compare(work, threads, rounds, rest)
        record[name]["images_per_s"] = round(num / record[name]["all_s"])
        print(f"{name}: {record[name]}", flush=True)
    write_results(out, record)


if __name__ == "__main__":
    main()
