"""Configs: spans, recipes that extend one another, overrides, and what is refused."""

import os
from pathlib import Path

import pytest
import yaml

from torch_utils.errors import UserError
from training.changes import differences
from training.config import ResolvedConfig, TrainingConfig, model_config, resolve
from training.recipes import dump_config, load_config, merge, parse_override
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


def test_what_is_beyond_every_run_is_refused() -> None:
    for value in (10**5000, "9" * 5000, "1e400M", 1e300, float("inf")):
        with pytest.raises(ValueError, match="at most 1e"):
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
    assert (run.duration, run.tick, run.snap, run.dump) == (4000, 64, 192, 1000)
    assert run.batch_gpu == 16
    assert resolved.ema.halflife == 500_000
    assert (resolved.optimizer.warmup, resolved.optimizer.decay_reference) == (10_000_000, None)
    assert resolve(resolved, num_images=7, world_size=2) == resolved


def test_a_resolved_config_is_written_for_people_and_read_as_any_recipe() -> None:
    tree = {"run": {"batch": 32, "duration": "4ep", "tick": "2it"}, "preview": {"every": 3}}
    resolved = resolve(TrainingConfig.model_validate(tree), num_images=1000, world_size=2)
    written = yaml.safe_load(dump_config(resolved))
    assert (written["run"]["duration"], written["preview"]["every"]) == ("4000img", "192img")
    assert written["optimizer"]["decay_reference"] is None
    read = TrainingConfig.model_validate(written)
    assert type(read.run) is not type(resolved.run)
    assert resolve(read, num_images=7, world_size=2) == resolved


@pytest.mark.parametrize(
    ("section", "key"), [("run", "duration"), ("run", "batch_gpu"), ("ema", "halflife")]
)
def test_what_is_not_resolved_is_no_resolved_config(section: str, key: str) -> None:
    tree = resolve(TrainingConfig(), num_images=10, world_size=1).model_dump()
    tree[section][key] = None if key == "batch_gpu" else "20ep"
    with pytest.raises(ValueError, match=f"{section}.{key}"):
        ResolvedConfig.model_validate(tree)


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


@pytest.mark.parametrize(("asked", "expected"), [("auto", "bf16"), ("fp32", "fp32")])
def test_a_resolved_precision_is_never_auto(asked: str, expected: str) -> None:
    config = TrainingConfig.model_validate({"run": {"precision": asked}})
    resolved = resolve(config, num_images=1000, world_size=1, fast_precision="bf16")
    assert resolved.run.precision == expected
    assert yaml.safe_load(dump_config(resolved))["run"]["precision"] == expected


def test_a_recipe_extends_its_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("run: {batch: 8, seed: 3}\nsampler: {name: heun, rho: 5}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nrun: {batch: 16}\nsampler: {steps: 4}\n")
    plain = load_config(tmp_path / "b.yaml")
    assert (plain.run.batch, plain.run.seed) == (16, 3)
    assert plain.sampler == {"name": "heun", "rho": 5, "steps": 4}
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
    assert parse_override("a=null") == {"a": None}
    assert parse_override("run.desc=") == {"run": {"desc": ""}}
    for wrong in ("a.b", "=3", "a..b=3", "a={"):
        with pytest.raises(UserError):
            parse_override(wrong)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.bath=3", r"key in run\.bath=3 on the command line: .* did you mean 'run\.batch'"),
        ("optimiser.lr=3", "did you mean 'optimizer'"),
        ("lr=3", r"did you mean 'optimizer\.lr'"),
        ("run.lr=3", r"did you mean 'optimizer\.lr'"),
        ("run.batch=0", "^run.batch=0 on the command line: it must be at least 1$"),
        ("run={batch: 0}", r"^run=\{batch: 0\} on the command line: run.batch is 0: it must be"),
        ("augment.p=1.5", "^augment.p=1.5 .*: it must be at most 1$"),
        ("augment.set=all", "^augment.set=all .*: it must be edm or flips$"),
        ("augment={set: flips, p: 0.1}", "leave p out"),
        ("run.batch=many", "it must be a whole number"),
        ("run.batch=1.5", "it must be a whole number"),
        ("run.batch=yes", "give a number"),
        ("optimizer.lr=fast", "^optimizer.lr=fast on the command line: it must be a number$"),
        ("optimizer.lr=-1", "it must be greater than 0"),
        ("optimizer.lr=.inf", "it must be finite"),
        ("optimizer.lr=inf", "it must be finite"),
        ("optimizer.betas=0.9", "give a list"),
        ("optimizer.betas=[0.9]", "give a list of at least 2"),
        ("optimizer.betas=[0.9, 0.9, 0.9]", "give a list of 2"),
        ("optimizer.weight_decay=0.1", "needs name: adamw"),
        ("optimizer.decay=inverse_sqrt", "decay_reference go together"),
        ("loss.terms=sequence_aware", r"give a list, e\.g\. \[sequence_aware\]"),
        ("loss.weight=3", "give a name, or a mapping with a name"),
        ("network={1: 2}", "its key 1 must be a text"),
        ("run=3", "^run=3 on the command line: it must be a mapping of keys to values$"),
        ("run.precision=fp8", "it must be auto, fp32, bf16 or fp16"),
        ("run.desc=a/b", "it may have letters, digits"),
        ("run.duration=5x", "suffixes"),
        ("network.dropout=[", "the value is not YAML"),
    ],
)
def test_bad_values_are_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(None, {}, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "text"),
    [
        ("run", "desc", "3e-4"),
        ("run", "desc", "2024"),
        ("run", "desc", "007"),
        ("run", "desc", "yes"),
        ("run", "desc", "2024-01-02"),
        ("data", "path", "2024"),
        ("data", "path", "a b: c #1"),
    ],
)
def test_the_value_of_a_text_is_that_text(section: str, key: str, text: str) -> None:
    for options, overrides in [({section: {key: text}}, []), ({}, [f"{section}.{key}={text}"])]:
        config = load_config(None, options, overrides)
        assert getattr(getattr(config, section), key) == text
        assert TrainingConfig.model_validate(yaml.safe_load(dump_config(config))) == config


def test_a_text_of_a_recipe_may_look_like_a_number(tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    for text in ("2024", "3e-4", "007", "2024-01-02", "'1.10'"):
        recipe.write_text(f"run: {{desc: {text}}}\n")
        assert load_config(recipe).run.desc == text.strip("'")
    for text in ("1.10", "yes"):  # of which YAML does not keep how they were written
        recipe.write_text(f"run: {{desc: {text}}}\n")
        with pytest.raises(UserError, match=r"run\.desc is .*: it must be a text: write"):
            load_config(recipe)


def test_a_text_may_be_quoted_and_unset() -> None:
    unset = load_config(None, {"run": {"desc": "old"}}, ["run.desc=null"])
    assert unset.run.desc is None
    assert load_config(None, {}, ["run.desc='null'"]).run.desc == "null"


def test_numbers_that_yaml_takes_for_text_are_read_by_the_type_of_the_field(tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text(
        "optimizer: {lr: 1e-3, betas: [9e-1, 0.99], clip_norm: null}\n"
        "run: {batch: 1e2, desc: 1e-3, duration: 1e3img}\n"
        "network: {name: ddpmpp, dropout: 1e-1}\n"
        "loss: {weight: {name: min_snr, gamma: 5e0}, terms: [{name: denoising, lambda: 1e-1}]}\n"
    )
    config = load_config(recipe, {}, ["sampler.rho=2e0"])
    assert (config.optimizer.lr, config.optimizer.betas) == (1e-3, (0.9, 0.99))
    assert (config.run.batch, config.run.desc, config.run.duration) == (100, "1e-3", "1e3img")
    assert config.network["dropout"] == 0.1
    assert config.loss.weight == {"name": "min_snr", "gamma": 5.0}
    assert config.loss.terms == ({"name": "denoising", "lambda": 0.1},)
    assert config.sampler["rho"] == 2.0


def test_a_message_names_the_layer_that_set_the_key(tmp_path: Path) -> None:
    base, recipe = tmp_path / "base.yaml", tmp_path / "recipe.yaml"
    flags = {"optimizer.lr": "--lr"}

    def refused(below: str, above: str, options: dict, *overrides: str) -> str:
        base.write_text(below)
        recipe.write_text(f"base: base.yaml\n{above}")
        with pytest.raises(UserError) as caught:
            load_config(recipe, options, overrides, flags=flags)
        return str(caught.value)

    low = "optimizer: {lr: -1}"
    good = "optimizer: {lr: 1}"
    shown = f"base {os.path.relpath(base)}: optimizer.lr is -1: it must be greater than 0"
    assert refused(low, "", {}) == shown
    assert refused(good, low, {}).startswith(f"recipe {recipe}: optimizer.lr is -1: ")
    assert refused(good, good, {"optimizer": {"lr": -3.0}}).startswith(
        "option --lr: optimizer.lr is -3.0: "
    )
    last = refused(low, low, {"optimizer": {"lr": -3.0}}, "optimizer.lr=0", "run.seed=3")
    assert last == "optimizer.lr=0 on the command line: it must be greater than 0"
    # unknown keys, and what several keys together do wrong: the last one that said something
    assert f"unknown key in base {os.path.relpath(base)}: 'lose'" in refused("lose: {}", "", {})
    assert f"unknown key in recipe {recipe}: 'run.bath'" in refused("", "run: {bath: 1}", {})
    together = refused("optimizer: {weight_decay: 0.1}", "", {}, "optimizer.name=adam")
    assert together == (
        "optimizer.name=adam on the command line: optimizer: weight_decay needs name: adamw"
    )
    # of a name's options, the layer that changed the name
    assert refused("loss: {weight: snr}", "loss: {weight: {a: 1}}", {}, "loss.weight=[1]") == (
        "loss.weight=[1] on the command line: give a name, or a mapping with a name"
    )


def test_options_act_together_in_whatever_order_they_were_given() -> None:
    for options in ({"dropout": 0.3, "name": "adm"}, {"name": "adm", "dropout": 0.3}):
        config = load_config(None, {"network": options}, flags={"network.name": "--arch"})
        assert config.network == {"name": "adm", "dropout": 0.3}
    with pytest.raises(UserError, match=r"^option --ema: ema\.halflife is 'x': "):
        load_config(
            None,
            {"ema": {"halflife": "x"}, "run": {"batch": 3}},
            flags={"ema.halflife": "--ema", "run.batch": "--batch"},
        )


def test_a_recipe_that_is_not_there_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("run: {}\n")
    with pytest.raises(UserError, match=r"No such file .*: did you mean .*/digits\.yaml\?$"):
        load_config(tmp_path / "digit.yaml")
    with pytest.raises(UserError, match=r"did you mean .*configs/digits-tiny\.yaml\?$"):
        load_config("digits_tiny")
    with pytest.raises(UserError, match=r"No such file or directory$"):
        load_config(tmp_path / "unheard-of.yaml")


def test_unreadable_recipes_are_refused(tmp_path: Path) -> None:
    for name, text, message in [
        ("a.yaml", "base: a.yaml", "circle"),
        ("b.yaml", "x: [", "not YAML"),
        ("c.yaml", "- 1", "not a mapping"),
        ("d.yaml", "base: nowhere.yaml", "cannot read recipe"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            load_config(tmp_path / name)


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
