"""Averages of several lengths beside the run's own: tracked, resumed, written, kept together."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.build import build
from models.posthoc import power_decay
from models.snapshot import find_snapshot, read_info, snapshot_path
from tests.command import assert_refused, call
from tests.training.runs import (
    CPU,
    RECIPE,
    assert_equal_states,
    tiny_config,
    tiny_data,
    train_tiny,
)
from torch_utils.errors import UserError
from training.changes import differences, refuse_unfit
from training.memory import Forecast
from training.recipes import load_config
from training.run_dir import set_aside
from training.run_log import images_of, read_scores
from training.setup import create_trainer, model_of
from training.source import MicroBatches
from training.state import PATTERN, prune, state_path

ON = "ema.posthoc=[0.05,0.1]"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An uninterrupted run with two averages more."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train_tiny(folder, ON)


def test_every_average_follows_its_power_function() -> None:
    config, data = tiny_config(ON, "optimizer.warmup=0"), tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    source = MicroBatches(config, data, trainer.objective, CPU)
    names = [name for name, _ in trainer.denoiser.named_parameters()]
    expected: dict[str, list[torch.Tensor]] = {"0.050": [], "0.100": []}
    for _ in range(4):
        seen, parts = trainer.seen, list(source.at(trainer.seen))
        trainer.step([part[:2] for part in parts], [part[2] for part in parts])
        weights = [p.detach().double() for p in trainer.denoiser.parameters()]
        for name, before in expected.items():
            beta = power_decay(float(name), seen=seen, batch=16)
            pairs = zip(weights, before or weights, strict=True)
            expected[name] = [w + beta * (b - w) for w, b in pairs]
    for name, tensors in expected.items():
        found = dict(trainer.posthoc[name].named_parameters())
        for key, tensor in zip(names, tensors, strict=True):
            torch.testing.assert_close(found[key].double(), tensor, rtol=1e-5, atol=1e-7)
    moved = "model.enc.8x6_conv.weight"
    assert not torch.equal(*(average.state_dict()[moved] for average in trainer.posthoc.values()))


def test_they_leave_the_run_as_it_was(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    plain = train_tiny(tmp_path / "run")["trainer"]
    assert plain["posthoc"] == {}
    assert [*whole[1]["trainer"]["posthoc"]] == ["0.050", "0.100"]
    assert_equal_states(plain, whole[1]["trainer"] | {"posthoc": {}})


def test_a_resumed_run_has_the_same_bits(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    train_tiny(folder, ON, "run.duration=96img")
    assert_equal_states(train_tiny(folder, ON, resume=True)["trainer"], whole[1]["trainer"])
    for path in whole[0].glob("network-snapshot-0000000192*"):
        ours, theirs = load_file(folder / path.name), load_file(path)
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_each_snapshot_has_its_averages_and_stands_for_itself(
    whole: tuple[Path, dict[str, Any]],
) -> None:
    folder, state = whole
    names = [path.name for path in sorted(folder.glob("network-snapshot-*"))]
    assert names == [
        f"network-snapshot-{images:010d}{suffix}.safetensors"
        for images in (16, 80, 144, 192)
        for suffix in ("-0.050", "-0.100", "")
    ]
    newest = find_snapshot(folder)
    assert newest == snapshot_path(folder, 192)
    assert read_info(newest).ema == tiny_config(ON).ema.model_dump(mode="json")
    for name, tensors in state["trainer"]["posthoc"].items():
        path = snapshot_path(folder, 192, name)
        info, stored = read_info(path), load_file(path)
        assert info.ema is not None
        assert (info.ema["kind"], info.ema["sigma_rel"]) == ("power", float(name))
        assert info.images == 192
        assert all(torch.equal(stored[key], tensor) for key, tensor in tensors.items())


def test_only_an_average_is_left_of_a_copied_run(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copy(snapshot_path(whole[0], 192, "0.050"), tmp_path)
    assert find_snapshot(tmp_path) == snapshot_path(tmp_path, 192, "0.050")


def test_the_files_of_a_point_are_kept_and_deleted_together(tmp_path: Path) -> None:
    pattern = "network-snapshot-*.safetensors"
    points = (5, 10**9, 2 * 10**10, 3 * 10**10)
    for images in points:
        for name in ("", "0.050", "0.100"):
            snapshot_path(tmp_path, images, name).touch()
        state_path(tmp_path, images).touch()
    odd = tmp_path / "network-snapshot-best-0.5.safetensors"  # not ours: a point of its own
    odd.touch()
    prune(tmp_path, pattern, keep=3, spared=snapshot_path(tmp_path, 5))
    left = {path.name for path in tmp_path.glob(pattern)} - {odd.name}
    assert odd.exists()
    assert left == {
        snapshot_path(tmp_path, images, name).name
        for images in (5, *points[2:])
        for name in ("", "0.050", "0.100")
    }
    prune(tmp_path, PATTERN, keep=1)
    assert [*tmp_path.glob(PATTERN)] == [state_path(tmp_path, points[-1])]


def test_the_files_of_a_point_are_set_aside_together(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    set_aside(folder, 144)
    aside = {path.name for path in (folder / "abandoned-001").glob("network-snapshot-*")}
    assert aside == {path.name for path in whole[0].glob("network-snapshot-0000000192*")}
    assert find_snapshot(folder) == snapshot_path(folder, 144)


def test_the_best_point_outlives_newer_ones_with_all_its_averages(tmp_path: Path) -> None:
    """The rate is so high that the average leaves the images again."""
    score = ["evaluate.detector=pixels", "evaluate.num_images=20", "evaluate.keep_best=true"]
    lively = ["optimizer.lr=1", "optimizer.warmup=0", "run.keep_snapshots=1", "run.snap=2it"]
    train_tiny(tmp_path, ON, *score, *lively)
    rows = read_scores(tmp_path)
    scores = {images_of(row): row["Score/fd_pixels-20"]["mean"] for row in rows}
    best = min(scores, key=lambda images: (scores[images], images))
    assert best != max(scores)  # else this would prove nothing
    assert {path.name for path in tmp_path.glob("network-snapshot-*")} == {
        snapshot_path(tmp_path, images, name).name
        for images in (best, max(scores))
        for name in ("", "0.050", "0.100")
    }


def test_lengths_cannot_change_in_a_run_that_has_begun(
    whole: tuple[Path, dict[str, Any]],
) -> None:
    old, new = tiny_config(), tiny_config(ON)
    assert differences(old, new) == ["ema.posthoc: [] -> [0.05, 0.1]"]
    state = whole[1]
    with pytest.raises(UserError, match=r"ema\.posthoc cannot change in a run that has begun"):
        refuse_unfit(old, new, state, state["trainer"]["denoiser"])
    refuse_unfit(new, new, state, state["trainer"]["denoiser"])


def test_states_from_before_there_were_such_averages_go_on(tmp_path: Path) -> None:
    final = train_tiny(tmp_path, "run.duration=32img")
    del final["trainer"]["posthoc"], final["config"]["ema"]["posthoc"]
    config, data = tiny_config(), tiny_data()
    trainer = create_trainer(config, model_of(config, data), CPU)
    trainer.load(final["trainer"])
    assert trainer.seen == 32
    before = json.loads(json.dumps(final["config"]))
    assert differences(load_config(None, base=before), config) == []


def test_the_switch_stands_for_two_lengths() -> None:
    def lengths(*overrides: str) -> tuple[float, ...]:
        return load_config(None, {}, overrides).ema.posthoc

    assert lengths() == lengths("ema.posthoc=off") == lengths("ema.posthoc=[]") == ()
    assert lengths("ema.posthoc=on") == lengths("ema.posthoc=[0.05, 0.10]") == (0.05, 0.1)
    assert lengths("ema={kind: constant, posthoc: on}") == (0.05, 0.1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[0.3]", "from 0.001 to 0.28"),
        ("[0.05,0.05]", "once"),
        ("[0.0501]", "three decimals"),
        ("0.1", "ema.posthoc"),
        ("[on]", "number"),
    ],
)
def test_lengths_that_cannot_be_are_one_line(value: str, words: str, tmp_path: Path) -> None:
    options = [f"--config={RECIPE}", f"--outdir={tmp_path / 'run'}", "--dry-run"]
    assert_refused(call("train.py", *options, f"ema.posthoc={value}"), words, "ema.posthoc")


def test_a_dry_run_shows_the_lengths_and_their_memory_is_counted(tmp_path: Path) -> None:
    done = call("train.py", f"--config={RECIPE}", f"--outdir={tmp_path}", "--dry-run", ON)
    assert "  posthoc:\n  - 0.05\n  - 0.1\n" in done.stdout
    forecasts = []
    for config in (tiny_config(), tiny_config(ON)):
        blank = build(model_of(config, tiny_data()), empty=True)
        forecasts.append(Forecast(config, blank, share=16, on_gpu=False))
    for num in (1, 16):
        assert forecasts[1].peak(num) == forecasts[0].peak(num) + 2 * forecasts[0].weights
