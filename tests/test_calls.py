"""`--calls` and `--sampler=auto` in programs, recipes and Python: what is picked is what runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import driftless
from models.snapshot import find_snapshot, read_info
from samplers.auto import pick_for
from samplers.settings import generation_settings
from tests.command import assert_refused, call
from tests.test_generate_cli import generate, write_snapshot
from tests.training.runs import tiny_config, train_tiny
from torch_utils.images import save_png
from training.config import PreviewConfig
from training.preview import plan_preview
from training.recipes import load_config

DIGITS = Path(__file__).parents[1] / "assets" / "digits-8x8.zip"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_snapshot(folder / "net.safetensors", 0, S_churn=1.0)


def words(flat: dict[str, Any]) -> list[str]:
    """A pick as options of a command line."""
    named = [f"--sampler={flat['name']}", f"--sampler-option=grid={flat['grid']}"]
    rest = {key: value for key, value in flat.items() if key not in ("name", "grid")}
    return named + [f"--sampler-option={key}={value}" for key, value in rest.items()]


def test_generate_says_what_it_picked_and_runs_that(network: Path, tmp_path: Path) -> None:
    done = call(
        *("generate.py", f"--network={network}", f"--outdir={tmp_path / 'a'}", "--seeds=0-2"),
        *("--sampler=auto", "--calls=6", "--clip"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    name = pick_for(6)["name"]
    assert f"sampler auto: {name}, 6 steps on grid {pick_for(6)['grid']} ending" in done.stdout
    written = {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.png")}
    generate(network, tmp_path / "b", "--seeds=0-2", "--steps=6", "--clip", *words(pick_for(6)))
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "b").glob("*.png")}
    assert len(written) == 3
    images = driftless.load(network).sample(range(3), sampler="auto", calls=6, clip=True)
    torch.testing.assert_close(
        images, driftless.load(network).sample(range(3), steps=6, clip=True, **_python(6))
    )


def _python(calls: int) -> dict[str, Any]:
    flat = pick_for(calls)
    return {"sampler": flat["name"]} | {k: v for k, v in flat.items() if k != "name"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--sampler=auto", "sampler auto needs a number of network calls: give calls (--calls)"),
        ("--sampler=auto --steps=5", "give the number of network calls, calls (--calls)"),
        ("--sampler=auto --calls=5 --sampler-option=order=2", "not order: leave it out"),
        ("--sampler=auto --calls=0", "calls is 0: it must be a whole number of 1 or more"),
        ("--calls=5 --steps=5", "steps 5 and calls 5: give one of them"),
        ("--calls=1 --sampler-option=end=sigma_min", "a single step of sampler heun makes 2"),
    ],
)
def test_wrong_options_are_one_line(
    options: str, message: str, network: Path, tmp_path: Path
) -> None:
    files = (f"--network={network}", f"--outdir={tmp_path / 'out'}", "--seeds=0")
    assert_refused(call("generate.py", *files, *options.split()), message)
    assert not (tmp_path / "out").exists()
    scored = (f"--network={network}", "--seeds=0-2", "--detector=pixels", "--metrics=fid")
    assert_refused(call("fid.py", "gen", *scored, f"--ref={DIGITS}", *options.split()), message)


def test_scores_say_what_was_picked(network: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "scores.json"
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (1, 8, 6), dtype=np.uint8)
        save_png(data / f"{index}.png", noise)
    how = ("--detector=pixels", f"--ref={data}", "--metrics=fid", f"--json={out}")
    picked = ("--sampler=auto", "--calls=5")
    line = f"sampler auto: {pick_for(5)['name']}, 5 steps on grid "
    done = call("fid.py", "compare", network, *how, "--num=4", *picked)
    assert done.returncode == 0, done.stderr
    assert f"{network}: {line}" in done.stdout
    (facts,) = json.loads(out.read_text())
    assert (facts["sampler"], facts["steps"], facts["calls"]) == (pick_for(5)["name"], 5, 5)
    done = call("fid.py", "gen", f"--network={network}", "--seeds=0-3", *how, *picked)
    assert done.returncode == 0, done.stderr
    assert line in done.stdout


def test_a_run_stores_what_was_picked(tmp_path: Path) -> None:
    train_tiny(tmp_path / "run", "sampler.name=auto", "sampler.calls=5", "run.duration=2it")
    stored = read_info(find_snapshot(tmp_path / "run")).sampling
    assert stored == {**pick_for(5), "steps": 5}
    assert generation_settings(stored) == generation_settings({"name": "auto", "calls": 5})


def test_in_a_recipe_steps_and_calls_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("sampler: {name: heun, calls: 35, rho: 5}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nsampler: {name: auto, calls: 10}\n")
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    assert load_config(a).sampler == {"name": "heun", "calls": 35, "rho": 5}
    assert load_config(a, {}, ["sampler.steps=9"]).sampler == {
        "name": "heun",
        "rho": 5,
        "steps": 9,
    }
    assert load_config(a, {}, ["sampler.steps=9", "sampler.calls=7"]).sampler["calls"] == 7
    assert load_config(b).sampler == {"name": "auto", "calls": 10}
    assert tiny_config("sampler.calls=7").sampler == {"name": "heun", "steps": 4}


def test_a_preview_takes_the_steps_that_it_names() -> None:
    from tests.samplers.test_generate import model

    sampler = {"name": "auto", "calls": 10}
    plain = plan_preview(PreviewConfig(), sampler, model(0))
    assert plain.sampling.settings == generation_settings(sampler)
    asked = plan_preview(PreviewConfig(steps=4), sampler, model(0))
    assert asked.sampling.settings == generation_settings({**pick_for(10), "steps": 4})
