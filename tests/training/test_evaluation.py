"""Scores while training: the numbers of fid.py, and nothing of the run depends on them."""

import json
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from metrics.table import METRICS
from models.snapshot import snapshot_path
from samplers.labels import LabelSource
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from scoring.judge import Criteria, Subject
from scoring.judging import judge_of
from scoring.network import open_network, score_network
from scoring.results import Scores
from tests.command import assert_refused, call, forked_by, start, torchrun
from tests.training.runs import (
    CPU,
    RECIPE,
    assert_equal_states,
    tiny_config,
    tiny_data,
    tiny_recipe,
    train_tiny,
)
from tests.training.test_jobs import TINY, has_state, wait_until
from torch_utils.errors import UserError
from training.best import best_snapshot
from training.changes import differences
from training.config import TrainingConfig, model_config
from training.evaluate_config import EvaluateConfig
from training.evaluation import Scoring
from training.judging import judge_for
from training.launch import Start, run
from training.loop import train
from training.recipes import load_config
from training.run_log import RunLog, images_of, read_scores, read_stats
from training.setup import create_trainer
from training.state import newest_state
from training.wanted import wanted_config

# of the small run in memory, whose images are 8x6
PIXELS = ("evaluate.detector=pixels", "evaluate.num_images=20", "evaluate.batch=8", "preview=off")
# of a small run on digits
DIGITS = (
    "evaluate.detector=digits",
    "evaluate.num_images=50",
    "evaluate.metrics=[fid,is,pr]",
    "evaluate.seed=7",
    "preview=off",
    "run.snap=5it",
)
NUMBERS = ("fd_digits-50", "score_digits-50", "precision_digits-50", "recall_digits-50")


def means(row: dict[str, Any]) -> dict[str, float]:
    """The scores of a row by their names."""
    prefix = "Score/"
    return {
        name.removeprefix(prefix): entry["mean"]
        for name, entry in row.items()
        if name.startswith(prefix)
    }


def scored_afterwards(snapshot: Path) -> Scores:
    """What `fid.py gen` says of a snapshot of a small run on digits."""
    network = open_network(str(snapshot), {}, CPU)
    seeds = range(7, 57)
    criteria = Criteria(
        detector="digits",
        metrics=["fid", "is", "pr"],
        reference="assets/digits-8x8.zip",
    )
    judge = judge_of(criteria, CPU, [Subject("it", network.image_shape, len(seeds))])
    scores = score_network(judge, network, seeds, what="it", batch=13)
    assert scores is not None
    return scores


@pytest.mark.parametrize(("num", "precision"), [(1, "bf16"), (2, "fp32")])
def test_the_numbers_are_those_of_scoring_the_snapshot_afterwards(
    num: int, precision: str, tmp_path: Path
) -> None:
    """Whatever the number of processes is; and the batch, where rounding is not seen."""
    options = [f"--config={RECIPE}", f"--outdir={tmp_path}", "--nosubdir"]
    # the reference of `scored_afterwards` is all digits
    settings = [*DIGITS, "data.max_size=1797", "run.duration=10it", "run.batch_gpu=16"]
    settings += [] if precision == "fp32" else [f"sampler.precision={precision}"]
    settings += [] if precision == "fp32" else ["evaluate.batch=13"]
    done = (
        call("train.py", *options, *settings)
        if num == 1
        else torchrun(2, "train.py", *options, *settings)
    )
    assert done.returncode == 0, done.stderr
    rows = read_scores(tmp_path)
    assert [images_of(row) for row in rows] == [32, 192, 320]
    for row in (rows[0], rows[-1]):
        scores = scored_afterwards(snapshot_path(tmp_path, images_of(row)))
        expected = {name: scores.values[value] for value, name in scores.names.items()}
        assert tuple(expected) == NUMBERS
        assert means(row) == pytest.approx(expected, rel=1e-6)
        assert row["Score/fd_digits-50"]["num"] == 50
        assert row["Score/score_digits-50"]["std"] == pytest.approx(scores.values["is_std"])
    log = (tmp_path / "log.txt").read_text()
    value = means(rows[-1])["fd_digits-50"]
    assert f"fd_digits-50 {value:.5g}, score_digits-50 " in log
    assert "vs digits-8x8 (1797 images)" in log
    assert re.search(r"scoring network-snapshot-0000000320.safetensors: 50 images, 11 calls each, "
                     r"about [\d.]+s", log)  # fmt: skip
    made = "network network-snapshot-0000000320.safetensors, seeds 7-56, sampler heun, 6 steps"
    said = "" if precision == "fp32" else f", {precision}"
    pattern = rf"made with detector digits, weights 698ccf70bd80, .*{made}, 11 calls{said}\n"
    assert re.search(pattern, log)
    assert log.index("scoring") < log.index("fd_digits-50")
    assert all("Progress/tick" in row for row in read_stats(tmp_path))


def test_tensorboard_has_the_scores_and_keeps_the_ticks_of_an_interrupted_run(
    tmp_path: Path,
) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    train_tiny(tmp_path, *PIXELS, "run.duration=96img")
    train_tiny(tmp_path, *PIXELS, resume=True)
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    rows = read_scores(tmp_path)
    found = [(event.step, event.value) for event in events.Scalars("Score/fd_pixels-20")]
    assert [step for step, _ in found] == [images_of(row) for row in rows]
    values = [means(row)["fd_pixels-20"] for row in rows]
    assert [value for _, value in found] == pytest.approx(values)
    steps = [event.step for event in events.Scalars("Loss/loss")]
    assert steps == [images_of(row) for row in read_stats(tmp_path)]


def test_scores_change_neither_weights_nor_snapshots(tmp_path: Path) -> None:
    ends = {
        name: train_tiny(tmp_path / name, *PIXELS, *more)
        for name, more in {"with": [], "without": ["evaluate=off"]}.items()
    }
    assert_equal_states(ends["with"]["trainer"], ends["without"]["trainer"])
    assert len(read_scores(tmp_path / "with")) == 4
    assert not read_scores(tmp_path / "without")
    with_, without = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("network-snapshot-*")}
        for name in ends
    )
    assert with_ == without


def test_every_so_many_snapshots_are_scored_and_the_last(tmp_path: Path) -> None:
    train_tiny(tmp_path, *PIXELS, "run.snap=2it", "evaluate.every=2")
    assert len(list(tmp_path.glob("network-snapshot-*"))) == 7
    scored = [images_of(row) for row in read_scores(tmp_path)]
    assert scored == [16, 80, 144, 192]
    other = tmp_path / "other"
    train_tiny(other, *PIXELS, "run.snap=2it", "evaluate.every=5", "run.duration=96img")
    train_tiny(other, *PIXELS, "run.snap=2it", "evaluate.every=5", resume=True)
    assert [images_of(row) for row in read_scores(other)] == [16, 96, 160, 192]


# ---- stops, kills, resuming


def train_until(folder: Path, line: str, *overrides: str, resume: bool = False) -> list[str]:
    """Train in this process, which gets a signal when it says a line; what it said."""
    folder.mkdir(exist_ok=True)
    said = []

    def tell(text: str) -> None:
        said.append(text)
        if text.startswith(line):
            signal.raise_signal(signal.SIGINT)

    state = newest_state(folder)[1] if resume else None
    log = RunLog(folder, tell)
    config = tiny_config(*overrides)
    train(config, tiny_data(), folder, CPU, state=state, log=log, heeds_signals=True)
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An uninterrupted run with scores."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, train_tiny(folder, *PIXELS)


def assert_same_rows(ours: Path, theirs: Path) -> None:
    """Two runs have the same losses and scores, line by line."""

    def rows(folder: Path) -> list[Any]:
        lines = map(json.loads, (folder / "stats.jsonl").read_text().splitlines())
        names = ("Loss/", "Score/", "Progress/")
        return [{k: v for k, v in line.items() if k.startswith(names)} for line in lines]

    assert rows(ours) == rows(theirs)


@pytest.mark.parametrize("dump", ["2it", "100it"])
def test_a_stop_drops_the_score_and_the_resumed_run_makes_up_for_it(
    dump: str, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Whether the state was written before the score, or because of the stop."""
    options = [*PIXELS, f"run.dump={dump}"]
    said = train_until(tmp_path, "scoring network-snapshot-0000000080", *options)
    assert any(line.startswith("score dropped: network-snapshot-0000000080") for line in said)
    assert "stopped at 80 images" in said[-2]
    assert [images_of(row) for row in read_scores(tmp_path)] == [16]
    end = train_tiny(tmp_path, *options, resume=True)
    assert_equal_states(end["trainer"], whole[1]["trainer"])
    assert_same_rows(tmp_path, whole[0])


def test_a_kill_after_a_score_does_not_double_it(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    for path in sorted(whole[0].glob("training-state-*.pt")):
        folder = tmp_path / path.stem
        shutil.copytree(whole[0], folder)
        for later in folder.glob("training-state-*.pt"):
            if later.name > path.name:
                later.unlink()
        train_tiny(folder, *PIXELS, resume=True)
        assert_same_rows(folder, whole[0])


def test_a_stop_is_heeded_at_the_next_call_and_says_so_once(tmp_path: Path) -> None:
    scoring, stops = scoring_of("sampler.steps=5"), []

    def stop() -> bool:
        stops.append(1)
        return len(stops) == 3

    assert scoring.score(tmp_path / "a.safetensors", 1, stop=stop) is None
    assert len(stops) == 3
    found = scoring.score(tmp_path / "a.safetensors", 1)
    assert isinstance(found, Scores)
    assert math.isfinite(found.values["fid"])


@pytest.mark.parametrize("num", [1, 2])
def test_a_signal_during_a_score_drops_it_in_all_processes(num: int, tmp_path: Path) -> None:
    """The score would take hours. With two processes the signal reaches only one of them."""
    options = [f"--outdir={tmp_path}", "--nosubdir", *TINY, "run.tick=1it", "preview=off"]
    slow = ["sampler.steps=100000", "evaluate.detector=digits", "evaluate.num_images=64"]
    process = start("train.py", *options, *slow, processes=num if num > 1 else 0)
    wait_until(lambda: has_state(tmp_path), process)
    time.sleep(1.5)  # into the score
    assert process.poll() is None
    target = forked_by(process)[-1] if num == 2 else process.pid
    os.kill(target, signal.SIGINT if num == 1 else signal.SIGHUP)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == (75 if num == 1 else 1), output  # the launcher knows only 1
    assert re.search(r"scoring network-snapshot-\d+.safetensors: 64 images, 199999 calls each, "
                     r"about \d+[hmd]", output)  # fmt: skip
    assert "score dropped: network-snapshot-0000000016.safetensors" in output
    assert "stopped at 16 images: state saved" in output
    assert not read_scores(tmp_path)


# ---- the best snapshot


def test_the_best_snapshot_outlives_newer_ones(tmp_path: Path) -> None:
    """The rate is so high that the average leaves the images again."""
    keep = ["evaluate.keep_best=true", "run.keep_snapshots=1"]
    options = [*PIXELS, *keep, "run.snap=2it", "optimizer.lr=1", "optimizer.warmup=0"]
    train_tiny(tmp_path / "half", *options, "run.duration=96img")
    shutil.copytree(tmp_path / "half", tmp_path / "run")
    train_tiny(tmp_path / "run", *options, resume=True)
    for folder in (tmp_path / "half", tmp_path / "run"):
        scores = {images_of(row): means(row)["fd_pixels-20"] for row in read_scores(folder)}
        best = min(scores, key=scores.__getitem__)
        left = sorted(folder.glob("network-snapshot-*"))
        assert left == [snapshot_path(folder, seen) for seen in sorted({best, max(scores)})]
        assert best != max(scores)  # else this would prove nothing
    free = tmp_path / "free"
    train_tiny(free, *options, "evaluate.keep_best=false")
    assert len(list(free.glob("network-snapshot-*"))) == 1


def record_scores(folder: Path, scores: dict[int, float | None]) -> None:
    log = RunLog(folder)
    for seen, score in scores.items():
        log.record(
            {"Score/x": {"num": 2, "mean": score, "std": 0.0}}, {"Progress/kimg": seen / 1e3}
        )
        snapshot_path(folder, seen).touch()


def test_the_best_snapshot_is_one_that_is_there_and_can_be_compared(tmp_path: Path) -> None:
    record_scores(tmp_path, {16: 1.0, 32: 3.0, 48: None, 64: 2.0, 80: 3.0})

    def best(is_distance: bool, after: int = 0, name: str = "Score/x") -> int | None:
        path = best_snapshot(tmp_path, name, is_distance=is_distance, after=after)
        return None if path is None else int(path.stem.split("-")[-1])

    assert (best(True), best(False)) == (16, 32)
    assert (best(True, after=16), best(False, after=32)) == (64, 80)
    assert best(True, name="Score/y") is None
    snapshot_path(tmp_path, 16).unlink()
    assert best(True) == 64
    assert best_snapshot(tmp_path / "none", "Score/x", is_distance=True, after=0) is None


def test_scores_of_other_settings_do_not_compete(tmp_path: Path) -> None:
    """The score of seed 0 stays in stats.jsonl, but a snapshot scored with other seeds is new."""
    keep = ["evaluate.keep_best=true", "run.keep_snapshots=1"]
    train_tiny(tmp_path, *PIXELS, *keep, "run.duration=96img")
    said = train_until(tmp_path, "nothing", *PIXELS, *keep, "evaluate.seed=9", resume=True)
    first = next(line for line in said if line.lstrip().startswith("fd_pixels-20 "))
    assert first.endswith("the best so far")
    assert [images_of(row) for row in read_scores(tmp_path)] == [16, 80, 96, 128, 192]
    state = newest_state(tmp_path)[1]
    assert state is not None
    assert state["progress"]["scores_after"] == 96


# ---- what cannot be scored


def scoring_of(*overrides: str, spoil: Callable[[torch.nn.Module], None] | None = None) -> Scoring:
    """What scores the average of the small run, before its first step."""
    config = tiny_config("data.cond=false", "run.label_dropout=0", *PIXELS, *overrides)
    data = tiny_data()
    shape = model_config(config, image_shape=data.image_shape, label_dim=0)
    average = create_trainer(config, shape, CPU).average
    if spoil is not None:
        spoil(average)
    judge = judge_for(config, data, CPU)
    assert judge is not None
    sampling = sampling_of(generation_settings(config.sampler), average)
    return Scoring(config.evaluate, judge, sampling, LabelSource(0))


def test_images_that_are_not_finite_have_no_score(tmp_path: Path) -> None:
    def spoil(average: torch.nn.Module) -> None:
        for parameter in average.parameters():
            parameter.data.fill_(math.nan)

    found = scoring_of(spoil=spoil).score(tmp_path / "a.safetensors", 1)
    assert found == "20 of 20 images are not finite"


def test_too_little_memory_costs_the_score_and_not_the_run(tmp_path: Path) -> None:
    asked = []

    def spoil(average: torch.nn.Module) -> None:
        def ask(*_: object) -> None:
            asked.append(1)
            torch.empty(1 << 60, dtype=torch.uint8)

        average.register_forward_pre_hook(ask)

    scoring = scoring_of(spoil=spoil)
    assert scoring.forecast() == "20 images, 3 calls each"
    found = scoring.score(tmp_path / "a.safetensors", 1)
    assert isinstance(found, str)
    assert re.fullmatch(r"out of memory.*; lower evaluate.batch", found)
    assert len(asked) == 2


def test_the_time_of_the_last_score_is_the_forecast_of_the_next(tmp_path: Path) -> None:
    scoring = scoring_of()
    assert re.fullmatch(r"20 images, 3 calls each, about [\d.]+s", scoring.forecast())
    found = scoring.score(tmp_path / "a.safetensors", 1)
    assert isinstance(found, Scores)
    assert scoring.forecast().endswith(f"about {found.facts['seconds']:.1f}s")


@pytest.fixture(scope="module")
def folder_of_16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of pictures that are not 8x8."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    for index in range(4):
        picture = np.full((16, 16), 60 * index, np.uint8)
        PIL.Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["evaluate.metric=fid"], ["evaluate.metric", "evaluate.metrics"]),
        (["evaluate.metrics=[fidd]"], ["'fidd'", "did you mean 'fid'"]),
        (["evaluate.metrics=[]"], ["evaluate: no metric"]),
        (["evaluate.detector=digit"], ["'digit'", "did you mean 'digits'"]),
        (["evaluate.detector=pixels", "evaluate.metrics=[is]"], ["needs classes", "'pixels'"]),
        (["evaluate.num_images=1"], ["evaluate.num_images", "2"]),
        (["evaluate.every=0"], ["evaluate.every"]),
        (["evaluate.metrics=[fid,kid]"], ["'kid'", "1,000", "num_images has 50"]),
        (
            ["evaluate.metrics=[kid]", "evaluate.num_images=1000"],
            ["'kid'", "1,000", "reference digits-8x8 has 256"],
        ),
        (["evaluate.weights=other.pth"], ["other.pth", "'digits' has its own weights"]),
        (["evaluate.ref=nowhere.npz"], ["evaluate: ", "nowhere.npz"]),
        (["evaluate.ref=PICTURES"], ["16x16", "8x8"]),
        (["data.path=PICTURES", "data.cond=false", "data.max_size=null"], ["16x16", "1x8x8"]),
    ],
    ids=lambda value: value[0].replace("evaluate.", "") if "=" in value[0] else "",
)
def test_what_cannot_be_scored_is_refused_before_anything_is_written(
    settings: list[str], words: list[str], folder_of_16: Path, tmp_path: Path
) -> None:
    texts = [text.replace("PICTURES", str(folder_of_16)) for text in settings]
    options = [f"--config={RECIPE}", f"--outdir={tmp_path / 'run'}", *DIGITS[:2]]
    done = call("train.py", *options, *texts)
    assert_refused(done, *words)
    assert not (tmp_path / "run").exists()


def test_missing_weights_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    weights = f"evaluate.weights={tmp_path / 'none.pth'}"
    done = call("train.py", f"--config={RECIPE}", f"--outdir={tmp_path / 'run'}", weights)
    assert_refused(done, "evaluate: ", "none.pth")
    assert not (tmp_path / "run").exists()


# ---- the section


def evaluate(text: str, base: dict[str, Any] | None = None) -> EvaluateConfig:
    return load_config(None, {}, [text], base=base).evaluate


def test_the_section_is_off_unless_one_of_its_keys_is_set() -> None:
    assert not TrainingConfig().evaluate.enabled
    assert evaluate("evaluate=on") == EvaluateConfig(enabled=True)
    assert evaluate("evaluate.num_images=7") == EvaluateConfig(enabled=True, num_images=7)
    assert not evaluate("evaluate=off").enabled
    off = TrainingConfig().model_dump()  # as a run has it whose config file says so
    assert evaluate("evaluate.every=2", off) == EvaluateConfig(enabled=True, every=2)
    assert not evaluate("run.batch=2", off).enabled
    assert not evaluate("evaluate={enabled: false, every: 2}", off).enabled
    assert tuple(METRICS) == ("fid", "is", "kid", "pr")


def test_the_section_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    old, new = tiny_recipe("evaluate=off"), tiny_recipe(*PIXELS)
    changed = differences(old, new)
    assert changed == []
    train_tiny(tmp_path, "evaluate=off", "run.duration=96img")
    train_tiny(tmp_path, *PIXELS, resume=True)
    assert [images_of(row) for row in read_scores(tmp_path)] == [128, 192]


def test_the_demo_scores_with_the_shipped_detector_and_published_recipes_do_not() -> None:
    sections = {path.stem: load_config(path).evaluate for path in RECIPE.parent.glob("*.yaml")}
    assert [name for name, section in sections.items() if section.enabled] == ["digits"]
    assert sections["digits"].detector == "digits"


def test_a_run_from_python_has_its_scores(tmp_path: Path) -> None:
    wanted = wanted_config(RECIPE, [*DIGITS, "run.duration=2it"])
    result = run(wanted, Start(outdir=str(tmp_path)))
    assert [tuple(means(row)) for row in result.scores] == [NUMBERS] * 2
    assert all("Loss/loss" in row for row in result.stats)
    with pytest.raises(UserError, match="evaluate: "):
        run(wanted_config(RECIPE, [*DIGITS, "evaluate.ref=none"]), Start(outdir=str(tmp_path)))
