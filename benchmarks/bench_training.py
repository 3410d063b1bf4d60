"""A training step of ours against the yardstick's: the same network, weights, images and batch.

    python -m benchmarks.bench_training --device=cpu --out=benchmarks/results/training-cpu.json

DDPM++ with 64 channels, multipliers 2, 2 and the published 4 blocks a level, at 32x32, without
labels; dropout 0.13 as in the published recipe, augmentation off. Everything of a step is timed:
the batch, loss, gradients, weights, averages and statistics; and apart from it what comes after the
gradients. On a GPU also with channels_last and `--compile`, beside the matrix products' rate.
"""

import contextlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.hardware import ROOT, hardware, own_environment, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.reference_network import without_prefix
from benchmarks.reference_step import ReferenceStep
from benchmarks.timing import FEWEST_PAIRS, interleaved, ratio, spread
from torch_utils.command import Command
from torch_utils.distributed import World
from torch_utils.errors import Failure, UserError
from torch_utils.images import png_bytes
from torch_utils.precision import DTYPES, has_fast_bf16
from training.compiling import compile_blocks
from training.config import DataConfig, resolve
from training.data import load_training_data
from training.recipes import load_config
from training.setup import create_trainer, model_of
from training.source import MicroBatches
from training.trainer import Trainer

NETWORK: dict[str, Any] = {"model_channels": 64, "channel_mult": [2, 2]}
DROPOUT = 0.13
NUM_IMAGES = 512


def written_images(path: Path, *, num: int, side: int) -> Path:
    """Write a data set's zip of random images, uint8 [3, side, side]."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(num):
            image = random.integers(0, 256, (3, side, side), dtype=np.uint8)
            archive.writestr(f"00000/img{index:08d}.png", png_bytes(image, compress_level=0))
    return path


def ours_under_training(
    data: Path,
    precision: str,
    *,
    batch: int,
    network: Mapping[str, Any],
    device: torch.device | str = "cpu",
) -> tuple[Trainer, MicroBatches]:
    """What `train.py` sets up for the published recipe with another network."""
    options = {
        "data": {"path": str(data)},
        "network": {"dropout": DROPOUT, **network},
        "augment": {"p": 0.0},
        "run": {"batch": batch, "precision": precision, "duration": "200M"},
    }
    recipe = Path(__file__).parents[1] / "configs" / "cifar10-uncond-ddpmpp.yaml"
    config = load_config(recipe, options)
    loaded_data = load_training_data(DataConfig(path=str(data)))
    world = World(0, 1, torch.device(device))
    images = loaded_data.placed(world.device, config.run.data_device)
    resolved = resolve(config, num_images=len(images), world_size=1)
    trainer = create_trainer(resolved, model_of(resolved, images), world)
    return trainer, MicroBatches(resolved, images, trainer.objective, world)


def step_of(trainer: Trainer, source: MicroBatches) -> Callable[[], object]:
    """One step as the training loop takes it."""

    def step() -> None:
        micro_batches = list(source.at(trainer.seen))
        pairs = [(batch, draws) for batch, draws, _ in micro_batches]
        trainer.step(pairs, [seed for _, _, seed in micro_batches])

    return step


class Yardstick:
    """The plain step in a process of its own, as a program that knows nothing of ours.

    Use as a context; the process ends with it.
    """

    def __init__(self, state: Mapping[str, Tensor], data: Path, batch: int, device: torch.device):
        """
        Args:
            state: of the network that it starts with.
            data: zip of images.
            batch: images a step.
            device: that it computes on.
        """
        path = data.with_name("yardstick.pt")
        torch.save({name: value.cpu() for name, value in state.items()}, path)
        # by its path: with -m, `benchmarks` would choose how its threads wait
        command = [sys.executable, str(ROOT / "benchmarks" / "reference_step.py")]
        command += [f"--data={data}", f"--state={path}", f"--batch={batch}"]
        command += [f"--dropout={DROPOUT}", f"--device={device}"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            cwd=ROOT, env=own_environment(),
        )  # fmt: skip

    def __enter__(self) -> "Yardstick":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def step(self) -> None:
        """Take a step.

        Raises:
            Failure: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("step\n")
            answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            raise Failure(f"the yardstick's process has ended, exit code {code}")
        assert answer == "done\n", answer


def compared(
    plain: Callable[[], object],
    ours: Mapping[str, Callable[[], object]],
    device: torch.device,
    pairs: int,
) -> dict[str, Any]:
    """Seconds of the yardstick, and of each of ours with how many times its speed that is."""
    rows: dict[str, Any] = {}
    times = interleaved({"yardstick": plain, **ours}, device, pairs)
    for name in ours:
        rows[name] = {
            "yardstick_s": spread(times["yardstick"]),
            "ours_s": spread(times[name]),
            "speed": ratio(times["yardstick"], times[name]),
        }
        print(
            f"{name:28} {median(times[name]):8.4f} s, yardstick {median(times['yardstick']):8.4f} s"
            f": {rows[name]['speed']['median']:.2f} times its speed",
            flush=True,
        )
    return rows


def matmul_rate(precision: str, device: torch.device) -> float:
    """FLOP/s of a large product of square matrices, the best of some."""
    side = 8192
    a, b = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in "ab")
    times = interleaved({"product": lambda: a @ b}, device, 20)["product"]
    return 2 * side**3 / min(times)


def step_flops(trainer: Trainer, source: MicroBatches) -> int:
    """Floating-point operations of the matrix products and convolutions of a step."""
    with FlopCounterMode(display=False) as counter:
        step_of(trainer, source)()
    return int(counter.get_total_flops())


def compile_as_asked(trainer: Trainer, source: MicroBatches) -> None:
    """Do what `train.py --compile` does before the first step.

    Raises:
        UserError: blocks cannot be compiled here.
    """
    batch, draws, _ = next(source.at(trainer.seen))
    line = compile_blocks(trainer, batch, draws) or "no blocks"
    if not line.startswith("compiled"):
        raise UserError(line)
    print(line, flush=True)


def gpu_variants(
    make: Callable[[str], tuple[Trainer, MicroBatches]], precision: str
) -> dict[str, Callable[[], object]]:
    """The step with channels_last, with compiled blocks, and with both.

    Raises:
        UserError: blocks cannot be compiled here.
    """
    calls: dict[str, Callable[[], object]] = {}
    for channels_last, compiled in ((True, False), (False, True), (True, True)):
        trainer, source = make(precision)
        if channels_last:  # averages, too: else each of their updates would change the layout
            for module in (trainer.denoiser, trainer.average, *trainer.posthoc.values()):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compiled:
            compile_as_asked(trainer, source)
        words = ["channels_last"] * channels_last + ["compiled"] * compiled
        calls[f"{precision} {' '.join(words)}"] = step_of(trainer, source)
    return calls


def after_gradients(
    trainer: Trainer, source: MicroBatches
) -> tuple[Callable[[], object], Callable[[], object]]:
    """What follows the gradients: finiteness, Adam, average; the yardstick's, and ours.

    Both in this process: it is a matter of milliseconds, and whether threads have just been awake
    counts more than how they wait.
    """
    step_of(trainer, source)()
    plain = ReferenceStep(without_prefix(trainer.denoiser.state_dict()), dropout=DROPOUT)
    gradients = dict(trainer.denoiser.model.named_parameters())
    for name, parameter in plain.parameters.items():
        grad = gradients[name].grad
        parameter.grad = None if grad is None else grad.clone()
    loss = torch.zeros((), device=trainer.world.device)
    batch = trainer.config.run.batch
    return lambda: plain.update(batch), lambda: trainer.update(loss)


def measure(
    device: torch.device, batch: int, pairs: int, network: Mapping[str, Any], side: int
) -> dict[str, Any]:
    """All comparisons, by name."""
    with tempfile.TemporaryDirectory() as folder:
        data = written_images(Path(folder) / "images.zip", num=NUM_IMAGES, side=side)

        def make(precision: str) -> tuple[Trainer, MicroBatches]:
            return ours_under_training(data, precision, batch=batch, network=network, device=device)

        calls: dict[str, Callable[[], object]] = {}
        # without instructions for it nobody trains in bf16, and a step takes minutes
        is_fast = device.type == "cuda" or has_fast_bf16()
        precisions = ("fp32", "bf16") if is_fast else ("fp32",)
        for precision in precisions:
            trainer, source = make(precision)
            calls[precision] = step_of(trainer, source)
            if device.type == "cuda":
                calls |= gpu_variants(make, precision)
        state = without_prefix(trainer.denoiser.state_dict())
        with Yardstick(state, data, batch, device) as plain:
            rows = compared(plain.step, calls, device, pairs)
        plain_update, update = after_gradients(trainer, source)
        rows |= compared(plain_update, {"optimizer and average": update}, device, 3 * pairs)
        if device.type == "cuda":
            flops = step_flops(trainer, source)
            peaks = {precision: matmul_rate(precision, device) for precision in precisions}
            for name in calls:
                row = rows[name]
                rate = flops / row["ours_s"]["median"]
                row["share_of_matmul_peak"] = rate / peaks[name.split()[0]]
    return rows


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@count_option("--batch", 16, "Images a step.")
@count_option("--pairs", FEWEST_PAIRS, "Of steps, a comparison.")
@count_option("--channels", 64, "Of the network.")
@count_option("--resolution", 32, "Height and width of images.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    device: str, batch: int, pairs: int, channels: int, resolution: int, out: str | None
) -> None:
    """Compare training steps with the yardstick's."""
    where = prepared_device(device, trains=True)
    network = {**NETWORK, "model_channels": channels}
    record: dict[str, Any] = {
        "hardware": hardware(where),
        "network": {"name": "ddpmpp", "num_blocks": 4, "dropout": DROPOUT, **network},
        "augmentation": "off",
        "resolution": resolution,
        "batch": batch,
        "pairs": pairs,
    }
    record["comparisons"] = measure(where, batch, pairs, network, resolution)
    write_results(out, record)


if __name__ == "__main__":
    main()
