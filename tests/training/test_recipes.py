"""Every recipe trains: resolved as it is, then shrunken and run for two steps on fake data."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from models.build import build
from samplers.levels import visited_levels
from samplers.settings import generation_settings
from tests.training.runs import CPU
from torch_utils.errors import UserError
from training.config import TrainingConfig, resolve
from training.data import TrainingData
from training.recipes import load_config
from training.setup import checked_model, create_trainer, model_of
from training.source import MicroBatches

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
EVERY_RECIPE = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
# what makes a copy small, beside images and network: everything else stays as published
SHRUNKEN = ["run.batch=2", "run.duration=2it", "network.num_blocks=1", "optimizer.warmup=0"]
SMALLEST_WIDTH = {"adm": 64, "ddpm": 32, "vdiff": 32}  # of these networks; their norms divide it

# of the models that the systems' own programs build from the configurations
PUBLISHED_SIZES = {
    "sa-dpm-cifar10-base": 35_746_307,
    "sa-dpm-celeba64-base": 78_700_803,
    "sa-dpm-ffhq64-base": 78_700_803,
    "sa-dpm-afhq64-base": 78_700_803,
    "sa-dpm-celebahq256-base": 113_673_219,
    "vdiff-cifar10-cond": 60_806_403,
    "vdiff-cifar10-uncond": 60_795_139,
    "vdiff-celeba64-tags": 266_831_046,
    "ddpm-mnist": 8_949_761,
    "ddpm-cifar10": 35_746_307,
    "ddpm-cifar10-guided": 44_178_947,
    "ddpm-celebahq256": 113_673_219,
}


def fake_data(config: TrainingConfig, largest: int = 1024) -> TrainingData:
    """Images of the size that the data set's name says or smaller, with labels if wanted."""
    name = Path(str(config.data.path)).stem
    found = re.search(r"-(\d+)x(\d+)$", name)
    assert found is not None, name
    width, height = (min(int(size), largest) for size in found.groups())
    channels = 1 if name.startswith(("digits", "mnist")) else 3
    generator = torch.Generator().manual_seed(0)
    shape = (4, channels, height, width)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    if not config.data.cond:
        return TrainingData(images, None, name)
    if config.network.get("multi_tags"):
        tags = torch.randint(2, (4, 40), generator=generator).float()
        return TrainingData(images, tags, name, label_kind="multi_hot")
    classes = 1000 if name.startswith("imagenet") else 10
    return TrainingData(images, torch.arange(4), name, num_classes=classes, label_kind="class")


@EVERY_RECIPE
def test_a_recipe_trains(recipe: Path) -> None:
    whole = load_config(recipe)
    width = SMALLEST_WIDTH.get(whole.network["name"], 16)
    # CPUs emulate fp16 convolutions, a hundred times slower; fp16 is tested in test_resume.py
    small = [*SHRUNKEN, f"network.model_channels={width}", "run.precision=fp32"]
    config = load_config(recipe, {}, small)
    for section in ("preconditioning", "loss", "ema", "augment"):
        assert getattr(config, section) == getattr(whole, section)
    data = fake_data(config, largest=64)
    resolved = resolve(config, num_images=4, world_size=1)
    checked_model(resolved, data)
    trainer = create_trainer(resolved, model_of(resolved, data), CPU)
    before = [p.detach().clone() for p in trainer.denoiser.parameters()]
    source = MicroBatches(resolved, data, trainer.objective, CPU)
    for _ in range(2):
        batches = list(source.at(trainer.seen))
        loss = trainer.step([(b, d) for b, d, _ in batches], [seed for _, _, seed in batches])
        assert torch.isfinite(loss)
    assert int(trainer.guard.skipped) == 0
    moved = [
        not torch.equal(p, q) for p, q in zip(trainer.denoiser.parameters(), before, strict=True)
    ]
    assert any(moved)


@EVERY_RECIPE
def test_a_recipe_samples_in_as_many_steps_as_it_says(recipe: Path) -> None:
    config = load_config(recipe)
    settings = generation_settings(config.sampler)
    assert settings.guidance is None or config.data.cond
    with torch.device("meta"):
        model = build(model_of(config, fake_data(config)))
    sigmas, _ = visited_levels(
        settings,
        model.sigma_min,
        model.sigma_max,
        model.round_sigma,
        model.preconditioning.schedule,
    )
    assert len(sigmas) == settings.steps + 1


@EVERY_RECIPE
def test_a_recipe_says_where_it_is_from_and_what_to_expect(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert any(word in text for word in ("Published:", "Expected:", "for tests"))
    if "digits" not in recipe.stem:  # ours
        for word in ("Source:", "Hardware:", "Cost:"):
            assert any(word in part for part in with_bases(recipe)), word


def with_bases(recipe: Path) -> list[str]:
    """The texts of a recipe and of all that it extends."""
    text = recipe.read_text(encoding="utf-8")
    base = yaml.safe_load(text).get("base")
    return [text, *(with_bases(recipe.parent / base) if base is not None else [])]


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_a_recipe_builds_the_published_network(name: str) -> None:
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    with torch.device("meta"):
        model = build(model_of(config, fake_data(config)))
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED_SIZES[name]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.batch=yes", "run.batch=yes on the command line: give a number"),
        ("run.batch=1:30", "run.batch=1:30 on the command line: it must be a whole number"),
        ("run.label_dropout=off", "run.label_dropout=off on the command line: give a number"),
        ("optimizer.betas=[yes, 0.9]", "betas"),
        ("run.duration=1:30", "suffixes"),
        ("run.duration=1e300M", "at most"),
        ("run.duration=1e999M", "at most"),
    ],
)
def test_truth_values_and_times_are_no_numbers(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(None, {}, [override])
    assert "\n" not in str(caught.value)


def test_truth_values_stay_where_they_belong() -> None:
    config = load_config(None, {}, ["data.cond=yes", "run.bench=off"])
    assert (config.data.cond, config.run.bench) == (True, False)
