"""What a dry run says of a run's cost: FLOPs, memory, and time from steps that leave no trace."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.build import build
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from tests.command import assert_refused, call, torchrun
from tests.pretend import counts
from tests.training.runs import CPU, ROOT, tiny_config, tiny_data
from torch_utils.distributed import World
from torch_utils.flops import Flops, flops_text
from training.estimate import (
    _preview_of,
    _seconds_of_call,
    costs_of,
    evaluations_of,
    lines_of,
    num_previews,
    probe_lines,
)
from training.memory import Forecast, forecast_for
from training.setup import create_trainer, model_of
from training.source import MicroBatches

TINY = ROOT / "configs" / "digits-tiny.yaml"
GIB = 2**30


def flops_of_a_step(*overrides: str) -> tuple[int, int]:
    """FLOPs of a real step by PyTorch's counter, and of the forecast."""
    config, data = tiny_config(*overrides), tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    parts = list(MicroBatches(config, data, trainer.objective, CPU).at(0))
    counter = FlopCounterMode(display=False)
    with counter:
        trainer.step([part[:2] for part in parts], [part[2] for part in parts])
    blank = build(model_of(config, data), empty=True)
    forecast = forecast_for(config, blank, CPU)
    return counter.get_total_flops(), forecast.step(config.run.batch_gpu).flops


@pytest.mark.parametrize("overrides", [(), ("run.batch_gpu=16", "run.remat=true")])
def test_the_flops_of_a_step_are_those_that_pytorch_counts_in_a_real_one(
    overrides: tuple[str, ...],
) -> None:
    """With every term: rollouts of the consistency term, several micro-batches, recomputation."""
    counted, forecast = flops_of_a_step(*overrides)
    assert forecast == counted


def test_recomputation_adds_a_forward_pass() -> None:
    plain = ("loss.terms=[denoising]", "loss.uncertainty=false")
    _, without = flops_of_a_step(*plain)
    _, with_it = flops_of_a_step(*plain, "run.remat=true")
    assert 1.2 < with_it / without < 4 / 3


def test_attention_counts_the_same_fused_and_by_hand() -> None:
    q, k, v = (torch.randn(2, 1, 16, 8, requires_grad=True) for _ in range(3))
    with Flops() as fused:
        torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()
    forward = 2 * 2 * (2 * 16 * 16 * 8)  # two products of a batch of two
    assert fused.total == forward + 5 * forward // 2  # backward makes one of them again


def test_numbers_of_operations_have_units() -> None:
    assert flops_text(42.38e9) == "42.4 GFLOPs"
    assert flops_text(1.5e15) == "1.5 PFLOPs"
    assert flops_text(999.6e9) == "1,000 GFLOPs"
    assert flops_text(12) == "0.012 kFLOPs"


@pytest.mark.parametrize(
    ("guidance", "evaluations"),
    [
        (None, 35),
        ({"scale": 1.0}, 35),
        ({"scale": 2.0}, 70),
        ({"scale": 2.0, "interval": [0, 1e-9]}, 35),
    ],
)
def test_guidance_evaluates_the_network_twice_where_it_acts(
    guidance: dict[str, object] | None, evaluations: int
) -> None:
    denoiser = build(model_of(tiny_config(), tiny_data()), empty=True)
    settings = generation_settings({"name": "heun", "steps": 18, "guidance": guidance})
    assert evaluations_of(sampling_of(settings, denoiser)) == evaluations


def test_previews_come_after_the_first_step_at_every_multiple_and_at_the_end() -> None:
    config = tiny_config()  # 12 steps, snapshots every 4
    assert num_previews(config) == 4
    assert num_previews(config, seen=64) == 2
    assert num_previews(config, seen=192) == 0


@pytest.mark.parametrize("version", ["2.11", "2.14"])
@pytest.mark.parametrize("recipe", ["cifar10-uncond-ddpmpp", "ddpm-mnist", "imagenet64-adm"])
def test_memory_is_that_of_the_allocator_on_a_gpu(recipe: str, version: str) -> None:
    _assert_memory_is_that_of_the_allocator(recipe, version)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", counts.RECIPES)
def test_memory_of_every_recipe_is_that_of_the_allocator_on_a_gpu(recipe: str) -> None:
    _assert_memory_is_that_of_the_allocator(recipe, max(counts._file()))


def _assert_memory_is_that_of_the_allocator(recipe: str, version: str) -> None:
    """By PyTorch's kernels and, where they were counted, by the fused ones."""
    config, data = counts._published(recipe)
    blank, num = build(model_of(config, data), empty=True), config.run.batch
    for part, is_fused in (("step", False), ("fused step", True)):
        row = counts._file()[version][recipe].get(part)
        if row is not None:
            forecast = Forecast(config, blank, share=num, on_gpu=True, is_fused=is_fused)
            near = pytest.approx(row["peak GiB"], rel=0.08 if is_fused else 0.05)
            assert forecast.peak(num) / GIB == near, part


def test_a_dry_run_says_what_a_run_costs_and_writes_nothing(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    done = call("train.py", f"--config={TINY}", f"--outdir={tmp_path}", "--dry-run")
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())
    assert torch.equal(torch.get_rng_state(), before)
    costs, memory, time, previews = done.stderr.splitlines()[-4:]
    assert re.fullmatch(
        r"[\d,]+ parameters; a step of 32 images: [\d.]+ [MG]FLOPs; "
        r"an image by heun: \d+ calls, [\d.]+ [MG]FLOPs",
        costs,
    )
    assert re.match(r"memory: about [\d.]+ GiB at most, [\d.]+ GiB of it taken already", memory)
    assert re.match(r"time: [\d.e-]+ s a step, [\d.,e+]+ images/s, .* for 20 steps", time)
    assert re.match(r"previews: .* each, .* for \d+ of 80 images", previews)


def test_no_time_is_spent_on_a_step_that_takes_longer_than_the_probe_may(tmp_path: Path) -> None:
    def lines(*arguments: str) -> list[str]:
        done = call("train.py", f"--config={TINY}", f"--outdir={tmp_path}", "-n", *arguments)
        return done.stderr.splitlines()

    assert "by one evaluation of the network" in lines("--probe=1e-9", "preview=off")[-1]
    assert lines("--probe=0", "preview=off")[-1].startswith("memory:")


def test_a_step_that_does_not_fit_is_not_tried() -> None:
    config, data = tiny_config(), tiny_data()
    costs = costs_of(
        forecast_for(config, build(model_of(config, data), empty=True), CPU),
        *(config, data, CPU, build(model_of(config, data), empty=True)),
    )
    huge = type(costs)(**{**vars(costs), "memory": 2**60})
    (line,) = probe_lines(huge, config, data, CPU, limit=1.0)
    assert line.startswith("time: unknown, since a step takes more than the")


def test_averages_a_copy_of_the_state_and_images_are_a_part_of_the_memory() -> None:
    config, data = tiny_config(), tiny_data()
    blank = build(model_of(config, data), empty=True)
    more = tiny_config("ema.posthoc=[0.05,0.1]")
    found = []
    for each in (config, more):
        forecast = forecast_for(each, blank, CPU)
        costs = costs_of(forecast, each, data, CPU, blank)
        found.append(costs.memory - costs.resident)
        assert "taken already" in list(lines_of(costs, each, CPU))[1]
    assert found[1] - found[0] == 4 * forecast.weights  # two averages, and both in the copy
    group = World(0, 2, torch.device("cpu"), is_group=True)
    assert "a process at most" in list(lines_of(costs, config, group))[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--probe=3",), ("--probe", "--dry-run")),
        (("--dry-run", "--probe=-1"), ("--probe is -1", "0 for none")),
        (("--dry-run", "--probe=inf"), ("--probe is inf",)),
    ],
)
def test_a_probe_that_makes_no_sense_is_refused(
    arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    assert_refused(call("train.py", f"--config={TINY}", f"--outdir={tmp_path}", *arguments), *words)


def test_of_several_processes_the_main_one_speaks_and_all_take_the_steps(tmp_path: Path) -> None:
    done = torchrun(2, "train.py", f"--config={TINY}", f"--outdir={tmp_path}", "-n", "--device=cpu")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("time: ") == done.stdout.count("# 20 steps of 32 images") == 1
    assert "a process at most" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_probe_has_the_precision_of_the_run() -> None:
    config = tiny_config("run.precision=bf16", "preview=on")
    trainer = create_trainer(config, model_of(config, tiny_data()), CPU)
    preview = _preview_of(config, trainer)
    assert preview is not None
    assert preview.sampling.settings.precision == "bf16"
    seen = []
    trainer.average.register_forward_hook(
        lambda *_: seen.append(torch.is_autocast_enabled("cpu")), always_call=True
    )
    _seconds_of_call(trainer, 2)
    assert seen == [True]
