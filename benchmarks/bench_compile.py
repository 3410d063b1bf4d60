"""A training step with compiled blocks and without: time of a step, and until the first one.

    python -m benchmarks.bench_compile --device=cpu --out=benchmarks/results/compile-cpu.json

A step is a whole one: micro-batch to gradients, optimizer, average. Both kinds of step are made in
turn by two trainers in one process. The first step is timed eager, with an empty cache of kernels,
and with the kernels that this left on disk, each in a new process. Where time is short, --rounds=0
leaves out all but the first two, and fills --cache for a later call.
"""

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.hardware import hardware, prepared_afresh, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import FEWEST_PAIRS, interleaved, now, ratio, spread
from losses.batch import Batch, Draws, Generators
from torch_utils.command import Command
from torch_utils.distributed import World
from torch_utils.errors import UserError
from training.compiling import compile_blocks
from training.config import ResolvedConfig, TrainingConfig, model_config, resolve
from training.setup import create_trainer
from training.trainer import Trainer

PRECISIONS = ("fp32", "bf16")


class Steps:
    """A trainer of DDPM++ on random images, and its micro-batch.

    Args:
        network: its size; see `networks.NETWORKS`.
        side: of the square images.
        batch: images a step.
        precision: of `run.precision`.
        device: where it computes.
    """

    def __init__(
        self, network: dict[str, Any], side: int, batch: int, precision: str, device: torch.device
    ) -> None:
        asked = TrainingConfig.model_validate(
            {
                "network": {"name": "ddpmpp", **network},
                "run": {"batch": batch, "precision": precision},
            }
        )
        config: ResolvedConfig = resolve(asked, num_images=50_000, world_size=1)
        model = model_config(config, image_shape=(3, side, side), label_dim=0)
        self.trainer: Trainer = create_trainer(config, model, World(0, 1, device))
        random = torch.Generator(device).manual_seed(0)
        images = torch.rand(batch, 3, side, side, device=device, generator=random) * 2 - 1
        self.batch = Batch(images)
        self.draws: Draws = self.trainer.objective.draw(Generators(random, random), self.batch)

    def __call__(self) -> None:
        """One step."""
        self.trainer.step([(self.batch, self.draws)], [0])

    def compiled(self) -> str:
        """Compile the blocks; the line that a run would log.

        Raises:
            UserError: it cannot be done here.
        """
        line = compile_blocks(self.trainer, self.batch, self.draws) or "no blocks"
        if not line.startswith("compiled"):
            raise UserError(line)
        return line


def first_step(is_compiled: bool, *setting: Any) -> tuple[float, str]:
    """Seconds until a process has made its first step, and the line of its compiler.

    Args:
        is_compiled: whether blocks are compiled before.
        setting: arguments of `Steps`.
    """
    *_, device = setting
    prepared_afresh(device.type, trains=True)
    steps = Steps(*setting)
    start = time.perf_counter()
    line = steps.compiled() if is_compiled else ""
    steps()
    return round(now(device) - start, 2), line


def first_step_afresh(is_compiled: bool, *setting: Any) -> tuple[float, str]:
    """As `first_step`, in a process where nothing ran before: only the disk can have kernels."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(first_step, is_compiled, *setting).result()


def pairs_of(rounds: int, *setting: Any) -> dict[str, Any]:
    """Seconds of eager and compiled steps in turn, and the ratio."""
    eager, compiled = Steps(*setting), Steps(*setting)
    torch._dynamo.reset()
    compiled.compiled()
    times = interleaved({"eager": eager, "compiled": compiled}, setting[-1], rounds)
    return {
        "step_s": {name: spread(values) for name, values in times.items()},
        "speedup": ratio(times["eager"], times["compiled"]),
    }


def measure(
    network: dict[str, Any], *, side: int, batch: int, precision: str, device: torch.device,
    rounds: int, is_cold: bool,
) -> dict[str, Any]:  # fmt: skip
    """First steps and later ones, eager and compiled, in one precision."""
    setting = network, side, batch, precision, device
    seconds = {}
    for name in ["eager", *["compiled"] * is_cold, *["compiled_again"] * bool(rounds)]:
        seconds[name], line = first_step_afresh(name != "eager", *setting)
        print(precision, name, seconds[name], line, flush=True)
    return {"first_step_s": seconds} | (pairs_of(rounds, *setting) if rounds else {})


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@count_option("--channels", 64, "Of the network.")
@click.option("--mult", default="2,2", show_default=True, help="Multiplier of each level.")
@count_option("--blocks", 4, "A level.")
@count_option("--side", 32, "Of the images, in pixels.")
@count_option("--batch", 16, "Images a step.")
@count_option("--rounds", FEWEST_PAIRS, "Pairs of steps.", least=0)
@click.option("--precisions", default=",".join(PRECISIONS), show_default=True, metavar="LIST")
@click.option("--cache", metavar="DIR", help="Where kernels lie; by default nowhere yet.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    device: str, channels: int, mult: str, blocks: int, side: int, batch: int, rounds: int,
    precisions: str, cache: str | None, out: str | None,
) -> None:  # fmt: skip
    """Measure what compiling the blocks gains, and what it takes before the first step."""
    where = prepared_device(device, trains=True)
    network = {
        "model_channels": channels,
        "channel_mult": [int(number) for number in mult.split(",")],
        "num_blocks": blocks,
    }
    record: dict[str, Any] = {"hardware": hardware(where), "network": network, "batch": batch}
    record["side"] = side
    with tempfile.TemporaryDirectory() as empty:
        folder = Path(cache or empty)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
        is_cold = not folder.exists() or not any(folder.iterdir())
        for precision in precisions.split(","):
            record[precision] = measure(
                network,
                side=side,
                batch=batch,
                precision=precision,
                device=where,
                rounds=rounds,
                is_cold=is_cold,
            )
            print(precision, record[precision], flush=True)
            write_results(out, record)


if __name__ == "__main__":
    main()
