"""What sampling does beside calls of the network: noises are drawn, and images become PNGs.

    python -m benchmarks.bench_outputs --device=cpu --out=benchmarks/results/outputs-cpu.json

Noises: unit normals in float64 for a batch of 32x32 colour images with a generator each, as
`samplers.starts` draws them and by one generator after the other. PNGs: time and size by zlib's
level, of images with the spectrum of photographs. Writing: images a second through
`samplers.outputs`, into a temporary folder.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import numpy as np
import torch

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, ratio, spread
from samplers.destination import destination_of
from samplers.generate import GeneratedBatch
from samplers.outputs import PictureWriter, write_batches
from samplers.starts import Sample, SeededNoise
from torch_utils.command import Command, IntList
from torch_utils.errors import UserError
from torch_utils.images import png_bytes

LEVELS = (0, 1, 3, 6, 9)
IN_USE = 6


def photographs(num: int, size: int) -> np.ndarray:
    """Images uint8 [N, 3, size, size] whose amplitudes fall as 1/f, as those of photographs do."""
    random = np.random.default_rng(0)
    across, down = np.fft.rfftfreq(size), np.fft.fftfreq(size)
    frequency = np.maximum(np.hypot(across[None], down[:, None]), 1 / size)
    white = np.fft.rfft2(random.normal(size=(num, 3, size, size)))
    gray = np.fft.rfft2(random.normal(size=(num, 1, size, size)))
    colours = np.fft.irfft2((gray + 0.3 * white) / frequency, s=(size, size))
    colours *= 50 / colours.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(colours + 128, 0, 255).astype(np.uint8)


def noises(batch: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a draw for a batch, and how much longer one generator after the other takes."""
    shape, random = (3, 32, 32), SeededNoise(range(batch), device)
    generators = [torch.Generator(device).manual_seed(seed) for seed in range(batch)]

    def one_by_one() -> None:
        rows = [
            torch.randn(shape, generator=each, dtype=torch.float64, device=device)
            for each in generators
        ]
        torch.stack(rows)

    times = interleaved(
        {
            "one by one": one_by_one,
            "in use": lambda: random.normal(shape, torch.float64),
        },
        device,
        rounds,
    )
    return {
        "batch": batch,
        **{f"{name}, ms": spread([1000 * t for t in found]) for name, found in times.items()},
        "speed-up": ratio(times["one by one"], times["in use"]),
    }


def pngs(size: int, num: int, rounds: int) -> list[dict[str, Any]]:
    """Time and size of a PNG by level, in one thread."""
    images = photographs(num, size)

    def encode(level: int) -> None:
        for image in images:
            png_bytes(image, level)

    calls = {str(level): partial(encode, level) for level in LEVELS}
    times = interleaved(calls, torch.device("cpu"), rounds)
    return [
        {
            "resolution": size,
            "level": level,
            "bytes": round(np.mean([len(png_bytes(image, level)) for image in images])),
            "ms": spread([1000 * seconds / num for seconds in times[str(level)]]),
            "speed-up": ratio(times[str(IN_USE)], times[str(level)]),
        }
        for level in LEVELS
    ]


def writing(size: int, num: int, rounds: int) -> dict[str, Any]:
    """Images a second that are quantised, encoded and written, from batches of 64."""
    images = torch.from_numpy(photographs(num, size)).float() / 127.5 - 1

    def batches() -> Iterator[GeneratedBatch]:
        for first in range(0, num, 64):
            rows = images[first : first + 64]
            yield GeneratedBatch([Sample(first + i) for i in range(len(rows))], rows, None)

    def write() -> None:
        names = [str(index) for index in range(num)]
        with (
            tempfile.TemporaryDirectory() as folder,
            PictureWriter(destination_of(folder), 64) as writer,
        ):
            write_batches(batches(), names, writer, lambda num: None)

    calls: dict[str, Callable[[], object]] = {"write": write}
    times = interleaved(calls, torch.device("cpu"), rounds)["write"]
    return {"resolution": size, "images a second": spread([num / seconds for seconds in times])}


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="Of noises: auto, cpu, cuda.")
@click.option("--batches", type=IntList(), default="4,64,512", show_default=True,
              help="Images for which noises are drawn at once.")  # fmt: skip
@click.option("--resolutions", type=IntList(), default="32,64,256", show_default=True,
              help="Of PNGs.")  # fmt: skip
@count_option("--num", 64, "PNGs of a measurement.")
@count_option("--rounds", FEWEST_PAIRS, "Of what is compared.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    device: str,
    batches: list[int],
    resolutions: list[int],
    num: int,
    rounds: int,
    out: str | None,
) -> None:
    """Measure what sampling does beside calls of the network, and print it."""
    for name, value in (("num", num), ("rounds", rounds)):
        if value <= 0:
            raise UserError(f"{name} is {value}: it must be positive")
    where = prepared_device(device)
    record: dict[str, Any] = {"hardware": hardware(where), "rounds": rounds, "png_level": IN_USE}
    record["noises"] = [noises(batch, rounds, where) for batch in batches]
    for row in record["noises"]:
        found = {key: value["median"] for key, value in row.items() if isinstance(value, dict)}
        print(f"noises of {row['batch']} images: {found}")
    record["pngs"] = [row for size in resolutions for row in pngs(size, num, rounds)]
    for row in record["pngs"]:
        print(
            f"PNG {row['resolution']:4}, level {row['level']}: {row['bytes']:7} bytes, "
            f"{row['ms']['median']:7.3f} ms, {row['speed-up']['median']:.2f} times level {IN_USE}"
        )
    record["writing"] = [writing(size, num, rounds) for size in resolutions]
    for row in record["writing"]:
        print(f"writing {row['resolution']:4}: {row['images a second']} images a second")
    write_results(out, record)


if __name__ == "__main__":
    main()
