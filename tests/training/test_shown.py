"""A dry run shows what is trained, and the recipe that it prints trains the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from diffusion.preconditioning import PRESETS, Preconditioning
from losses.batch import Batch, Generators
from losses.objective import Objective
from tests.command import call
from tests.training.runs import CPU, ROOT, assert_equal_states
from tests.training.test_recipes import fake_data
from training.choice import checked
from training.data import load_training_data
from training.launch import Start, run
from training.recipes import load_config
from training.setup import create_objective
from training.shown import shown
from training.state import newest_state
from training.wanted import wanted_config

TINY = ROOT / "configs" / "digits-tiny.yaml"
PLAIN = ["loss.noise_level=null", "loss.weight=null", "loss.reduction=null"]


def recipe_of(*overrides: str, recipe: Path = TINY) -> str:
    """What a dry run prints."""
    config = load_config(recipe, {}, overrides)
    data = load_training_data(config.data)
    wanted = checked(config, data, CPU)
    return shown(wanted.config, data, wanted.blank)


def parts(scalings: Preconditioning) -> list[Any]:
    """Everything that a preconditioning is, as numbers and names."""
    names = [getattr(scalings, key) for key in ("output", "input_scale", "conditioning")]
    rest = [scalings.sigma_data, scalings.sigma_min, scalings.sigma_max, scalings.quantize]
    sigma = torch.logspace(-1, 1, 9, dtype=torch.float64)
    return [*names, *rest, scalings.preserves_variance, scalings.c_noise(sigma).tolist()]


def weighted_levels(objective: Objective) -> list[list[float]]:
    """Levels that an objective draws, and their weights."""
    random = torch.Generator().manual_seed(1)
    batch = Batch(torch.zeros(8, 1, 8, 8))
    sigma = objective.draw(Generators(random, random, total=8), batch).sigma
    return [sigma.tolist(), objective.weight(sigma).tolist()]


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_shown_of_a_preset_is_the_preset(preset: str, tmp_path: Path) -> None:
    text = recipe_of(f"preconditioning={{name: {preset}}}", *PLAIN)
    assert "null" not in text.replace("rampup_ratio: null", "")
    shown_at = tmp_path / "shown.yaml"
    shown_at.write_text(text)
    assert recipe_of(recipe=shown_at) == text
    before = load_config(TINY, {}, [f"preconditioning={{name: {preset}}}", *PLAIN])
    after = load_config(shown_at)
    data = load_training_data(before.data)
    old, new = checked(before, data, CPU), checked(after, data, CPU)
    assert parts(new.blank.preconditioning) == parts(old.blank.preconditioning)
    a, b = (create_objective(wanted.config, wanted.blank.preconditioning) for wanted in (old, new))
    assert weighted_levels(b) == weighted_levels(a)
    assert (b.reduction, b.sampling) == (a.reduction, a.sampling)


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_what_is_shown_of_a_recipe_is_the_recipe(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe)
    data = fake_data(config, largest=64)
    wanted = checked(config, data, CPU)
    text = shown(wanted.config, data, wanted.blank)
    (tmp_path / "shown.yaml").write_text(text)
    again = checked(load_config(tmp_path / "shown.yaml"), data, CPU)
    assert shown(again.config, data, again.blank) == text  # the number of parameters too


def test_a_dry_run_names_what_was_left_to_defaults_and_counts() -> None:
    text = recipe_of(recipe=ROOT / "configs" / "digits.yaml")
    lines = text.splitlines()
    assert lines[:3] == [
        "# 1,032,705 parameters",
        "# 1,437 images of 8x8 with 1 channel(s), 10 classes",
        "# 1,000 steps of 128 images",
    ]
    tree = yaml.safe_load(text)
    assert tree["preview"] == {
        "enabled": True, "every": "32000img", "num_images": 80, "steps": 18,
    }  # fmt: skip
    assert tree["network"]["embedding_type"] == "positional"
    assert tree["loss"]["weight"] == {"name": "edm", "sigma_data": 0.75}
    assert tree["loss"]["reduction"] == "sum"
    assert tree["loss"]["terms"] == [{"name": "denoising", "lambda": 1.0}]
    assert "decay_reference" not in tree["optimizer"]  # there is none
    assert tree["ema"]["rampup_ratio"] is None  # not what it would be without


def test_what_is_shown_trains_to_the_same_bits(tmp_path: Path) -> None:
    few = "run.duration=2it"
    dry = ("--dry-run", "--probe=0")
    printed = call("train.py", f"--config={TINY}", f"--outdir={tmp_path}", *dry, few)
    assert printed.returncode == 0, printed.stderr
    assert not list(tmp_path.iterdir())
    recipe = tmp_path / "shown.yaml"
    recipe.write_text(printed.stdout)
    ends = []
    for name, wanted in {
        "a": wanted_config(TINY, [few]),
        "b": wanted_config(recipe),
    }.items():
        result = run(wanted, Start(outdir=str(tmp_path / name)))
        state = newest_state(result.folder)[1]
        assert state is not None
        ends.append(state["trainer"])
    assert_equal_states(*ends)
