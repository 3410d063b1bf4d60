"""Previews are bounded, optional, and nothing else depends on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from diffusion import GRIDS
from diffusion.denoiser import Denoiser
from models.build import build
from samplers.labels import label_source
from tests.samplers import counted
from tests.training.runs import CPU, ROOT, assert_equal_states, tiny_config, train_tiny
from torch_utils.errors import UserError
from torch_utils.grids import square_columns
from training.config import PreviewConfig, model_config
from training.data import TrainingData
from training.loop import train
from training.preview import MAX_CALLS, MAX_WORK, plan_preview, save_preview
from training.recipes import load_config
from training.setup import create_trainer

RECIPES = sorted((ROOT / "configs").glob("*.yaml"))


def model(size: int, label_dim: int = 0) -> Denoiser:
    config = tiny_config("data.cond=true" if label_dim else "data.cond=false")
    shape = model_config(config, image_shape=(3, size, size), label_dim=label_dim)
    return build(shape, empty=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [8, 64, 256])
def test_the_default_preview_of_every_recipe_is_bounded(recipe: Path, size: int) -> None:
    config = load_config(recipe)
    denoiser = model(size, label_dim=8 if config.data.cond else 0)
    preview = plan_preview(config.preview, config.sampler, denoiser)
    num_calls = preview.sampling.settings.num_calls
    assert 1 <= num_calls <= MAX_CALLS
    num = len(preview.samples)
    assert num == 8 or num * num_calls * size**2 <= MAX_WORK
    assert num == 64 or size > 64
    assert preview.sampling.settings.steps <= config.sampler["steps"]


@pytest.mark.parametrize(
    ("steps", "entry"), [(18, [10, 5, 0.06, 0.3]), (40, [9, 2, 0.5, 0.6])], ids=["many", "narrow"]
)
def test_a_bounded_preview_leaves_out_restarts(steps: int, entry: list[float]) -> None:
    """Many would leave one step for the rest; a narrow one would have no place on a short grid."""
    sampler = {"name": "restart", "steps": steps, "restarts": [entry]}
    settings = plan_preview(PreviewConfig(), sampler, model(8)).sampling.settings
    assert settings.options["restarts"] == []
    assert settings.steps == min(steps, (MAX_CALLS + 1) // 2)
    asked = plan_preview(PreviewConfig(steps=steps), sampler, model(8)).sampling.settings
    assert asked.options["restarts"] == [entry]


def test_restarts_within_the_bound_are_previewed() -> None:
    settings = plan_preview(PreviewConfig(), {"name": "restart"}, model(8)).sampling.settings
    assert settings.options["restarts"]
    assert settings.num_calls <= MAX_CALLS


def test_what_the_section_says_is_what_is_sampled() -> None:
    sampler = {"name": "ddpm", "steps": 1000}
    asked = PreviewConfig(steps=300, num_images=5)
    preview = plan_preview(asked, sampler, model(8))
    assert (preview.sampling.settings.steps, len(preview.samples)) == (300, 5)
    rows = plan_preview(PreviewConfig(num_images=30), sampler, model(8, label_dim=10))
    assert (len(rows.samples), rows.num_columns, len(rows.classes)) == (30, 3, 10)
    few = plan_preview(PreviewConfig(num_images=4), sampler, model(8, label_dim=10))
    assert [sample.class_index for sample in few.samples] == [0, 1, 2, 3]
    with pytest.raises(UserError, match="steps"):
        plan_preview(PreviewConfig(), {"name": "heun", "steps": 0}, model(8))


def test_all_previews_of_a_run_share_noise_levels_that_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GRIDS, "rho", replace(GRIDS["rho"], target=f"{counted.__name__}:grid"))
    monkeypatch.setattr(counted, "CALLS", [])
    train_tiny(tmp_path / "run", "preview.every=2tick", "preview.num_images=20")
    assert len(list(tmp_path.glob("run/samples-*.png"))) == 4
    assert counted.CALLS == [2]


def test_previews_change_neither_states_nor_snapshots(tmp_path: Path) -> None:
    ends = {
        name: train_tiny(tmp_path / name, *overrides)
        for name, overrides in {
            "with": ["preview.every=2tick", "preview.num_images=20"],
            "without": ["preview=off"],
        }.items()
    }
    assert_equal_states(ends["with"]["trainer"], ends["without"]["trainer"])
    pictures = sorted(path.name for path in (tmp_path / "with").glob("samples-*.png"))
    assert pictures == [f"samples-{images:010d}.png" for images in (16, 80, 144, 192)]
    assert not list((tmp_path / "without").glob("samples-*"))
    with_, without = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("network-snapshot-*")}
        for name in ends
    )
    assert with_ == without
    width, height = PIL.Image.open(tmp_path / "with" / pictures[-1]).size
    assert height > width  # ten rows of two


@pytest.mark.parametrize("num_channels", [2, 4])
@pytest.mark.parametrize("cond", [True, False], ids=["classes", "no-classes"])
def test_previews_show_images_of_any_number_of_channels(
    num_channels: int, cond: bool, tmp_path: Path
) -> None:
    """Channels side by side, rows of classes and a row of seeds, and a line with the progress."""
    overrides = [f"data.cond={str(cond).lower()}", "run.duration=2it", "preview.num_images=20"]
    config = tiny_config(*overrides, *([] if cond else ["run.label_dropout=0"]))
    images = torch.randint(256, (100, num_channels, 8, 6), dtype=torch.uint8)
    labels = torch.eye(10)[torch.arange(100) % 10] if cond else torch.zeros(100, 0)
    data = TrainingData(images, labels, "tiny", xflip=True)
    train(config, data, tmp_path, CPU)
    with PIL.Image.open(tmp_path / "samples-0000000032.png") as picture:
        columns = 2 if cond else square_columns(64, num_channels)
        rows, cell_w = -(-20 // columns), num_channels * (6 * 11 + 1) - 1 + 10
        assert 0 < picture.height - rows * (8 * 11 + 2) < 60  # the title and the seeds
        assert (2 if cond else 0) <= picture.width - columns * cell_w <= 30
        assert "name: heun" in picture.text["sampler"]


def test_a_stop_drops_the_preview_at_the_next_network_call(tmp_path: Path) -> None:
    config = tiny_config("sampler.steps=5", "data.cond=false", "run.label_dropout=0")
    shape = model_config(config, image_shape=(1, 8, 6), label_dim=10)
    trainer = create_trainer(config, shape, CPU)
    preview = plan_preview(config.preview, config.sampler, trainer.average)
    calls = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) == 3

    path = tmp_path / "samples.png"
    line = save_preview(path, preview, CPU, seen=0, stop=stop)
    assert line == "preview dropped: samples.png"
    assert len(calls) == 3
    assert not path.exists()
    other = tmp_path / "other.png"
    assert save_preview(other, preview, CPU, seen=0) is None
    assert np.asarray(PIL.Image.open(other)).std() > 0


def test_a_preview_of_a_broken_model_is_a_line_and_no_picture(tmp_path: Path) -> None:
    config = tiny_config("data.cond=false", "run.label_dropout=0")
    shape = model_config(config, image_shape=(1, 8, 6), label_dim=10)
    trainer = create_trainer(config, shape, CPU)
    for parameter in trainer.average.parameters():
        parameter.fill_(float("nan"))
    preview = plan_preview(config.preview, config.sampler, trainer.average)
    line = save_preview(tmp_path / "samples.png", preview, CPU, seen=0)
    assert line is not None
    assert "not finite" in line
    assert not list(tmp_path.iterdir())


def test_a_preview_of_vector_labels_draws_those_of_the_data(tmp_path: Path) -> None:
    """Never one-hots; and no rows of classes."""
    config = tiny_config("sampler.steps=2")
    shape = model_config(config, image_shape=(1, 8, 6), label_dim=3)
    denoiser = create_trainer(config, shape, CPU).average
    seen: list[torch.Tensor] = []
    denoiser.model.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    examples = [[0.25, -3.0, 7.5], [0.5, -3.0, 7.5]]
    source = label_source(3, "vector", examples=examples)
    preview = plan_preview(config.preview, config.sampler, denoiser, source)
    assert (preview.classes, preview.samples[0].class_index) == ([], None)
    assert save_preview(tmp_path / "samples.png", preview, CPU, seen=0) is None
    assert {tuple(row) for row in torch.cat(seen).tolist()} == {tuple(row) for row in examples}


def test_a_preview_has_a_row_for_classes_that_have_images_only() -> None:
    config = tiny_config()
    denoiser = model(8, label_dim=10)
    source = label_source(10, "class", present=[2, 5, 9])
    assert plan_preview(config.preview, config.sampler, denoiser, source).classes == [2, 5, 9]
    assert plan_preview(config.preview, config.sampler, denoiser).classes == list(range(10))


@pytest.mark.parametrize(
    ("sampler", "precision", "expected"),
    [
        ({}, "fp32", "fp32"),
        ({}, "bf16", "bf16"),
        ({"precision": "fp32"}, "bf16", "fp32"),
        ({"precision": "fp16"}, "bf16", "fp16"),
    ],
    ids=str,
)
def test_a_preview_has_the_precision_of_the_sampler_or_else_of_the_run(
    sampler: dict[str, str], precision: str, expected: str
) -> None:
    given = {"name": "heun", "steps": 2, **sampler}
    preview = plan_preview(PreviewConfig(), given, model(8), precision=precision)
    assert preview.sampling.settings.precision == expected


def test_a_preview_in_half_precision_shows_the_weights_of_now_and_leaves_them(
    tmp_path: Path,
) -> None:
    config = tiny_config("sampler.steps=2", "run.precision=bf16")
    shape = model_config(config, image_shape=(1, 8, 6), label_dim=10)
    average = create_trainer(config, shape, CPU).average
    preview = plan_preview(config.preview, config.sampler, average, precision="bf16")
    assert save_preview(tmp_path / "a.png", preview, CPU, seen=0) is None
    for parameter in average.parameters():
        parameter.mul_(1.5)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    assert save_preview(tmp_path / "b.png", preview, CPU, seen=0) is None
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    assert all(torch.equal(tensor, before[k]) for k, tensor in average.state_dict().items())
    with PIL.Image.open(tmp_path / "b.png") as picture:
        assert "precision: bf16" in picture.text["sampler"]


def test_previews_of_a_run_in_half_precision_are_in_its_precision(tmp_path: Path) -> None:
    train_tiny(tmp_path, "run.precision=bf16", "run.duration=2it", "preview.num_images=10")
    with PIL.Image.open(tmp_path / "samples-0000000032.png") as picture:
        assert "precision: bf16" in picture.text["sampler"]
