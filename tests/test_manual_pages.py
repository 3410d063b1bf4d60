"""The manual says what is: its tables are the registries', its recipes train, its commands work."""

import importlib
import re
from pathlib import Path

import click
import pytest
import torch

import losses
from diffusion import GRIDS, SCHEDULES
from diffusion.outputs import OUTPUTS
from diffusion.preconditioning import CONDITIONINGS, INPUT_SCALES, PRESETS
from samplers import SAMPLERS
from samplers.command_line import settings_of
from tests.manual import PAGES, TABLES, names_in, updated
from tests.test_docs import commands
from tests.training.runs import CPU
from tests.training.test_recipes import fake_data
from torch_utils.errors import UserError
from torch_utils.registry import Row
from train import wanted_of
from training.choice import checked
from training.recipes import load_config
from training.setup import create_objective, create_trainer, model_of
from training.source import MicroBatches

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OBJECTIVES = (DOCS / "objectives.md").read_text(encoding="utf-8")
REGISTRIES: dict[str, dict[str, Row]] = {
    "sampling.md": {**SAMPLERS, **GRIDS},
    "objectives.md": {**SCHEDULES, **losses.NOISE_LEVELS, **losses.WEIGHTS, **losses.TERMS},
}


# ---- tables


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert updated(text) == text, f"run make docs-tables: a table of {page.name} changed"
    for name in REGISTRIES.get(page.name, ()):
        assert f"\n| `{name}` | " in text, name


def test_every_table_has_a_place() -> None:
    places = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in TABLES if f"<!-- {name} -->" not in places] == []


def test_an_old_table_is_replaced_and_the_rest_is_kept() -> None:
    old = "a\n<!-- samplers -->\nold\n<!-- end -->\nb\n<!-- grids -->\n<!-- end -->\nc\n"
    new = updated(old)
    assert "old" not in new
    assert new.startswith("a\n<!-- samplers -->\n| sampler | ")
    assert "\n<!-- end -->\nb\n<!-- grids -->\n| grid | " in new
    assert new.endswith(" |\n<!-- end -->\nc\n")
    assert updated(new) == new
    for wrong in ("<!-- sampler -->\n<!-- end -->", "<!-- grids -->\n| a |\n<!-- samplers -->\n"):
        with pytest.raises(ValueError, match="no whole place"):
            updated(wrong)


@pytest.mark.parametrize(
    ("key", "known"),
    [("output", OUTPUTS), ("input_scale", INPUT_SCALES), ("conditioning", CONDITIONINGS)],
)
def test_formulas_are_given_for_every_part_of_the_preconditioning(key: str, known: dict) -> None:
    found = re.search(rf"\| `preconditioning\.{key}` \|.*\n.*\n((?:\|.*\n)+)", OBJECTIVES)
    assert found is not None
    assert re.findall(r"^\| `(\w+)` \|", found[1], re.M) == list(known)
    assert set(losses.PUBLISHED_OBJECTIVES) == set(PRESETS)


# ---- docs/architecture.md

ROUTES = re.findall(
    r"^\| `([\w/]+\.py)` \| `([\w.]+)` \|",
    (DOCS / "architecture.md").read_text(encoding="utf-8"),
    re.M,
)


def test_every_step_of_a_route_exists() -> None:
    gone = [(file, name) for file, name in ROUTES if name not in names_in(file)]
    assert not gone
    assert len(ROUTES) >= 30


def test_every_file_that_the_map_names_exists() -> None:
    for page in (DOCS / "architecture.md", ROOT / "CONTRIBUTING.md"):
        for file in re.findall(r"`([\w/]+/\w+\.\w+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / file).exists(), f"{page.name}: {file}"


# ---- docs/objectives.md

EXAMPLES = dict(re.findall(r"```yaml\n# (\w+)\.yaml\n(.*?)```", OBJECTIVES, re.S))
REFUSED = re.findall(
    r"^\| (`.*?=.*?`) \| (.*) \|$", OBJECTIVES.split("\nThese combinations are refused")[1], re.M
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains(name: str, tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    recipe = tmp_path / f"{name}.yaml"
    recipe.write_text(EXAMPLES[name], encoding="utf-8")
    small = ["network.model_channels=32", "network.num_blocks=1", "optimizer.warmup=0"]
    config = load_config(recipe, {}, [*small, "run.batch=8", "run.duration=2it"])
    data = fake_data(config)
    resolved = checked(config, data, CPU).config
    trainer = create_trainer(resolved, model_of(resolved, data), CPU)
    source = MicroBatches(resolved, data, trainer.objective, CPU)
    for _ in range(2):
        batches = list(source.at(trainer.seen))
        loss = trainer.step([(b, d) for b, d, _ in batches], [seed for _, _, seed in batches])
        assert torch.isfinite(loss)
    logged = trainer.tally.flush()
    terms = [term if isinstance(term, str) else term["name"] for term in config.loss.terms]
    assert {f"Loss/{term}" for term in terms} <= logged.keys()
    bands = {key for key in logged if key.startswith("Loss/sigma/")}
    assert bands
    assert sum(logged[band]["num"] for band in bands) == 16


def test_the_printed_statistics_have_names_that_exist() -> None:
    from training.tally import BANDS

    for band in re.findall(r"Loss/sigma/([\w.]+)", OBJECTIVES):
        assert band in BANDS
    assert f"`{BANDS[0]}`, `{BANDS[1]}`, ..., `{BANDS[-1]}`" in OBJECTIVES
    for term in re.findall(r'"Loss/(\w+)":', OBJECTIVES):
        assert term in {"loss", *losses.TERMS}


@pytest.mark.parametrize(("given", "error"), REFUSED)
def test_what_does_not_go_together_is_refused_in_these_words(given: str, error: str) -> None:
    config = load_config(ROOT / "configs" / "digits.yaml", {}, re.findall("`(.*?)`", given))
    with pytest.raises(UserError) as refused:
        create_objective(config)
    assert str(refused.value) == error


def test_there_are_examples_and_refusals() -> None:
    assert len(EXAMPLES) >= 4
    assert len(REFUSED) >= 10


# ---- commands


def parsed(script: str, words: list[str]) -> click.Context:
    """What a command line means to its program."""
    command: click.Command = importlib.import_module(script).main
    return command.make_context(script, list(words))


def cases(script: str) -> list[tuple[str, list[str]]]:
    """(page, words after the script) of every command of the manual."""
    return [
        (page.name, words[words.index(f"{script}.py") + 1 :])
        for page in PAGES
        for words in commands(page)
        if f"{script}.py" in words
    ]


@pytest.mark.parametrize(("page", "words"), cases("train"))
def test_a_training_command_could_start(page: str, words: list[str], tmp_path: Path) -> None:
    """What train.py does before the first step, on images of the right size."""
    values = parsed("train", words).params
    if not (ROOT / str(values["config"])).exists() and values["config"] is not None:
        (tmp_path / "configs").symlink_to(ROOT / "configs")
        recipe = tmp_path / values["config"]
        recipe.write_text(EXAMPLES[recipe.stem], encoding="utf-8")
        values["config"] = recipe
    if values["resume"] != "latest":
        values["resume"] = None  # the manual's runs are not here
    config = wanted_of(values)
    assert values["outdir"]
    checked(config, fake_data(config), CPU)


@pytest.mark.parametrize(("page", "words"), cases("generate"))
def test_a_generating_command_is_understood(page: str, words: list[str]) -> None:
    values = parsed("generate", words).params
    settings, _, _ = settings_of({}, values)
    if values["randn_like"] == "ddb":
        assert settings.name == "ito_taylor"
    if values["solver"]:
        assert settings.name == "ablation"
    if values["calls"] is None:
        assert settings.steps == (values["steps"] or 18)
    else:
        assert settings.num_calls == values["calls"]


def test_every_recipe_of_a_published_system_has_its_command() -> None:
    page = (DOCS / "migration.md").read_text(encoding="utf-8")
    for recipe in sorted((ROOT / "configs").glob("*.yaml")):
        if recipe.stem.startswith(("sa-dpm-", "cdm-", "vdiff-", "ddpm-")):
            told = recipe.name in page or recipe.stem in ("sa-dpm-cifar10-base",
                                                          "sa-dpm-celeba64-base")  # fmt: skip
            assert told, recipe.name
