"""Every recipe trains: resolved as it is, then shrunken and run for two steps on fake data."""

from pathlib import Path

import pytest
import torch

from tests.training.runs import CPU
from training.config import resolve
from training.data import TrainingData
from training.recipes import load_config
from training.setup import check, create_trainer, model_of
from training.source import MicroBatches

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
# what makes a copy small: everything else stays as published
SHRUNKEN = ["run.batch=2", "run.duration=2it", "network.num_blocks=1", "optimizer.warmup=0"]


def fake_data(recipe: str) -> TrainingData:
    """Images of the size that a recipe's name says, with classes if it has them."""
    size = 64 if "64" in recipe else 8 if "digits" in recipe else 32
    classes = 1000 if "imagenet" in recipe else 10
    generator = torch.Generator().manual_seed(0)
    shape = (4, 1 if "digits" in recipe else 3, size, size)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 3]) if "uncond" not in recipe else None
    return TrainingData(images, labels, recipe, num_classes=classes, label_kind="class")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_its_source_and_trains(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    assert text.startswith("# ")
    width = 64 if "adm" in recipe.stem else 16
    # CPUs emulate fp16 convolutions, a hundred times slower; fp16 is tested in test_resume.py
    small = [*SHRUNKEN, f"network.model_channels={width}", "run.precision=fp32"]
    config = load_config(recipe, {}, small)
    data = fake_data(recipe.stem)
    if not config.data.cond:
        data = TrainingData(data.images, None, data.name)
    resolved = resolve(config, num_images=4, world_size=1)
    check(resolved, data)
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


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_states_what_to_expect(recipe: Path) -> None:
    comment = [line for line in recipe.read_text().splitlines() if line.startswith("#")]
    words = " ".join(comment)
    assert any(word in words for word in ("Published:", "Expected:", "for tests"))
