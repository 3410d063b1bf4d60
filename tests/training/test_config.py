"""Configs: spans, recipes that extend one another, overrides, and what is refused."""

from pathlib import Path

import pytest
import yaml

from torch_utils.errors import UserError
from training.changes import differences
from training.config import TrainingConfig, images, model_config, resolve
from training.recipes import dump_config, load_config, merge, parse_override, read_recipe
from training.units import canonical, to_images

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("value", "bare", "expected"),
    [
        (200, "M", 200_000_000),
        (0.5, "M", 500_000),
        (50, "k", 50_000),
        ("600it", "M", 600 * 32),
        ("3ep", "M", 3000),
        ("1.5k", "M", 1500),
        ("7img", "k", 7),
        ("2e3img", "k", 2000),
        (5, "tick", 500),
        (0, "M", 0),
    ],
)
def test_spans_mean_images(value: object, bare: str, expected: int) -> None:
    span = canonical(value, bare)
    assert to_images(span, batch=32, num_images=1000, tick=100) == expected


@pytest.mark.parametrize("value", ["", "ten", "5 parsecs", "-3k", True, None, "k"])
def test_what_is_no_span_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="suffixes"):
        canonical(value, "M")


def test_less_than_an_image_is_refused() -> None:
    with pytest.raises(UserError, match="less than one image"):
        to_images("0.1img", batch=1, num_images=1)


def test_resolving_settles_everything_and_is_idempotent() -> None:
    config = TrainingConfig.model_validate(
        {"run": {"batch": 32, "duration": "4ep", "tick": "2it", "snap": 3, "dump": "1ep"}}
    )
    resolved = resolve(config, num_images=1000, world_size=2)
    run = resolved.run
    assert (run.duration, run.tick, run.snap, run.dump) == ("4000img", "64img", "192img", "1000img")
    assert run.batch_gpu == 16
    assert images(resolved.ema.halflife) == 500_000
    assert resolve(resolved, num_images=7, world_size=2) == resolved
    assert TrainingConfig.model_validate(yaml.safe_load(dump_config(resolved))) == resolved


@pytest.mark.parametrize(
    ("run", "world", "message"),
    [
        ({"batch": 30}, 4, "batch 30 is not divisible by 4 processes"),
        ({"batch": 32, "batch_gpu": 12}, 1, "not divisible by the micro-batch size batch_gpu=12"),
        ({"duration": 0}, 1, "run.duration is 0"),
    ],
)
def test_impossible_sizes_are_refused(run: dict, world: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(TrainingConfig.model_validate({"run": run}), num_images=10, world_size=world)


def test_a_recipe_extends_its_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("run: {batch: 8, seed: 3}\nsampler: {name: heun, rho: 5}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nrun: {batch: 16}\nsampler: {steps: 4}\n")
    assert read_recipe(tmp_path / "b.yaml") == {
        "run": {"batch": 16, "seed": 3},
        "sampler": {"name": "heun", "rho": 5, "steps": 4},
    }
    config = load_config(tmp_path / "b.yaml", {"run": {"seed": 4}}, ["run.seed=5", "sampler.rho=6"])
    assert (config.run.batch, config.run.seed, config.sampler["rho"]) == (16, 5, 6)


def test_another_name_drops_the_options_of_the_old_one() -> None:
    below = {"network": {"name": "ddpmpp", "model_channels": 32}, "run": {"batch": 4}}
    above = {"network": {"name": "ncsnpp"}}
    assert merge(below, above) == {"network": {"name": "ncsnpp"}, "run": {"batch": 4}}
    same = merge(below, {"network": {"name": "ddpmpp", "dropout": 0.1}})
    assert same["network"] == {"name": "ddpmpp", "model_channels": 32, "dropout": 0.1}
    from_text = merge({"loss": {"weight": "edm"}}, {"loss": {"weight": {"sigma_data": 1.0}}})
    assert from_text["loss"]["weight"] == {"name": "edm", "sigma_data": 1.0}


def test_overrides_are_yaml() -> None:
    assert parse_override("a.b=[1, 2]") == {"a": {"b": [1, 2]}}
    assert parse_override("a.b=2e-3") == {"a": {"b": 0.002}}
    assert parse_override("a=null") == {"a": None}
    assert parse_override("run.desc=") == {"run": {"desc": ""}}
    for wrong in ("a.b", "=3", "a..b=3", "a={"):
        with pytest.raises(UserError):
            parse_override(wrong)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.bath=3", "did you mean 'run.batch'"),
        ("optimiser.lr=3", "did you mean 'optimizer'"),
        ("run.batch=0", "run.batch is 0"),
        ("augment.p=1.5", "augment.p is 1.5"),
        ("augment.set=all", "augment.set is 'all'"),
        ("augment={set: flips, p: 0.1}", "leave p out"),
        ("run.batch=many", "run.batch is 'many'"),
        ("optimizer.lr=-1", "optimizer.lr is -1"),
        ("optimizer.lr=.inf", "finite"),
        ("optimizer.weight_decay=0.1", "needs name: adamw"),
        ("optimizer.decay=inverse_sqrt", "decay_reference go together"),
        ("run.precision=fp8", "run.precision is 'fp8'"),
        ("run.desc=a/b", "run.desc is 'a/b'"),
        ("run.duration=5x", "suffixes"),
    ],
)
def test_bad_values_are_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(None, {}, [override])
    assert "\n" not in str(caught.value)


def test_unreadable_recipes_are_refused(tmp_path: Path) -> None:
    for name, text, message in [
        ("a.yaml", "base: a.yaml", "circle"),
        ("b.yaml", "x: [", "not YAML"),
        ("c.yaml", "- 1", "not a mapping"),
        ("d.yaml", "base: nowhere.yaml", "cannot read recipe"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            read_recipe(tmp_path / name)


def test_differences_ignore_what_does_not_change_the_result() -> None:
    old = TrainingConfig()
    tree = old.model_dump()
    tree["run"]["duration"], tree["run"]["tick"], tree["run"]["device"] = "1img", "1img", "cpu"
    assert differences(old, TrainingConfig.model_validate(tree)) == []
    tree["optimizer"]["decay"] = "cosine"
    assert "run.duration: 200M -> 1img" in differences(old, TrainingConfig.model_validate(tree))
    tree["optimizer"]["decay"] = "constant"
    tree["optimizer"]["lr"], tree["network"]["dropout"] = 0.5, 0.2
    changed = differences(old, TrainingConfig.model_validate(tree))
    assert changed == ["network.dropout: None -> 0.2", "optimizer.lr: 0.001 -> 0.5"]


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_resolves(recipe: Path) -> None:
    config = resolve(load_config(recipe), num_images=1000, world_size=1)
    model = model_config(config, image_shape=(1, 8, 8), label_dim=10)
    assert model.label_dim == (10 if config.data.cond else 0)


@pytest.mark.parametrize(
    ("augment", "width"), [({}, 0), ({"p": 0.12}, 9), ({"set": "flips"}, 0), ({"p": 1.0}, 9)]
)
def test_the_augmentation_decides_the_width_of_the_networks_augmentation_labels(
    augment: dict, width: int
) -> None:
    config = TrainingConfig.model_validate({"augment": augment})
    model = model_config(config, image_shape=(3, 8, 8), label_dim=0)
    assert model.augment_dim == width
