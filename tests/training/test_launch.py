"""New run or old one: what counts as the same, what is said, and branches of one run."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.command import call
from tests.training.runs import (
    CPU,
    assert_equal_states,
    tiny_config,
    tiny_data,
    tiny_recipe,
    train_tiny,
)
from torch_utils.distributed import World
from torch_utils.errors import UserError
from training.choice import ChosenRun, Wanted, checked, old_run
from training.config import TrainingConfig
from training.data import TrainingData
from training.estimate import Costs, costs_of
from training.launch import make_ready
from training.loop import train
from training.memory import Forecast
from training.precision import fast_for_all
from training.recipes import dump_config
from training.run_dir import CONFIG_FILE, candidates
from training.state import load_state, newest_state, seen_of, state_path

KEY = "100/1x8x6/class10/0123456789abcdef/0123456789abcdef"


def keyed(config: TrainingConfig, key: str | None = KEY, **data: Any) -> TrainingConfig:
    """A config of data with a key."""
    section = config.data.model_copy(update={"key": key, **data})
    return config.model_copy(update={"data": section})


def without_micro_batch(config: TrainingConfig) -> TrainingConfig:
    """A config that leaves the size of micro-batches open."""
    return config.model_copy(update={"run": config.run.model_copy(update={"batch_gpu": None})})


DATA: TrainingData = replace(tiny_data(), key=KEY)


def wish(
    config: TrainingConfig, *, data: TrainingData = DATA, world: World = CPU, changed: bool = False
) -> Wanted:
    """A run that somebody wants; `changed` allows another config than the run's."""
    return checked(config, data, world, allow_config_change=changed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps."""
    folder = tmp_path_factory.mktemp("whole")
    train_tiny(folder)
    (folder / CONFIG_FILE).write_text(dump_config(keyed(tiny_config())))
    return folder


def copies(whole: Path, outdir: Path, *names: str) -> None:
    for name in names:
        shutil.copytree(whole, outdir / name)


def named(where: Path, wanted: Wanted) -> ChosenRun:
    """The run that is gone on with by name."""
    chosen, _ = old_run(wanted, str(where))
    assert chosen is not None
    return chosen


def found(outdir: Path, config: TrainingConfig, world: World = CPU) -> ChosenRun:
    """The run that `latest` goes on with; there must be one."""
    chosen, notes = old_run(wish(config, world=world), "latest", str(outdir))
    assert chosen is not None, notes
    return chosen


def test_latest_is_the_run_that_is_farthest_and_only_names_of_ours_count(
    whole: Path, tmp_path: Path
) -> None:
    assert old_run(wish(tiny_config()), "latest", str(tmp_path / "absent")) == (None, [])
    assert old_run(wish(tiny_config()), "latest", str(tmp_path)) == (None, [])
    copies(whole, tmp_path, "00000-a", "00001-b", "00002-other", "backup-of-00000", "00003-short")
    for name, images in (("00003-short", 192), ("00001-b", 176)):
        state_path(tmp_path / name, images).unlink()
    state_path(tmp_path / "00003-short", 176).unlink()
    (tmp_path / "00002-other" / CONFIG_FILE).write_text(dump_config(tiny_config("run.seed=5")))
    (tmp_path / "00004-foreign").mkdir()
    (tmp_path / "00004-foreign" / CONFIG_FILE).write_text("model: gan")
    chosen = found(tmp_path, tiny_config())
    assert chosen.folder.name == "00000-a"
    assert chosen.is_complete
    assert "backup-of-00000" not in [folder.name for folder in candidates(tmp_path)]
    # the run's own micro-batch size holds where none is asked for
    assert found(tmp_path, without_micro_batch(tiny_config())).config.run.batch_gpu == 8


def test_data_is_known_by_its_content_wherever_it_lies(whole: Path, tmp_path: Path) -> None:
    copies(whole, tmp_path, "00000-a")
    moved = keyed(tiny_config(), None, path="elsewhere/digits.zip")
    assert found(tmp_path, moved).config.data.path == "elsewhere/digits.zip"
    other = replace(DATA, key="99/1x8x6/class10/0123456789abcdef/fedcba9876543210")
    chosen, notes = old_run(wish(keyed(tiny_config(), None), data=other), "latest", str(tmp_path))
    assert chosen is None
    assert "data: images 100 -> 99, other labels" in notes[0]
    folder = tmp_path / "00000-a"
    with pytest.raises(UserError, match=r"data: images 100 -> 99, other labels.*--allow-config"):
        named(folder, wish(keyed(tiny_config(), None), data=other))
    going = named(folder, wish(keyed(tiny_config(), None), data=other, changed=True))
    assert going.config.data.key == other.key
    with pytest.raises(UserError, match="not the data that this config was made for"):
        named(folder, wish(keyed(tiny_config()), data=other, changed=True))


def test_a_miss_names_the_newest_run_and_what_differs(whole: Path, tmp_path: Path) -> None:
    copies(whole, tmp_path, "00000-a")
    cosine = dump_config(keyed(tiny_config("optimizer.decay=cosine")))
    (tmp_path / "00000-a" / CONFIG_FILE).write_text(cosine)
    longer = tiny_config("optimizer.decay=cosine", "run.duration=20it")
    chosen, notes = old_run(wish(longer), "latest", str(tmp_path))
    assert chosen is None
    assert "00000-a, the newest, differs in run.duration: 192img -> 320img" in notes[0]
    assert f"--resume={tmp_path / '00000-a'} --allow-config-change" in notes[1]
    going, notes = old_run(wish(longer, changed=True), "latest", str(tmp_path))
    assert going is not None
    assert notes == ["config changed: run.duration: 192img -> 320img"]
    wider = tiny_config("network.model_channels=32")
    assert old_run(wish(wider, changed=True), "latest", str(tmp_path))[0] is None


def test_more_processes_keep_the_micro_batch_or_go_on_with_a_smaller_one(
    whole: Path, tmp_path: Path
) -> None:
    """Four processes for two micro-batches; these worlds only resolve, nothing is computed."""
    copies(whole, tmp_path, "00000-a")
    wanted = without_micro_batch(tiny_config())
    kept = found(tmp_path, wanted, World(0, 2, torch.device("cpu")))
    assert kept.config.run.batch_gpu == 8
    four = wish(wanted, world=World(0, 4, torch.device("cpu")))
    smaller, notes = old_run(four, "latest", str(tmp_path))
    assert smaller is not None
    assert smaller.config.run.batch_gpu == 4
    assert "micro-batches of 4 images instead of 8, for 4 processes" in notes[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("network.model_channels=32", "network.model_channels"),
        ("loss.uncertainty=false", "loss.uncertainty"),
        ("ema.starts=first_step", "ema.starts"),
        ("network.resample_filter=[1,2]", "network.resample_filter"),
        ("augment.p=0", "augment.p"),
    ],
)
def test_a_change_that_the_state_cannot_follow_is_refused_before_anything_is_written(
    override: str, words: str, whole: Path
) -> None:
    before = {path: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=words):
        named(whole, wish(tiny_config(override), changed=True))
    assert {path: path.read_bytes() for path in whole.iterdir() if path.is_file()} == before


def test_settings_of_the_optimizer_act_when_they_change(tmp_path: Path) -> None:
    train_tiny(tmp_path / "run", "run.duration=4it")
    changed = ["optimizer.betas=[0.5,0.9]", "optimizer.eps=1e-3", "run.duration=5it"]
    final = train_tiny(
        tmp_path / "run", *changed, "optimizer.name=adamw", "optimizer.weight_decay=0.1",
        resume=True,
    )  # fmt: skip
    (group,) = final["trainer"]["optimizer"]["param_groups"]
    assert tuple(group["betas"]) == (0.5, 0.9)
    assert (group["eps"], group["weight_decay"]) == (1e-3, 0.1)


def test_a_new_loss_scale_acts_when_the_precision_changes(tmp_path: Path) -> None:
    fp16 = ["run.precision=fp16", "run.loss_scaling=64"]
    train_tiny(tmp_path / "run", "run.duration=2it")
    final = train_tiny(tmp_path / "run", *fp16, "run.duration=3it", resume=True)
    assert float(final["trainer"]["guard"]["scale"]) == 64
    kept = train_tiny(tmp_path / "run", *fp16, "run.duration=4it", resume=True)
    assert float(kept["trainer"]["guard"]["scale"]) == 64


def test_intervals_act_at_once_when_they_change(tmp_path: Path) -> None:
    rare = ["run.snap=100it", "run.dump=100it", "preview=off"]
    train_tiny(tmp_path / "run", *rare, "run.duration=4it")
    often = ["run.snap=2it", "run.dump=4it", "preview.every=2it", "preview.num_images=1"]
    train_tiny(tmp_path / "run", *often, "run.duration=10it", resume=True)

    def images(pattern: str) -> list[int]:
        return sorted(map(seen_of, (tmp_path / "run").glob(pattern)))

    assert images("network-snapshot-*") == [16, 64, 96, 128, 160]
    assert images("training-state-*") == [64, 128, 160]
    assert images("samples-*") == [96, 128, 160]


def test_going_back_starts_a_branch_that_later_resumes_follow(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    old = load_state(state_path(folder, 192))
    longer = tiny_config("run.duration=10it", "run.keep_states=2")
    chosen = named(state_path(folder, 144), wish(longer))
    (note,) = make_ready(chosen, CPU)
    assert "going back to 144 images" in note
    assert sorted(path.name for path in folder.glob("training-state-*")) == [
        "training-state-0000000144.pt"
    ]
    aside = folder / "abandoned-001"
    assert_equal_states(load_state(state_path(aside, 192)), old)
    assert (aside / "network-snapshot-0000000192.safetensors").is_file()
    assert not (folder / "network-snapshot-0000000192.safetensors").exists()
    train(chosen.config, DATA, folder, CPU, state=chosen.state)
    newest = newest_state(folder)[0]
    assert newest == state_path(folder, 160)  # pruning left what was just written
    again = named(folder, wish(longer))
    assert again.seen == 160
    with pytest.raises(UserError, match=f"move the state to {folder}"):
        named(state_path(aside, 192), wish(longer))
    once_more = named(state_path(folder, 144), wish(longer))
    make_ready(once_more, CPU)
    assert (folder / "abandoned-002" / "training-state-0000000160.pt").is_file()


@pytest.mark.parametrize("resume", ["latest", "by name"])
@pytest.mark.parametrize(("ours", "other"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_auto_goes_on_in_the_precision_of_the_run(
    ours: str, other: str, resume: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this machine is fast in; a precision that was asked for is a change."""
    folder = tmp_path / "00000-a"
    copies(whole, tmp_path, folder.name)
    old = keyed(tiny_config(f"run.precision={ours}"))
    (folder / CONFIG_FILE).write_text(dump_config(old))
    monkeypatch.setattr("training.precision.resolve_precision", lambda *_: other)
    open_, strict = (wish(keyed(tiny_recipe(f"run.precision={p}"))) for p in ("auto", other))
    assert open_.config.run.precision == other
    if resume == "latest":
        chosen, _ = old_run(open_, "latest", str(tmp_path))
        assert old_run(strict, "latest", str(tmp_path))[0] is None
    else:
        chosen = named(folder, open_)
        with pytest.raises(UserError, match=f"run.precision: {ours} -> {other}"):
            named(folder, strict)
    assert chosen is not None
    assert chosen.config.run.precision == ours


def test_processes_agree_on_float32_if_any_device_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pair(World):
        """This process's device is fast, the other's is not."""

        def any(self, *flags: bool) -> list[bool]:
            assert flags == (False,)
            return [True]

    monkeypatch.setattr("training.precision.resolve_precision", lambda *_: "bf16")
    assert fast_for_all(CPU) == "bf16"
    assert fast_for_all(Pair(0, 2, CPU.device)) == "fp32"


def test_what_is_forecast_is_the_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its precision, whatever this machine is fast in."""
    arguments = ("--config=configs/digits-tiny.yaml", f"--outdir={tmp_path}")
    arguments = (*arguments, "preview=off", "run.duration=1it")
    done = call("train.py", *arguments, "--precision=fp32")
    assert done.returncode == 0, done.stderr
    forecasts = []

    def noted(forecast: Forecast, *others: Any) -> Costs:
        forecasts.append(forecast.config)
        return costs_of(forecast, *others)

    monkeypatch.setattr("training.launch.costs_of", noted)
    monkeypatch.setattr("training.precision.resolve_precision", lambda *_: "bf16")
    more = ("--dry-run", "--precision=auto")
    done = call("train.py", *arguments, *more, "--resume=latest")
    assert done.returncode == 0, done.stderr
    assert call("train.py", *arguments, *more).returncode == 0
    assert [config.run.precision for config in forecasts] == ["fp32", "bf16"]
