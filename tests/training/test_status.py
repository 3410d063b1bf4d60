"""What people read of a run: the line of a tick, and the name of the directory."""

import math
from pathlib import Path

import pytest

from training.clock import WIDTH, duration, status_line
from training.recipes import load_config
from training.run_dir import describe
from training.tally import single

ROOT = Path(__file__).parents[2]


def line(
    terms: dict[str, float] | None = None,
    *,
    seen: float = 640,
    gpu: float | None = None,
    skipped: int = 0,
    seconds: float = 75.0,
    tick: int = 4,
) -> str:
    values: dict[str, float] = {f"Loss/{name}": value for name, value in (terms or {}).items()}
    values |= {
        "Loss/loss": sum(values.values()) if values else 0.25,
        "Loss/sigma/0.3_1": 0.5,
        "Progress/tick": tick,
        "Progress/kimg": seen / 1e3,
        "Timing/total_sec": seconds,
        "Timing/sec_per_kimg": 12.345678,
        "Timing/maintenance_sec": 0.5,
        "Resources/cpu_mem_gb": 1.25,
    }
    values |= {} if gpu is None else {"Resources/peak_gpu_mem_gb": gpu}
    return status_line({name: single(value) for name, value in values.items()}, skipped)


def test_a_line_has_the_count_the_loss_the_time_and_the_memory() -> None:
    assert line() == (
        "tick 4    img 640       loss 0.25    time 1m 15s  sec/kimg 12.35   cpumem 1.2"
    )
    assert "gpumem 70.1" in line(gpu=70.12)
    assert "skipped 3" in line(skipped=3)


@pytest.mark.parametrize(
    ("seen", "count"),
    [(2, "img 2 "), (640, "img 640 "), (9999, "img 9999 "), (10_000, "kimg 10.0 "),
     (200_000_000, "kimg 200000.0 ")],
)  # fmt: skip
def test_few_images_are_counted_one_by_one(seen: int, count: str) -> None:
    assert f" {count}" in line(seen=seen)
    assert line(seen=seen).index("loss") == line().index("loss")


def test_a_loss_of_several_terms_shows_them() -> None:
    one = line({"denoising": 0.5})
    assert "denoising" not in one
    two = line({"denoising": 0.5, "consistency": 0.0123})
    assert "loss 0.5123 (denoising 0.5, consistency 0.0123)" in two
    many = line({"denoising": 0.5, "sequence_aware": 0.25, "consistency": 0.125, "vlb": 0.0625})
    assert "(den 0.5, seq 0.25, con 0.125, vlb 0.0625)" in many
    assert "nan" in line({"denoising": math.nan, "consistency": 1.0})


@pytest.mark.parametrize("seen", [1, 10_000, 2_500_000_000])
@pytest.mark.parametrize("skipped", [0, 123_456])
@pytest.mark.parametrize("gpu", [None, 1234.5])
@pytest.mark.parametrize("scale", [1e-7, 1.0, 12345.678])
def test_every_line_fits(seen: int, skipped: int, gpu: float | None, scale: float) -> None:
    names = ("denoising", "sequence_aware", "consistency", "vlb")
    for number in range(5):
        terms = {name: scale * 1.23456 for name in names[:number]}
        text = line(terms, seen=seen, gpu=gpu, skipped=skipped, seconds=1e7, tick=123_456)
        assert len(text) <= WIDTH == 80
        for name in ("tick 123456", "img", "loss ", "skipped" if skipped else ""):
            assert name in text


def test_times_are_short() -> None:
    seconds = (0, 59.6, 60, 3599, 3600, 86_399, 86_400, 8_640_000)
    assert [*map(duration, seconds)] == [
        *("0s", "1m 00s", "1m 00s", "59m 59s", "1h 00m", "23h 59m", "1d 00h", "100d 00h"),
    ]


# ---- names of run directories


def name(recipe: str | None, *overrides: str, dataset: str = "cifar10-32x32") -> str:
    path = None if recipe is None else ROOT / "configs" / f"{recipe}.yaml"
    config = load_config(path, {}, overrides)
    return describe(config, dataset=dataset, world_size=2, recipe=path)


def test_a_run_without_a_recipe_is_named_after_data_model_and_terms() -> None:
    plain = ["run.batch=256", "data.cond=true"]
    assert name(None, *plain) == "cifar10-32x32-cond-ddpmpp-edm-gpus2-batch256-fp32"
    assert name(None, *plain, "run.desc=mine").endswith("-ddpmpp-edm-gpus2-batch256-fp32-mine")
    assert "-edm-consistency-gpus2" in name(None, "loss.terms=[denoising, {name: consistency}]")
    assert "-edm_v-gpus2" in name(None, "preconditioning.output=v")


def test_a_run_with_a_recipe_is_named_after_it_and_what_differs_from_it() -> None:
    assert name("cdm-cifar10-cond") == "cdm-cifar10-cond-gpus2-batch512-fp32"
    assert name("sa-dpm-cifar10") == "sa-dpm-cifar10-gpus2-batch128-fp32"
    plain = "run.precision=fp32"
    assert name("digits", plain, "loss.terms=[denoising, consistency]", "run.batch=8") == (
        "digits-consistency-gpus2-batch8-fp32"
    )
    assert name("digits", plain, "data.path=other.zip", "network.name=ncsnpp", dataset="other") == (
        "digits-other-ncsnpp-gpus2-batch128-fp32"
    )
    assert name("digits", "data.cond=false").startswith("digits-uncond-gpus2")


def test_every_recipe_has_a_name_of_its_own(tmp_path: Path) -> None:
    recipes = sorted((ROOT / "configs").glob("*.yaml"))
    names = {name(recipe.stem) for recipe in recipes}
    assert len(names) == len(recipes)
    odd = tmp_path / "my trial (2).yaml"
    odd.write_text("run: {batch: 4}\n")
    found = describe(load_config(odd), dataset="x", world_size=1, recipe=odd)
    assert found == "my_trial_2_-gpus1-batch4-fp32"
