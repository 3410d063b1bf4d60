"""The memory of a step is forecast, and micro-batches are chosen that fit."""

import math
import multiprocessing
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import networks
from models.build import build
from tests.training.runs import CPU, ROOT, tiny_config, tiny_data, tiny_recipe
from torch_utils.alive_bytes import AliveBytes
from torch_utils.distributed import World
from torch_utils.memory import available_bytes, available_on_host
from training.config import ResolvedConfig, TrainingConfig, model_config, resolve
from training.memory import (
    Forecast,
    divisors,
    forecast_for,
    micro_batch_that_fits,
    surely_fits,
)
from training.recipes import load_config
from training.setup import create_trainer, model_of
from training.source import MicroBatches

GIB = 2**30


def forecast_of(config: TrainingConfig, size: int, share: int, *, on_gpu: bool) -> Forecast:
    """The forecast of a recipe for images of a size."""
    model = model_config(config, image_shape=(3, size, size), label_dim=1000)
    return Forecast(config, build(model, empty=True), share=share, on_gpu=on_gpu)


# GiB that PyTorch's allocator held at most in a step of so many images on a GPU
MEASURED = [
    ("cifar10-uncond-ddpmpp", 32, 512, [], 59.5),
    ("cifar10-uncond-ddpmpp", 32, 512, ["run.precision=fp16", "run.remat=true"], 9.9),
    ("cdm-cifar10-uncond", 32, 64, [], 22.9),
]
MORE = [
    ("cifar10-uncond-ddpmpp", 32, 512, ["run.precision=fp16"], 44.2),
    ("cifar10-uncond-ddpmpp", 32, 64, [], 8.2),
    ("ffhq64-ddpmpp", 64, 32, [], 10.4),
    ("imagenet64-adm", 64, 32, ["run.precision=fp16"], 16.9),
    ("ddpm-celebahq256", 256, 8, [], 17.8),
    ("sa-dpm-celebahq256", 256, 8, [], 33.5),
]
MEASURED_AND_MORE = [*MEASURED, *(pytest.param(*row, marks=pytest.mark.slow) for row in MORE)]


@pytest.mark.parametrize(("recipe", "size", "num", "overrides", "measured"), MEASURED_AND_MORE)
def test_published_recipes_take_what_was_measured(
    recipe: str, size: int, num: int, overrides: list[str], measured: float
) -> None:
    config = load_config(ROOT / "configs" / f"{recipe}.yaml", {}, overrides)
    before = torch.get_rng_state()
    found = forecast_of(config, size, num, on_gpu=True).peak(num) / GIB
    assert found == pytest.approx(measured, rel=0.03)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("remat", "batch_gpu"), [("false", 16), ("false", 4), ("true", 16)])
def test_the_forecast_is_what_a_step_takes(remat: str, batch_gpu: int) -> None:
    """With every term, dropout, labels and augmentation on; what PyTorch allocates is counted."""
    config = tiny_config(f"run.remat={remat}", f"run.batch_gpu={batch_gpu}")
    data = tiny_data()
    alive = AliveBytes()
    with alive:
        trainer = create_trainer(config, model_of(config, data), CPU)
        source = MicroBatches(config, data, trainer.objective, CPU)
        for _ in range(2):
            alive.peak = 0
            parts = list(source.at(trainer.seen))
            trainer.step([part[:2] for part in parts], [part[2] for part in parts])
    blank = build(model_of(config, data), empty=True)
    forecast = Forecast(config, blank, share=16, on_gpu=False)
    assert forecast.peak(batch_gpu) == pytest.approx(alive.peak, rel=0.05)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_can_be_forecast(name: str) -> None:
    """With every term, in half precision, for a GPU."""
    config = tiny_config(
        f"network={{name: {name}, model_channels: 64, channel_mult: [1, 2], num_blocks: 1}}",
        *("augment.p=0", "run.precision=bf16"),
    )
    model = model_config(config, image_shape=(3, 16, 16), label_dim=10)
    forecast = Forecast(config, build(model, empty=True), share=64, on_gpu=True)
    images = 64 * 3 * 16 * 16 * 4
    assert 4 * forecast.weights + 100 * images < forecast.peak(64) < 5 * forecast.weights + GIB


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_no_forecast_is_made_only_where_it_would_be_far_below_the_free_memory(name: str) -> None:
    network = f"network={{name: {name}, model_channels: 64, channel_mult: [1, 2], num_blocks: 1}}"
    plain = "augment.p=0", "loss.terms=[denoising]", "run.batch=64", "run.batch_gpu=64"
    wanted = tiny_recipe(network, *plain)
    config = resolve(wanted, num_images=200, world_size=1)
    blank = build(model_config(config, image_shape=(3, 16, 16), label_dim=10), empty=True)
    peak = Forecast(config, blank, share=64, on_gpu=False).peak(64)
    assert not surely_fits(config, blank, 3 * peak)
    assert surely_fits(config, blank, 20 * peak)


def with_batch(batch: int, batch_gpu: int | None, world_size: int = 1) -> ResolvedConfig:
    """The small run with a batch of any size and plain denoising."""
    wanted = tiny_recipe(
        *("loss.terms=[denoising]", "loss.uncertainty=false"),
        *(f"run.batch={batch}", f"run.batch_gpu={'null' if batch_gpu is None else batch_gpu}"),
    )
    return resolve(wanted, num_images=200, world_size=world_size)


def chosen(batch: int, batch_gpu: int | None, world: World = CPU) -> tuple[int, str | None]:
    """What is made of that run's size of micro-batches."""
    config = with_batch(batch, batch_gpu, world.size)
    blank = build(model_of(config, tiny_data()), empty=True)
    forecast = forecast_for(config, blank, world)
    return micro_batch_that_fits(forecast, config, tiny_data(), world, is_open=batch_gpu is None)


def forecast_here(batch: int) -> Forecast:
    """The forecast of that run on this machine."""
    config = with_batch(batch, None)
    blank = build(model_of(config, tiny_data()), empty=True)
    return Forecast(config, blank, share=batch, on_gpu=False)


def too_large() -> int:
    """A power of two of images that this machine cannot compute at once."""
    free, num = available_bytes(CPU.device), 1024
    assert free is not None
    return int(num * 2 ** math.ceil(math.log2(2 * free / forecast_here(num).peak(num))))


def test_a_batch_that_fits_is_left_whole_and_another_one_is_cut() -> None:
    many = too_large()
    assert chosen(16, None) == (16, None)
    size, line = chosen(many, None)
    free, forecast = available_bytes(CPU.device), forecast_here(many)
    assert free is not None
    assert 1 < size < many
    assert forecast.peak(size) < free < 3 * forecast.peak(2 * size)
    assert line is not None
    for part in (f"micro-batches of {size} images", "are free", "--batch-gpu", "--remat"):
        assert part in line


def test_a_size_that_was_asked_for_is_kept_with_a_warning_if_it_does_not_fit() -> None:
    many = too_large()
    assert chosen(16, 8) == (8, None)
    kept, line = chosen(many, many)
    assert kept == many
    assert line is not None
    assert re.match(r"warning: micro-batches of \d+ images take about .* --batch-gpu=\d+ ", line)


def test_the_size_divides_the_share() -> None:
    assert divisors(36) == {1, 2, 3, 4, 6, 9, 12, 18, 36}
    assert divisors(1) == {1}


def _choose(rank: int, store: str, batch: int, found: Any) -> None:
    """One of two processes, of which the second has an eighth of the first one's memory."""
    os.environ["LOCAL_WORLD_SIZE"] = str(8 if rank else 1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"), is_group=True)
    found.put(chosen(2 * batch, None, world))
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_processes_choose_what_fits_the_poorest(tmp_path: Path) -> None:
    batch = too_large()
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    processes = [
        context.Process(target=_choose, args=(rank, str(tmp_path / "store"), batch, found))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    a, b = found.get(timeout=120), found.get(timeout=120)
    for process in processes:
        process.join()
    assert a == b
    alone, _ = chosen(batch, None)
    assert 1 < a[0] <= alone // 4


def test_what_is_free_is_the_least_of_machine_and_control_groups(tmp_path: Path) -> None:
    assert available_on_host(tmp_path) is None

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    write("proc/meminfo", "MemTotal: 64 kB\nMemAvailable:      32 kB\n")
    assert available_on_host(tmp_path) == 32 * 1024
    write("proc/self/cgroup", "0::/job/step\n")
    write("sys/fs/cgroup/job/step/memory.max", "max\n")
    write("sys/fs/cgroup/job/step/memory.current", "3000\n")
    assert available_on_host(tmp_path) == 32 * 1024
    write("sys/fs/cgroup/job/memory.max", "9000\n")  # the limit is on the group above
    write("sys/fs/cgroup/job/memory.current", "6000\n")
    write("sys/fs/cgroup/job/memory.stat", "anon 1\ninactive_file 500\n")
    assert available_on_host(tmp_path) == 3500
    write("proc/self/cgroup", "3:cpu:/\n4:memory:/not/seen/from/here\n0::/\n")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "8000\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "7000\n")
    write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 200\n")
    assert available_on_host(tmp_path) == 1200
