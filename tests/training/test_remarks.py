"""Remarks at the start of a run, and that what the repository recommends draws none."""

from pathlib import Path

import pytest

from training.config import resolve
from training.recipes import load_config
from training.remarks import in_short, remarks

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "digits.yaml")
PLAIN = ["augment.p=0.12"]


def said(recipe: str | None, *overrides: str) -> list[str]:
    config = resolve(load_config(recipe, {}, overrides), num_images=20_000, world_size=1)
    return remarks(config, has_recipe=recipe is not None)


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_our_recipes_draw_no_remark(recipe: Path) -> None:
    assert said(str(recipe)) == []


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["run.duration=6k"],
            "warm-up (10M images) is longer than the run (6k): the learning rate ends at 0.06% of "
            "0.001; set optimizer.warmup",
        ),
        (
            ["run.duration=5M", "optimizer.decay=cosine"],
            "warm-up (10M images) is longer than the run (5M): the learning rate stays below 50% "
            "of 0.001; set optimizer.warmup",
        ),
        (
            ["ema.kind=constant", "ema.decay=0.999", "run.batch=10", "optimizer.warmup=0",
             "run.duration=100it"],
            "at the end 90% of the averaged weights are still the initial weights: lower ema.decay",
        ),
        (
            ["ema.rampup_ratio=null", "ema.starts=first_step", "ema.halflife=1M",
             "optimizer.warmup=0", "run.duration=1M"],
            "at the end 50% of the averaged weights are still the weights of the first step: lower "
            "ema.halflife",
        ),
        (
            ["ema.posthoc=on", "run.keep_snapshots=3"],
            "ema.posthoc: 3 snapshots remain at the end, too few to fit averages of other lengths "
            "well: raise run.keep_snapshots",
        ),
        (
            ["ema.posthoc=on", "run.snap=50M"],
            "ema.posthoc: 4 snapshots remain at the end, too few to fit averages of other lengths "
            "well: lower run.snap",
        ),
        (
            ["loss.noise_level=vp", "loss.weight={name: min_snr, gamma: 3}"],
            "preconditioning edm is trained with what the config says, loss.noise_level vp (edm: "
            "lognormal) and loss.weight min_snr (edm: edm); null takes the preset's",
        ),
    ],
)  # fmt: skip
def test_what_defeats_something_is_said(overrides: list[str], line: str) -> None:
    assert said(None, *PLAIN, *overrides) == [line]


def test_what_is_as_long_as_the_run_or_as_published_is_not() -> None:
    assert said(None, *PLAIN) == []
    assert said(None, *PLAIN, "run.duration=10M") == []
    assert said(None, *PLAIN, "loss.noise_level=lognormal", "loss.weight={name: edm}") == []
    assert said(None, *PLAIN, "ema.kind=constant") == []


def test_a_preset_over_a_recipe_that_keeps_its_own_levels_is_said() -> None:
    (line,) = said(DIGITS, "preconditioning.name=vp")
    assert line.startswith("preconditioning vp is trained with what the config says, ")
    assert "loss.noise_level lognormal (vp: vp)" in line
    assert said(DIGITS, "preconditioning.name=vp", "loss.noise_level=null") == []


def test_edms_own_command_is_told_of_its_augmentation() -> None:
    (line,) = said(None)
    assert line == "no augmentation: the default of --augment is 0 here, and 0.12 in EDM's program"
    assert said(None, "augment.set=flips") == []
    assert said(None, "network.name=adm") == []
    assert said(None, "preconditioning.name=ddpm") == []


def test_numbers_of_images_are_short() -> None:
    numbers = (0, 999, 1000, 6000, 15_424, 1_500_000, 200_000_000)
    assert [*map(in_short, numbers)] == ["0", "999", "1k", "6k", "15.42k", "1.5M", "200M"]


def test_what_a_network_without_blocks_cannot_do_is_said() -> None:
    config = resolve(load_config(DIGITS, {}, ["run.remat=1"]), num_images=20_000, world_size=1)
    (line,) = remarks(config, has_recipe=True, has_blocks=False)
    assert line == "run.remat has no effect: ddpmpp has no blocks that are computed again"
    config = resolve(load_config(DIGITS, {}, ["run.compile=1"]), num_images=20_000, world_size=1)
    (line,) = remarks(config, has_recipe=True, has_blocks=False)
    assert line == "run.compile has no effect: ddpmpp has no blocks that are compiled"
    assert remarks(config, has_recipe=True) == []


def test_keeping_the_best_snapshot_of_all_that_are_kept_is_said() -> None:
    keep = "evaluate.keep_best=true"
    (line,) = said(DIGITS, keep)
    assert line == "evaluate.keep_best has no effect: run.keep_snapshots keeps all snapshots"
    assert said(DIGITS, keep, "run.keep_snapshots=2") == []
